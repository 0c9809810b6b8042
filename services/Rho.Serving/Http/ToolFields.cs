using System.Text.Json;
using System.Text.RegularExpressions;
using Rho.Serving.Models;
using Rho.Serving.Tools;

namespace Rho.Serving.Http;

/// <summary>tools, tool_choice and parallel_tool_calls of a request.</summary>
internal static class ToolFields
{
    private static readonly Regex s_name = new(@"\A[A-Za-z0-9_.:/-]{1,128}\z", RegexOptions.CultureInvariant | RegexOptions.NonBacktracking);

    /// <param name="nested">Whether a function stands in a member "function", as in chat completions; else beside "type", as in responses.</param>
    /// <returns>null where no function may be called.</returns>
    public static ToolSet? Read(JsonFields fields, ServedModel model, bool nested)
    {
        var functions = fields.Many("tools", (tool, path) => ReadTool(tool, path, nested)) ?? [];
        var parallel = fields.Flag("parallel_tool_calls") ?? true;
        var (none, required, only) = ReadChoice(fields, nested);
        if (only is not null && functions.TrueForAll(function => function.Name != only)) throw new InvalidFieldException("tool_choice", $"'{only}' is none of the tools");
        if (required && functions.Count == 0) throw new InvalidFieldException("tool_choice", "a call is required, and tools names no function");
        if (functions.Count == 0 || none) return null;
        var form = model.Tokenizer.ChatTemplate is { } template ? ToolCallForms.Of(template) : null;
        return form is null
            ? throw new InvalidFieldException("tools", $"the chat template of model {model.Name} does not know tools")
            : new ToolSet(form.Value, functions, required, only, parallel);
    }

    private static ToolFunction ReadTool(JsonElement tool, string path, bool nested)
    {
        var fields = new JsonFields(tool, path + ".");
        RequireFunction(fields, path);
        var function = nested ? fields.Object("function") ?? throw new InvalidFieldException(path + ".function", "it is missing") : fields;
        var name = function.Text("name") ?? throw new InvalidFieldException(path + (nested ? ".function.name" : ".name"), "it is missing");
        if (!s_name.IsMatch(name)) throw new InvalidFieldException(path + (nested ? ".function.name" : ".name"), "it is not of 1 to 128 letters, digits and _ - . : /");
        var result = new ToolFunction(name, function.Text("description"), function.Take("parameters")?.Clone());
        // Where a call is required its arguments are always of the schema.
        function.Flag("strict");
        if (result.Parameters is { ValueKind: not JsonValueKind.Object } wrong) throw JsonFields.Wrong(path + (nested ? ".function.parameters" : ".parameters"), "a JSON schema", wrong);
        function.End();
        fields.End();
        return result;
    }

    private static (bool None, bool Required, string? Only) ReadChoice(JsonFields fields, bool nested)
    {
        if (fields.Take("tool_choice") is not { } choice) return (false, false, null);
        if (choice.ValueKind == JsonValueKind.Object)
        {
            var named = new JsonFields(choice, "tool_choice.");
            RequireFunction(named, "tool_choice");
            var function = nested ? named.Object("function") ?? throw new InvalidFieldException("tool_choice.function", "it is missing") : named;
            var name = function.Text("name") ?? throw new InvalidFieldException(nested ? "tool_choice.function.name" : "tool_choice.name", "it is missing");
            function.End();
            named.End();
            return (false, true, name);
        }

        return JsonFields.Text(choice, "tool_choice") switch
        {
            "none" => (true, false, null),
            "auto" => (false, false, null),
            "required" => (false, true, null),
            _ => throw JsonFields.Wrong("tool_choice", "none, auto, required or a function", choice),
        };
    }

    private static void RequireFunction(JsonFields fields, string path)
    {
        if (fields.Text("type") is var type && type != "function") throw new InvalidFieldException(path + ".type", $"'{type}' is not supported; only function is");
    }
}
