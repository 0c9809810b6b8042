using System.Text.Json;

namespace Rho.Serving.Constraints;

/// <summary>JSON values as expressions. Between the parts of objects and arrays a blank, or a line break with up to 20 blanks, may stand.</summary>
internal sealed class JsonGrammar
{
    private readonly ExpressionTable _table;
    private readonly Expression _character;
    private readonly Expression _plainCharacter;

    public JsonGrammar(ExpressionTable table)
    {
        _table = table;
        Space = table.Choice(table.Empty, table.Byte((byte)' '), table.Sequence(table.Byte((byte)'\n'), table.Repeat(table.Byte((byte)' '), 0, 20)));
        _plainCharacter = Written(CharacterRanges.All, escapes: false);
        var hex = table.Bytes(ByteSet.Range((byte)'0', (byte)'9') | ByteSet.Range((byte)'a', (byte)'f') | ByteSet.Range((byte)'A', (byte)'F'));
        var notD = table.Bytes(ByteSet.Range((byte)'0', (byte)'9') | ByteSet.Range((byte)'a', (byte)'c') | ByteSet.Range((byte)'e', (byte)'f') | ByteSet.Range((byte)'A', (byte)'C') | ByteSet.Range((byte)'E', (byte)'F'));
        var belowSurrogates = table.Sequence(table.Bytes(ByteSet.Range((byte)'d', (byte)'d') | ByteSet.Range((byte)'D', (byte)'D')), table.Bytes(ByteSet.Range((byte)'0', (byte)'7')), hex, hex);
        var unicode = table.Sequence(table.Text("\\u"), table.Choice(table.Sequence(notD, hex, hex, hex), belowSurrogates));
        _character = table.Choice([_plainCharacter, unicode, .. "\"\\/bfnrt".Select(c => table.Text($"\\{c}"))]);

        Numbers = new NumberGrammar(table);

        var value = table.Reference();
        Object = ObjectOf([], Member(AnyString(0, -1), value), 0, -1);
        Array = ArrayOf([], value, 0, -1);
        value.Target = table.Choice(Object, Array, AnyString(0, -1), Numbers.Number, table.Text("true"), table.Text("false"), table.Text("null"));
        Value = value;
    }

    public Expression Space { get; }

    public NumberGrammar Numbers { get; }

    public Expression Object { get; }

    public Expression Array { get; }

    public Expression Value { get; }

    /// <summary>A string of so many characters; -1 is no upper bound.</summary>
    public Expression AnyString(int minimum, int maximum) => Quoted(_table.Repeat(_character, minimum, maximum));

    /// <summary>A string whose characters match a regular expression.</summary>
    /// <param name="anywhere">Whether a match within the string will do, as in schemas; else the whole string has to match.</param>
    public Expression StringLike(string pattern, bool anywhere) => Quoted(RegexParser.Parse(_table, pattern, anywhere, ranges => Written(ranges, escapes: true)));

    /// <summary>A string of so many characters, each in the one way in which <see cref="StringLike"/> writes it; -1 is no upper bound.</summary>
    public Expression PlainString(int minimum, int maximum) => Quoted(_table.Repeat(Written(CharacterRanges.All, escapes: true), minimum, maximum));

    /// <summary>Exactly this value, as JSON writes it without blanks.</summary>
    public Expression Exactly(JsonElement value) => _table.Text(JsonSerializer.Serialize(value, s_options));

    public Expression Digit(int first, int last) => _table.Bytes(ByteSet.Range((byte)('0' + first), (byte)('0' + last)));

    /// <param name="items">The first items, each there when those after it are.</param>
    /// <param name="others">Items after them; null for none.</param>
    /// <param name="maximum">-1 is no upper bound.</param>
    public Expression ArrayOf(IReadOnlyList<Expression> items, Expression? others, int minimum, int maximum)
    {
        var comma = _table.Sequence(_table.Byte((byte)','), Space);
        var count = maximum >= 0 ? Math.Min(items.Count, maximum) : items.Count;
        // From the last item back: what may follow once so many items are written.
        var tail = _table.Empty;
        if (others is not null && (maximum < 0 || maximum > count))
        {
            var after = Math.Max(1, count);
            tail = _table.Repeat(_table.Sequence(comma, others), Math.Max(0, minimum - after), maximum < 0 ? -1 : maximum - after);
            if (count == 0) tail = minimum > 0 ? _table.Sequence(others, tail) : _table.Optional(_table.Sequence(others, tail));
        }

        for (var i = count - 1; i >= 0; i--)
        {
            var from = _table.Sequence(i == 0 ? _table.Empty : comma, items[i], tail);
            tail = i >= minimum ? _table.Optional(from) : from;
        }

        return _table.Sequence(_table.Byte((byte)'['), Space, tail, Space, _table.Byte((byte)']'));
    }

