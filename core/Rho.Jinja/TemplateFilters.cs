using System.Globalization;
using System.Text;

namespace Rho.Jinja;

internal delegate object? TemplateFilter(TemplateRenderer renderer, object? value, CallArguments arguments);

internal delegate bool TemplateTest(object? value, CallArguments arguments);

/// <summary>Jinja's filters, as far as chat templates use them.</summary>
internal static class TemplateFilters
{
    private static readonly Dictionary<string, TemplateFilter> ByName = new(StringComparer.Ordinal)
    {
        ["abs"] = (_, value, _) => value is double number ? (object)Math.Abs(number) : Math.Abs(Python.Integer(value) ?? throw Unfit(value)),
        ["capitalize"] = (_, value, _) => TemplateMethods.Capitalize(Python.ToText(value)),
        ["count"] = (_, value, _) => Python.Length(value),
        ["d"] = Default,
        ["default"] = Default,
        ["dictsort"] = (_, value, arguments) => DictSort(value, arguments),
        ["e"] = (_, value, _) => Escape(value),
        ["escape"] = (_, value, _) => Escape(value),
        ["first"] = (_, value, _) => Python.Iterate(value) is { Count: > 0 } items ? items[0] : new TemplateUndefined("the first item of an empty list"),
        ["float"] = (_, value, arguments) => ToFloat(value, arguments.Get(0, "default", 0.0)),
        ["indent"] = Indent,
        ["int"] = (_, value, arguments) => ToInteger(value, arguments.Get(0, "default", 0L)),
        ["items"] = (_, value, _) => value switch
        {
            TemplateUndefined => new TemplateList(),
            TemplateDictionary dictionary => Pairs(dictionary),
            _ => throw Unfit(value),
        },
        ["join"] = JoinFilter,
        ["last"] = (_, value, _) => Python.Iterate(value) is { Count: > 0 } items ? items[^1] : new TemplateUndefined("the last item of an empty list"),
        ["length"] = (_, value, _) => Python.Length(value),
        ["list"] = (_, value, _) => new TemplateList(Python.Iterate(value)),
        ["lower"] = (_, value, _) => TemplateMethods.Lower(Python.ToText(value)),
        ["map"] = Map,
        ["max"] = (_, value, _) => Extreme(value, 1),
        ["min"] = (_, value, _) => Extreme(value, -1),
        ["reject"] = (renderer, value, arguments) => Choose(renderer, value, arguments, attribute: false, keep: false),
        ["rejectattr"] = (renderer, value, arguments) => Choose(renderer, value, arguments, attribute: true, keep: false),
        ["replace"] = (renderer, value, arguments) => TemplateMethods.Replace(renderer, Python.ToText(value), arguments),
        ["reverse"] = (_, value, _) => value is string text
            ? string.Concat(Python.Iterate(text).Reverse())
            : new TemplateList(Python.Iterate(value).Reverse()),
        ["round"] = Round,
        ["safe"] = (_, value, _) => Python.ToText(value),
        ["select"] = (renderer, value, arguments) => Choose(renderer, value, arguments, attribute: false, keep: true),
        ["selectattr"] = (renderer, value, arguments) => Choose(renderer, value, arguments, attribute: true, keep: true),
        ["sort"] = Sort,
        ["string"] = (_, value, _) => Python.ToText(value),
        ["sum"] = Sum,
        ["title"] = (_, value, _) => TemplateMethods.Title(Python.ToText(value)),
        ["tojson"] = ToJson,
        ["trim"] = (_, value, arguments) => TemplateMethods.Trim(Python.ToText(value), arguments, left: true, right: true),
        ["unique"] = (renderer, value, arguments) => Unique(renderer, value, arguments),
        ["upper"] = (_, value, _) => TemplateMethods.Upper(Python.ToText(value)),
        ["wordcount"] = (_, value, _) => (long)Python.ToText(value).Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries).Length,
    };

    public static TemplateFilter? Find(string name) => ByName.GetValueOrDefault(name);

    private static RhoException Unfit(object? value) => new($"does not work on {Python.TypeName(value)}");

    private static object? Default(TemplateRenderer renderer, object? value, CallArguments arguments)
    {
        arguments.Expect("default", 2, "default_value", "boolean");
        var falseToo = Python.IsTrue(arguments.Get(1, "boolean"));
        return value is TemplateUndefined || (falseToo && !Python.IsTrue(value)) ? arguments.Get(0, "default_value", "") : value;
    }

    private static TemplateList Pairs(TemplateDictionary dictionary) =>
        new(dictionary.Items.Select(item => (object?)new TemplateList([item.Key, item.Value]) { IsTuple = true }));

    private static TemplateList DictSort(object? value, CallArguments arguments)
    {
        arguments.Expect("dictsort", 3, "case_sensitive", "by", "reverse");
        if (value is not TemplateDictionary dictionary) throw Unfit(value);
        var exact = Python.IsTrue(arguments.Get(0, "case_sensitive"));
        var index = arguments.Get(1, "by", "key") is "value" ? 1 : 0;
        var sorted = Pairs(dictionary).OrderBy(pair => Folded(((TemplateList)pair!)[index], exact), Comparer<object?>.Create(Python.Compare));
        return new TemplateList(Python.IsTrue(arguments.Get(2, "reverse")) ? sorted.Reverse() : sorted);
    }

    private static object? Folded(object? value, bool exact) => !exact && value is string text ? TemplateMethods.Lower(text) : value;

    private static string Escape(object? value) => Python.ToText(value)
        .Replace("&", "&amp;", StringComparison.Ordinal)
        .Replace(">", "&gt;", StringComparison.Ordinal)
        .Replace("<", "&lt;", StringComparison.Ordinal)
        .Replace("'", "&#39;", StringComparison.Ordinal)
        .Replace("\"", "&#34;", StringComparison.Ordinal);

    private static object? ToInteger(object? value, object? otherwise) => value switch
    {
        double number when double.IsFinite(number) && Math.Abs(number) < long.MaxValue => (long)Math.Truncate(number),
        string text when long.TryParse(text.Trim(), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var parsed) => parsed,
        string text when double.TryParse(text.Trim(), NumberStyles.Float, CultureInfo.InvariantCulture, out var parsed) && Math.Abs(parsed) < long.MaxValue => (long)Math.Truncate(parsed),
        _ => Python.Integer(value) ?? otherwise,
    };

    private static object? ToFloat(object? value, object? otherwise) => value switch
    {
        string text => double.TryParse(text.Trim(), NumberStyles.Float, CultureInfo.InvariantCulture, out var parsed) ? parsed : otherwise,
        _ => Python.Number(value) ?? otherwise,
    };

    private static object? Indent(TemplateRenderer renderer, object? value, CallArguments arguments)
    {
        arguments.Expect("indent", 3, "width", "first", "blank");
        var indent = arguments.Get(0, "width", 4L) is string text ? text : new string(' ', (int)Math.Clamp(arguments.Integer("indent", 0, "width", 4), 0, 1000));
        var (first, blank) = (Python.IsTrue(arguments.Get(1, "first")), Python.IsTrue(arguments.Get(2, "blank")));
        var lines = Python.ToText(value).Split('\n');
        renderer.Spend(lines.Length);
        var output = new StringBuilder();
        for (var i = 0; i < lines.Length; i++)
        {
            if (i > 0) output.Append('\n');
            if ((i > 0 || first) && (blank || i == 0 || lines[i].Length > 0)) output.Append(indent);
            output.Append(lines[i]);
        }

        return renderer.Bounded(output.ToString());
    }

    private static object? JoinFilter(TemplateRenderer renderer, object? value, CallArguments arguments)
    {
        arguments.Expect("join", 2, "d", "attribute");
        var items = Python.Iterate(value);
        var attribute = arguments.Get(1, "attribute");
        var texts = items.Select(item => (object?)Python.ToText(attribute is null ? item : Attribute(renderer, item, attribute)));
        return TemplateMethods.Join(renderer, Python.ToText(arguments.Get(0, "d", "")), new TemplateList(texts));
    }

    /// <summary>An attribute by name, by names with dots between them, or an item by number.</summary>
    private static object? Attribute(TemplateRenderer renderer, object? item, object? attribute)
    {
        if (attribute is not string path) return TemplateMethods.GetItem(renderer, item, attribute);
        foreach (var name in path.Split('.'))
            item = TemplateMethods.GetItem(renderer, item, long.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out var index) ? index : name);
        return item;
    }

    private static object? Map(TemplateRenderer renderer, object? value, CallArguments arguments)
    {
        var items = Python.Iterate(value);
        renderer.Spend(items.Count);
        if (arguments.Named.TryGetValue("attribute", out var attribute))
        {
            arguments.Expect("map", 0, "attribute", "default");
            var hasDefault = arguments.Named.TryGetValue("default", out var otherwise);
            return new TemplateList(items.Select(item => Attribute(renderer, item, attribute) is var found && found is TemplateUndefined && hasDefault ? otherwise : found));
        }

        var name = arguments.Text("map", 0, "filter");
        var filter = Find(name) ?? throw new RhoException($"map: filter '{name}' is not supported");
        var rest = new CallArguments([.. arguments.Positional.Skip(1)], arguments.Named);
        return new TemplateList(items.Select(item => filter(renderer, item, rest)));
    }

    private static object? Extreme(object? value, int sign)
    {
        var items = Python.Iterate(value);
        if (items.Count == 0) return new TemplateUndefined("the extreme of an empty list");
        return items.Aggregate((best, item) => Python.Compare(Folded(item, exact: false), Folded(best, exact: false)) * sign > 0 ? item : best);
    }

    private static object? Choose(TemplateRenderer renderer, object? value, CallArguments arguments, bool attribute, bool keep)
    {
        arguments.Expect("select/reject", int.MaxValue);
        var items = Python.Iterate(value);
        renderer.Spend(items.Count);
        var skip = attribute ? 1 : 0;
        if (attribute && arguments.Positional.Count == 0) throw new RhoException("the name of an attribute is missing");
        TemplateTest test = (item, _) => Python.IsTrue(item);
        if (arguments.Positional.Count > skip)
        {
            var name = arguments.Text("select/reject", skip, "test");
            test = TemplateTests.Find(name) ?? throw new RhoException($"test '{name}' is not supported");
        }

        var rest = new CallArguments([.. arguments.Positional.Skip(skip + 1)], arguments.Named);
        return new TemplateList(items.Where(item => test(attribute ? Attribute(renderer, item, arguments.Positional[0]) : item, rest) == keep));
    }

    private static object? Round(TemplateRenderer renderer, object? value, CallArguments arguments)
    {
        arguments.Expect("round", 2, "precision", "method");
        var number = Python.Number(value) ?? throw Unfit(value);
        var precision = arguments.Integer("round", 0, "precision", 0);
        if (precision is < 0 or > 15) throw new RhoException("round: the precision has to be 0 to 15");
        var scale = Math.Pow(10, precision);
        return arguments.Get(1, "method", "common") switch
        {
            "common" => Math.Round(number, (int)precision, MidpointRounding.ToEven),
            "ceil" => Math.Ceiling(number * scale) / scale,
            "floor" => Math.Floor(number * scale) / scale,
            var method => throw new RhoException($"round: method '{Python.ToText(method)}' is not supported"),
        };
    }

    private static object? Sort(TemplateRenderer renderer, object? value, CallArguments arguments)
    {
        arguments.Expect("sort", 3, "reverse", "case_sensitive", "attribute");
        var items = Python.Iterate(value);
        renderer.Spend(items.Count * 8L);
        var exact = Python.IsTrue(arguments.Get(1, "case_sensitive"));
        var attribute = arguments.Get(2, "attribute");
        object? Key(object? item) => Folded(attribute is null ? item : Attribute(renderer, item, attribute), exact);
        var order = Comparer<object?>.Create(Python.Compare);
        return new TemplateList(Python.IsTrue(arguments.Get(0, "reverse")) ? items.OrderByDescending(Key, order) : items.OrderBy(Key, order));
    }

    private static object? Sum(TemplateRenderer renderer, object? value, CallArguments arguments)
    {
        arguments.Expect("sum", 2, "attribute", "start");
        var attribute = arguments.Get(0, "attribute");
        var integers = 0L;
        var floats = 0.0;
        var anyFloat = false;
        foreach (var raw in Python.Iterate(value).Prepend(arguments.Get(1, "start", 0L)))
        {
            var item = attribute is null || ReferenceEquals(raw, arguments.Get(1, "start", 0L)) ? raw : Attribute(renderer, raw, attribute);
            if (Python.Integer(item) is { } integer) integers = checked(integers + integer);
            else floats += Python.Number(item) ?? throw Unfit(item);
            anyFloat |= item is double;
        }

        return anyFloat ? (object)(floats + integers) : integers;
    }

    private static object? ToJson(TemplateRenderer renderer, object? value, CallArguments arguments)
    {
        arguments.Expect("tojson", 4, "ensure_ascii", "indent", "separators", "sort_keys");
        var ascii = arguments.Get(0, "ensure_ascii", false);
        var indent = arguments.Get(1, "indent");

        // Jinja's own tojson takes the indent first; templates that say tojson(4) mean that.
        if (Python.Integer(ascii) is { } number && ascii is long && indent is null)
        {
            indent = number;
            ascii = false;
        }

        var spaces = indent switch
        {
            null => null,
            string text => text,
            _ => new string(' ', (int)Math.Clamp(Python.Integer(indent) ?? throw new RhoException("tojson: indent has to be an integer or a text"), 0, 100)),
        };
        var (between, colon) = (spaces is null ? ", " : ",", ": ");
        if (arguments.Get(2, "separators") is { } separators)
        {
            if (separators is not TemplateList { Count: 2 } pair || pair[0] is not string a || pair[1] is not string b) throw new RhoException("tojson: separators have to be two texts");
            (between, colon) = (a, b);
        }

        return renderer.Bounded(Python.ToJson(value, Python.IsTrue(ascii), spaces, between, colon, Python.IsTrue(arguments.Get(3, "sort_keys"))));
    }

    private static TemplateList Unique(TemplateRenderer renderer, object? value, CallArguments arguments)
    {
        arguments.Expect("unique", 2, "case_sensitive", "attribute");
        var exact = Python.IsTrue(arguments.Get(0, "case_sensitive"));
        var attribute = arguments.Get(1, "attribute");
        var seen = new TemplateList();
        var kept = new TemplateList();
        foreach (var item in Python.Iterate(value))
        {
            var key = Folded(attribute is null ? item : Attribute(renderer, item, attribute), exact);
            renderer.Spend(seen.Count);
            if (seen.Exists(other => Python.AreEqual(other, key))) continue;
            seen.Add(key);
            kept.Add(item);
        }

        return kept;
    }
}

