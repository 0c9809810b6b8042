using System.Runtime.CompilerServices;
using System.Text;

namespace Rho.Jinja;

/// <summary>Variables, those of inner blocks before those around them.</summary>
internal sealed class TemplateScope(TemplateScope? outer)
{
    private readonly Dictionary<string, object?> _variables = new(StringComparer.Ordinal);

    public object? Get(string name)
    {
        for (var scope = this; scope is not null; scope = scope.Outer)
        {
            if (scope._variables.TryGetValue(name, out var value)) return value;
        }

        return new TemplateUndefined(name);
    }

    public void Set(string name, object? value) => _variables[name] = value;

    private TemplateScope? Outer => outer;
}

/// <summary>
/// One rendering. A template is somebody else's program, so what it may do is bounded: steps, characters written or built,
/// and macros within macros.
/// </summary>
internal sealed class TemplateRenderer(TemplateScope scope)
{
    private const long MostSteps = 10_000_000;
    private const int MostCharacters = 64 << 20;
    private const int DeepestNesting = 100;

    private StringBuilder _output = new();
    private long _steps;
    private long _built;
    private int _depth;
    private int _line;

    public TemplateScope Scope { get; set; } = scope;

    public LoopExit Leaving { get; set; }

    /// <summary>What the last captured block wrote.</summary>
    public string Captured { get; set; } = "";

    public string Output => _output.ToString();

    public void Step(int line)
    {
        _line = line;
        Spend(1);
        RuntimeHelpers.EnsureSufficientExecutionStack();
    }

    /// <summary>Counts work towards the limit.</summary>
    public void Spend(long steps)
    {
        _steps += steps;
        if (_steps > MostSteps) throw Error("the template takes too long: more than 10,000,000 steps");
    }

    public void Write(string text)
    {
        _output.Append(text);
        if (_output.Length > MostCharacters) throw Error("the template writes too much: more than 64 million characters");
    }

    /// <summary>A text that was built, counted towards the limit.</summary>
    public string Bounded(string text)
    {
        // Long texts cost as many steps as the memory they move is worth.
        Spend(text.Length / 256);
        if (text.Length > MostCharacters) throw TooLong();
        return text;
    }

    public string Repeat(string text, long times)
    {
        if (times <= 0) return "";
        if (text.Length > 0 && times > MostCharacters / text.Length) throw TooLong();
        _built += text.Length * times;
        if (_built > MostCharacters) throw TooLong();
        return new StringBuilder().Insert(0, text, (int)times).ToString();
    }

    private RhoException TooLong() => Error("a text becomes longer than 64 million characters");

    public string Nested(Func<string> body)
    {
        if (++_depth > DeepestNesting) throw Error("macros call macros more than 100 deep");
        var text = body();
        _depth--;
        return text;
    }

    public string Capture(Action body)
    {
        var outer = _output;
        _output = new StringBuilder();
        body();
        var text = _output.ToString();
        _output = outer;
        return text;
    }

    public void Assign(TemplateExpression target, object? value, int line)
    {
        switch (target)
        {
            case NameExpression name:
                Scope.Set(name.Name, value);
                break;
            case ListExpression list:
                var items = Located(line, () => Python.Iterate(value));
                if (items.Count != list.Items.Count) throw Error($"{list.Items.Count} variables cannot take {items.Count} values");
                for (var i = 0; i < items.Count; i++) Assign(list.Items[i], items[i], line);
                break;
            case AttributeExpression { Target: NameExpression name } attribute:
                if (Scope.Get(name.Name) is not TemplateNamespace space) throw Error($"'{name.Name}' is no namespace, its attributes cannot be set");
                space.Attributes[attribute.Name] = value;
                break;
        }
    }

    /// <summary>Runs what may throw an error without a place, and adds the place.</summary>
    public T Located<T>(int line, Func<T> body, string? what = null)
    {
        try
        {
            return body();
        }
        catch (RhoException error) when (!error.Message.StartsWith("chat template", StringComparison.Ordinal))
        {
            _line = line;
            throw new RhoException(Error(what is null ? error.Message : $"{what}: {error.Message}").Message, error);
        }
    }

    public RhoException Error(string problem) => new($"chat template, line {_line}: {problem}");
}
