using Rho.Jinja;

namespace Rho.Serving.Tools;

/// <summary>How a model writes calls of functions into its text, as its chat template shows them.</summary>
internal enum ToolCallForm
{
    /// <summary>Hermes and Qwen: &lt;tool_call&gt;{"name": …, "arguments": …}&lt;/tool_call&gt;, as often as there are calls, and text before.</summary>
    Tagged,

    /// <summary>Llama 3.1: the whole answer is {"name": …, "parameters": …}, or some of these with ';' between.</summary>
    Bare,
}

internal static class ToolCallForms
{
    public const string Open = "<tool_call>";
    public const string Close = "</tool_call>";

    /// <summary>The form of a template's calls; null where the template does not know tools.</summary>
    public static ToolCallForm? Of(ChatTemplate template) =>
        template.SourceForTools is not { } source ? null : source.Contains(Open, StringComparison.Ordinal) ? ToolCallForm.Tagged : ToolCallForm.Bare;

    /// <summary>The member that holds a call's arguments.</summary>
    public static string Arguments(ToolCallForm form) => form == ToolCallForm.Tagged ? "arguments" : "parameters";
}
