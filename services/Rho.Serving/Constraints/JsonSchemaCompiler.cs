using System.Globalization;
using System.Text.Json;

namespace Rho.Serving.Constraints;

/// <summary>
/// JSON schemas as expressions. Members come in the order in which the schema names them. Where a schema does not speak of additional
/// members there are none, unless it names no members at all. oneOf is read as anyOf. Keywords that say something about values and are
/// not supported are refused by name; other unknown keywords, and unknown formats, say nothing.
/// </summary>
/// <remarks>
/// What is compiled is always a list of schemas that hold together: allOf, $ref and keywords beside them join the list, anyOf becomes
/// one list per branch, and the keywords of all that are left are read as one.
/// </remarks>
internal sealed class JsonSchemaCompiler
{
    private const int DeepestSchema = 100;
    private const int MostPatterns = 4;

    // These say which values are right, and cannot be kept.
    private static readonly string[] s_unsupported =
    [
        "not", "if", "then", "else", "contains", "minContains", "maxContains", "dependentSchemas", "dependentRequired", "dependencies", "unevaluatedItems",
        "$dynamicRef", "$recursiveRef",
    ];

    private static readonly string[] s_types = ["object", "array", "string", "number", "integer", "boolean", "null"];

    private readonly ExpressionTable _table;
    private readonly JsonGrammar _json;
    private readonly JsonElement _root;
    private readonly Dictionary<string, Expression> _known = new(StringComparer.Ordinal);
    private readonly HashSet<string> _leading = new(StringComparer.Ordinal);

    private JsonSchemaCompiler(ExpressionTable table, JsonElement root) => (_table, _json, _root) = (table, new JsonGrammar(table), root);

    /// <exception cref="RhoException">The schema is broken, or uses something that is not supported; the message says where.</exception>
    public static Expression Compile(ExpressionTable table, JsonElement schema) => new JsonSchemaCompiler(table, schema).Value([new Part(schema, "#")], 0);

    /// <summary>Any JSON object.</summary>
    public static Expression AnyObject(ExpressionTable table) => new JsonGrammar(table).Object;

    /// <summary>Values that conform to all of the schemas.</summary>
    private Expression Value(IReadOnlyList<Part> schemas, int depth)
    {
        if (depth > DeepestSchema) throw Error(schemas[0].Path, "schemas are nested too deep");
        var key = string.Join(' ', schemas.Select(schema => schema.Key));
        if (_known.TryGetValue(key, out var known))
        {
            // On the way to its own first character a schema must not come back to itself.
            return _leading.Contains(key) ? throw Error(schemas[0].Path, "the schema refers to itself without anything between") : known;
        }

        var reference = _table.Reference();
        _known.Add(key, reference);
        _leading.Add(key);
        var value = Read(schemas, depth);
        _leading.Remove(key);
        reference.Target = value;
        // Only what was referred to on the way needs the reference; others can be taken as they are.
        _known[key] = value;
        return value;
    }

    private Expression Read(IReadOnlyList<Part> schemas, int depth)
    {
        var plain = new List<Part>();
        foreach (var schema in schemas)
        {
            if (!Flatten(schema, plain, [], depth)) return _table.Nothing;
        }

        for (var i = 0; i < plain.Count; i++)
        {
            if (Branches(plain[i]) is not { } branches) continue;
            List<Part> others = [.. plain[..i], .. plain[(i + 1)..]];
            return _table.Choice(branches.Select(branch => Value([.. others, .. branch], depth + 1)).ToArray());
        }

        return Typed(plain, depth);
    }

