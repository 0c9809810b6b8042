using System.Text.Json;

namespace Rho.Tokenization;

/// <summary>A value of a JSON file that knows where it stands, so that every complaint names the place.</summary>
internal readonly struct JsonPart(JsonElement element, string path)
{
    public JsonElement Element { get; } = element;

    public string Path { get; } = path;

    public JsonValueKind Kind => Element.ValueKind;

    public bool IsNull => Kind is JsonValueKind.Null or JsonValueKind.Undefined;

    public RhoException Error(string problem) => new($"{Path}: {problem}");

    public JsonPart Get(string name)
    {
        var value = Find(name);
        return value.IsNull ? throw Error($"field '{name}' is missing") : value;
    }

    /// <summary>The field, or a null part where it is absent.</summary>
    public JsonPart Find(string name)
    {
        if (Kind != JsonValueKind.Object) throw Error("expected an object");
        Element.TryGetProperty(name, out var value);
        return new JsonPart(value, $"{Path}{Separator}{name}");
    }

    public string Text()
    {
        if (Kind != JsonValueKind.String) throw Error("expected a string");
        try
        {
            return Element.GetString()!;
        }
        catch (InvalidOperationException)
        {
            throw Error("the string is not valid Unicode");
        }
    }

    public string Text(string name) => Get(name).Text();

    public string? OptionalText(string name)
    {
        var value = Find(name);
        return value.IsNull ? null : value.Text();
    }

    public char Character(string name)
    {
        var value = Get(name);
        var text = value.Text();
        return text.Length == 1 && !char.IsSurrogate(text[0]) ? text[0] : throw value.Error("expected one character");
    }

    public bool Flag(string name, bool otherwise)
    {
        var value = Find(name);
        return value.Kind switch
        {
            JsonValueKind.True => true,
            JsonValueKind.False => false,
            JsonValueKind.Null or JsonValueKind.Undefined => otherwise,
            _ => throw value.Error("expected true or false"),
        };
    }

    public int Integer() =>
        Kind == JsonValueKind.Number && Element.TryGetInt32(out var value) ? value : throw Error("expected an integer");

    /// <summary>A token id: 0 to 2^24 - 1, so that a broken file cannot ask for tables of any size.</summary>
    public int TokenId()
    {
        var value = Integer();
        return value is >= 0 and < 1 << 24 ? value : throw Error($"{value} is no token id (0 to {(1 << 24) - 1})");
    }

    public double Number() =>
        Kind == JsonValueKind.Number && Element.TryGetDouble(out var value) && double.IsFinite(value) ? value : throw Error("expected a number");

    public IEnumerable<JsonPart> Items()
    {
        if (Kind != JsonValueKind.Array) throw Error("expected an array");
        var index = 0;
        foreach (var item in Element.EnumerateArray()) yield return new JsonPart(item, $"{Path}[{index++}]");
    }

    public IEnumerable<(string Name, JsonPart Value)> Fields()
    {
        if (Kind != JsonValueKind.Object) throw Error("expected an object");
        foreach (var field in Element.EnumerateObject())
        {
            string name;
            try
            {
                name = field.Name;
            }
            catch (InvalidOperationException)
            {
                throw Error("a field name is not valid Unicode");
            }

            yield return (name, new JsonPart(field.Value, $"{Path}{Separator}{name}"));
        }
    }

    /// <summary>Refuses fields that nobody reads: one of them might change the result.</summary>
    public void Allow(params ReadOnlySpan<string> names)
    {
        foreach (var (name, value) in Fields())
        {
            if (!names.Contains(name)) throw value.Error("this field is not supported");
        }
    }

    private string Separator => Path.EndsWith(".json", StringComparison.Ordinal) ? ": " : ".";

    public static JsonPart Load(string file) => Parse(ReadFile(file), file);

    /// <exception cref="RhoException">The file cannot be read.</exception>
    public static byte[] ReadFile(string file)
    {
        try
        {
            return File.ReadAllBytes(file);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new RhoException($"{file}: {error.Message}", error);
        }
    }

    public static JsonPart Parse(ReadOnlyMemory<byte> bytes, string name)
    {
        if (bytes.Span.StartsWith("\uFEFF"u8)) bytes = bytes[3..];
        try
        {
            using var document = JsonDocument.Parse(bytes, new JsonDocumentOptions { MaxDepth = 64 });
            return new JsonPart(document.RootElement.Clone(), name);
        }
        catch (JsonException error)
        {
            throw new RhoException($"{name}: not valid JSON: {error.Message}", error);
        }
    }
}
