using System.Globalization;

namespace Rho.Serving.Constraints;

/// <summary>
/// Regular expressions: literals, classes, groups, alternatives and counts, anchors around whole alternatives, and looks ahead outside
/// of groups. Back references, looks back and word boundaries are refused.
/// </summary>
internal sealed class RegexParser
{
    private const int MostRepeats = 10_000;
    private const int DeepestGroup = 200;

    private readonly ExpressionTable _table;
    private readonly string _pattern;
    private readonly Func<CharacterRanges, Expression> _spell;
    private readonly Expression _anything;
    private readonly Expression _around;
    private int _at;
    private int _depth;

    private RegexParser(ExpressionTable table, string pattern, bool anywhere, Func<CharacterRanges, Expression> spell)
    {
        (_table, _pattern, _spell) = (table, pattern, spell);
        _anything = table.Repeat(spell(CharacterRanges.All), 0, -1);
        _around = anywhere ? _anything : table.Empty;
    }

    /// <param name="anywhere">Whether other text may stand around a match, where no anchor forbids it; else the whole text has to match.</param>
    /// <param name="spell">How a set of characters is written in the text; null writes them as they are.</param>
    /// <exception cref="RhoException">The pattern is broken or uses something that is not supported; the message says where.</exception>
    public static Expression Parse(ExpressionTable table, string pattern, bool anywhere = false, Func<CharacterRanges, Expression>? spell = null)
    {
        var parser = new RegexParser(table, pattern, anywhere, spell ?? (ranges => ranges.ToExpression(table)));
        var expression = parser.Alternatives();
        return parser._at == pattern.Length ? expression : throw parser.Error("a ')' without its '('");
    }

    private Expression Alternatives(bool ahead = false)
    {
        var choices = new List<Expression> { Items(ahead) };
        while (Peek('|'))
        {
            _at++;
            choices.Add(Items(ahead));
        }

        return _table.Choice(choices);
    }

    /// <param name="ahead">Whether it is what a look ahead is to find: anything may follow it, unless it is anchored.</param>
    private Expression Items(bool ahead)
    {
        var items = new List<Expression>();
        var looks = new List<(int From, Expression Text)>();
        if (_depth == 0 && Peek('^')) _at++;
        else if (_depth == 0) items.Add(_around);
        var anchored = false;
        while (_at < _pattern.Length && !Peek('|') && !Peek(')'))
        {
            if (Peek('$') && (ahead || _depth == 0) && (_at + 1 == _pattern.Length || _pattern[_at + 1] is '|' or ')'))
            {
                _at++;
                anchored = true;
                break;
            }

            if (_depth == 0 && (Starts("(?=") || Starts("(?!"))) looks.Add((items.Count, LookAhead(atStart: items.TrueForAll(item => item == _table.Empty))));
            else items.Add(Counted(Item()));
        }

        if (_depth == 0 && !anchored) items.Add(_around);
        else if (ahead && !anchored) items.Add(_anything);

        // From the last look back: it and all that follows it have to be true of the same text.
        var (result, end) = (_table.Empty, items.Count);
        foreach (var (from, text) in Enumerable.Reverse(looks))
        {
            result = _table.All(_table.Sequence([.. items[from..end], result]), text);
            end = from;
        }

        return _table.Sequence([.. items[..end], result]);
    }

    /// <summary>Texts that a look ahead lets through.</summary>
    private Expression LookAhead(bool atStart)
    {
        var negated = _pattern[_at + 2] == '!';
        _at += 3;
        // A beginning is where it looks from, if that is the beginning.
        if (atStart && Peek('^')) _at++;
        _depth++;
        var inner = Alternatives(ahead: true);
        _depth--;
        if (!Peek(')')) throw Error("a '(' without its ')'");
        _at++;
        return negated ? _table.Not(inner) : inner;
    }

    private Expression Item()
    {
        switch (_pattern[_at])
        {
            case '(':
                return Group();
            case '[':
                return _spell(Class());
            case '.':
                _at++;
                return _spell(CharacterRanges.Of('\n').Not());
            case '\\':
                return _spell(Escape());
            case '*' or '+' or '?':
                throw Error("a count without anything to repeat");
            case '^' or '$':
                throw Error("an anchor inside the expression is not supported");
            default:
                return _spell(CharacterRanges.Of(Character()));
        }
    }

    private Expression Group()
    {
        _at++;
        if (Peek('?'))
        {
            if (Starts("?:")) _at += 2;
            else if (Starts("?<") && !Starts("?<=") && !Starts("?<!") && _pattern.IndexOf('>', _at) is > 0 and var end) _at = end + 1;
            else throw Error("only (?:, (?<name> and, outside of groups, (?= and (?! are supported of the groups that begin with (?");
        }

        if (++_depth > DeepestGroup) throw Error("groups are nested too deep");
        var inner = Alternatives();
        _depth--;
        if (!Peek(')')) throw Error("a '(' without its ')'");
        _at++;
        return inner;
    }

