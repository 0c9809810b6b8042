using System.Text.Json;

namespace Rho.Serving.Constraints;

/// <summary>
/// JSON schemas as expressions. Members come in the order in which the schema names them. Where a schema does not speak of additional
/// members there are none, unless it names no members at all. oneOf is read as anyOf. Keywords that say something about values and are
/// not supported are refused by name.
/// </summary>
internal sealed class JsonSchemaCompiler
{
    private const int DeepestSchema = 100;

    // These say nothing about which values are right.
    private static readonly HashSet<string> s_annotations =
    [
        "$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "discriminator",
    ];

    private static readonly Dictionary<string, string> s_formats = new(StringComparer.Ordinal)
    {
        ["date"] = @"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])",
        ["time"] = @"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)",
        ["date-time"] = @"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)",
        ["uuid"] = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        ["email"] = @"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){1,8}",
        ["ipv4"] = @"((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)",
    };

    private readonly ExpressionTable _table;
    private readonly JsonGrammar _json;
    private readonly JsonElement _root;
    private readonly Dictionary<string, Expression> _references = new(StringComparer.Ordinal);
    private readonly HashSet<string> _leading = new(StringComparer.Ordinal);

    private JsonSchemaCompiler(ExpressionTable table, JsonElement root) => (_table, _json, _root) = (table, new JsonGrammar(table), root);

    /// <exception cref="RhoException">The schema is broken, or uses something that is not supported; the message says where.</exception>
    public static Expression Compile(ExpressionTable table, JsonElement schema) => new JsonSchemaCompiler(table, schema).Value(schema, "#", 0);

    /// <summary>Any JSON object.</summary>
    public static Expression AnyObject(ExpressionTable table) => new JsonGrammar(table).Object;

    private Expression Value(JsonElement schema, string path, int depth)
    {
        if (depth > DeepestSchema) throw Error(path, "schemas are nested too deep");
        if (schema.ValueKind == JsonValueKind.True) return _json.Value;
        if (schema.ValueKind != JsonValueKind.Object) throw Error(path, "a schema is an object or true");
        var fields = new Fields(schema, path);
        var result = Value(fields, path, depth);
        fields.End();
        return result;
    }

    private Expression Value(Fields fields, string path, int depth)
    {
        if (fields.Take("$ref") is { } reference) return Reference(reference.GetString() ?? "", path, depth);
        if (fields.Take("const") is { } constant) return OneOf([constant], fields, path);
        if (fields.Take("enum") is { } values)
        {
            return values.ValueKind == JsonValueKind.Array && values.GetArrayLength() > 0
                ? OneOf(values.EnumerateArray(), fields, path)
                : throw Error(path, "enum is a list of at least one value");
        }

        foreach (var name in new[] { "anyOf", "oneOf", "allOf" })
        {
            if (fields.Take(name) is not { } choices) continue;
            if (choices.ValueKind != JsonValueKind.Array || choices.GetArrayLength() == 0) throw Error(path, $"{name} is a list of at least one schema");
            if (name == "allOf" && choices.GetArrayLength() > 1) throw Error(path, "allOf of several schemas is not supported");
            return _table.Choice(choices.EnumerateArray().Select((choice, i) => Value(choice, $"{path}/{name}/{i}", depth + 1)).ToArray());
        }

        if (fields.Take("type") is not { } type) return Untyped(fields, path, depth);
        if (type.ValueKind != JsonValueKind.Array) return OfType(type.GetString(), fields, path, depth);
        return _table.Choice(type.EnumerateArray().Select(one => OfType(one.GetString(), fields, path, depth)).ToArray());
    }

    /// <summary>The values of const or enum that are of the type, where one is named beside.</summary>
    private Expression OneOf(IEnumerable<JsonElement> values, Fields fields, string path)
    {
        var type = fields.Take("type");
        string?[] types = type is null ? [] : type.Value.ValueKind == JsonValueKind.Array ? [.. type.Value.EnumerateArray().Select(one => one.GetString())] : [type.Value.GetString()];
        var right = values.Where(value => type is null || types.Any(name => IsOfType(value, name))).Select(_json.Exactly).ToArray();
        return right.Length > 0 ? _table.Choice(right) : throw Error(path, "none of the values is of the type");
    }