    /// <summary>Adds a schema and what it refers to; false where no value conforms.</summary>
    private bool Flatten(Part part, List<Part> plain, HashSet<string> within, int depth)
    {
        if (plain.Count > DeepestSchema) throw Error(part.Path, "too many schemas hold together");
        if (part.Schema.ValueKind == JsonValueKind.True) return true;
        if (part.Schema.ValueKind == JsonValueKind.False) return false;
        if (part.Schema.ValueKind != JsonValueKind.Object) throw Error(part.Path, "a schema is an object or true");
        if (!part.Taken.HasFlag(Taken.Flat) && !within.Add(part.Path)) throw Error(part.Path, "the schema refers to itself without anything between");
        foreach (var name in s_unsupported)
        {
            if (part.Schema.TryGetProperty(name, out _)) throw Error(part.Path, $"the keyword {name} is not supported");
        }

        // Null beside a reference is an alternative to all that it refers to.
        if (IsNullable(part) && !part.Taken.HasFlag(Taken.Nullable))
        {
            plain.Add(part);
            within.Remove(part.Path);
            return true;
        }

        var flat = part with { Taken = part.Taken | Taken.Flat };
        if (!plain.Exists(known => known.Key == flat.Key)) plain.Add(flat);
        if (part.Taken.HasFlag(Taken.Flat)) return true;
        if (part.Schema.TryGetProperty("$ref", out var reference))
        {
            var path = reference.GetString() ?? "";
            if (!Flatten(new Part(Find(path, part.Path), path == "#/" ? "#" : path), plain, within, depth)) return false;
        }

        if (part.Schema.TryGetProperty("allOf", out var all))
        {
            foreach (var member in List(all, part.Path, "allOf"))
            {
                if (!Flatten(member, plain, within, depth)) return false;
            }
        }

        within.Remove(part.Path);
        return true;
    }

    /// <summary>The alternatives of a schema, each in its place; null where it has none that are still to be read.</summary>
    private static List<Part[]>? Branches(Part part)
    {
        if (!part.Taken.HasFlag(Taken.Nullable) && IsNullable(part))
            return [[part with { Taken = part.Taken | Taken.Nullable }], [new Part(s_null, "null")]];
        foreach (var (name, taken) in new[] { ("anyOf", Taken.AnyOf), ("oneOf", Taken.OneOf) })
        {
            if (part.Taken.HasFlag(taken) || !part.Schema.TryGetProperty(name, out var choices)) continue;
            var rest = part with { Taken = part.Taken | taken };
            return [.. List(choices, part.Path, name).Select(choice => new[] { rest, choice })];
        }

        return null;
    }

    /// <summary>OpenAPI 3.0's null: beside a list of values that has none, it does not count.</summary>
    private static bool IsNullable(Part part) =>
        part.Schema.TryGetProperty("nullable", out var nullable) && nullable.ValueKind == JsonValueKind.True
        && !part.Schema.TryGetProperty("enum", out _) && !part.Schema.TryGetProperty("const", out _);

    private static IEnumerable<Part> List(JsonElement schemas, string path, string name) =>
        schemas.ValueKind == JsonValueKind.Array && schemas.GetArrayLength() > 0
            ? schemas.EnumerateArray().Select((schema, i) => new Part(schema, $"{path}/{name}/{i}"))
            : throw Error(path, $"{name} is a list of at least one schema");

    /// <summary>Values of schemas without alternatives.</summary>
    private Expression Typed(List<Part> schemas, int depth)
    {
        if (schemas.Count == 0) return _json.Value;
        var types = Types(schemas);
        if (types is not null && types.Count == 0) return _table.Nothing;
        var values = schemas.Where(schema => schema.Schema.TryGetProperty("enum", out _) || schema.Schema.TryGetProperty("const", out _)).ToList();
        if (values.Count > 0) return OneOf(schemas, values, types, depth);
        types ??= Implied(schemas);
        return types is null ? _json.Value : _table.Choice(types.Select(type => OfType(type, schemas, depth)).ToArray());
    }

    /// <summary>The types that all schemas allow; null where none of them names any.</summary>
    private static List<string>? Types(List<Part> schemas)
    {
        List<string>? types = null;
        foreach (var schema in schemas)
        {
            if (!schema.Schema.TryGetProperty("type", out var type)) continue;
            List<string> named = type.ValueKind == JsonValueKind.Array ? [.. type.EnumerateArray().Select(one => one.GetString()!)] : [type.GetString()!];
            if (named.Find(name => !s_types.Contains(name)) is { } wrong) throw Error(schema.Path, $"type '{wrong}' is none of {string.Join(", ", s_types)}");
            // Integers are numbers.
            if (types is not null && named.Contains("number") && types.Contains("integer")) named.Add("integer");
            if (types is not null && types.Contains("number") && named.Contains("integer")) types.Add("integer");
            types = types is null ? named : [.. types.Intersect(named, StringComparer.Ordinal)];
        }

        if (types is not null && types.Contains("number")) types.RemoveAll(type => type == "integer");
        return types;
    }

