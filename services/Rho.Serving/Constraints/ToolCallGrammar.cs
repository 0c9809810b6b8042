using System.Text.Json;
using Rho.Serving.Tools;

namespace Rho.Serving.Constraints;

/// <summary>Calls of functions as a model writes them, with arguments of the functions' schemas.</summary>
internal static class ToolCallGrammar
{
    private const int MostCalls = 16;

    /// <summary>What tells one language of calls from another.</summary>
    public static string Describe(ToolSet tools) =>
        $"{tools.Form} {tools.Parallel}\n" + string.Join('\n', tools.Callable.Select(function => $"{function.Name} {function.Parameters?.GetRawText()}"));

    /// <exception cref="RhoException">A function's schema is broken or uses something that is not supported.</exception>
    public static Expression Compile(ExpressionTable table, ToolSet tools)
    {
        var call = table.Choice(tools.Callable.Select(function => Call(table, tools.Form, function)).ToArray());
        var (one, between) = tools.Form == ToolCallForm.Tagged
            ? (table.Sequence(table.Text(ToolCallForms.Open + "\n"), call, table.Text("\n" + ToolCallForms.Close)), "\n")
            : (call, "; ");
        return tools.Parallel ? table.Sequence(one, table.Repeat(table.Sequence(table.Text(between), one), 0, MostCalls - 1)) : one;
    }

    private static Expression Call(ExpressionTable table, ToolCallForm form, ToolFunction function)
    {
        var arguments = function.Parameters is { } schema ? JsonSchemaCompiler.Compile(table, schema) : JsonSchemaCompiler.AnyObject(table);
        var head = $"{{\"name\": {JsonSerializer.Serialize(function.Name)}, \"{ToolCallForms.Arguments(form)}\": ";
        return table.Sequence(table.Text(head), arguments, table.Byte((byte)'}'));
    }
}
