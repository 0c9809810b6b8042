using System.Text;

namespace Rho.Jinja;

/// <summary>Attributes, items, slices and the methods of texts, lists and dictionaries.</summary>
internal static class TemplateMethods
{
    public static object? GetAttribute(TemplateRenderer renderer, object? target, string name)
    {
        switch (target)
        {
            case TemplateUndefined undefined:
                throw renderer.Error($"{undefined.Name} is undefined");
            case TemplateNamespace space:
                return space.Attributes.TryGetValue(name, out var attribute) ? attribute : new TemplateUndefined(name);
            case LoopVariable loop:
                return loop.Get(name);
            case TemplateDictionary dictionary:
                if (DictionaryMethod(dictionary, name) is { } method) return method;
                return dictionary.TryGet(name, out var value) ? value : new TemplateUndefined(name);
            case string text:
                return TextMethod(text, name) ?? (object)new TemplateUndefined(name);
            case TemplateList list:
                return ListMethod(list, name) ?? (object)new TemplateUndefined(name);
            default:
                return new TemplateUndefined(name);
        }
    }

    public static object? GetItem(TemplateRenderer renderer, object? target, object? index)
    {
        switch (target)
        {
            case TemplateUndefined undefined:
                throw renderer.Error($"{undefined.Name} is undefined");
            case TemplateDictionary dictionary when dictionary.TryGet(index, out var value):
                return value;
            case TemplateList list when Python.Integer(index) is { } position:
                var place = position < 0 ? position + list.Count : position;
                return place >= 0 && place < list.Count ? list[(int)place] : new TemplateUndefined($"item {position}");
            case string text when Python.Integer(index) is { } position:
                var characters = Characters(text);
                var at = position < 0 ? position + characters.Count : position;
                return at >= 0 && at < characters.Count ? characters[(int)at] : new TemplateUndefined($"item {position}");
            default:
                return index is string name ? GetAttribute(renderer, target, name) : new TemplateUndefined($"item {Python.ToText(index)}");
        }
    }

    public static object? Slice(TemplateRenderer renderer, object? target, long? start, long? stop, long? step)
    {
        if (target is string plain && step is null or 1 && Python.IsPlain(plain))
        {
            var (from, to) = (Clamp(start ?? 0, plain.Length), Clamp(stop ?? plain.Length, plain.Length));
            return from < to ? renderer.Bounded(plain[from..to]) : "";
        }

        IReadOnlyList<object?> items = target switch
        {
            string text => Characters(text),
            TemplateList list => list,
            TemplateUndefined undefined => throw renderer.Error($"{undefined.Name} is undefined"),
            _ => throw renderer.Error($"{Python.TypeName(target)} cannot be sliced"),
        };
        renderer.Spend(items.Count);
        var picked = Pick(renderer, items, start, stop, step ?? 1);
        return target is string ? string.Concat(picked) : new TemplateList(picked) { IsTuple = ((TemplateList)target!).IsTuple };
    }

    private static int Clamp(long index, int count) => (int)Math.Clamp(index < 0 ? index + count : index, 0, count);

    private static List<object?> Pick(TemplateRenderer renderer, IReadOnlyList<object?> items, long? start, long? stop, long step)
    {
        var picked = new List<object?>();
        if (step == 0) throw renderer.Error("a slice's step cannot be 0");
        if (step > 0)
        {
            var end = Clamp(stop ?? items.Count, items.Count);
            for (long i = Clamp(start ?? 0, items.Count); i < end; i += step) picked.Add(items[(int)i]);
            return picked;
        }

        var first = start is { } s ? Math.Min(s < 0 ? s + items.Count : s, items.Count - 1) : items.Count - 1;
        var last = stop is { } t ? Math.Max(t < 0 ? t + items.Count : t, -1) : -1;
        for (var i = first; i > last && i >= 0; i += step) picked.Add(items[(int)i]);
        return picked;
    }

    private static IReadOnlyList<object?> Characters(string text) => Python.Iterate(text);

