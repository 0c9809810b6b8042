using System.Globalization;
using System.Text;
using System.Text.Json;

namespace Rho.Jinja;

/// <summary>Something a template names that does not exist. It prints as nothing; to use it otherwise is an error.</summary>
internal sealed class TemplateUndefined(string name)
{
    public string Name => name;
}

/// <summary>A list; a tuple when <see cref="IsTuple"/>.</summary>
internal sealed class TemplateList : List<object?>
{
    public TemplateList() { }

    public TemplateList(IEnumerable<object?> items) : base(items) { }

    public bool IsTuple { get; init; }
}

/// <summary>A dictionary in the order of insertion.</summary>
internal sealed class TemplateDictionary
{
    private readonly OrderedDictionary<object, object?> _items = new(PythonEquality.Instance);

    public int Count => _items.Count;

    public IEnumerable<KeyValuePair<object, object?>> Items => _items;

    public object? this[object key]
    {
        set => _items[key] = value;
    }

    public bool TryGet(object? key, out object? value)
    {
        value = null;
        return key is not null && _items.TryGetValue(key, out value);
    }
}

/// <summary>What namespace() makes: the one thing whose attributes a template can set.</summary>
internal sealed class TemplateNamespace
{
    public Dictionary<string, object?> Attributes { get; } = new(StringComparer.Ordinal);
}

internal delegate object? TemplateFunction(TemplateRenderer renderer, CallArguments arguments);

internal sealed class PythonEquality : IEqualityComparer<object>
{
    public static readonly PythonEquality Instance = new();

    bool IEqualityComparer<object>.Equals(object? x, object? y) => Python.AreEqual(x, y);

    public int GetHashCode(object value) => value switch
    {
        bool flag => (flag ? 1.0 : 0.0).GetHashCode(),
        long integer => ((double)integer).GetHashCode(),
        TemplateList or TemplateDictionary => 0,
        _ => value.GetHashCode(),
    };
}

/// <summary>
/// Values as Python has them: None is null, then bool, long, double, string, <see cref="TemplateList"/>,
/// <see cref="TemplateDictionary"/>, <see cref="TemplateNamespace"/>, <see cref="TemplateFunction"/> and
/// <see cref="TemplateUndefined"/>.
/// </summary>
internal static class Python
{
    private const int DeepestValue = 100;

    public static bool IsTrue(object? value) => value switch
    {
        null or TemplateUndefined => false,
        bool flag => flag,
        long integer => integer != 0,
        double number => number != 0,
        string text => text.Length > 0,
        TemplateList list => list.Count > 0,
        TemplateDictionary dictionary => dictionary.Count > 0,
        _ => true,
    };

    public static string TypeName(object? value) => value switch
    {
        null => "None",
        bool => "bool",
        long => "int",
        double => "float",
        string => "str",
        TemplateList { IsTuple: true } => "tuple",
        TemplateList => "list",
        TemplateDictionary => "dict",
        TemplateUndefined undefined => $"undefined '{undefined.Name}'",
        TemplateNamespace => "namespace",
        _ => "function",
    };

    public static bool AreEqual(object? left, object? right)
    {
        if (Number(left) is { } a && Number(right) is { } b) return left is long x && right is long y ? x == y : a == b;
        switch (left, right)
        {
            case (null, null):
                return true;
            case (string x, string y):
                return string.Equals(x, y, StringComparison.Ordinal);
            case (TemplateUndefined, TemplateUndefined):
                return true;
            case (TemplateList x, TemplateList y):
                if (x.Count != y.Count || x.IsTuple != y.IsTuple) return false;
                for (var i = 0; i < x.Count; i++)
                {
                    if (!AreEqual(x[i], y[i])) return false;
                }

                return true;
            case (TemplateDictionary x, TemplateDictionary y):
                return x.Count == y.Count && x.Items.All(item => y.TryGet(item.Key, out var other) && AreEqual(item.Value, other));
            default:
                return left is not null && ReferenceEquals(left, right);
        }
    }

    public static double? Number(object? value) => value switch
    {
        bool flag => flag ? 1 : 0,
        long integer => integer,
        double number => number,
        _ => null,
    };

    public static long? Integer(object? value) => value switch
    {
        bool flag => flag ? 1 : 0,
        long integer => integer,
        _ => null,
    };

    public static int Compare(object? left, object? right)
    {
        if (left is long a && right is long b) return a.CompareTo(b);
        if (Number(left) is { } x && Number(right) is { } y) return x.CompareTo(y);
        if (left is string s && right is string t) return CompareCharacters(s, t);
        if (left is TemplateList first && right is TemplateList second)
        {
            for (var i = 0; i < Math.Min(first.Count, second.Count); i++)
            {
                if (!AreEqual(first[i], second[i])) return Compare(first[i], second[i]);
            }

            return first.Count.CompareTo(second.Count);
        }

        throw new RhoException($"{TypeName(left)} and {TypeName(right)} cannot be compared");
    }

