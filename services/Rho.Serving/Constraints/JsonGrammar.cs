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

        var digits = table.Repeat(Digit(0, 9), 1, -1);
        Integer = table.Sequence(table.Optional(table.Byte((byte)'-')), table.Choice(Digit(0, 0), table.Sequence(Digit(1, 9), table.Repeat(Digit(0, 9), 0, -1))));
        var exponent = table.Sequence(table.Bytes(ByteSet.Range((byte)'e', (byte)'e') | ByteSet.Range((byte)'E', (byte)'E')), table.Optional(table.Bytes(ByteSet.Range((byte)'+', (byte)'+') | ByteSet.Range((byte)'-', (byte)'-'))), digits);
        Number = table.Sequence(Integer, table.Optional(table.Sequence(table.Byte((byte)'.'), digits)), table.Optional(exponent));

        var value = table.Reference();
        Object = ObjectOf([], extra: value, extraKeys: AnyString(0, -1));
        Array = ArrayOf([], value, 0, -1);
        value.Target = table.Choice(Object, Array, AnyString(0, -1), Number, table.Text("true"), table.Text("false"), table.Text("null"));
        Value = value;
    }

    public Expression Space { get; }

    public Expression Integer { get; }

    public Expression Number { get; }

    public Expression Object { get; }

    public Expression Array { get; }

    public Expression Value { get; }

    /// <summary>A string of so many characters; -1 is no upper bound.</summary>
    public Expression AnyString(int minimum, int maximum) => Quoted(_table.Repeat(_character, minimum, maximum));

    /// <summary>A string whose characters match a regular expression.</summary>
    /// <param name="anywhere">Whether a match within the string will do, as in schemas; else the whole string has to match.</param>
    public Expression StringLike(string pattern, bool anywhere) => Quoted(RegexParser.Parse(_table, pattern, anywhere, ranges => Written(ranges, escapes: true)));

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
    /// <param name="extra">Values of members with other names; null for none.</param>
    /// <param name="extraKeys">The other names, quoted.</param>
    public Expression ObjectOf(IReadOnlyList<(string Name, Expression Value, bool Required)> members, Expression? extra, Expression? extraKeys)
    {
        var comma = _table.Sequence(_table.Byte((byte)','), Space);
        Expression Member(Expression key, Expression value) => _table.Sequence(key, _table.Byte((byte)':'), _table.Optional(_table.Byte((byte)' ')), value);

        // tail: what may follow after a member; head: what may follow while none is written.
        var (tail, head) = (_table.Empty, _table.Empty);
        if (extra is not null)
        {
            var member = Member(extraKeys!, extra);
            tail = _table.Repeat(_table.Sequence(comma, member), 0, -1);
            head = _table.Optional(_table.Sequence(member, tail));
        }

        for (var i = members.Count - 1; i >= 0; i--)
        {
            var (name, value, required) = members[i];
            var member = Member(_table.Text(JsonSerializer.Serialize(name, s_options)), value);
            var first = _table.Sequence(member, tail);
            var next = _table.Sequence(comma, member, tail);
            (tail, head) = required ? (next, first) : (_table.Choice(next, tail), _table.Choice(first, head));
        }

        return _table.Sequence(_table.Byte((byte)'{'), Space, head, Space, _table.Byte((byte)'}'));
    }

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
