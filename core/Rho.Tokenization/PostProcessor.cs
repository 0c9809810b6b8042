using System.Text.Json;

namespace Rho.Tokenization;

/// <summary>What post-processing does to one sequence: ids put before and after it, and white space trimmed off offsets.</summary>
internal sealed class PostProcessor
{
    private readonly Action<Utf8JsonWriter> _write;

    private PostProcessor(int[] prefix, int[] suffix, bool trimOffsets, bool addPrefixSpace, Action<Utf8JsonWriter> write)
    {
        Prefix = prefix;
        Suffix = suffix;
        TrimOffsets = trimOffsets;
        AddPrefixSpace = addPrefixSpace;
        _write = write;
    }

    public int[] Prefix { get; }

    public int[] Suffix { get; }

    public bool TrimOffsets { get; }

    /// <summary>With <see cref="TrimOffsets"/>: a first token's one blank was put there and is not trimmed.</summary>
    public bool AddPrefixSpace { get; }

    public void Write(Utf8JsonWriter json) => _write(json);

    public static PostProcessor ByteLevel(bool addPrefixSpace, bool trimOffsets, bool useRegex) =>
        new([], [], trimOffsets, addPrefixSpace, new ByteLevelPreTokenizer(addPrefixSpace, trimOffsets, useRegex).Write);

    public static PostProcessor Sequence(params IReadOnlyList<PostProcessor> parts)
    {
        // Each one wraps what the ones before it made.
        var prefix = parts.Reverse().SelectMany(part => part.Prefix).ToArray();
        var suffix = parts.SelectMany(part => part.Suffix).ToArray();
        var trimming = parts.FirstOrDefault(part => part.TrimOffsets);
        return new PostProcessor(prefix, suffix, trimming is not null, trimming?.AddPrefixSpace ?? false, json =>
        {
            json.WriteStartObject();
            json.WriteString("type", "Sequence");
            json.WriteStartArray("processors");
            foreach (var part in parts) part.Write(json);
            json.WriteEndArray();
            json.WriteEndObject();
        });
    }

    /// <summary>The template that puts tokens before and after a sequence.</summary>
    public static PostProcessor Template(IReadOnlyList<(string Token, int Id)> before, IReadOnlyList<(string Token, int Id)> after) =>
        new([.. before.Select(token => token.Id)], [.. after.Select(token => token.Id)], false, false, json =>
        {
            json.WriteStartObject();
            json.WriteString("type", "TemplateProcessing");
            WriteTemplate("single", ["A"]);
            WriteTemplate("pair", ["A", "B"]);
            json.WriteStartObject("special_tokens");
            foreach (var (token, id) in before.Concat(after).Distinct())
            {
                json.WriteStartObject(token);
                json.WriteString("id", token);
                json.WriteStartArray("ids");
                json.WriteNumberValue(id);
                json.WriteEndArray();
                json.WriteStartArray("tokens");
                json.WriteStringValue(token);
                json.WriteEndArray();
                json.WriteEndObject();
            }

            json.WriteEndObject();
            json.WriteEndObject();

            void WriteTemplate(string name, string[] sequences)
            {
                json.WriteStartArray(name);
                for (var type = 0; type < sequences.Length; type++)
                {
                    foreach (var (token, _) in before) WriteItem("SpecialToken", token, type);
                    WriteItem("Sequence", sequences[type], type);
                    foreach (var (token, _) in after) WriteItem("SpecialToken", token, type);
                }

                json.WriteEndArray();
            }

            void WriteItem(string kind, string id, int type)
            {
                json.WriteStartObject();
                json.WriteStartObject(kind);
                json.WriteString("id", id);
                json.WriteNumber("type_id", type);
                json.WriteEndObject();
                json.WriteEndObject();
            }
        });

    public static PostProcessor Read(JsonPart part)
    {
        var type = part.Text("type");
        switch (type)
        {
            case "Sequence":
                part.Allow("type", "processors");
                return Sequence([.. part.Get("processors").Items().Select(Read)]);
            case "ByteLevel":
                part.Allow("type", "add_prefix_space", "trim_offsets", "use_regex");
                return ByteLevel(part.Flag("add_prefix_space", true), part.Flag("trim_offsets", true), part.Flag("use_regex", true));
            case "TemplateProcessing":
                return ReadTemplate(part);
            default:
                throw part.Error($"post-processor '{type}' is not supported");
        }
    }

    private static PostProcessor ReadTemplate(JsonPart part)
    {
        part.Allow("type", "single", "pair", "special_tokens");
        var special = new Dictionary<string, int[]>(StringComparer.Ordinal);
        foreach (var (name, token) in part.Get("special_tokens").Fields())
            special[name] = [.. token.Get("ids").Items().Select(id => id.TokenId())];

        var prefix = new List<int>();
        var suffix = new List<int>();
        var seen = false;
        foreach (var item in part.Get("single").Items())
        {
            item.Allow("SpecialToken", "Sequence");
            var token = item.Find("SpecialToken");
            if (!token.IsNull)
            {
                if (!special.TryGetValue(token.Text("id"), out var ids)) throw token.Error($"'{token.Text("id")}' is not among special_tokens");
                (seen ? suffix : prefix).AddRange(ids);
                continue;
            }

            var sequence = item.Get("Sequence");
            if (seen || sequence.Text("id") != "A") throw sequence.Error("expected sequence A once");
            seen = true;
        }

        if (!seen) throw part.Get("single").Error("sequence A is missing");
        var original = part.Element;
        return new PostProcessor([.. prefix], [.. suffix], false, false, original.WriteTo);
    }
}