    private static TemplateFunction? DictionaryMethod(TemplateDictionary dictionary, string name) => name switch
    {
        "items" => (renderer, _) => Counted(renderer, dictionary.Items.Select(item => (object?)new TemplateList([item.Key, item.Value]) { IsTuple = true })),
        "keys" => (renderer, _) => Counted(renderer, dictionary.Items.Select(item => (object?)item.Key)),
        "values" => (renderer, _) => Counted(renderer, dictionary.Items.Select(item => item.Value)),
        "get" => (_, arguments) => dictionary.TryGet(arguments.Get(0, "key"), out var value) ? value : arguments.Get(1, "default"),
        "update" or "pop" or "popitem" or "clear" or "setdefault" => throw new RhoException($"a template must not change a dictionary ({name})"),
        _ => null,
    };

    private static TemplateList Counted(TemplateRenderer renderer, IEnumerable<object?> items)
    {
        var list = new TemplateList(items);
        renderer.Spend(list.Count);
        return list;
    }

    private static TemplateFunction? ListMethod(TemplateList list, string name) => name switch
    {
        "count" => (_, arguments) => (long)list.Count(item => Python.AreEqual(item, arguments.Get(0, "value"))),
        "index" => (_, arguments) => list.FindIndex(item => Python.AreEqual(item, arguments.Get(0, "value"))) is >= 0 and var found
            ? (long)found
            : throw new RhoException("index: the value is not in the list"),
        "append" or "extend" or "insert" or "remove" or "pop" or "clear" or "sort" or "reverse" => throw new RhoException($"a template must not change a list ({name})"),
        _ => null,
    };

    private static TemplateFunction? TextMethod(string text, string name)
    {
        object? Run(TemplateRenderer renderer, CallArguments arguments) => name switch
        {
            "strip" => Trim(text, arguments, left: true, right: true),
            "lstrip" => Trim(text, arguments, left: true, right: false),
            "rstrip" => Trim(text, arguments, left: false, right: true),
            "startswith" => AnyOf(arguments, prefix => text.StartsWith(prefix, StringComparison.Ordinal)),
            "endswith" => AnyOf(arguments, suffix => text.EndsWith(suffix, StringComparison.Ordinal)),
            "split" => Split(text, arguments, fromRight: false),
            "rsplit" => Split(text, arguments, fromRight: true),
            "splitlines" => SplitLines(text),
            "upper" => Upper(text),
            "lower" => Lower(text),
            "title" => Title(text),
            "capitalize" => Capitalize(text),
            "replace" => Replace(renderer, text, arguments),
            "find" => Find(text, arguments, last: false),
            "rfind" => Find(text, arguments, last: true),
            "count" => Count(text, arguments.Text(name, 0, "sub")),
            "join" => Join(renderer, text, arguments.Get(0, "iterable")),
            "removeprefix" => text.StartsWith(arguments.Text(name, 0, "prefix"), StringComparison.Ordinal) ? text[arguments.Text(name, 0, "prefix").Length..] : text,
            "removesuffix" => text.EndsWith(arguments.Text(name, 0, "suffix"), StringComparison.Ordinal) ? text[..^arguments.Text(name, 0, "suffix").Length] : text,
            "isdigit" => text.Length > 0 && text.All(char.IsDigit),
            "isalpha" => text.Length > 0 && text.EnumerateRunes().All(Rune.IsLetter),
            "isalnum" => text.Length > 0 && text.EnumerateRunes().All(Rune.IsLetterOrDigit),
            "isspace" => text.Length > 0 && text.All(char.IsWhiteSpace),
            "isupper" => text.Any(char.IsUpper) && !text.Any(char.IsLower),
            "islower" => text.Any(char.IsLower) && !text.Any(char.IsUpper),
            _ => throw new RhoException($"the text method '{name}' is not supported"),
        };
        return Known.Contains(name) ? Run : Unsupported.Contains(name) ? throw new RhoException($"the text method '{name}' is not supported") : null;
    }

