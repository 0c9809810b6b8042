using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace Rho.Jinja;

/// <param name="Role">"system", "user", "assistant", or what else the model's template knows.</param>
public sealed record ChatMessage(string Role, string Content);

/// <summary>
/// A model's chat template: the part of Jinja that published templates use, with the functions and settings that
/// transformers gives them. What is not supported is refused by name when the template is loaded. Safe for many threads.
/// </summary>
public sealed class ChatTemplate
{
    private readonly List<TemplateStatement> _statements;
    private readonly IReadOnlyDictionary<string, string> _tokens;
    private readonly TimeProvider _time;
    private readonly ChatTemplate? _forTools;

    /// <param name="source">The template's text.</param>
    /// <param name="tokens">Special tokens by their name in templates, such as bos_token.</param>
    /// <param name="time">The clock of strftime_now; the system's when null.</param>
    /// <param name="forTools">A template to take instead when there are tools.</param>
    /// <exception cref="RhoException">The template is broken or uses something that is not supported.</exception>
    public ChatTemplate(string source, IReadOnlyDictionary<string, string>? tokens = null, TimeProvider? time = null, string? forTools = null)
    {
        Source = source;
        _statements = TemplateParser.Parse(source);
        _tokens = tokens ?? new Dictionary<string, string>(StringComparer.Ordinal);
        _time = time ?? TimeProvider.System;
        _forTools = forTools is null ? null : new ChatTemplate(forTools, tokens, time);
    }

    public string Source { get; }

    /// <summary>The template that shows tools to the model; null where none does.</summary>
    public string? SourceForTools => _forTools?.Source ?? (Regex.IsMatch(Source, @"\btools\b", RegexOptions.CultureInvariant | RegexOptions.NonBacktracking) ? Source : null);

    /// <summary>The prompt for a conversation.</summary>
    /// <param name="addGenerationPrompt">Ends with what begins the model's answer.</param>
    /// <exception cref="RhoException">The template refuses the conversation (raise_exception) or fails.</exception>
    public string Render(IReadOnlyList<ChatMessage> messages, bool addGenerationPrompt)
    {
        var list = new TemplateList(messages.Select(message =>
        {
            var item = new TemplateDictionary();
            item["role"] = message.Role;
            item["content"] = message.Content;
            return (object?)item;
        }));
        return Render(list, addGenerationPrompt, null);
    }

    /// <summary>The prompt for a conversation as it stands in JSON, with whatever fields the template knows.</summary>
    /// <param name="messages">An array of objects with role and content.</param>
    /// <param name="variables">Further variables, such as tools, documents or enable_thinking.</param>
    public string Render(JsonElement messages, bool addGenerationPrompt, IReadOnlyDictionary<string, JsonElement>? variables = null)
    {
        if (messages.ValueKind != JsonValueKind.Array) throw new RhoException("messages: expected an array");
        return Render(Python.FromJson(messages), addGenerationPrompt, variables);
    }

    private string Render(object? messages, bool addGenerationPrompt, IReadOnlyDictionary<string, JsonElement>? variables)
    {
        if (_forTools is not null && variables is not null && variables.TryGetValue("tools", out var tools) && tools.ValueKind != JsonValueKind.Null)
            return _forTools.Render(messages, addGenerationPrompt, variables);
        var globals = new TemplateScope(null);
        globals.Set("raise_exception", new TemplateFunction((_, arguments) => throw new RhoException($"chat template: {Python.ToText(arguments.Get(0, "message"))}")));
        globals.Set("strftime_now", new TemplateFunction((_, arguments) => TimeText.Format(_time.GetLocalNow(), arguments.Text("strftime_now", 0, "format"))));
        globals.Set("range", new TemplateFunction(Range));
        globals.Set("namespace", new TemplateFunction(Namespace));
        globals.Set("dict", new TemplateFunction(Dictionary));
        foreach (var (name, token) in _tokens) globals.Set(name, token);

        // As transformers passes them: absent tools and documents are none, not undefined.
        globals.Set("tools", null);
        globals.Set("documents", null);
        foreach (var (name, value) in variables ?? new Dictionary<string, JsonElement>(StringComparer.Ordinal)) globals.Set(name, Python.FromJson(value));
        globals.Set("messages", messages);
        globals.Set("add_generation_prompt", addGenerationPrompt);

        var renderer = new TemplateRenderer(new TemplateScope(globals));
        try
        {
            TemplateStatement.ExecuteAll(_statements, renderer);
        }
        catch (InsufficientExecutionStackException error)
        {
            throw new RhoException(renderer.Error("the template is nested too deep").Message, error);
        }
        catch (OverflowException error)
        {
            throw new RhoException(renderer.Error("an integer became too large").Message, error);
        }

        return renderer.Output;
    }

