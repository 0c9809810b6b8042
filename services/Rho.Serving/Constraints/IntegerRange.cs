using System.Globalization;

namespace Rho.Serving.Constraints;

/// <summary>The decimal spellings of the integers of a range.</summary>
internal sealed class IntegerRange(ExpressionTable table)
{
    /// <param name="minimum">null is no lower bound.</param>
    /// <param name="maximum">null is no upper bound.</param>
    public Expression Between(long? minimum, long? maximum)
    {
        var choices = new List<Expression>();
        if (maximum is null or >= 0) choices.Add(Natural(Math.Max(0, minimum ?? 0), maximum));
        if (minimum is null or < 0)
        {
            var least = maximum is < 0 ? -maximum.Value : 1;
            choices.Add(table.Sequence(table.Byte((byte)'-'), Natural(least, minimum is null ? null : -minimum)));
        }

        return table.Choice(choices);
    }

    /// <summary>Numbers from 0 up, without leading zeros.</summary>
    private Expression Natural(long minimum, long? maximum)
    {
        var low = Text(minimum);
        if (maximum is null)
        {
            var longer = table.Sequence(Digits('1', '9'), table.Repeat(Digits('0', '9'), low.Length, -1));
            return table.Choice(SameLength(low, new string('9', low.Length)), longer);
        }

        var high = Text(maximum.Value);
        var choices = new List<Expression>();
        for (var length = low.Length; length <= high.Length; length++)
        {
            var from = length == low.Length ? low : "1" + new string('0', length - 1);
            var to = length == high.Length ? high : new string('9', length);
            if (string.CompareOrdinal(from, to) <= 0) choices.Add(SameLength(from, to));
        }

        return table.Choice(choices);
    }

    /// <summary>Digit strings of one length from low to high.</summary>
    private Expression SameLength(string low, string high)
    {
        if (low.Length == 0) return table.Empty;
        var rest = low.Length - 1;
        if (low[0] == high[0]) return table.Sequence(Digits(low[0], low[0]), SameLength(low[1..], high[1..]));
        var choices = new List<Expression>
        {
            table.Sequence(Digits(low[0], low[0]), SameLength(low[1..], new string('9', rest))),
            table.Sequence(Digits(high[0], high[0]), SameLength(new string('0', rest), high[1..])),
        };
        if (low[0] + 1 < high[0]) choices.Add(table.Sequence(Digits((char)(low[0] + 1), (char)(high[0] - 1)), table.Repeat(Digits('0', '9'), rest, rest)));
        return table.Choice(choices);
    }

    private Expression Digits(char first, char last) => table.Bytes(ByteSet.Range((byte)first, (byte)last));

    private static string Text(long number) => number.ToString(CultureInfo.InvariantCulture);
}
