using System.ComponentModel;
using System.Reflection;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization.Metadata;

namespace Rho.Training;

/// <summary>The JSON schema of run files, made from the records: names, types, bounds, defaults and descriptions.</summary>
public static class RunSchema
{
    /// <summary>The schema's text, as published in trainer/run.schema.json.</summary>
    public static string Generate()
    {
        var definitions = new JsonObject();
        var root = new JsonObject
        {
            ["$schema"] = "https://json-schema.org/draft/2020-12/schema",
            ["title"] = "Rho run file",
        };
        var body = Object(typeof(RunFile), definitions);
        body["properties"]!.AsObject().Insert(0, "$schema", new JsonObject { ["type"] = "string" });
        foreach (var (name, value) in body.ToList())
        {
            body.Remove(name);
            root[name] = value;
        }

        root["$defs"] = definitions;
        return root.ToJsonString(RunFileReader.Json) + "\n";
    }

    private static JsonObject Object(Type type, JsonObject definitions)
    {
        var info = RunFileReader.Json.GetTypeInfo(type);
        var defaults = Activator.CreateInstance(type);
        var properties = new JsonObject();
        foreach (var property in info.Properties) properties[property.Name] = Property(property, defaults!, definitions);
        var schema = new JsonObject { ["type"] = "object" };
        if (type.GetCustomAttribute<DescriptionAttribute>() is { } description) schema["description"] = description.Description;
        schema["properties"] = properties;
        var required = info.Properties.Where(property => property.IsRequired).Select(property => (JsonNode)property.Name).ToArray();
        if (required.Length > 0) schema["required"] = new JsonArray(required);
        schema["additionalProperties"] = false;
        return schema;
    }

    private static JsonObject Property(JsonPropertyInfo property, object defaults, JsonObject definitions)
    {
        var schema = Value(property.PropertyType, definitions);
        if (RunFileReader.IsOptional(property)) schema = Optional(schema);
        if (property.AttributeProvider?.GetCustomAttributes(typeof(DescriptionAttribute), false).OfType<DescriptionAttribute>().FirstOrDefault() is { } description)
            schema["description"] = description.Description;
        if (RunFileReader.Bounds(property) is { } bounds)
        {
            schema[bounds.MinimumIsExclusive ? "exclusiveMinimum" : "minimum"] = JsonValue.Create(Convert.ToDouble(bounds.Minimum));
            if (Convert.ToDouble(bounds.Maximum) < int.MaxValue)
                schema[bounds.MaximumIsExclusive ? "exclusiveMaximum" : "maximum"] = JsonValue.Create(Convert.ToDouble(bounds.Maximum));
        }

        var plain = Nullable.GetUnderlyingType(property.PropertyType) ?? property.PropertyType;
        if (!property.IsRequired && (plain.IsPrimitive || plain.IsEnum || plain == typeof(string)) && property.Get!(defaults) is { } value)
            schema["default"] = System.Text.Json.JsonSerializer.SerializeToNode(value, RunFileReader.Json);
        return schema;
    }

    private static JsonObject Optional(JsonObject schema)
    {
        if (schema["type"] is JsonValue type)
        {
            schema["type"] = new JsonArray(type.GetValue<string>(), "null");
            (schema["enum"] as JsonArray)?.Add(null);
            return schema;
        }

        return new JsonObject { ["anyOf"] = new JsonArray(schema, new JsonObject { ["type"] = "null" }) };
    }

    private static JsonObject Value(Type type, JsonObject definitions)
    {
        var plain = Nullable.GetUnderlyingType(type) ?? type;
        if (plain.IsEnum)
            return new JsonObject { ["type"] = "string", ["enum"] = new JsonArray([.. RunFileReader.Names(plain).Select(name => (JsonNode)name)]) };
        if (plain == typeof(string)) return new JsonObject { ["type"] = "string" };
        if (plain == typeof(bool)) return new JsonObject { ["type"] = "boolean" };
        if (plain == typeof(double)) return new JsonObject { ["type"] = "number" };
        if (plain.IsPrimitive) return new JsonObject { ["type"] = "integer" };
        var info = RunFileReader.Json.GetTypeInfo(plain);
        if (info.Kind == JsonTypeInfoKind.Enumerable) return new JsonObject { ["type"] = "array", ["items"] = Value(info.ElementType!, definitions) };
        var name = plain.Name.Replace("Section", "", StringComparison.Ordinal);
        if (!definitions.ContainsKey(name))
        {
            definitions[name] = null; // Reserved, so that a type within itself ends.
            definitions[name] = Object(plain, definitions);
        }

        return new JsonObject { ["$ref"] = $"#/$defs/{name}" };
    }
}
