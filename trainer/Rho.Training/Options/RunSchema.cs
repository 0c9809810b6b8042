using System.ComponentModel;
using System.Reflection;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Schema;

namespace Rho.Training;

/// <summary>The JSON schema of run files: names and types as the serializer has them; bounds, defaults and descriptions from the records.</summary>
public static class RunSchema
{
    /// <summary>The schema's text, as published in trainer/run.schema.json.</summary>
    public static string Generate()
    {
        // An element of a list is never null: the reader refuses it.
        var options = new JsonSchemaExporterOptions { TreatNullObliviousAsNonNullable = true, TransformSchemaNode = Complete };
        var schema = RunFileReader.Json.GetJsonSchemaAsNode(typeof(RunFile), options).AsObject();
        schema["properties"]!.AsObject().Insert(0, "$schema", new JsonObject { ["type"] = "string" });
        schema.Insert(0, "$schema", "https://json-schema.org/draft/2020-12/schema");
        schema.Insert(1, "title", "Rho run file");
        return schema.ToJsonString(RunFileReader.Json) + "\n";
    }

    /// <summary>Adds what the exporter does not know of: that other fields are refused, and what the attributes and initial values say.</summary>
    private static JsonNode Complete(JsonSchemaExporterContext context, JsonNode node)
    {
        var schema = node.AsObject();
        if (schema.ContainsKey("properties")) schema["additionalProperties"] = false;
        var attributes = context.PropertyInfo?.AttributeProvider ?? context.TypeInfo.Type;
        if (attributes.GetCustomAttributes(typeof(DescriptionAttribute), inherit: false) is [DescriptionAttribute description]) schema["description"] = description.Description;
        if (context.PropertyInfo is not { } property) return schema;

        if (RunFileReader.Bounds(property) is { } bounds)
        {
            schema[bounds.MinimumIsExclusive ? "exclusiveMinimum" : "minimum"] = Convert.ToDouble(bounds.Minimum);
            if (Convert.ToDouble(bounds.Maximum) < int.MaxValue)
                schema[bounds.MaximumIsExclusive ? "exclusiveMaximum" : "maximum"] = Convert.ToDouble(bounds.Maximum);
        }

        var plain = Nullable.GetUnderlyingType(property.PropertyType) ?? property.PropertyType;
        if (!property.IsRequired && (plain.IsPrimitive || plain.IsEnum || plain == typeof(string)) && property.Get!(Activator.CreateInstance(property.DeclaringType)!) is { } value)
            schema["default"] = JsonSerializer.SerializeToNode(value, RunFileReader.Json);
        return schema;
    }
}