    private static bool IsOfType(JsonElement value, string? type) => value.ValueKind switch
    {
        JsonValueKind.Object => type == "object",
        JsonValueKind.Array => type == "array",
        JsonValueKind.String => type == "string",
        JsonValueKind.Number => type == "number" || (type == "integer" && value.TryGetDecimal(out var number) && number == decimal.Truncate(number)),
        JsonValueKind.True or JsonValueKind.False => type == "boolean",
        _ => type == "null",
    };

    private Expression Untyped(Fields fields, string path, int depth)
    {
        if (fields.Has("properties") || fields.Has("required") || fields.Has("additionalProperties")) return Object(fields, path, depth);
        if (fields.Has("items") || fields.Has("prefixItems")) return Array(fields, path, depth);
        if (fields.Has("pattern") || fields.Has("minLength") || fields.Has("maxLength") || fields.Has("format")) return String(fields, path);
        return _json.Value;
    }

    private Expression OfType(string? type, Fields fields, string path, int depth) => type switch
    {
        "object" => Object(fields, path, depth),
        "array" => Array(fields, path, depth),
        "string" => String(fields, path),
        "integer" => Integer(fields, path),
        "number" => _json.Number,
        "boolean" => _table.Choice(_table.Text("true"), _table.Text("false")),
        "null" => _table.Text("null"),
        _ => throw Error(path, $"type '{type}' is none of object, array, string, integer, number, boolean, null"),
    };

    private Expression Object(Fields fields, string path, int depth)
    {
        var required = fields.Take("required") is { } names ? names.EnumerateArray().Select(name => name.GetString()!).ToHashSet(StringComparer.Ordinal) : [];
        var members = new List<(string Name, Expression Value, bool Required)>();
        if (fields.Take("properties") is { } properties)
        {
            foreach (var property in properties.EnumerateObject())
                members.Add((property.Name, Nested(property.Value, $"{path}/properties/{property.Name}", depth), required.Remove(property.Name)));
        }

        Expression? extra = members.Count == 0 && required.Count == 0 ? _json.Value : null;
        if (fields.Take("additionalProperties") is { } additional)
        {
            var none = additional.ValueKind == JsonValueKind.False;
            if (none && required.Count > 0) throw Error(path, $"required names {string.Join(", ", required)}, which no property has, and additionalProperties is false");
            extra = none ? null : Nested(additional, $"{path}/additionalProperties", depth);
        }

        foreach (var name in required) members.Add((name, extra ?? _json.Value, true));
        var keys = extra is null ? null : members.Count == 0 ? _json.AnyString(0, -1) : _json.NamesExcept([.. members.Select(member => member.Name)]);
        return _json.ObjectOf(members, extra, keys);
    }

    private Expression Array(Fields fields, string path, int depth)
    {
        var first = fields.Take("prefixItems") is { } prefix
            ? prefix.EnumerateArray().Select((item, i) => Nested(item, $"{path}/prefixItems/{i}", depth)).ToList()
            : [];
        Expression? others = _json.Value;
        if (fields.Take("items") is { } items) others = items.ValueKind == JsonValueKind.False ? null : Nested(items, $"{path}/items", depth);
        var minimum = fields.Count("minItems") ?? 0;
        var maximum = fields.Count("maxItems") ?? -1;
        if (maximum >= 0 && maximum < minimum) throw Error(path, $"maxItems {maximum} is below minItems {minimum}");
        if (others is null && minimum > first.Count) throw Error(path, $"minItems {minimum} is more than there are items");
        return _json.ArrayOf(first, others, minimum, maximum);
    }

    private Expression String(Fields fields, string path)
    {
        var minimum = fields.Count("minLength");
        var maximum = fields.Count("maxLength");
        var pattern = fields.Take("pattern")?.GetString();
        var format = fields.Take("format")?.GetString();
        if (format is not null)
        {
            if (pattern is not null) throw Error(path, "format together with pattern is not supported");
            pattern = s_formats.GetValueOrDefault(format) ?? throw Error(path, $"format '{format}' is not supported; supported: {string.Join(", ", s_formats.Keys)}");
        }

        if (pattern is null)
        {
            if (maximum is { } most && most < (minimum ?? 0)) throw Error(path, $"maxLength {most} is below minLength {minimum}");
            return _json.AnyString(minimum ?? 0, maximum ?? -1);
        }

        if (minimum is not null || maximum is not null) throw Error(path, "pattern or format together with minLength or maxLength is not supported");
        return _json.StringLike(pattern, anywhere: format is null);
    }

