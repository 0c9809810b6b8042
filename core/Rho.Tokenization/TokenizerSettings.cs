using System.Text.Encodings.Web;
using System.Text.Json;

namespace Rho.Tokenization;

/// <summary>What the files beside tokenizer.json say: which tokens begin, end and pad a text.</summary>
internal sealed record TokenizerSettings
{
    public string? BosToken { get; init; }

    public string? EosToken { get; init; }

    public string? PadToken { get; init; }

    public string? UnknownToken { get; init; }

    /// <summary>From generation_config.json or config.json, for folders whose tokenizer files do not name the token.</summary>
    public int? BosId { get; init; }

    public int? EosId { get; init; }

    public int? PadId { get; init; }

    /// <summary>tokenizer_config.json as it was read, so that saving loses nothing.</summary>
    public JsonElement? Original { get; init; }

    public static TokenizerSettings Load(string directory)
    {
        var config = Optional("tokenizer_config.json");
        var map = Optional("special_tokens_map.json");
        var generation = Optional("generation_config.json");
        var model = Optional("config.json");
        return new TokenizerSettings
        {
            BosToken = Token(config, "bos_token") ?? Token(map, "bos_token"),
            EosToken = Token(config, "eos_token") ?? Token(map, "eos_token"),
            PadToken = Token(config, "pad_token") ?? Token(map, "pad_token"),
            UnknownToken = Token(config, "unk_token") ?? Token(map, "unk_token"),
            BosId = Id(generation, "bos_token_id") ?? Id(model, "bos_token_id"),
            EosId = Id(generation, "eos_token_id") ?? Id(model, "eos_token_id"),
            PadId = Id(generation, "pad_token_id") ?? Id(model, "pad_token_id"),
            Original = config?.Element,
        };

        JsonPart? Optional(string name)
        {
            var file = Path.Combine(directory, name);
            if (!File.Exists(file)) return null;
            var part = JsonPart.Load(file);
            return part.Kind == JsonValueKind.Object ? part : throw part.Error("expected an object");
        }
    }

    /// <summary>A token is a string or an object with its content.</summary>
    private static string? Token(JsonPart? part, string name)
    {
        if (part is not { } file) return null;
        var value = file.Find(name);
        if (value.IsNull) return null;
        return value.Kind == JsonValueKind.Object ? value.Text("content") : value.Text();
    }

    /// <summary>An id, or the first of several.</summary>
    private static int? Id(JsonPart? part, string name)
    {
        if (part is not { } file) return null;
        var value = file.Find(name);
        if (value.IsNull) return null;
        if (value.Kind != JsonValueKind.Array) return value.Integer() < 0 ? null : value.TokenId();
        return value.Items().Select(item => (int?)item.TokenId()).FirstOrDefault();
    }

    public void Write(Stream stream)
    {
        using var json = new Utf8JsonWriter(stream, new JsonWriterOptions { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping });
        if (Original is { } original)
        {
            original.WriteTo(json);
            return;
        }

        json.WriteStartObject();
        json.WriteString("tokenizer_class", "PreTrainedTokenizerFast");
        json.WriteBoolean("clean_up_tokenization_spaces", false);
        WriteToken("bos_token", BosToken);
        WriteToken("eos_token", EosToken);
        WriteToken("pad_token", PadToken);
        WriteToken("unk_token", UnknownToken);
        json.WriteEndObject();

        void WriteToken(string name, string? token)
        {
            if (token is not null) json.WriteString(name, token);
        }
    }
}