    /// <summary>By code point: UTF-16 order differs where surrogates meet U+E000 and above.</summary>
    private static int CompareCharacters(string left, string right)
    {
        foreach (var (a, b) in left.EnumerateRunes().Zip(right.EnumerateRunes()))
        {
            if (a != b) return a.CompareTo(b);
        }

        return left.Length.CompareTo(right.Length);
    }

    /// <summary>What a for loop goes through.</summary>
    public static IReadOnlyList<object?> Iterate(object? value) => value switch
    {
        TemplateList list => list,
        TemplateDictionary dictionary => [.. dictionary.Items.Select(item => (object?)item.Key)],
        string text => [.. text.EnumerateRunes().Select(rune => (object?)rune.ToString())],
        TemplateUndefined => [],
        _ => throw new RhoException($"{TypeName(value)} cannot be iterated over"),
    };

    public static long Length(object? value) => value switch
    {
        string text => CharacterCount(text),
        TemplateList list => list.Count,
        TemplateDictionary dictionary => dictionary.Count,
        TemplateUndefined => 0,
        _ => throw new RhoException($"{TypeName(value)} has no length"),
    };

    public static bool IsPlain(string text) => !text.AsSpan().ContainsAnyInRange('\uD800', '\uDFFF');

    private static int CharacterCount(string text) => IsPlain(text) ? text.Length : text.EnumerateRunes().Count();

    public static bool Contains(object? container, object? item) => container switch
    {
        string text => text.Contains(item as string ?? throw new RhoException($"'in' a text needs a text on its left, not {TypeName(item)}"), StringComparison.Ordinal),
        TemplateDictionary dictionary => dictionary.TryGet(item, out _),
        _ => Iterate(container).Any(other => AreEqual(other, item)),
    };

    /// <summary>str(value).</summary>
    public static string ToText(object? value) => value switch
    {
        string text => text,
        TemplateUndefined => "",
        _ => Represent(value),
    };

    /// <summary>repr(value).</summary>
    public static string Represent(object? value)
    {
        var output = new StringBuilder();
        Represent(value, output, 0);
        return output.ToString();
    }

    private static void Represent(object? value, StringBuilder output, int depth)
    {
        if (depth > DeepestValue) throw new RhoException("a value is nested too deep to be printed");
        switch (value)
        {
            case null:
                output.Append("None");
                break;
            case bool flag:
                output.Append(flag ? "True" : "False");
                break;
            case long integer:
                output.Append(integer);
                break;
            case double number:
                output.Append(FloatText(number));
                break;
            case string text:
                Quote(text, output);
                break;
            case TemplateUndefined:
                output.Append("Undefined");
                break;
            case TemplateList list:
                output.Append(list.IsTuple ? '(' : '[');
                for (var i = 0; i < list.Count; i++)
                {
                    if (i > 0) output.Append(", ");
                    Represent(list[i], output, depth + 1);
                }

                if (list is { IsTuple: true, Count: 1 }) output.Append(',');
                output.Append(list.IsTuple ? ')' : ']');
                break;
            case TemplateDictionary dictionary:
                output.Append('{');
                var separator = "";
                foreach (var (key, item) in dictionary.Items)
                {
                    output.Append(separator);
                    Represent(key, output, depth + 1);
                    output.Append(": ");
                    Represent(item, output, depth + 1);
                    separator = ", ";
                }

                output.Append('}');
                break;
            default:
                throw new RhoException($"a {TypeName(value)} cannot be printed");
        }
    }

    public static string FloatText(double value)
    {
        if (double.IsNaN(value)) return "nan";
        if (double.IsInfinity(value)) return value > 0 ? "inf" : "-inf";

        // The shortest digits that give the number back, and where the point stands: value = 0.digits * 10^point.
        var text = Math.Abs(value).ToString("R");
        var exponentAt = text.IndexOf('E');
        var mantissa = exponentAt < 0 ? text : text[..exponentAt];
        var wholeLength = mantissa.IndexOf('.') is >= 0 and var dot ? dot : mantissa.Length;
        var all = mantissa.Replace(".", "", StringComparison.Ordinal);
        var significant = all.TrimStart('0');
        var point = wholeLength - (all.Length - significant.Length) + (exponentAt < 0 ? 0 : int.Parse(text.AsSpan(exponentAt + 1)));
        var digits = significant.TrimEnd('0');
        var sign = value < 0 || (value == 0 && double.IsNegative(value)) ? "-" : "";
        if (digits.Length == 0) return sign + "0.0";
        if (point is <= -4 or > 16)
        {
            var rest = digits.Length > 1 ? "." + digits[1..] : "";
            return $"{sign}{digits[0]}{rest}e{(point <= 0 ? '-' : '+')}{Math.Abs(point - 1):00}";
        }

        if (point <= 0) return $"{sign}0.{new string('0', -point)}{digits}";
        return point >= digits.Length ? $"{sign}{digits.PadRight(point, '0')}.0" : $"{sign}{digits[..point]}.{digits[point..]}";
    }

