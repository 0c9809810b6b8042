using System.Text;
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

    /// <summary>Whether a text gets the token that begins (ends) one, where tokenizer_config.json says so; otherwise null.</summary>
    public bool? AddBos { get; init; }

    public bool? AddEos { get; init; }

    public string? TokenizerClass { get; init; }

    /// <summary>Tokens of added_tokens_decoder in tokenizer_config.json, or of added_tokens.json.</summary>
    public IReadOnlyList<AddedToken> AddedTokens { get; init; } = [];

    /// <summary>Chat templates by name; a single one is called "default".</summary>
    public IReadOnlyDictionary<string, string> ChatTemplates { get; init; } = new Dictionary<string, string>(StringComparer.Ordinal);

    /// <summary>The text of chat_template.jinja, where there is that file.</summary>
    public string? ChatTemplateFile { get; init; }

    /// <summary>Special tokens by the names that templates know them by.</summary>
    public IReadOnlyDictionary<string, string> NamedTokens => new (string Name, string? Token)[]
        {
            ("bos_token", BosToken),
            ("eos_token", EosToken),
            ("pad_token", PadToken),
            ("unk_token", UnknownToken),
        }
        .Where(item => item.Token is not null)
        .ToDictionary(item => item.Name, item => item.Token!, StringComparer.Ordinal);

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
            AddBos = Flag(config, "add_bos_token"),
            AddEos = Flag(config, "add_eos_token"),
            TokenizerClass = config is { } named && named.Find("tokenizer_class") is { Kind: JsonValueKind.String } type ? type.Text() : null,
            AddedTokens = [.. AddedFrom(config, Optional("added_tokens.json"))],
            ChatTemplates = TemplatesFrom(config),
            ChatTemplateFile = OptionalText("chat_template.jinja"),
            Original = config?.Element,
        };

        string? OptionalText(string name)
        {
            var file = Path.Combine(directory, name);
            return File.Exists(file) ? Encoding.UTF8.GetString(JsonPart.ReadFile(file)) : null;
        }

        JsonPart? Optional(string name)
        {
            var file = Path.Combine(directory, name);
            if (!File.Exists(file)) return null;
            var part = JsonPart.Load(file);
            return part.Kind == JsonValueKind.Object ? part : throw part.Error("expected an object");
        }
    }

    private static bool? Flag(JsonPart? part, string name) =>
        part is { } file && !file.Find(name).IsNull ? file.Flag(name, false) : null;

    private static Dictionary<string, string> TemplatesFrom(JsonPart? config)
    {
        var templates = new Dictionary<string, string>(StringComparer.Ordinal);
        if (config is not { } file || file.Find("chat_template") is not { IsNull: false } value) return templates;
        if (value.Kind == JsonValueKind.String)
        {
            templates["default"] = value.Text();
            return templates;
        }

        foreach (var item in value.Items()) templates[item.Text("name")] = item.Text("template");
        return templates;
    }

    private static IEnumerable<AddedToken> AddedFrom(JsonPart? config, JsonPart? list)
    {
        if (config is { } file && file.Find("added_tokens_decoder") is { IsNull: false } decoder)
        {
            foreach (var (name, token) in decoder.Fields())
            {
                if (!int.TryParse(name, out var id) || id is < 0 or >= 1 << 24) throw token.Error($"'{name}' is no token id");
                yield return AddedToken.Read(token, id);
            }
        }
        else if (list is { } tokens)
        {
            foreach (var (content, id) in tokens.Fields())
                yield return new AddedToken(id.TokenId(), content, Special: false, Normalized: true, LeftStrip: false, RightStrip: false, SingleWord: false);
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

    /// <param name="tokenizerClass">The transformers class that reads the files.</param>
    public void Write(Stream stream, string tokenizerClass)
    {
        using var json = new Utf8JsonWriter(stream, new JsonWriterOptions { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping });
        if (Original is { } original)
        {
            original.WriteTo(json);
            return;
        }

        json.WriteStartObject();
        json.WriteString("tokenizer_class", tokenizerClass);
        json.WriteBoolean("clean_up_tokenization_spaces", false);
        WriteToken("bos_token", BosToken);
        WriteToken("eos_token", EosToken);
        WriteToken("pad_token", PadToken);
        WriteToken("unk_token", UnknownToken);
        WriteToken("chat_template", ChatTemplates.GetValueOrDefault("default"));
        json.WriteEndObject();

        void WriteToken(string name, string? token)
        {
            if (token is not null) json.WriteString(name, token);
        }
    }
}
