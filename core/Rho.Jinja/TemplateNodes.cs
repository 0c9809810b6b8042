namespace Rho.Jinja;

/// <summary>An expression of a template.</summary>
internal abstract class TemplateExpression
{
    public int Line { get; init; }

    public object? Evaluate(TemplateRenderer renderer)
    {
        renderer.Step(Line);
        return Compute(renderer);
    }

    protected abstract object? Compute(TemplateRenderer renderer);
}

internal sealed class LiteralExpression(object? value) : TemplateExpression
{
    public object? Value => value;

    protected override object? Compute(TemplateRenderer renderer) => value;
}

internal sealed class NameExpression(string name) : TemplateExpression
{
    public string Name => name;

    protected override object? Compute(TemplateRenderer renderer) => renderer.Scope.Get(name);
}

internal sealed class ListExpression(List<TemplateExpression> items, bool isTuple) : TemplateExpression
{
    public List<TemplateExpression> Items => items;

    protected override object? Compute(TemplateRenderer renderer) => new TemplateList(items.Select(item => item.Evaluate(renderer))) { IsTuple = isTuple };
}

internal sealed class DictionaryExpression(List<(TemplateExpression Key, TemplateExpression Value)> items) : TemplateExpression
{
    protected override object? Compute(TemplateRenderer renderer)
    {
        var dictionary = new TemplateDictionary();
        foreach (var (key, value) in items)
        {
            var name = key.Evaluate(renderer);
            if (name is not (string or bool or long or double)) throw renderer.Error($"a dictionary key cannot be {Python.TypeName(name)}");
            dictionary[name] = value.Evaluate(renderer);
        }

        return dictionary;
    }
}

internal sealed class ConditionalExpression(TemplateExpression condition, TemplateExpression yes, TemplateExpression? no) : TemplateExpression
{
    protected override object? Compute(TemplateRenderer renderer)
    {
        if (Python.IsTrue(condition.Evaluate(renderer))) return yes.Evaluate(renderer);
        return no is null ? new TemplateUndefined("the value of an inline if without else") : no.Evaluate(renderer);
    }
}

internal sealed class LogicExpression(bool isAnd, TemplateExpression left, TemplateExpression right) : TemplateExpression
{
    protected override object? Compute(TemplateRenderer renderer)
    {
        var value = left.Evaluate(renderer);
        return Python.IsTrue(value) == isAnd ? right.Evaluate(renderer) : value;
    }
}

internal sealed class NotExpression(TemplateExpression inner) : TemplateExpression
{
    protected override object? Compute(TemplateRenderer renderer) => !Python.IsTrue(inner.Evaluate(renderer));
}

internal sealed class SignExpression(bool negative, TemplateExpression inner) : TemplateExpression
{
    protected override object? Compute(TemplateRenderer renderer) => inner.Evaluate(renderer) switch
    {
        double number => (object)(negative ? -number : number),
        var value when Python.Integer(value) is { } integer => negative ? checked(-integer) : integer,
        var value => throw renderer.Error($"{Python.TypeName(value)} has no sign"),
    };
}

internal sealed class CompareExpression(TemplateExpression first, List<(string Operator, TemplateExpression Operand)> others) : TemplateExpression
{
    protected override object? Compute(TemplateRenderer renderer)
    {
        var left = first.Evaluate(renderer);
        foreach (var (op, operand) in others)
        {
            var right = operand.Evaluate(renderer);
            if (!Holds(op, left, right)) return false;
            left = right;
        }

        return true;
    }

    private static bool Holds(string op, object? left, object? right) => op switch
    {
        "==" => Python.AreEqual(left, right),
        "!=" => !Python.AreEqual(left, right),
        "<" => Python.Compare(left, right) < 0,
        "<=" => Python.Compare(left, right) <= 0,
        ">" => Python.Compare(left, right) > 0,
        ">=" => Python.Compare(left, right) >= 0,
        "in" => Python.Contains(right, left),
        _ => !Python.Contains(right, left),
    };
}

internal sealed class BinaryExpression(string op, TemplateExpression left, TemplateExpression right) : TemplateExpression
{
    protected override object? Compute(TemplateRenderer renderer)
    {
        var a = left.Evaluate(renderer);
        var b = right.Evaluate(renderer);
        try
        {
            return Apply(renderer, a, b);
        }
        catch (OverflowException error)
        {
            throw new RhoException(renderer.Error("an integer became too large").Message, error);
        }
    }