    private Expression Integer(Fields fields, string path)
    {
        var minimum = fields.Long("minimum");
        var maximum = fields.Long("maximum");
        if (fields.Long("exclusiveMinimum") is { } above) minimum = Math.Max(minimum ?? long.MinValue, above + 1);
        if (fields.Long("exclusiveMaximum") is { } below) maximum = Math.Min(maximum ?? long.MaxValue, below - 1);
        if (minimum is null && maximum is null) return _json.Integer;
        if (minimum > maximum) throw Error(path, $"no integer is from {minimum} to {maximum}");
        return new IntegerRange(_table).Between(minimum, maximum);
    }

    private Expression Reference(string reference, string path, int depth)
    {
        if (_references.TryGetValue(reference, out var known))
        {
            // On the way to its own first character a schema must not come back to itself.
            return _leading.Contains(reference) ? throw Error(path, $"$ref {reference} refers to itself without anything between") : known;
        }

        var expression = _table.Reference();
        _references.Add(reference, expression);
        _leading.Add(reference);
        expression.Target = Value(Find(reference, path), reference, depth + 1);
        _leading.Remove(reference);
        return expression;
    }

    /// <summary>A schema inside an object or array: something stands before it, so recursion through it ends.</summary>
    private Expression Nested(JsonElement schema, string path, int depth)
    {
        var outer = _leading.ToArray();
        _leading.Clear();
        var result = Value(schema, path, depth + 1);
        _leading.UnionWith(outer);
        return result;
    }

    private JsonElement Find(string reference, string path)
    {
        if (!reference.StartsWith('#')) throw Error(path, $"$ref {reference} is not within the schema (#/...)");
        var element = _root;
        foreach (var part in reference.TrimStart('#').Split('/', StringSplitOptions.RemoveEmptyEntries))
        {
            var name = Uri.UnescapeDataString(part).Replace("~1", "/", StringComparison.Ordinal).Replace("~0", "~", StringComparison.Ordinal);
            if (element.ValueKind != JsonValueKind.Object || !element.TryGetProperty(name, out element)) throw Error(path, $"$ref {reference} leads nowhere");
        }

        return element;
    }

    private static RhoException Error(string path, string problem) => new($"JSON schema, {path}: {problem}");

    /// <summary>A schema's keywords; those that nobody took are refused.</summary>
    private sealed class Fields
    {
        private readonly Dictionary<string, JsonElement> _all = new(StringComparer.Ordinal);
        private readonly HashSet<string> _taken = new(StringComparer.Ordinal);
        private readonly string _path;

        public Fields(JsonElement schema, string path)
        {
            _path = path;
            foreach (var property in schema.EnumerateObject())
            {
                if (!s_annotations.Contains(property.Name)) _all[property.Name] = property.Value;
            }
        }

        public bool Has(string name) => _all.ContainsKey(name);

        public JsonElement? Take(string name)
        {
            _taken.Add(name);
            return _all.TryGetValue(name, out var value) ? value : null;
        }

        public int? Count(string name) => Take(name) is not { } value ? null
            : value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out var count) && count is >= 0 and <= 100_000 ? count : throw Error(_path, $"{name} is not a whole number from 0 to 100000");

        public long? Long(string name) => Take(name) is not { } value ? null
            : value.ValueKind == JsonValueKind.Number && value.TryGetInt64(out var number) && Math.Abs(number) <= 1_000_000_000_000_000_000 ? number : throw Error(_path, $"{name} is not a whole number within 10^18");

        public void End()
        {
            foreach (var name in _all.Keys)
            {
                if (!_taken.Contains(name)) throw Error(_path, $"the keyword {name} is not supported here");
            }
        }
    }
}
