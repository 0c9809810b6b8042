using System.Globalization;

namespace Rho.Serving.Constraints;

/// <summary>Numbers with bounds and steps, in decimal: at most 16 digits, which every reader holds as they are.</summary>
internal sealed class NumberGrammar
{
    private const int MostDigits = 16;
    private const int MostStates = 1000;

    private readonly ExpressionTable _table;
    private readonly Expression _digit;
    private readonly Expression _natural;
    private readonly Expression _shape;

    public NumberGrammar(ExpressionTable table)
    {
        _table = table;
        _digit = Digits('0', '9');
        _natural = table.Choice(Digits('0', '0'), table.Sequence(Digits('1', '9'), table.Repeat(_digit, 0, MostDigits - 1)));
        var minus = table.Optional(table.Byte((byte)'-'));
        // From the last digit of the whole part back: what may follow, so that there are no more than so many in all.
        var after = table.Empty;
        for (var digits = MostDigits - 1; digits > 0; digits--)
            after = table.Choice(table.Empty, Point(MostDigits - digits), table.Sequence(_digit, after));
        _shape = table.Sequence(minus, table.Choice(
            table.Sequence(Digits('0', '0'), table.Optional(Point(MostDigits - 1))),
            table.Sequence(Digits('1', '9'), after)));
        var sign = table.Optional(table.Bytes(ByteSet.Range((byte)'+', (byte)'+') | ByteSet.Range((byte)'-', (byte)'-')));
        var exponent = table.Sequence(table.Bytes(ByteSet.Range((byte)'e', (byte)'e') | ByteSet.Range((byte)'E', (byte)'E')), sign, table.Repeat(_digit, 1, 2));
        Number = table.Sequence(_shape, table.Optional(exponent));
        Integer = table.Sequence(minus, _natural);

        Expression Point(int digits) => table.Sequence(table.Byte((byte)'.'), table.Repeat(_digit, 1, digits));
    }

    /// <summary>Any number: at most 16 digits and an exponent of at most two.</summary>
    public Expression Number { get; }

    /// <summary>Any whole number of at most 16 digits, written without a fraction.</summary>
    public Expression Integer { get; }

    /// <summary>Numbers that a schema's keywords allow.</summary>
    /// <param name="steps">The number is a multiple of each of these, which are above 0.</param>
    /// <exception cref="RhoException">A step has too many digits.</exception>
    public Expression Within(in NumberBounds bounds, IReadOnlyCollection<decimal> steps, bool integer)
    {
        if (bounds.IsNone && steps.Count == 0) return integer ? Integer : Number;
        var languages = new List<Expression> { integer ? Integer : _shape };
        if (!bounds.IsNone) languages.Add(Between(bounds));
        languages.AddRange(steps.Where(step => !integer || step != 1).Select(Multiples));
        return _table.All(languages);
    }

    private Expression Between(in NumberBounds bounds)
    {
        var choices = new List<Expression>();
        // Zero and above.
        if (bounds.Maximum is not { } most || most > 0 || (most == 0 && !bounds.MaximumExclusive))
        {
            var least = bounds.Minimum is > 0;
            choices.Add(_table.All(
                AtLeast(least ? bounds.Minimum!.Value : 0, bounds.Minimum >= 0 && bounds.MinimumExclusive),
                AtMost(bounds.Maximum, bounds.MaximumExclusive)));
        }

        // Below zero: the same, mirrored.
        if (bounds.Minimum is not { } lowest || lowest < 0)
        {
            var above = bounds.Maximum is < 0;
            choices.Add(_table.Sequence(_table.Byte((byte)'-'), _table.All(
                AtLeast(above ? -bounds.Maximum!.Value : 0, !above || bounds.MaximumExclusive),
                AtMost(-bounds.Minimum, bounds.MinimumExclusive))));
        }

        return _table.Choice(choices);
    }

    /// <summary>Decimals from a bound, which is at least 0, on.</summary>
    private Expression AtLeast(decimal bound, bool exclusive)
    {
        var (whole, fraction) = Split(bound);
        var range = new IntegerRange(_table);
        var above = _table.Sequence(range.Between(whole + 1, null), Fraction(_table.Repeat(_digit, 1, -1), mayLack: true));
        return _table.Choice(above, _table.Sequence(_table.Text(Text(whole)), Fraction(Above(0), mayLack: fraction.Length == 0 && !exclusive)));

        // Digits of a fraction that is above the bound's, or equals it, from the digit i on.
        Expression Above(int i)
        {
            var any = _table.Repeat(_digit, 0, -1);
            if (i == fraction.Length) return exclusive ? _table.Sequence(_table.Repeat(Digits('0', '0'), 0, -1), Digits('1', '9'), any) : i == 0 ? _table.Repeat(_digit, 1, -1) : any;
            var equal = _table.Sequence(Digits(fraction[i], fraction[i]), Above(i + 1));
            return fraction[i] == '9' ? equal : _table.Choice(equal, _table.Sequence(Digits((char)(fraction[i] + 1), '9'), any));
        }
    }