/// <summary>Jinja's tests.</summary>
internal static class TemplateTests
{
    private static readonly Dictionary<string, TemplateTest> ByName = new(StringComparer.Ordinal)
    {
        ["boolean"] = (value, _) => value is bool,
        ["callable"] = (value, _) => value is TemplateFunction,
        ["defined"] = (value, _) => value is not TemplateUndefined,
        ["divisibleby"] = (value, arguments) => Whole(value) % (Whole(arguments.Get(0, "num")) is not 0 and var divisor ? divisor : throw new RhoException("divisibleby: division by zero")) == 0,
        ["eq"] = Equal,
        ["equalto"] = Equal,
        ["=="] = Equal,
        ["even"] = (value, _) => Whole(value) % 2 == 0,
        ["false"] = (value, _) => value is false,
        ["float"] = (value, _) => value is double,
        ["ge"] = (value, arguments) => Python.Compare(value, arguments.Get(0, "other")) >= 0,
        ["gt"] = (value, arguments) => Python.Compare(value, arguments.Get(0, "other")) > 0,
        ["greaterthan"] = (value, arguments) => Python.Compare(value, arguments.Get(0, "other")) > 0,
        ["in"] = (value, arguments) => Python.Contains(arguments.Get(0, "seq"), value),
        ["integer"] = (value, _) => value is long,
        ["iterable"] = (value, _) => value is string or TemplateList or TemplateDictionary or TemplateUndefined,
        ["le"] = (value, arguments) => Python.Compare(value, arguments.Get(0, "other")) <= 0,
        ["lower"] = (value, _) => Python.ToText(value) is var text && text.Any(char.IsLower) && !text.Any(char.IsUpper),
        ["lt"] = (value, arguments) => Python.Compare(value, arguments.Get(0, "other")) < 0,
        ["lessthan"] = (value, arguments) => Python.Compare(value, arguments.Get(0, "other")) < 0,
        ["mapping"] = (value, _) => value is TemplateDictionary,
        ["ne"] = (value, arguments) => !Equal(value, arguments),
        ["!="] = (value, arguments) => !Equal(value, arguments),
        ["none"] = (value, _) => value is null,
        ["number"] = (value, _) => value is bool or long or double,
        ["odd"] = (value, _) => Whole(value) % 2 != 0,
        ["sameas"] = (value, arguments) => value is bool or string
            ? value.Equals(arguments.Get(0, "other"))
            : ReferenceEquals(value, arguments.Get(0, "other")),
        ["sequence"] = (value, _) => value is string or TemplateList or TemplateDictionary or TemplateUndefined,
        ["string"] = (value, _) => value is string,
        ["true"] = (value, _) => value is true,
        ["undefined"] = (value, _) => value is TemplateUndefined,
        ["upper"] = (value, _) => Python.ToText(value) is var text && text.Any(char.IsUpper) && !text.Any(char.IsLower),
    };

    public static TemplateTest? Find(string name) => ByName.GetValueOrDefault(name);

    private static bool Equal(object? value, CallArguments arguments) => Python.AreEqual(value, arguments.Get(0, "other"));

    private static long Whole(object? value) => Python.Integer(value) ?? throw new RhoException($"expected an integer, not {Python.TypeName(value)}");
}