    /// <summary>The type that keywords speak of where none is named.</summary>
    private static List<string>? Implied(List<Part> schemas)
    {
        bool Any(params ReadOnlySpan<string> names)
        {
            foreach (var name in names)
            {
                if (schemas.Exists(schema => schema.Schema.TryGetProperty(name, out _))) return true;
            }

            return false;
        }

        if (Any("properties", "required", "additionalProperties", "patternProperties", "propertyNames", "minProperties", "maxProperties")) return ["object"];
        if (Any("items", "prefixItems", "minItems", "maxItems", "uniqueItems")) return ["array"];
        if (Any("pattern", "minLength", "maxLength")) return ["string"];
        if (Any("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")) return ["number"];
        return schemas.Exists(schema => Format(schema) is not null) ? ["string"] : null;
    }

    /// <summary>The values of const and enum that conform to all else.</summary>
    private Expression OneOf(List<Part> schemas, List<Part> values, List<string>? types, int depth)
    {
        var first = values[0];
        List<JsonElement> candidates = first.Schema.TryGetProperty("const", out var constant) ? [constant]
            : first.Schema.GetProperty("enum") is { ValueKind: JsonValueKind.Array } list && list.GetArrayLength() > 0 ? [.. list.EnumerateArray()]
            : throw Error(first.Path, "enum is a list of at least one value");
        var right = candidates.Where(value => (types is null || types.Exists(type => IsOfType(value, type))) && values.TrueForAll(Lists(value))).ToList();
        // Texts and numbers can be held against the other keywords; of objects and arrays only the type is looked at.
        right.RemoveAll(value => value.ValueKind is JsonValueKind.String or JsonValueKind.Number && !Conforms(value));
        return right.Count > 0 ? _table.Choice(right.Select(_json.Exactly).ToArray()) : _table.Nothing;

        Predicate<Part> Lists(JsonElement value) => schema =>
            (!schema.Schema.TryGetProperty("const", out var only) || JsonElement.DeepEquals(only, value))
            && (!schema.Schema.TryGetProperty("enum", out var several) || several.EnumerateArray().Any(one => JsonElement.DeepEquals(one, value)));

        bool Conforms(JsonElement value)
        {
            if (value.ValueKind == JsonValueKind.String) return _json.HasString(OfType("string", schemas, depth), value.GetString()!);
            var (bounds, steps) = Numbers(schemas);
            return bounds.IsNone && steps.Count == 0
                || !value.TryGetDecimal(out var number)
                || (bounds.Contains(number) && steps.TrueForAll(step => number % step == 0));
        }
    }

    private static bool IsOfType(JsonElement value, string type) => value.ValueKind switch
    {
        JsonValueKind.Object => type == "object",
        JsonValueKind.Array => type == "array",
        JsonValueKind.String => type == "string",
        JsonValueKind.Number => type == "number" || (type == "integer" && value.TryGetDecimal(out var number) && number == decimal.Truncate(number)),
        JsonValueKind.True or JsonValueKind.False => type == "boolean",
        _ => type == "null",
    };

    private Expression OfType(string type, List<Part> schemas, int depth)
    {
        switch (type)
        {
            case "object": return Object(schemas, depth);
            case "array": return Array(schemas, depth);
            case "string": return String(schemas);
            case "boolean": return _table.Choice(_table.Text("true"), _table.Text("false"));
            case "null": return _table.Text("null");
        }

        var (bounds, steps) = Numbers(schemas);
        try
        {
            return _json.Numbers.Within(bounds, steps, integer: type == "integer");
        }
        catch (RhoException exception)
        {
            throw Error(schemas[0].Path, exception.Message);
        }
    }

    private static (NumberBounds Bounds, List<decimal> Steps) Numbers(List<Part> schemas)
    {
        var bounds = default(NumberBounds);
        var steps = new List<decimal>();
        foreach (var schema in schemas)
        {
            // Older schemas say with true that the bound itself is left out.
            var (above, below) = (IsTrue(schema, "exclusiveMinimum"), IsTrue(schema, "exclusiveMaximum"));
            if (Number(schema, "minimum") is { } minimum) bounds.AtLeast(minimum, above);
            if (Number(schema, "maximum") is { } maximum) bounds.AtMost(maximum, below);
            if (!above && Number(schema, "exclusiveMinimum") is { } greater) bounds.AtLeast(greater, exclusive: true);
            if (!below && Number(schema, "exclusiveMaximum") is { } less) bounds.AtMost(less, exclusive: true);
            if (Number(schema, "multipleOf") is not { } step) continue;
            if (step <= 0) throw Error(schema.Path, "multipleOf is not above 0");
            steps.Add(step);
        }

        return (bounds, steps);
    }

