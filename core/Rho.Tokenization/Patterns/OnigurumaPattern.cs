using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;

namespace Rho.Tokenization;

/// <summary>
/// A regular expression in Oniguruma's syntax, as tokenizer.json files have them, over whole Unicode characters. It is
/// parsed, its classes are worked out as sets of characters, and written again for .NET, whose own classes see UTF-16
/// units. What is not supported is refused by name.
/// </summary>
internal sealed class OnigurumaPattern
{
    private readonly Regex _basicPlane;
    private readonly Lazy<Regex> _allPlanes;

    public OnigurumaPattern(string pattern)
    {
        var root = new Parser(pattern).Parse();
        _basicPlane = Compile(root, pattern, allPlanes: false);
        _allPlanes = new Lazy<Regex>(() => Compile(root, pattern, allPlanes: true));
    }

    /// <summary>The expression for a text: the one that knows characters beyond the basic plane only if there are such.</summary>
    public Regex For(ReadOnlySpan<char> text) => text.ContainsAnyInRange('\uD800', '\uDFFF') ? _allPlanes.Value : _basicPlane;

    private static Regex Compile(Node root, string pattern, bool allPlanes)
    {
        var text = new StringBuilder();
        root.Write(text, allPlanes);
        try
        {
#pragma warning disable MA0009 // The pattern is the tokenizer's, not of whoever sends text.
            return new Regex(text.ToString(), RegexOptions.Compiled | RegexOptions.CultureInvariant);
#pragma warning restore MA0009
        }
        catch (ArgumentException error)
        {
            throw new RhoException($"regular expression '{pattern}': {error.Message}", error);
        }
    }

    private abstract class Node
    {
        public abstract void Write(StringBuilder output, bool allPlanes);
    }

    private sealed class SetNode(CodePointSet set) : Node
    {
        public override void Write(StringBuilder output, bool allPlanes)
        {
            var basic = set.Ranges.Where(range => range.First <= 0xFFFF).Select(range => (range.First, Last: Math.Min(range.Last, 0xFFFF))).ToArray();
            var others = allPlanes ? set.Ranges.Where(range => range.Last > 0xFFFF).Select(range => (First: Math.Max(range.First, 0x10000), range.Last)).ToArray() : [];
            if (others.Length == 0)
            {
                WriteClass(output, basic);
                return;
            }

            output.Append("(?:");
            if (basic.Length > 0)
            {
                WriteClass(output, basic);
                output.Append('|');
            }

            WritePairs(output, others);
            output.Append(')');
        }

        private static void WriteClass(StringBuilder output, (int First, int Last)[] ranges)
        {
            if (ranges.Length == 0)
            {
                output.Append("(?!)");
                return;
            }

            output.Append('[');
            foreach (var (first, last) in ranges)
            {
                Escape(output, first);
                if (last > first) Escape(output.Append('-'), last);
            }

            output.Append(']');
        }

        /// <summary>Ranges beyond the basic plane as surrogate pairs, neighbouring first halves with full second ones taken together.</summary>
        private static void WritePairs(StringBuilder output, (int First, int Last)[] ranges)
        {
            var separator = "";
            foreach (var (first, last) in ranges)
            {
                for (var start = first; start <= last;)
                {
                    var (high, low) = Halves(start);
                    var (lastHigh, lastLow) = Halves(last);
                    int endHigh;
                    int endLow;
                    if (high == lastHigh)
                    {
                        (endHigh, endLow) = (high, lastLow);
                    }
                    else if (low != 0xDC00)
                    {
                        (endHigh, endLow) = (high, 0xDFFF);
                    }
                    else
                    {
                        endHigh = lastLow == 0xDFFF ? lastHigh : lastHigh - 1;
                        endLow = 0xDFFF;
                    }

                    output.Append(separator);
                    separator = "|";
                    WriteClass(output, [(high, endHigh)]);
                    WriteClass(output, [(low, endLow)]);
                    start = 0x10000 + ((endHigh - 0xD800) << 10) + (endLow - 0xDC00) + 1;
                }
            }
        }

        private static (int High, int Low) Halves(int codePoint) =>
            (0xD800 + ((codePoint - 0x10000) >> 10), 0xDC00 + ((codePoint - 0x10000) & 0x3FF));

        private static void Escape(StringBuilder output, int unit) => output.Append($"\\u{unit:X4}");
    }

    private sealed class TextNode(string text) : Node
    {
        public override void Write(StringBuilder output, bool allPlanes) => output.Append(text);
    }