    /// <param name="members">In the order in which they are written.</param>
    /// <param name="extra">A member with another name; null for none.</param>
    /// <param name="minimum">Members at least.</param>
    /// <param name="maximum">Members at most; -1 is no upper bound.</param>
    public Expression ObjectOf(IReadOnlyList<(string Name, Expression Value, bool Required)> members, Expression? extra, int minimum, int maximum)
    {
        var comma = _table.Sequence(_table.Byte((byte)','), Space);
        // How many are written matters up to a bound: whether there is one, whether there are enough, whether there is room.
        var most = maximum >= 0 ? maximum : Math.Max(1, Math.Min(minimum, members.Count));
        // after[c]: what may follow when c members are written (or, without an upper bound, that many or more).
        var after = new Expression[most + 1];
        for (var count = 0; count <= most; count++)
        {
            var (least, room) = (Math.Max(0, minimum - count), maximum < 0 ? -1 : maximum - count);
            after[count] = extra is null ? (least > 0 ? _table.Nothing : _table.Empty)
                : count > 0 ? _table.Repeat(_table.Sequence(comma, extra), least, room)
                : room == 0 ? _table.Empty
                : least > 0 ? _table.Sequence(extra, _table.Repeat(_table.Sequence(comma, extra), least - 1, room < 0 ? -1 : room - 1))
                : _table.Optional(_table.Sequence(extra, _table.Repeat(_table.Sequence(comma, extra), 0, room < 0 ? -1 : room - 1)));
        }

        for (var i = members.Count - 1; i >= 0; i--)
        {
            var (name, value, required) = members[i];
            var member = Member(_table.Text(JsonSerializer.Serialize(name, s_options)), value);
            var before = new Expression[most + 1];
            for (var count = 0; count <= most; count++)
            {
                var next = count < most ? after[count + 1] : maximum < 0 ? after[most] : _table.Nothing;
                var with = _table.Sequence(count > 0 ? comma : _table.Empty, member, next);
                before[count] = required ? with : _table.Choice(with, after[count]);
            }

            after = before;
        }

        return _table.Sequence(_table.Byte((byte)'{'), Space, after[0], Space, _table.Byte((byte)'}'));
    }

    /// <param name="key">Quoted.</param>
    public Expression Member(Expression key, Expression value) => _table.Sequence(key, _table.Byte((byte)':'), _table.Optional(_table.Byte((byte)' ')), value);

    /// <summary>Whether a text is among quoted ones.</summary>
    public bool HasString(Expression strings, string text) => _table.Matches(strings, JsonSerializer.Serialize(text, s_options));

    /// <summary>Quoted names without escapes that are none of those given.</summary>
    public Expression NamesExcept(IReadOnlyCollection<string> names)
    {
        var anything = _table.Repeat(_plainCharacter, 0, -1);
        return Quoted(Except([.. names.Select(name => System.Text.Encoding.UTF8.GetBytes(name))], 0));

        // Texts that go on from a common beginning of the names, and are none of them.
        Expression Except(List<byte[]> left, int depth)
        {
            if (left.Count == 0) return anything;
            var branches = left.Where(name => name.Length > depth).GroupBy(name => name[depth]).ToList();
            var choices = branches.Select(branch => _table.Sequence(_table.Byte(branch.Key), Except([.. branch], depth + 1))).ToList();
            // Within a character that has begun only the names' own bytes go on.
            if (branches.Exists(branch => (branch.Key & 0xC0) == 0x80)) return _table.Choice(choices);
            choices.Add(OtherThan([.. branches.Select(branch => branch.Key)]));
            if (left.TrueForAll(name => name.Length != depth)) choices.Add(_table.Empty);
            return _table.Choice(choices);
        }

        // One character that begins with none of the bytes, and anything after it.
        Expression OtherThan(byte[] bytes)
        {
            var set = default(ByteSet);
            for (var value = 0x20; value < 0x80; value++)
            {
                if (value is not ('"' or '\\') && !bytes.Contains((byte)value)) set |= ByteSet.Range((byte)value, (byte)value);
            }

            return _table.Sequence(_table.Bytes(set), anything);
        }
    }

    private Expression Quoted(Expression content) => _table.Sequence(_table.Byte((byte)'"'), content, _table.Byte((byte)'"'));

    /// <summary>A set of characters as it stands between the quotes of a string.</summary>
    private Expression Written(CharacterRanges ranges, bool escapes)
    {
        var plain = ranges.Not().Or(new CharacterRanges((0, 0x1F), ('"', '"'), ('\\', '\\'))).Not().ToExpression(_table);
        if (!escapes) return plain;
        var choices = new List<Expression> { plain };
        for (var c = 0; c <= '\\'; c++)
        {
            if (c is >= 0x20 and not ('"' or '\\') || !ranges.Contains(c)) continue;
            var escape = c switch { '\b' => "\\b", '\f' => "\\f", '\n' => "\\n", '\r' => "\\r", '\t' => "\\t", '"' => "\\\"", '\\' => "\\\\", _ => $"\\u{c:x4}" };
            choices.Add(_table.Text(escape));
        }

        return _table.Choice(choices);
    }

    private static readonly JsonSerializerOptions s_options = new() { Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping };
}