    private static bool IsTrue(Part schema, string name) => schema.Schema.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.True;

    private static decimal? Number(Part schema, string name)
    {
        if (!schema.Schema.TryGetProperty(name, out var value) || value.ValueKind == JsonValueKind.False) return null;
        if (value.ValueKind != JsonValueKind.Number) throw Error(schema.Path, $"{name} is not a number");
        // Doubles beyond decimals: larger than what can be written.
        return value.TryGetDecimal(out var number) ? number : Math.Sign(value.GetDouble()) * 1e20m;
    }

    private Expression String(List<Part> schemas)
    {
        var (minimum, maximum) = Counts(schemas, "minLength", "maxLength");
        var languages = new List<Expression>();
        foreach (var schema in schemas)
        {
            if (schema.Schema.TryGetProperty("pattern", out var pattern)) languages.Add(Like(pattern.GetString() ?? "", schema.Path));
            if (Format(schema) is { } format) languages.Add(_json.StringLike(format, anywhere: false));
        }

        if (languages.Count == 0) return _json.AnyString(minimum, maximum);
        if (minimum > 0 || maximum >= 0) languages.Add(_json.PlainString(minimum, maximum));
        return _table.All(languages);
    }

    private static string? Format(Part schema) =>
        schema.Schema.TryGetProperty("format", out var format) && format.ValueKind == JsonValueKind.String ? JsonFormats.Pattern(format.GetString()!) : null;

    private Expression Like(string pattern, string path)
    {
        try
        {
            return _json.StringLike(pattern, anywhere: true);
        }
        catch (RhoException exception)
        {
            throw Error(path, $"pattern: {exception.Message}");
        }
    }

    private Expression Array(List<Part> schemas, int depth)
    {
        var (minimum, maximum) = Counts(schemas, "minItems", "maxItems");
        if (maximum is < 0 or > 1 && schemas.Find(schema => IsTrue(schema, "uniqueItems")) is { Path: { } path }) throw Error(path, "the keyword uniqueItems is supported only as false");
        var first = new List<Expression>();
        for (var (i, more) = (0, true); more && (maximum < 0 || i < maximum); i++)
        {
            more = schemas.Exists(schema => Prefix(schema) > i);
            if (more) first.Add(Nested([.. schemas.Select(schema => ItemOf(schema, i)).OfType<Part>()], depth));
        }

        var others = Nested([.. schemas.Select(schema => ItemOf(schema, int.MaxValue)).OfType<Part>()], depth);
        // Nothing can follow an item that cannot be.
        var end = first.IndexOf(_table.Nothing);
        if (end >= 0) (first, others) = (first[..end], _table.Nothing);
        if (others == _table.Nothing && minimum > first.Count) return _table.Nothing;
        return _json.ArrayOf(first, others == _table.Nothing ? null : others, minimum, maximum);

        // The newer name, and the older one of a list.
        static JsonElement? Tuple(Part schema) =>
            schema.Schema.TryGetProperty("prefixItems", out var items) || (schema.Schema.TryGetProperty("items", out items) && items.ValueKind == JsonValueKind.Array) ? items : null;

        static int Prefix(Part schema) => Tuple(schema)?.GetArrayLength() ?? 0;

        static Part? ItemOf(Part schema, int index)
        {
            var tuple = Tuple(schema);
            if (tuple is { } items && index < items.GetArrayLength()) return new Part(items[index], $"{schema.Path}/prefixItems/{index}");
            var name = schema.Schema.TryGetProperty("items", out var rest) && rest.ValueKind != JsonValueKind.Array ? "items" : "additionalItems";
            return (name == "items" || tuple is not null) && schema.Schema.TryGetProperty(name, out rest) ? new Part(rest, $"{schema.Path}/{name}") : null;
        }
    }