    private sealed class SequenceNode(List<Node> parts) : Node
    {
        public override void Write(StringBuilder output, bool allPlanes)
        {
            foreach (var part in parts) part.Write(output, allPlanes);
        }
    }

    private sealed class GroupNode(string opening, List<Node> alternatives) : Node
    {
        public override void Write(StringBuilder output, bool allPlanes)
        {
            output.Append(opening);
            for (var i = 0; i < alternatives.Count; i++)
            {
                if (i > 0) output.Append('|');
                alternatives[i].Write(output, allPlanes);
            }

            output.Append(')');
        }
    }

    private sealed class RepeatNode(Node inner, string quantifier, bool possessive) : Node
    {
        public override void Write(StringBuilder output, bool allPlanes)
        {
            output.Append(possessive ? "(?>(?:" : "(?:");
            inner.Write(output, allPlanes);
            output.Append(')').Append(quantifier);
            if (possessive) output.Append(')');
        }
    }

    private sealed class Parser(string pattern)
    {
        private const int DeepestNesting = 100;

        private static readonly CodePointSet Digit = CodePointSet.Category(UnicodeCategory.DecimalDigitNumber);
        private static readonly CodePointSet Space = CodePointSet.Of((9, 13), (32, 32), (0x85, 0x85))
            .Union(CodePointSet.Category(UnicodeCategory.SpaceSeparator, UnicodeCategory.LineSeparator, UnicodeCategory.ParagraphSeparator));
        private static readonly CodePointSet HexDigit = CodePointSet.Of(('0', '9'), ('A', 'F'), ('a', 'f'));
        private static readonly CodePointSet Word = Properties.Letter
            .Union(CodePointSet.Category(UnicodeCategory.NonSpacingMark, UnicodeCategory.SpacingCombiningMark, UnicodeCategory.EnclosingMark))
            .Union(CodePointSet.Category(UnicodeCategory.DecimalDigitNumber, UnicodeCategory.LetterNumber, UnicodeCategory.ConnectorPunctuation))
            .Union(CodePointSet.Of((0xB2, 0xB3), (0xB9, 0xB9), (0xBC, 0xBE), (0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189)));

        private int _at;
        private int _depth;
        private bool _ignoreCase;
        private bool _dotAll;

        public Node Parse()
        {
            var node = Alternatives("(?:");
            return _at == pattern.Length ? node : throw Unsupported("a ')' without its '('");
        }

        private GroupNode Alternatives(string opening)
        {
            if (++_depth > DeepestNesting) throw Unsupported("groups nested this deep");
            var (ignoreCase, dotAll) = (_ignoreCase, _dotAll);
            var alternatives = new List<Node> { Sequence() };
            while (Accept('|')) alternatives.Add(Sequence());
            (_ignoreCase, _dotAll) = (ignoreCase, dotAll);
            _depth--;
            return new GroupNode(opening, alternatives);
        }

        private SequenceNode Sequence()
        {
            var parts = new List<Node>();
            while (_at < pattern.Length && pattern[_at] is not ('|' or ')')) parts.Add(Repeated(Atom()));
            return new SequenceNode(parts);
        }

        private Node Repeated(Node atom)
        {
            while (_at < pattern.Length)
            {
                var quantifier = Quantifier(out var braces);
                if (quantifier is null) break;
                if (!braces && Accept('+'))
                {
                    atom = new RepeatNode(atom, quantifier, possessive: true);
                }
                else
                {
                    if (Accept('?')) quantifier += "?";
                    atom = new RepeatNode(atom, quantifier, possessive: false);
                }
            }

            return atom;
        }

        private string? Quantifier(out bool braces)
        {
            braces = false;
            switch (pattern[_at])
            {
                case '*' or '+' or '?':
                    return pattern[_at++].ToString();
                case '{':
                    braces = true;
                    return Braces();
                default:
                    return null;
            }
        }

        /// <summary>{n}, {n,}, {n,m} or {,m}; other braces stand for themselves.</summary>
        private string? Braces()
        {
            var end = pattern.IndexOf('}', _at);
            if (end < 0) return null;
            var inside = pattern.AsSpan(_at + 1, end - _at - 1);
            var comma = inside.IndexOf(',');
            var least = comma < 0 ? inside : inside[..comma];
            var most = comma < 0 ? default : inside[(comma + 1)..];
            if (least.ContainsAnyExceptInRange('0', '9') || most.ContainsAnyExceptInRange('0', '9') || (least.IsEmpty && most.IsEmpty)) return null;
            if (least.Length > 5 || most.Length > 5) throw Unsupported("a repetition this long");
            _at = end + 1;
            return $"{{{(least.IsEmpty ? "0" : least)}{(comma < 0 ? "" : ",")}{most}}}";
        }

