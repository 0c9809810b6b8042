namespace Rho.Serving.Constraints;

/// <summary>Sets of Unicode characters, and the UTF-8 byte strings that spell them. Surrogates belong to none.</summary>
internal sealed class CharacterRanges
{
    private const int Last = 0x10FFFF;

    private readonly List<(int First, int Last)> _ranges;

    public CharacterRanges(params IEnumerable<(int First, int Last)> ranges) => _ranges = Normalize(ranges);

    public static CharacterRanges All { get; } = new((0, Last));

    public static CharacterRanges Digits { get; } = new(('0', '9'));

    public static CharacterRanges WordCharacters { get; } = new(('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z'));

    public static CharacterRanges Spaces { get; } = new((9, 13), (' ', ' '), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF));

    public static CharacterRanges Of(int character) => new((character, character));

    public CharacterRanges Or(CharacterRanges other) => new([.. _ranges, .. other._ranges]);

    public CharacterRanges Not()
    {
        var inverse = new List<(int, int)>();
        var next = 0;
        foreach (var (first, last) in _ranges)
        {
            if (first > next) inverse.Add((next, first - 1));
            next = last + 1;
        }

        if (next <= Last) inverse.Add((next, Last));
        return new CharacterRanges(inverse);
    }

    public bool Contains(int character) => _ranges.Exists(range => character >= range.First && character <= range.Last);

    public Expression ToExpression(ExpressionTable table) => table.Choice(_ranges.SelectMany(range => Spell(table, range.First, range.Last)));

    private static List<(int First, int Last)> Normalize(IEnumerable<(int First, int Last)> ranges)
    {
        var result = new List<(int First, int Last)>();
        foreach (var (first, last) in ranges.SelectMany(WithoutSurrogates).OrderBy(range => range.First))
        {
            if (result.Count > 0 && first <= result[^1].Last + 1) result[^1] = (result[^1].First, Math.Max(result[^1].Last, last));
            else result.Add((first, last));
        }

        return result;
    }

    private static IEnumerable<(int First, int Last)> WithoutSurrogates((int First, int Last) range)
    {
        if (range.First < 0xD800) yield return (range.First, Math.Min(range.Last, 0xD7FF));
        if (range.Last > 0xDFFF) yield return (Math.Max(range.First, 0xE000), range.Last);
    }

    /// <summary>Splits a range where UTF-8 lengths change, and each part into products of byte ranges.</summary>
    private static IEnumerable<Expression> Spell(ExpressionTable table, int first, int last)
    {
        foreach (var (limit, length) in new[] { (0x7F, 1), (0x7FF, 2), (0xFFFF, 3), (Last, 4) })
        {
            if (first > last) yield break;
            if (first > limit) continue;
            foreach (var expression in Spell(table, first, Math.Min(last, limit), length)) yield return expression;
            first = limit + 1;
        }
    }

    private static IEnumerable<Expression> Spell(ExpressionTable table, int first, int last, int length)
    {
        // The last bytes, six bits each, have to run over full ranges unless all bytes before them agree.
        for (var free = length - 1; free > 0; free--)
        {
            var span = 1 << (6 * free);
            if (first / span == last / span) continue;
            if (first % span != 0)
            {
                var end = (first | (span - 1));
                return [.. Spell(table, first, end, length), .. Spell(table, end + 1, last, length)];
            }

            if (last % span != span - 1)
            {
                var start = last / span * span;
                return [.. Spell(table, first, start - 1, length), .. Spell(table, start, last, length)];
            }
        }

        var parts = new Expression[length];
        for (var i = 0; i < length; i++) parts[i] = table.Bytes(ByteSet.Range(ByteAt(first, i, length), ByteAt(last, i, length)));
        return [table.Sequence(parts)];
    }

    private static byte ByteAt(int character, int index, int length)
    {
        if (length == 1) return (byte)character;
        var bits = character >> (6 * (length - 1 - index));
        return (byte)(index > 0 ? 0x80 | (bits & 0x3F) : length switch { 2 => 0xC0 | bits, 3 => 0xE0 | bits, _ => 0xF0 | bits });
    }
}