    private Expression Object(List<Part> schemas, int depth)
    {
        var objects = schemas.Select(schema => new ObjectKeywords(schema)).ToList();
        var (minimum, maximum) = Counts(schemas, "minProperties", "maxProperties");
        List<string> names = [.. objects.SelectMany(schema => schema.Properties.Keys).Distinct(StringComparer.Ordinal)];
        names.AddRange(objects.SelectMany(schema => schema.Required).Except(names, StringComparer.Ordinal).Distinct(StringComparer.Ordinal).ToList());
        var patterns = objects.SelectMany(schema => schema.Patterns.Select(pattern => (pattern.Name, Keys: Like(pattern.Name, schema.Schema.Path)))).DistinctBy(pattern => pattern.Name).ToList();
        if (patterns.Count > MostPatterns) throw Error(schemas[0].Path, $"patternProperties has {patterns.Count} patterns; {MostPatterns} is the most");
        // Members that no schema speaks of: where one says so, or where none names any member.
        var open = names.Count == 0 && patterns.Count == 0;
        List<Part> aboutNames = [.. objects.Where(schema => schema.Names is not null).Select(schema => schema.Names!.Value)];
        var allowedNames = aboutNames.Count == 0 ? null : Nested([.. aboutNames, new Part(s_string, "string")], depth);

        var members = new List<(string Name, Expression Value, bool Required)>();
        foreach (var name in names)
        {
            var matching = patterns.Where(pattern => _json.HasString(pattern.Keys, name)).Select(pattern => pattern.Name).ToHashSet(StringComparer.Ordinal);
            var value = allowedNames is not null && !_json.HasString(allowedNames, name) ? _table.Nothing : Member(name, matching);
            var required = objects.Exists(schema => schema.Required.Contains(name));
            if (value == _table.Nothing && required) return _table.Nothing;
            if (value != _table.Nothing) members.Add((name, value, required));
        }

        var others = patterns.Count == 0 && names.Count == 0 && allowedNames is null ? _json.AnyString(0, -1) : _json.NamesExcept(names);
        if (allowedNames is not null) others = _table.All(others, allowedNames);
        var extras = new List<Expression>();
        for (var subset = 0; subset < 1 << patterns.Count; subset++)
        {
            var matching = patterns.Where((_, i) => (subset >> i & 1) != 0).Select(pattern => pattern.Name).ToHashSet(StringComparer.Ordinal);
            var value = Member(null, matching);
            var keys = patterns.Count == 0 ? others
                : _table.All([others, .. patterns.Select(pattern => matching.Contains(pattern.Name) ? pattern.Keys : _table.Not(pattern.Keys))]);
            if (value != _table.Nothing && keys != _table.Nothing) extras.Add(_json.Member(keys, value));
        }

        return _json.ObjectOf(members, extras.Count == 0 ? null : _table.Choice(extras), minimum, maximum);

        // What a member with a name (null for one that no schema names) and some matching patterns may be.
        Expression Member(string? name, HashSet<string> matching)
        {
            var parts = new List<Part>();
            var spokenOf = open || name is not null;
            foreach (var schema in objects)
            {
                var known = false;
                if (name is not null && schema.Properties.TryGetValue(name, out var property))
                {
                    parts.Add(property);
                    known = true;
                }

                foreach (var pattern in schema.Patterns.Where(pattern => matching.Contains(pattern.Name)))
                {
                    parts.Add(pattern.Schema);
                    known = true;
                }

                spokenOf |= known || schema.Additional is not null;
                if (!known && schema.Additional is { } additional) parts.Add(additional);
            }

            return spokenOf ? Nested(parts, depth) : _table.Nothing;
        }
    }

    /// <summary>A schema inside an object or array: something stands before it, so recursion through it ends.</summary>
    private Expression Nested(IReadOnlyList<Part> schemas, int depth)
    {
        if (schemas.Count == 0) return _json.Value;
        var outer = _leading.ToArray();
        _leading.Clear();
        var result = Value(schemas, depth + 1);
        _leading.UnionWith(outer);
        return result;
    }

    private static (int Minimum, int Maximum) Counts(List<Part> schemas, string least, string most)
    {
        var (minimum, maximum) = (0, -1);
        foreach (var schema in schemas)
        {
            if (Count(schema, least) is { } low) minimum = Math.Max(minimum, low);
            if (Count(schema, most) is { } high) maximum = maximum < 0 ? high : Math.Min(maximum, high);
        }

        return maximum >= 0 && maximum < minimum ? throw Error(schemas[0].Path, $"{most} {maximum} is below {least} {minimum}") : (minimum, maximum);
    }