    /// <summary>Decimals from 0 to a bound; null for no bound.</summary>
    private Expression AtMost(decimal? limit, bool exclusive)
    {
        var any = _table.Repeat(_digit, 0, -1);
        if (limit is not { } bound) return _table.Sequence(_natural, Fraction(_table.Repeat(_digit, 1, -1), mayLack: true));
        var (whole, fraction) = Split(bound);
        var zeros = _table.Repeat(Digits('0', '0'), 0, -1);
        var same = _table.Sequence(_table.Text(Text(whole)), Fraction(Below(0), mayLack: fraction.Length > 0 || !exclusive));
        return whole == 0 ? same
            : _table.Choice(same, _table.Sequence(new IntegerRange(_table).Between(0, whole - 1), Fraction(_table.Repeat(_digit, 1, -1), mayLack: true)));

        // Digits of a fraction that is below the bound's, or equals it, from the digit i on.
        Expression Below(int i)
        {
            if (i == fraction.Length) return exclusive ? _table.Nothing : i == 0 ? _table.Repeat(Digits('0', '0'), 1, -1) : zeros;
            var equal = _table.Sequence(Digits(fraction[i], fraction[i]), i + 1 < fraction.Length || !exclusive ? _table.Optional(Below(i + 1)) : _table.Nothing);
            // Fewer digits are less, as the bound's last digit is not 0.
            return fraction[i] == '0' ? equal : _table.Choice(equal, _table.Sequence(Digits('0', (char)(fraction[i] - 1)), any));
        }
    }

    private Expression Fraction(Expression digits, bool mayLack)
    {
        var fraction = _table.Sequence(_table.Byte((byte)'.'), digits);
        return mayLack ? _table.Optional(fraction) : fraction;
    }

    /// <summary>Decimals, with a sign or without, that are whole multiples of a step.</summary>
    private Expression Multiples(decimal step)
    {
        // The step as odd * 10^zeros * 10^-places.
        var (odd, places, zeros) = (step, 0, 0);
        for (; odd != decimal.Truncate(odd); places++) odd *= 10;
        for (; places == 0 && odd % 10 == 0; zeros++) odd /= 10;
        if (odd > MostStates || places > MostDigits)
            throw new RhoException($"multipleOf {step.ToString(CultureInfo.InvariantCulture)} has too many digits; up to {MostStates}, beside zeros, is supported");
        var number = new Remainders(_table, (int)odd, places).Number;
        if (places == 0)
        {
            var nought = Digits('0', '0');
            if (zeros > 0) number = _table.Choice(nought, _table.Sequence(number, _table.Text(new string('0', zeros))));
            number = _table.Sequence(number, Fraction(_table.Repeat(nought, 1, -1), mayLack: true));
        }

        return _table.Sequence(_table.Optional(_table.Byte((byte)'-')), number);
    }

    /// <summary>Digits that are a multiple of a modulus, with up to so many places behind the point: a state per remainder and place.</summary>
    private sealed class Remainders
    {
        private readonly ExpressionTable _table;
        private readonly int _modulus;
        private readonly int _places;
        private readonly Expression[][] _more;

        public Remainders(ExpressionTable table, int modulus, int places)
        {
            (_table, _modulus, _places) = (table, modulus, places);
            _more = [.. Enumerable.Range(0, places + 1).Select(_ => Enumerable.Range(0, modulus).Select(_ => table.Reference()).ToArray())];
            for (var place = 0; place <= places; place++)
            {
                for (var rest = 0; rest < modulus; rest++) _more[place][rest].Target = More(place, rest);
            }
        }

        public Expression Number => Digit(0, 0);

        /// <summary>What has to follow for there to be more, once so many places are written.</summary>
        private Expression More(int place, int rest)
        {
            if (place > 0) return place < _places ? Digit(place + 1, rest) : rest == 0 ? _table.Sequence(_table.Byte((byte)'0'), State(place, 0)) : _table.Nothing;
            return _places == 0 ? Digit(0, rest) : _table.Choice(Digit(0, rest), _table.Sequence(_table.Byte((byte)'.'), Digit(1, rest)));
        }

        /// <summary>A digit that leads to a place, and what follows it.</summary>
        private Expression Digit(int place, int rest) =>
            _table.Choice(Enumerable.Range(0, 10).Select(digit => _table.Sequence(_table.Byte((byte)('0' + digit)), State(place, ((rest * 10) + digit) % _modulus))).ToArray());

        private Expression State(int place, int rest)
        {
            long scaled = rest;
            for (var i = place; i < _places; i++) scaled = scaled * 10 % _modulus;
            return scaled == 0 ? _table.Optional(_more[place][rest]) : _more[place][rest];
        }
    }

    private static (long Whole, string Fraction) Split(decimal value)
    {
        var whole = decimal.Truncate(value);
        var text = (value - whole).ToString("F28", CultureInfo.InvariantCulture);
        return ((long)whole, text[(text.IndexOf('.', StringComparison.Ordinal) + 1)..].TrimEnd('0'));
    }

    private Expression Digits(char first, char last) => _table.Bytes(ByteSet.Range((byte)first, (byte)last));

    private static string Text(long number) => number.ToString(CultureInfo.InvariantCulture);
}

/// <summary>Bounds of a number, as they narrow; those beyond 16 digits bound nothing that can be written.</summary>
internal record struct NumberBounds
{
    private const decimal Beyond = 100_000_000_000_000_000;

    public decimal? Minimum { get; private set; }

    public bool MinimumExclusive { get; private set; }

    public decimal? Maximum { get; private set; }

    public bool MaximumExclusive { get; private set; }

    public readonly bool Contains(decimal value) =>
        (Minimum is not { } least || value > least || (value == least && !MinimumExclusive))
        && (Maximum is not { } most || value < most || (value == most && !MaximumExclusive));

    public readonly bool IsNone => Minimum is null && Maximum is null;

    public void AtLeast(decimal value, bool exclusive)
    {
        value = Math.Clamp(value, -Beyond, Beyond);
        if (Minimum is { } known && (known > value || (known == value && MinimumExclusive))) return;
        (Minimum, MinimumExclusive) = (value, exclusive);
    }

    public void AtMost(decimal value, bool exclusive)
    {
        value = Math.Clamp(value, -Beyond, Beyond);
        if (Maximum is { } known && (known < value || (known == value && MaximumExclusive))) return;
        (Maximum, MaximumExclusive) = (value, exclusive);
    }
}