    private object? Apply(TemplateRenderer renderer, object? a, object? b)
    {
        if (op == "~") return renderer.Bounded(Python.ToText(a) + Python.ToText(b));
        if (Python.Integer(a) is { } x && Python.Integer(b) is { } y)
        {
            switch (op)
            {
                case "+":
                    return checked(x + y);
                case "-":
                    return checked(x - y);
                case "*":
                    return checked(x * y);
                case "**" when y >= 0:
                    return Power(x, y);
                case "//" or "%" or "/" when y == 0:
                    throw renderer.Error("division by zero");
                case "//":
                    return FloorDivide(x, y);
                case "%":
                    return checked(x - FloorDivide(x, y) * y);
            }
        }

        if (Python.Number(a) is { } u && Python.Number(b) is { } v)
        {
            if (op is "/" or "//" or "%" && v == 0) throw renderer.Error("division by zero");
            return op switch
            {
                "+" => u + v,
                "-" => u - v,
                "*" => u * v,
                "/" => u / v,
                "//" => Math.Floor(u / v),
                "%" => u - Math.Floor(u / v) * v,
                _ => Math.Pow(u, v),
            };
        }

        switch (op, a, b)
        {
            case ("+", string s, string t):
                return renderer.Bounded(s + t);
            case ("+", TemplateList s, TemplateList t) when s.IsTuple == t.IsTuple:
                renderer.Spend(s.Count + t.Count);
                return new TemplateList(s.Concat(t)) { IsTuple = s.IsTuple };
            case ("*", string s, _) when Python.Integer(b) is { } times:
                return renderer.Repeat(s, times);
            case ("*", _, string t) when Python.Integer(a) is { } times:
                return renderer.Repeat(t, times);
            default:
                throw renderer.Error($"'{op}' is not supported between {Python.TypeName(a)} and {Python.TypeName(b)}");
        }
    }

    private static long FloorDivide(long x, long y)
    {
        var quotient = checked(x / y);
        return x % y != 0 && (x < 0) != (y < 0) ? quotient - 1 : quotient;
    }

    private static long Power(long x, long y)
    {
        var result = 1L;
        for (; y > 0; y--)
        {
            result = checked(result * x);
            if (result is 0 or 1 && x is 0 or 1) break;
            if (x == -1) return y % 2 == 0 ? -result : result;
        }

        return result;
    }
}

internal sealed class AttributeExpression(TemplateExpression target, string name) : TemplateExpression
{
    public TemplateExpression Target => target;

    public string Name => name;

    protected override object? Compute(TemplateRenderer renderer) => TemplateMethods.GetAttribute(renderer, target.Evaluate(renderer), name);
}

internal sealed class ItemExpression(TemplateExpression target, TemplateExpression index) : TemplateExpression
{
    protected override object? Compute(TemplateRenderer renderer) => TemplateMethods.GetItem(renderer, target.Evaluate(renderer), index.Evaluate(renderer));
}

internal sealed class SliceExpression(TemplateExpression target, TemplateExpression? start, TemplateExpression? stop, TemplateExpression? step) : TemplateExpression
{
    protected override object? Compute(TemplateRenderer renderer)
    {
        var value = target.Evaluate(renderer);
        return TemplateMethods.Slice(renderer, value, Bound(renderer, start), Bound(renderer, stop), Bound(renderer, step));
    }

    private static long? Bound(TemplateRenderer renderer, TemplateExpression? expression)
    {
        if (expression?.Evaluate(renderer) is not { } value) return null;
        return Python.Integer(value) ?? throw renderer.Error($"a slice needs integers, not {Python.TypeName(value)}");
    }
}

/// <summary>The arguments of a call, worked out.</summary>
internal sealed record CallArguments(IReadOnlyList<object?> Positional, IReadOnlyDictionary<string, object?> Named)
{
    public static readonly CallArguments None = new([], new Dictionary<string, object?>(StringComparer.Ordinal));

    public int Count => Positional.Count + Named.Count;

    /// <summary>The argument with this position and name, or <paramref name="otherwise"/>.</summary>
    public object? Get(int position, string name, object? otherwise = null) =>
        position < Positional.Count ? Positional[position] : Named.GetValueOrDefault(name, otherwise);

    public bool Has(int position, string name) => position < Positional.Count || Named.ContainsKey(name);

    public void Expect(string function, int most, params ReadOnlySpan<string> names)
    {
        if (Positional.Count > most) throw new RhoException($"{function}: at most {most} arguments, not {Positional.Count}");
        foreach (var name in Named.Keys)
        {
            if (!names.Contains(name)) throw new RhoException($"{function}: argument '{name}' is not supported");
        }
    }