        private Node Atom()
        {
            var c = pattern[_at];
            switch (c)
            {
                case '(':
                    return Group();
                case '[':
                    _at++;
                    return new SetNode(Class());
                case '.':
                    _at++;
                    return new SetNode(_dotAll ? CodePointSet.All : CodePointSet.Of(('\n', '\n')).Complement());
                case '^':
                    _at++;
                    return new TextNode(@"(?:\A|(?<=\n)(?!\z))");
                case '$':
                    _at++;
                    return new TextNode(@"(?=\n|\z)");
                case '\\':
                    return Escape();
                case '*' or '+' or '?':
                    throw Unsupported($"'{c}' with nothing to repeat");
                default:
                    return Literal(Character());
            }
        }

        private SetNode Literal(int codePoint) => new(Cased(CodePointSet.Of((codePoint, codePoint))));

        private CodePointSet Cased(CodePointSet set) => _ignoreCase ? set.IgnoringCase() : set;

        private int Character()
        {
            if (Rune.DecodeFromUtf16(pattern.AsSpan(_at), out var rune, out var length) != System.Buffers.OperationStatus.Done) throw Unsupported("a lone surrogate");
            _at += length;
            return rune.Value;
        }

        private Node Group()
        {
            _at++;
            if (!Accept('?')) return Close(Alternatives("(?:"));
            if (_at >= pattern.Length) throw Unsupported("'(?' at the end");
            foreach (var opening in (ReadOnlySpan<string>)["<=", "<!", ":", "=", "!", ">"])
            {
                if (!pattern.AsSpan(_at).StartsWith(opening)) continue;
                _at += opening.Length;
                return Close(Alternatives("(?" + opening));
            }

            if (pattern[_at] == '#')
            {
                var end = pattern.IndexOf(')', _at);
                if (end < 0) throw Unsupported("a comment without end");
                _at = end + 1;
                return new TextNode("");
            }

            if (pattern[_at] == '<')
            {
                var end = pattern.IndexOf('>', _at);
                if (end < 0) throw Unsupported("a group name without end");
                _at = end + 1;
                return Close(Alternatives("(?:"));
            }

            return Flags();
        }

        private Node Flags()
        {
            var (ignoreCase, dotAll) = (_ignoreCase, _dotAll);
            var on = true;
            while (_at < pattern.Length && pattern[_at] is not (':' or ')'))
            {
                switch (pattern[_at])
                {
                    case '-':
                        on = false;
                        break;
                    case 'i':
                        ignoreCase = on;
                        break;
                    case 'm':
                        dotAll = on;
                        break;
                    default:
                        throw Unsupported($"flag or group '(?{pattern[_at]}'");
                }

                _at++;
            }

            var outer = (_ignoreCase, _dotAll);
            (_ignoreCase, _dotAll) = (ignoreCase, dotAll);
            if (Accept(':'))
            {
                var group = Close(Alternatives("(?:"));
                (_ignoreCase, _dotAll) = outer;
                return group;
            }

            if (!Accept(')')) throw Unsupported("flags without end");

            // (?i) reaches to the end of the group around it, over its alternatives: a|(?i)b|c is a|(?i:b|c).
            var rest = Alternatives("(?:");
            (_ignoreCase, _dotAll) = outer;
            return rest;
        }

        private GroupNode Close(GroupNode group) => Accept(')') ? group : throw Unsupported("a '(' without its ')'");

        private Node Escape()
        {
            if (_at + 1 >= pattern.Length) throw Unsupported("'\\' at the end");
            switch (pattern[_at + 1])
            {
                case 'A' or 'z' or 'Z':
                    _at += 2;
                    return new TextNode(pattern[_at - 1] == 'Z' ? @"(?=\n?\z)" : $"\\{pattern[_at - 1]}");
                case 'b' or 'B':
                    _at += 2;
                    return WordEdge(pattern[_at - 1] == 'b');
                case 'R':
                    _at += 2;
                    return new TextNode(@"(?>\r\n|[\n-\r\u0085\u2028\u2029])");
                default:
                    var set = EscapedSet(out _);
                    return new SetNode(Cased(set));
            }
        }