    private static object? Range(TemplateRenderer renderer, CallArguments arguments)
    {
        arguments.Expect("range", 3);
        long Bound(int position) => Python.Integer(arguments.Positional[position]) ?? throw new RhoException("range: expected integers");
        if (arguments.Positional.Count == 0) throw new RhoException("range: expected integers");
        var (start, stop, step) = arguments.Positional.Count switch
        {
            1 => (0L, Bound(0), 1L),
            2 => (Bound(0), Bound(1), 1L),
            _ => (Bound(0), Bound(1), Bound(2)),
        };
        if (step == 0) throw new RhoException("range: the step cannot be 0");
        const long Longest = 100_000;
        var list = new TemplateList();
        for (var i = start; step > 0 ? i < stop : i > stop; i = checked(i + step))
        {
            if (list.Count == Longest) throw new RhoException("range: more than 100,000 numbers");
            list.Add(i);
        }

        renderer.Spend(list.Count);
        return list;
    }

    private static object? Namespace(TemplateRenderer renderer, CallArguments arguments)
    {
        var space = new TemplateNamespace();
        foreach (var positional in arguments.Positional)
        {
            if (positional is not TemplateDictionary dictionary) throw new RhoException("namespace: expected named values or a dictionary");
            foreach (var (name, value) in dictionary.Items) space.Attributes[Python.ToText(name)] = value;
        }

        foreach (var (name, value) in arguments.Named) space.Attributes[name] = value;
        return space;
    }

    private static object? Dictionary(TemplateRenderer renderer, CallArguments arguments)
    {
        arguments.Expect("dict", 0, [.. arguments.Named.Keys]);
        var dictionary = new TemplateDictionary();
        foreach (var (name, value) in arguments.Named) dictionary[name] = value;
        return dictionary;
    }
}

/// <summary>strftime in the C locale.</summary>
internal static class TimeText
{
    public static string Format(DateTimeOffset time, string format)
    {
        var output = new StringBuilder();
        for (var i = 0; i < format.Length; i++)
        {
            if (format[i] != '%')
            {
                output.Append(format[i]);
                continue;
            }

            // %-d is %d without its leading zero.
            var bare = i + 1 < format.Length && format[i + 1] == '-';
            if (bare) i++;
            if (++i >= format.Length) throw new RhoException("strftime_now: '%' at the end");
            var text = format[i] == '%' ? "%" : time.ToString(Pattern(format[i]), CultureInfo.InvariantCulture);
            if (format[i] == 'j') text = time.DayOfYear.ToString("000");
            if (format[i] == 'w') text = ((int)time.DayOfWeek).ToString();
            if (bare && text.TrimStart('0') is var trimmed) text = trimmed.Length > 0 ? trimmed : "0";
            output.Append(text);
        }

        return output.ToString();
    }

    private static string Pattern(char directive) => directive switch
    {
        'a' => "ddd",
        'A' => "dddd",
        'b' or 'h' => "MMM",
        'B' => "MMMM",
        'c' => "ddd MMM d HH:mm:ss yyyy",
        'd' => "dd",
        'D' or 'x' => "MM/dd/yy",
        'F' => "yyyy-MM-dd",
        'H' => "HH",
        'I' => "hh",
        'j' or 'w' => "%d",
        'm' => "MM",
        'M' => "mm",
        'p' => "tt",
        'S' => "ss",
        'T' or 'X' => "HH:mm:ss",
        'y' => "yy",
        'Y' => "yyyy",
        _ => throw new RhoException($"strftime_now: '%{directive}' is not supported"),
    };
}