    public string Text(string function, int position, string name) =>
        Get(position, name) as string ?? throw new RhoException($"{function}: argument '{name}' has to be a text");

    public long Integer(string function, int position, string name, long otherwise) =>
        !Has(position, name) ? otherwise : Python.Integer(Get(position, name)) ?? throw new RhoException($"{function}: argument '{name}' has to be an integer");
}

/// <summary>The arguments of a call, as written.</summary>
internal sealed record ArgumentList(List<TemplateExpression> Positional, List<(string Name, TemplateExpression Value)> Named)
{
    public static readonly ArgumentList None = new([], []);

    public CallArguments Evaluate(TemplateRenderer renderer) => Positional.Count + Named.Count == 0
        ? CallArguments.None
        : new CallArguments(
            [.. Positional.Select(value => value.Evaluate(renderer))],
            Named.ToDictionary(item => item.Name, item => item.Value.Evaluate(renderer), StringComparer.Ordinal));
}

internal sealed class CallExpression(TemplateExpression target, ArgumentList arguments) : TemplateExpression
{
    protected override object? Compute(TemplateRenderer renderer)
    {
        return target.Evaluate(renderer) switch
        {
            TemplateFunction function => renderer.Located(Line, () => function(renderer, arguments.Evaluate(renderer))),
            TemplateUndefined undefined => throw renderer.Error($"{undefined.Name} is undefined"),
            var value => throw renderer.Error($"{Python.TypeName(value)} cannot be called"),
        };
    }
}

internal sealed class FilterExpression(TemplateExpression target, string name, TemplateFilter filter, ArgumentList arguments) : TemplateExpression
{
    protected override object? Compute(TemplateRenderer renderer)
    {
        var value = target.Evaluate(renderer);
        var worked = arguments.Evaluate(renderer);
        return renderer.Located(Line, () => filter(renderer, value, worked), name);
    }
}

internal sealed class TestExpression(TemplateExpression target, TemplateTest test, ArgumentList arguments, bool negated) : TemplateExpression
{
    protected override object? Compute(TemplateRenderer renderer)
    {
        var value = target.Evaluate(renderer);
        var worked = arguments.Evaluate(renderer);
        return renderer.Located(Line, () => test(value, worked)) != negated;
    }
}

/// <summary>A statement of a template, or text.</summary>
internal abstract class TemplateStatement
{
    public int Line { get; init; }

    public void Execute(TemplateRenderer renderer)
    {
        renderer.Step(Line);
        Run(renderer);
    }

    protected abstract void Run(TemplateRenderer renderer);

    public static void ExecuteAll(List<TemplateStatement> statements, TemplateRenderer renderer)
    {
        foreach (var statement in statements)
        {
            statement.Execute(renderer);
            if (renderer.Leaving != LoopExit.None) return;
        }
    }
}

internal sealed class TextStatement(string text) : TemplateStatement
{
    protected override void Run(TemplateRenderer renderer) => renderer.Write(text);
}

internal sealed class PrintStatement(TemplateExpression value) : TemplateStatement
{
    protected override void Run(TemplateRenderer renderer) => renderer.Write(renderer.Located(Line, () => Python.ToText(value.Evaluate(renderer))));
}

internal sealed class IfStatement(List<(TemplateExpression Condition, List<TemplateStatement> Body)> branches, List<TemplateStatement> otherwise) : TemplateStatement
{
    protected override void Run(TemplateRenderer renderer)
    {
        foreach (var (condition, body) in branches)
        {
            if (!Python.IsTrue(condition.Evaluate(renderer))) continue;
            ExecuteAll(body, renderer);
            return;
        }

        ExecuteAll(otherwise, renderer);
    }
}

internal enum LoopExit
{
    None,
    Continue,
    Break,
}

internal sealed class LoopExitStatement(LoopExit exit) : TemplateStatement
{
    protected override void Run(TemplateRenderer renderer) => renderer.Leaving = exit;
}

