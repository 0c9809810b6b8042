using System.Text.Json;
using Rho.Serving.Constraints;
using Rho.Serving.Models;

namespace Rho.Serving.Tools;

/// <summary>A function that the model may call.</summary>
/// <param name="Parameters">JSON schema of its arguments; null takes any object.</param>
internal sealed record ToolFunction(string Name, string? Description, JsonElement? Parameters);

/// <summary>The functions of a request, and how the model is to call them.</summary>
/// <param name="Functions">At least one.</param>
/// <param name="Required">The answer has to be a call.</param>
/// <param name="Only">The one function that may be called; null for any.</param>
/// <param name="Parallel">Whether there may be several calls.</param>
internal sealed record ToolSet(ToolCallForm Form, IReadOnlyList<ToolFunction> Functions, bool Required, string? Only, bool Parallel)
{
    /// <summary>The functions that may be called.</summary>
    public IEnumerable<ToolFunction> Callable => Only is null ? Functions : Functions.Where(function => function.Name == Only);

    /// <summary>The definitions as templates take them, in the shape of chat completions.</summary>
    public JsonElement ToTemplate() => JsonSerializer.SerializeToElement(Functions.Select(function =>
    {
        var definition = new Dictionary<string, object>(StringComparer.Ordinal) { ["name"] = function.Name };
        if (function.Description is not null) definition["description"] = function.Description;
        definition["parameters"] = function.Parameters is { } parameters ? parameters : s_noParameters;
        return new Dictionary<string, object>(StringComparer.Ordinal) { ["type"] = "function", ["function"] = definition };
    }));

    /// <summary>Whether a call names a function that may be called.</summary>
    public bool Has(string name) => Callable.Any(function => function.Name == name);

    /// <summary>What the answer has to be where a call is required; null where the model may choose.</summary>
    public TextConstraint? Constraint(ServedModel model) => Required ? model.Constraints.ToolCalls(this, "tools") : null;

    private static readonly JsonElement s_noParameters = JsonElement.Parse("""{"type": "object", "properties": {}}""");
}