    private static void Quote(string text, StringBuilder output)
    {
        var quote = text.Contains('\'', StringComparison.Ordinal) && !text.Contains('"', StringComparison.Ordinal) ? '"' : '\'';
        output.Append(quote);
        foreach (var rune in text.EnumerateRunes())
        {
            switch (rune.Value)
            {
                case '\n':
                    output.Append("\\n");
                    break;
                case '\r':
                    output.Append("\\r");
                    break;
                case '\t':
                    output.Append("\\t");
                    break;
                case '\\':
                    output.Append("\\\\");
                    break;
                case var c when c == quote:
                    output.Append('\\').Append(quote);
                    break;
                case < 0x20 or 0x7F:
                    output.Append($"\\x{rune.Value:x2}");
                    break;
                default:
                    Printable(rune, output);
                    break;
            }
        }

        output.Append(quote);
    }

    private static void Printable(Rune rune, StringBuilder output)
    {
        var hidden = Rune.GetUnicodeCategory(rune) is UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.Surrogate or UnicodeCategory.PrivateUse
            or UnicodeCategory.OtherNotAssigned or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator or UnicodeCategory.SpaceSeparator;
        if (!hidden || rune.Value == ' ') output.Append(rune.ToString());
        else if (rune.Value <= 0xFF) output.Append($"\\x{rune.Value:x2}");
        else if (rune.Value <= 0xFFFF) output.Append($"\\u{rune.Value:x4}");
        else output.Append($"\\U{rune.Value:x8}");
    }

    /// <summary>json.dumps, as transformers' tojson calls it.</summary>
    public static string ToJson(object? value, bool ascii, string? indent, string itemSeparator, string keySeparator, bool sorted)
    {
        var output = new StringBuilder();
        WriteJson(value, 0);
        return output.ToString();

        void WriteJson(object? item, int depth)
        {
            if (depth > DeepestValue) throw new RhoException("tojson: a value is nested too deep");
            switch (item)
            {
                case null:
                    output.Append("null");
                    break;
                case bool flag:
                    output.Append(flag ? "true" : "false");
                    break;
                case long integer:
                    output.Append(integer);
                    break;
                case double number:
                    output.Append(double.IsNaN(number) ? "NaN" : double.IsInfinity(number) ? (number > 0 ? "Infinity" : "-Infinity") : FloatText(number));
                    break;
                case string text:
                    JsonText(text, ascii, output);
                    break;
                case TemplateList list:
                    Enclose('[', ']', list, depth, element => WriteJson(element, depth + 1));
                    break;
                case TemplateDictionary dictionary:
                    var items = sorted ? dictionary.Items.OrderBy(pair => pair.Key, Comparer<object>.Create(Compare)) : dictionary.Items;
                    Enclose('{', '}', [.. items], depth, pair =>
                    {
                        JsonText(pair.Key switch { bool flag => flag ? "true" : "false", var key => ToText(key) }, ascii, output);
                        output.Append(keySeparator);
                        WriteJson(pair.Value, depth + 1);
                    });
                    break;
                default:
                    throw new RhoException($"tojson: {TypeName(item)} cannot be written as JSON");
            }
        }

        void Enclose<T>(char open, char close, IReadOnlyList<T> items, int depth, Action<T> write)
        {
            output.Append(open);
            for (var i = 0; i < items.Count; i++)
            {
                if (i > 0) output.Append(itemSeparator);
                Break(depth + 1);
                write(items[i]);
            }

            if (items.Count > 0) Break(depth);
            output.Append(close);
        }

        void Break(int depth)
        {
            if (indent is null) return;
            output.Append('\n');
            for (var i = 0; i < depth; i++) output.Append(indent);
        }
    }

    private static void JsonText(string text, bool ascii, StringBuilder output)
    {
        output.Append('"');
        foreach (var c in text)
        {
            _ = c switch
            {
                '"' => output.Append("\\\""),
                '\\' => output.Append("\\\\"),
                '\n' => output.Append("\\n"),
                '\r' => output.Append("\\r"),
                '\t' => output.Append("\\t"),
                '\b' => output.Append("\\b"),
                '\f' => output.Append("\\f"),
                < ' ' => output.Append($"\\u{(int)c:x4}"),
                > '\u007E' when ascii => output.Append($"\\u{(int)c:x4}"),
                _ => output.Append(c),
            };
        }

        output.Append('"');
    }

    public static object? FromJson(JsonElement element, int depth = 0)
    {
        if (depth > DeepestValue) throw new RhoException("a value is nested too deep for a chat template");
        switch (element.ValueKind)
        {
            case JsonValueKind.Null or JsonValueKind.Undefined:
                return null;
            case JsonValueKind.True:
                return true;
            case JsonValueKind.False:
                return false;
            case JsonValueKind.Number:
                return element.TryGetInt64(out var integer) ? (object)integer : element.GetDouble();
            case JsonValueKind.String:
                return element.GetString();
            case JsonValueKind.Array:
                return new TemplateList(element.EnumerateArray().Select(item => FromJson(item, depth + 1)));
            default:
                var dictionary = new TemplateDictionary();
                foreach (var field in element.EnumerateObject()) dictionary[field.Name] = FromJson(field.Value, depth + 1);
                return dictionary;
        }
    }
}