    private Expression Counted(Expression item)
    {
        while (_at < _pattern.Length)
        {
            var (minimum, maximum) = _pattern[_at] switch
            {
                '*' => (0, -1),
                '+' => (1, -1),
                '?' => (0, 1),
                '{' => Counts(),
                _ => (-1, -1),
            };
            if (minimum < 0) return item;
            _at++;
            // Lazy or greedy makes no difference to which texts match.
            if (Peek('?')) _at++;
            item = _table.Repeat(item, minimum, maximum);
        }

        return item;
    }

    /// <summary>Reads {m}, {m,} or {m,n} up to its last character.</summary>
    private (int Minimum, int Maximum) Counts()
    {
        var end = _pattern.IndexOf('}', _at);
        if (end < 0) throw Error("a '{' without its '}'");
        var parts = _pattern[(_at + 1)..end].Split(',');
        if (parts.Length > 2 || !Count(parts[0], out var minimum)) throw Error("a count is not of the form {m}, {m,} or {m,n}");
        var maximum = minimum;
        if (parts.Length == 2)
        {
            maximum = -1;
            if (parts[1].Length > 0 && !Count(parts[1], out maximum)) throw Error("a count is not of the form {m}, {m,} or {m,n}");
        }

        if (minimum > MostRepeats || maximum > MostRepeats) throw Error($"a count is above {MostRepeats}");
        if (maximum >= 0 && maximum < minimum) throw Error("a count's upper bound is below its lower bound");
        _at = end;
        return (minimum, maximum);

        static bool Count(string text, out int value) => int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out value);
    }

    private CharacterRanges Class()
    {
        _at++;
        var negated = Peek('^');
        if (negated) _at++;
        var ranges = new CharacterRanges();
        for (var first = true; ; first = false)
        {
            if (_at >= _pattern.Length) throw Error("a '[' without its ']'");
            if (Peek(']') && !first) break;
            if (Peek('[') && _at + 1 < _pattern.Length && _pattern[_at + 1] is ':' or '.' or '=') throw Error("POSIX classes are not supported");
            var (one, set) = ClassMember();
            if (set is not null)
            {
                ranges = ranges.Or(set);
                continue;
            }

            var last = one;
            if (Peek('-') && _at + 1 < _pattern.Length && _pattern[_at + 1] != ']')
            {
                _at++;
                (last, set) = ClassMember();
                if (set is not null || last < one) throw Error("a range in a class is not from a lower to a higher character");
            }

            ranges = ranges.Or(new CharacterRanges((one, last)));
        }

        _at++;
        return negated ? ranges.Not() : ranges;
    }

    private (int Character, CharacterRanges? Set) ClassMember()
    {
        if (!Peek('\\')) return (Character(), null);
        if (_at + 1 < _pattern.Length && _pattern[_at + 1] == 'b')
        {
            _at += 2;
            return ('\b', null);
        }

        return _at + 1 < _pattern.Length && "dDwWsS".Contains(_pattern[_at + 1]) ? (0, Escape()) : (EscapedCharacter(), null);
    }

    private CharacterRanges Escape()
    {
        var set = _at + 1 < _pattern.Length ? _pattern[_at + 1] switch
        {
            'd' => CharacterRanges.Digits,
            'D' => CharacterRanges.Digits.Not(),
            'w' => CharacterRanges.WordCharacters,
            'W' => CharacterRanges.WordCharacters.Not(),
            's' => CharacterRanges.Spaces,
            'S' => CharacterRanges.Spaces.Not(),
            _ => null,
        }
        : null;
        if (set is null) return CharacterRanges.Of(EscapedCharacter());
        _at += 2;
        return set;
    }

    private int EscapedCharacter()
    {
        if (++_at >= _pattern.Length) throw Error("a '\\' at the end");
        var c = _pattern[_at];
        switch (c)
        {
            case 'n': _at++; return '\n';
            case 'r': _at++; return '\r';
            case 't': _at++; return '\t';
            case 'f': _at++; return '\f';
            case 'v': _at++; return '\v';
            case '0': _at++; return '\0';
            case 'x': return Hexadecimal(2);
            case 'u': return Hexadecimal(4);
        }

        if (char.IsAsciiLetterOrDigit(c)) throw Error($"\\{c} is not supported");
        return Character();
    }

    private int Hexadecimal(int digits)
    {
        _at++;
        if (_at + digits > _pattern.Length || !int.TryParse(_pattern.AsSpan(_at, digits), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out var value))
            throw Error($"{digits} hexadecimal digits are needed");
        _at += digits;
        return value is >= 0xD800 and <= 0xDFFF ? throw Error("surrogates are no characters") : value;
    }

    private int Character()
    {
        if (!System.Text.Rune.TryGetRuneAt(_pattern, _at, out var rune)) throw Error("half a surrogate pair");
        _at += rune.Utf16SequenceLength;
        return rune.Value;
    }

    private bool Starts(string text) => string.CompareOrdinal(_pattern, _at, text, 0, text.Length) == 0;

    private bool Peek(char c) => _at < _pattern.Length && _pattern[_at] == c;

    private RhoException Error(string problem) => new($"regular expression, position {_at + 1}: {problem}");
}