        private static GroupNode WordEdge(bool edge)
        {
            Node word = new SetNode(Word);
            GroupNode Look(string opening) => new(opening, [word]);
            return edge
                ? new GroupNode("(?:", [new SequenceNode([Look("(?<="), Look("(?!")]), new SequenceNode([Look("(?<!"), Look("(?=")])])
                : new GroupNode("(?:", [new SequenceNode([Look("(?<="), Look("(?=")]), new SequenceNode([Look("(?<!"), Look("(?!")])]);
        }

        /// <summary>An escape that stands for one character (then <paramref name="single"/> is it) or a class.</summary>
        private CodePointSet EscapedSet(out int? single)
        {
            _at++;
            if (_at >= pattern.Length) throw Unsupported("'\\' at the end");
            single = null;
            var c = Character();
            switch (c)
            {
                case 'd':
                    return Digit;
                case 'D':
                    return Digit.Complement();
                case 's':
                    return Space;
                case 'S':
                    return Space.Complement();
                case 'w':
                    return Word;
                case 'W':
                    return Word.Complement();
                case 'h':
                    return HexDigit;
                case 'H':
                    return HexDigit.Complement();
                case 'p' or 'P':
                    return Property(c == 'P');
            }

            single = c switch
            {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'f' => '\f',
                'v' => '\v',
                'a' => '\a',
                'e' => 0x1B,
                'x' => HexEscape(),
                'u' => Hex(4, 4),
                _ when c is '0' or (< 128 and > 0) && char.IsAsciiLetterOrDigit((char)c) => throw Unsupported($"'\\{(char)c}'"),
                _ => c,
            };
            return CodePointSet.Of((single.Value, single.Value));
        }

        private int HexEscape()
        {
            if (!Accept('{')) return Hex(1, 2);
            var value = Hex(1, 6);
            return Accept('}') ? value : throw Unsupported("'\\x{' without '}'");
        }

        private int Hex(int least, int most)
        {
            var start = _at;
            while (_at < pattern.Length && _at - start < most && char.IsAsciiHexDigit(pattern[_at])) _at++;
            if (_at - start < least) throw Unsupported("an escape without enough hex digits");
            var value = int.Parse(pattern.AsSpan(start, _at - start), NumberStyles.HexNumber);
            return Rune.IsValid(value) ? value : throw Unsupported($"character {value:X}");
        }

        private CodePointSet Property(bool negated)
        {
            if (!Accept('{')) throw Unsupported("'\\p' without '{'");
            if (Accept('^')) negated = !negated;
            var end = pattern.IndexOf('}', _at);
            if (end < 0) throw Unsupported("'\\p{' without '}'");
            var name = pattern[_at..end];
            _at = end + 1;
            var set = Properties.Find(name) ?? throw Unsupported($"property '{name}'");
            return negated ? set.Complement() : set;
        }

        /// <summary>What follows '[': [^...] with ranges, escapes, nested classes and &amp;&amp;.</summary>
        private CodePointSet Class()
        {
            if (++_depth > DeepestNesting) throw Unsupported("classes nested this deep");
            var negated = Accept('^');
            CodePointSet? intersection = null;
            var set = CodePointSet.Of();
            for (var first = true; ; first = false)
            {
                if (_at >= pattern.Length) throw Unsupported("'[' without ']'");
                if (pattern[_at] == ']' && !first)
                {
                    _at++;
                    break;
                }

                if (pattern.AsSpan(_at).StartsWith("&&"))
                {
                    _at += 2;
                    intersection = intersection is null ? set : intersection.Intersect(set);
                    set = CodePointSet.Of();
                    continue;
                }

                if (pattern.AsSpan(_at).StartsWith("[:")) throw Unsupported("POSIX class '[:...:]'");
                set = set.Union(ClassItem());
            }

            _depth--;
            set = Cased(intersection is null ? set : intersection.Intersect(set));
            return negated ? set.Complement() : set;
        }

        private CodePointSet ClassItem()
        {
            if (Accept('[')) return Class();
            int? single;
            CodePointSet set;
            if (pattern[_at] == '\\')
            {
                set = EscapedSet(out single);
                if (single is null) return set;
            }
            else
            {
                single = Character();
                set = CodePointSet.Of((single.Value, single.Value));
            }

            // A '-' before ']' is a character of its own.
            if (_at + 1 >= pattern.Length || pattern[_at] != '-' || pattern[_at + 1] == ']') return set;
            _at++;
            int? last;
            if (pattern[_at] == '\\') EscapedSet(out last);
            else if (pattern[_at] == '[') throw Unsupported("a range that ends with a class");
            else last = Character();
            if (last is null || last < single) throw Unsupported("a range that ends before it starts");
            return CodePointSet.Of((single.Value, last.Value));
        }

