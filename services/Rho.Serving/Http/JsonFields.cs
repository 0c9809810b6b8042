using System.Text.Json;

namespace Rho.Serving.Http;

/// <summary>
/// Reads an object of a request field by field. Whatever was not asked for by the end is refused by name: a field that has no effect
/// would be taken for one that has. null stands for absent.
/// </summary>
internal sealed class JsonFields
{
    private readonly Dictionary<string, JsonElement> _left = new(StringComparer.Ordinal);
    private readonly string _path;

    public JsonFields(JsonElement element, string path = "")
    {
        _path = path;
        if (element.ValueKind != JsonValueKind.Object) throw Wrong(path.Length == 0 ? "body" : path.TrimEnd('.'), "an object", element);
        foreach (var property in element.EnumerateObject())
        {
            if (property.Value.ValueKind == JsonValueKind.Null) continue;
            if (!_left.TryAdd(property.Name, property.Value)) throw new InvalidFieldException(_path + property.Name, "it is given twice");
        }
    }

    public bool Has(string name) => _left.ContainsKey(name);

    public JsonElement? Take(string name) => _left.Remove(name, out var value) ? value : null;

    public string? Text(string name) => Take(name) is { } value ? Text(value, _path + name) : null;

    public bool? Flag(string name) => Take(name) switch
    {
        null => null,
        { ValueKind: JsonValueKind.True } => true,
        { ValueKind: JsonValueKind.False } => false,
        { } other => throw Wrong(_path + name, "true or false", other),
    };

    public int? Whole(string name) => Take(name) is { } value ? Whole(value, _path + name) : null;

    public float? Number(string name) => Take(name) is { } value
        ? value.ValueKind == JsonValueKind.Number && float.IsFinite(value.GetSingle()) ? value.GetSingle() : throw Wrong(_path + name, "a number", value)
        : null;

    /// <summary>An array's elements, each read by <paramref name="read"/> with its path; null when absent.</summary>
    public List<T>? Many<T>(string name, Func<JsonElement, string, T> read)
    {
        if (Take(name) is not { } value) return null;
        return value.ValueKind == JsonValueKind.Array
            ? [.. value.EnumerateArray().Select((element, i) => read(element, $"{_path}{name}[{i}]"))]
            : throw Wrong(_path + name, "an array", value);
    }

    public JsonFields? Object(string name) => Take(name) is { } value ? new JsonFields(value, $"{_path}{name}.") : null;

    /// <summary>Refuses a field, wherever it is given, for a reason.</summary>
    public void Refuse(string name, string reason)
    {
        if (Take(name) is not null) throw new InvalidFieldException(_path + name, reason);
    }

    /// <summary>Takes fields that have no effect here, and refuses values of theirs that would be taken for an effect.</summary>
    public void Skip(params IEnumerable<NeutralField> neutral)
    {
        foreach (var field in neutral)
        {
            if (Take(field.Name) is { } value && !field.Accepts(value)) throw Wrong(_path + field.Name, $"{field.Accepted} (all that it may be here, where it has no effect)", value);
        }
    }

    /// <summary>Refuses the first field that nobody took.</summary>
    public void End()
    {
        foreach (var name in _left.Keys) throw new InvalidFieldException(_path + name, "this field is not supported");
    }

    public static string Text(JsonElement value, string path) =>
        value.ValueKind == JsonValueKind.String ? value.GetString()! : throw Wrong(path, "a string", value);

    public static int Whole(JsonElement value, string path) =>
        value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out var number) ? number : throw Wrong(path, "a whole number", value);

    public static InvalidFieldException Wrong(string path, string expected, JsonElement value)
    {
        var shown = value.GetRawText();
        if (shown.Length > 40) shown = shown[..(char.IsHighSurrogate(shown[39]) ? 39 : 40)] + "…";
        return new InvalidFieldException(path, $"{expected} is needed, not {shown}");
    }
}