internal sealed class ForStatement(
    TemplateExpression target, TemplateExpression source, TemplateExpression? condition, List<TemplateStatement> body, List<TemplateStatement> otherwise) : TemplateStatement
{
    protected override void Run(TemplateRenderer renderer)
    {
        var items = renderer.Located(Line, () => Python.Iterate(source.Evaluate(renderer)));
        var outer = renderer.Scope;
        if (condition is not null)
        {
            var kept = new List<object?>();
            foreach (var item in items)
            {
                renderer.Scope = new TemplateScope(outer);
                renderer.Assign(target, item, Line);
                if (Python.IsTrue(condition.Evaluate(renderer))) kept.Add(item);
            }

            items = kept;
            renderer.Scope = outer;
        }

        for (var i = 0; i < items.Count; i++)
        {
            renderer.Step(Line);
            renderer.Scope = new TemplateScope(outer);
            renderer.Scope.Set("loop", new LoopVariable(items, i));
            renderer.Assign(target, items[i], Line);
            ExecuteAll(body, renderer);
            var exit = renderer.Leaving;
            renderer.Leaving = LoopExit.None;
            if (exit == LoopExit.Break) break;
        }

        renderer.Scope = outer;
        if (items.Count > 0) return;
        renderer.Scope = new TemplateScope(outer);
        ExecuteAll(otherwise, renderer);
        renderer.Scope = outer;
    }
}

/// <summary>The variable "loop".</summary>
internal sealed record LoopVariable(IReadOnlyList<object?> Items, int Index)
{
    public object? Get(string name) => name switch
    {
        "index" => Index + 1L,
        "index0" => (long)Index,
        "revindex" => (long)(Items.Count - Index),
        "revindex0" => Items.Count - Index - 1L,
        "first" => Index == 0,
        "last" => Index == Items.Count - 1,
        "length" => (long)Items.Count,
        "previtem" => Index > 0 ? Items[Index - 1] : new TemplateUndefined("loop.previtem"),
        "nextitem" => Index + 1 < Items.Count ? Items[Index + 1] : new TemplateUndefined("loop.nextitem"),
        "cycle" => new TemplateFunction((_, arguments) =>
            arguments.Positional.Count > 0 ? arguments.Positional[Index % arguments.Positional.Count] : throw new RhoException("loop.cycle needs arguments")),
        _ => throw new RhoException($"loop.{name} is not supported"),
    };
}

internal sealed class SetStatement(TemplateExpression target, TemplateExpression value) : TemplateStatement
{
    protected override void Run(TemplateRenderer renderer) => renderer.Assign(target, value.Evaluate(renderer), Line);
}

/// <summary>What the block of a set statement wrote.</summary>
internal sealed class CapturedExpression : TemplateExpression
{
    protected override object? Compute(TemplateRenderer renderer) => renderer.Captured;
}

internal sealed class SetBlockStatement(TemplateExpression target, List<TemplateStatement> body, TemplateExpression filtered) : TemplateStatement
{
    protected override void Run(TemplateRenderer renderer)
    {
        renderer.Captured = renderer.Capture(() => ExecuteAll(body, renderer));
        renderer.Assign(target, filtered.Evaluate(renderer), Line);
    }
}

/// <summary>{% with %}, and {% generation %}, which only marks what a model wrote.</summary>
internal sealed class ScopeStatement(List<(string Name, TemplateExpression Value)> variables, List<TemplateStatement> body, bool newScope) : TemplateStatement
{
    protected override void Run(TemplateRenderer renderer)
    {
        var outer = renderer.Scope;
        if (newScope)
        {
            var inner = new TemplateScope(outer);
            foreach (var (name, value) in variables) inner.Set(name, value.Evaluate(renderer));
            renderer.Scope = inner;
        }

        ExecuteAll(body, renderer);
        renderer.Scope = outer;
    }
}

internal sealed class MacroStatement(string name, List<(string Name, TemplateExpression? Default)> parameters, List<TemplateStatement> body) : TemplateStatement
{
    protected override void Run(TemplateRenderer renderer)
    {
        var outer = renderer.Scope;
        outer.Set(name, new TemplateFunction((caller, arguments) => caller.Nested(() => Call(caller, outer, arguments))));
    }

    private string Call(TemplateRenderer renderer, TemplateScope outer, CallArguments arguments)
    {
        arguments.Expect(name, parameters.Count, [.. parameters.Select(parameter => parameter.Name)]);
        var before = renderer.Scope;
        renderer.Scope = new TemplateScope(outer);
        for (var i = 0; i < parameters.Count; i++)
        {
            var (parameter, standard) = parameters[i];
            renderer.Scope.Set(
                parameter,
                arguments.Has(i, parameter) ? arguments.Get(i, parameter) : standard is null ? new TemplateUndefined(parameter) : standard.Evaluate(renderer));
        }

        var text = renderer.Capture(() => ExecuteAll(body, renderer));
        renderer.Scope = before;
        return text;
    }
}