    private static int? Count(Part schema, string name)
    {
        if (!schema.Schema.TryGetProperty(name, out var value)) return null;
        // Whole floats are integers; what is longer than any answer is no bound.
        if (value.ValueKind != JsonValueKind.Number || !value.TryGetDecimal(out var count) || count < 0 || count != decimal.Truncate(count)) throw Error(schema.Path, $"{name} is not a whole number from 0 up");
        return count <= MostCount ? (int)count : name.StartsWith("max", StringComparison.Ordinal) ? null : throw Error(schema.Path, $"{name} is above {MostCount.ToString(CultureInfo.InvariantCulture)}");
    }

    private const int MostCount = 100_000;

    private JsonElement Find(string reference, string path)
    {
        if (!reference.StartsWith('#')) throw Error(path, $"$ref {reference} is not within the schema (#/...)");
        var element = _root;
        foreach (var part in reference.TrimStart('#').Split('/', StringSplitOptions.RemoveEmptyEntries))
        {
            var name = Uri.UnescapeDataString(part).Replace("~1", "/", StringComparison.Ordinal).Replace("~0", "~", StringComparison.Ordinal);
            if (element.ValueKind == JsonValueKind.Array && int.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out var index) && index < element.GetArrayLength()) element = element[index];
            else if (element.ValueKind != JsonValueKind.Object || !element.TryGetProperty(name, out element)) throw Error(path, $"$ref {reference} leads nowhere");
        }

        return element;
    }

    private static RhoException Error(string path, string problem) => new($"JSON schema, {path}: {problem}");

    private static readonly JsonElement s_null = JsonElement.Parse("""{"type": "null"}""");
    private static readonly JsonElement s_string = JsonElement.Parse("""{"type": "string"}""");

    /// <summary>What of a schema is read already: alternatives of which one is chosen, and references.</summary>
    [Flags]
    private enum Taken
    {
        None = 0,
        AnyOf = 1,
        OneOf = 2,
        Nullable = 4,

        /// <summary>What it refers to holds beside it already.</summary>
        Flat = 8,
    }

    /// <summary>A schema at its place in the whole.</summary>
    private readonly record struct Part(JsonElement Schema, string Path, Taken Taken = Taken.None)
    {
        /// <summary>Equal for equal parts, unlike the elements themselves.</summary>
        public string Key => Taken == Taken.None ? Path : $"{Path}!{(int)Taken}";
    }

    /// <summary>What one schema says about members.</summary>
    private sealed class ObjectKeywords
    {
        public ObjectKeywords(Part schema)
        {
            Schema = schema;
            foreach (var property in Members("properties")) Properties[property.Name] = new Part(property.Value, $"{schema.Path}/properties/{property.Name}");
            foreach (var property in Members("patternProperties")) Patterns.Add((property.Name, new Part(property.Value, $"{schema.Path}/patternProperties/{property.Name}")));
            foreach (var name in new[] { "additionalProperties", "unevaluatedProperties" })
            {
                if (Additional is null && schema.Schema.TryGetProperty(name, out var additional)) Additional = new Part(additional, $"{schema.Path}/{name}");
            }

            if (schema.Schema.TryGetProperty("propertyNames", out var names)) Names = new Part(names, $"{schema.Path}/propertyNames");
            // Draft 4 has a list here; older ones say true beside a property.
            if (schema.Schema.TryGetProperty("required", out var required) && required.ValueKind == JsonValueKind.Array)
                Required = required.EnumerateArray().Select(name => name.GetString()!).ToHashSet(StringComparer.Ordinal);
        }

        public Part Schema { get; }

        public Dictionary<string, Part> Properties { get; } = new(StringComparer.Ordinal);

        public List<(string Name, Part Schema)> Patterns { get; } = [];

        public Part? Additional { get; }

        public Part? Names { get; }

        public HashSet<string> Required { get; } = [];

        private JsonElement.ObjectEnumerator Members(string name) =>
            !Schema.Schema.TryGetProperty(name, out var members) ? default
            : members.ValueKind == JsonValueKind.Object ? members.EnumerateObject()
            : throw Error(Schema.Path, $"{name} is not an object");
    }
}