        private bool Accept(char c)
        {
            if (_at >= pattern.Length || pattern[_at] != c) return false;
            _at++;
            return true;
        }

        private RhoException Unsupported(string what) => new($"regular expression '{pattern}': {what} is not supported (position {_at})");
    }

    private static class Properties
    {
        public static readonly CodePointSet Letter = CodePointSet.Category(
            UnicodeCategory.UppercaseLetter, UnicodeCategory.LowercaseLetter, UnicodeCategory.TitlecaseLetter, UnicodeCategory.ModifierLetter, UnicodeCategory.OtherLetter);

        private static readonly Dictionary<string, UnicodeCategory[]> ByName = Build();

        /// <summary>A general category by its short or long name; case, blanks, '-' and '_' do not matter.</summary>
        public static CodePointSet? Find(string name)
        {
            var key = new string([.. name.Where(c => c is not (' ' or '-' or '_'))]).ToLowerInvariant();
            if (key == "any") return CodePointSet.All;
            if (key == "ascii") return CodePointSet.Of((0, 127));
            return ByName.TryGetValue(key, out var categories) ? CodePointSet.Category(categories) : null;
        }

        private static Dictionary<string, UnicodeCategory[]> Build()
        {
            (string Short, string Long, UnicodeCategory Category)[] categories =
            [
                ("lu", "uppercaseletter", UnicodeCategory.UppercaseLetter),
                ("ll", "lowercaseletter", UnicodeCategory.LowercaseLetter),
                ("lt", "titlecaseletter", UnicodeCategory.TitlecaseLetter),
                ("lm", "modifierletter", UnicodeCategory.ModifierLetter),
                ("lo", "otherletter", UnicodeCategory.OtherLetter),
                ("mn", "nonspacingmark", UnicodeCategory.NonSpacingMark),
                ("mc", "spacingmark", UnicodeCategory.SpacingCombiningMark),
                ("me", "enclosingmark", UnicodeCategory.EnclosingMark),
                ("nd", "decimalnumber", UnicodeCategory.DecimalDigitNumber),
                ("nl", "letternumber", UnicodeCategory.LetterNumber),
                ("no", "othernumber", UnicodeCategory.OtherNumber),
                ("zs", "spaceseparator", UnicodeCategory.SpaceSeparator),
                ("zl", "lineseparator", UnicodeCategory.LineSeparator),
                ("zp", "paragraphseparator", UnicodeCategory.ParagraphSeparator),
                ("cc", "control", UnicodeCategory.Control),
                ("cf", "format", UnicodeCategory.Format),
                ("co", "privateuse", UnicodeCategory.PrivateUse),
                ("cn", "unassigned", UnicodeCategory.OtherNotAssigned),
                ("pc", "connectorpunctuation", UnicodeCategory.ConnectorPunctuation),
                ("pd", "dashpunctuation", UnicodeCategory.DashPunctuation),
                ("ps", "openpunctuation", UnicodeCategory.OpenPunctuation),
                ("pe", "closepunctuation", UnicodeCategory.ClosePunctuation),
                ("pi", "initialpunctuation", UnicodeCategory.InitialQuotePunctuation),
                ("pf", "finalpunctuation", UnicodeCategory.FinalQuotePunctuation),
                ("po", "otherpunctuation", UnicodeCategory.OtherPunctuation),
                ("sm", "mathsymbol", UnicodeCategory.MathSymbol),
                ("sc", "currencysymbol", UnicodeCategory.CurrencySymbol),
                ("sk", "modifiersymbol", UnicodeCategory.ModifierSymbol),
                ("so", "othersymbol", UnicodeCategory.OtherSymbol),
            ];
            var byName = new Dictionary<string, UnicodeCategory[]>(StringComparer.Ordinal);
            foreach (var (brief, name, category) in categories)
            {
                byName[brief] = [category];
                byName[name] = [category];
            }

            foreach (var (brief, name) in ((string, string)[])[("l", "letter"), ("m", "mark"), ("n", "number"), ("z", "separator"), ("c", "other"), ("p", "punctuation"), ("s", "symbol")])
                byName[brief] = byName[name] = [.. categories.Where(category => category.Short[0] == brief[0]).Select(category => category.Category)];
            byName["lc"] = byName["casedletter"] = [UnicodeCategory.UppercaseLetter, UnicodeCategory.LowercaseLetter, UnicodeCategory.TitlecaseLetter];
            return byName;
        }
    }
}