    private static readonly HashSet<string> Known = new(StringComparer.Ordinal)
    {
        "strip", "lstrip", "rstrip", "startswith", "endswith", "split", "rsplit", "splitlines", "upper", "lower", "title", "capitalize", "replace", "find",
        "rfind", "count", "join", "removeprefix", "removesuffix", "isdigit", "isalpha", "isalnum", "isspace", "isupper", "islower",
    };

    private static readonly HashSet<string> Unsupported = new(StringComparer.Ordinal)
    {
        "casefold", "center", "encode", "expandtabs", "format", "format_map", "index", "isascii", "isdecimal", "isidentifier", "isnumeric", "isprintable",
        "istitle", "ljust", "maketrans", "partition", "rindex", "rjust", "rpartition", "swapcase", "translate", "zfill",
    };

    public static string Upper(string text) => text.ToUpperInvariant().Replace("ß", "SS", StringComparison.Ordinal);

    public static string Lower(string text) => text.ToLowerInvariant();

    public static string Capitalize(string text) => text.Length == 0 ? text : Upper(text[..1]) + Lower(text[1..]);

    public static string Title(string text)
    {
        var output = new StringBuilder(text.Length);
        var inside = false;
        foreach (var c in text)
        {
            output.Append(inside ? char.ToLowerInvariant(c) : char.ToUpperInvariant(c));
            inside = char.IsLetter(c);
        }

        return output.ToString();
    }

    public static string Trim(string text, CallArguments arguments, bool left, bool right)
    {
        arguments.Expect("strip", 1, "chars");
        var set = arguments.Get(0, "chars");
        if (set is not (null or string)) throw new RhoException($"strip: the characters have to be a text, not {Python.TypeName(set)}");
        var span = text.AsSpan();
        if (set is string characters)
        {
            if (left) span = span.TrimStart(characters.AsSpan());
            if (right) span = span.TrimEnd(characters.AsSpan());
        }
        else
        {
            // Python counts the four information separators among white space.
            if (left) while (!span.IsEmpty && IsBlank(span[0])) span = span[1..];
            if (right) while (!span.IsEmpty && IsBlank(span[^1])) span = span[..^1];
        }

        return span.ToString();
    }

    private static bool IsBlank(char c) => char.IsWhiteSpace(c) || c is >= '\u001C' and <= '\u001F';

    private static bool AnyOf(CallArguments arguments, Func<string, bool> matches)
    {
        arguments.Expect("startswith/endswith", 1);
        return arguments.Get(0, "") switch
        {
            string one => matches(one),
            TemplateList { IsTuple: true } several => several.Any(item => item is string one && matches(one)),
            var other => throw new RhoException($"startswith/endswith: expected a text or a tuple of texts, not {Python.TypeName(other)}"),
        };
    }

    private static TemplateList Split(string text, CallArguments arguments, bool fromRight)
    {
        arguments.Expect("split", 2, "sep", "maxsplit");
        var most = arguments.Integer("split", 1, "maxsplit", -1);
        var separator = arguments.Get(0, "sep");
        var parts = separator switch
        {
            null => SplitAtBlanks(text, most, fromRight),
            "" => throw new RhoException("split: the separator is empty"),
            string mark => SplitAt(text, mark, most, fromRight),
            _ => throw new RhoException($"split: the separator has to be a text, not {Python.TypeName(separator)}"),
        };
        return new TemplateList(parts);
    }

    private static List<string> SplitAt(string text, string mark, long most, bool fromRight)
    {
        var parts = new List<string>();
        if (!fromRight)
        {
            var start = 0;
            while (most != parts.Count && text.IndexOf(mark, start, StringComparison.Ordinal) is >= 0 and var found)
            {
                parts.Add(text[start..found]);
                start = found + mark.Length;
            }

            parts.Add(text[start..]);
            return parts;
        }

        var rest = text;
        while (most != parts.Count && rest.LastIndexOf(mark, StringComparison.Ordinal) is >= 0 and var found)
        {
            parts.Add(rest[(found + mark.Length)..]);
            rest = rest[..found];
        }

        parts.Add(rest);
        parts.Reverse();
        return parts;
    }

    private static List<string> SplitAtBlanks(string text, long most, bool fromRight)
    {
        var words = new List<(int Start, int End)>();
        for (var i = 0; i < text.Length;)
        {
            while (i < text.Length && IsBlank(text[i])) i++;
            var start = i;
            while (i < text.Length && !IsBlank(text[i])) i++;
            if (i > start) words.Add((start, i));
        }

        if (most < 0 || words.Count <= most + 1) return [.. words.Select(word => text[word.Start..word.End])];
        var count = (int)most;
        if (!fromRight) return [.. words.Take(count).Select(word => text[word.Start..word.End]), text[words[count].Start..]];
        return [text[..words[^(count + 1)].End], .. words.TakeLast(count).Select(word => text[word.Start..word.End])];
    }

    private static TemplateList SplitLines(string text)
    {
        var lines = new TemplateList();
        for (var i = 0; i < text.Length;)
        {
            var end = text.AsSpan(i).IndexOfAny("\n\r\v\f\u001C\u001D\u001E\u0085\u2028\u2029");
            if (end < 0)
            {
                lines.Add(text[i..]);
                break;
            }

            lines.Add(text.Substring(i, end));
            i += end + (text[i + end] == '\r' && i + end + 1 < text.Length && text[i + end + 1] == '\n' ? 2 : 1);
        }

        return lines;
    }

    public static string Replace(TemplateRenderer renderer, string text, CallArguments arguments)
    {
        arguments.Expect("replace", 3, "old", "new", "count");
        var (old, replacement) = (arguments.Text("replace", 0, "old"), arguments.Text("replace", 1, "new"));
        var most = arguments.Get(2, "count") is null ? -1 : arguments.Integer("replace", 2, "count", -1);
        renderer.Spend(text.Length / 16);
        var output = new StringBuilder();
        if (old.Length == 0)
        {
            var done = 0;
            foreach (var character in Characters(text))
            {
                if (most < 0 || done++ < most) output.Append(replacement);
                output.Append(character);
            }

            if (most < 0 || done < most) output.Append(replacement);
            return renderer.Bounded(output.ToString());
        }

        var start = 0;
        for (var count = 0; count != most && text.IndexOf(old, start, StringComparison.Ordinal) is >= 0 and var found; count++)
        {
            output.Append(text, start, found - start).Append(replacement);
            start = found + old.Length;
            if (output.Length > 64 << 20) break;
        }

        return renderer.Bounded(output.Append(text, start, text.Length - start).ToString());
    }

    private static long Find(string text, CallArguments arguments, bool last)
    {
        arguments.Expect("find", 1, "sub");
        var part = arguments.Text("find", 0, "sub");
        var found = last ? text.LastIndexOf(part, StringComparison.Ordinal) : text.IndexOf(part, StringComparison.Ordinal);
        return found < 0 ? -1 : Python.Length(text[..found]);
    }

    private static long Count(string text, string part)
    {
        if (part.Length == 0) return Python.Length(text) + 1;
        long count = 0;
        for (var at = text.IndexOf(part, StringComparison.Ordinal); at >= 0; at = text.IndexOf(part, at + part.Length, StringComparison.Ordinal)) count++;
        return count;
    }

    public static string Join(TemplateRenderer renderer, string separator, object? items)
    {
        var output = new StringBuilder();
        var list = Python.Iterate(items);
        for (var i = 0; i < list.Count; i++)
        {
            if (i > 0) output.Append(separator);
            output.Append(list[i] as string ?? throw new RhoException($"join: item {i} is {Python.TypeName(list[i])}, not a text"));
            if (output.Length > 64 << 20) break;
        }

        renderer.Spend(list.Count);
        return renderer.Bounded(output.ToString());
    }
}
