using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;

namespace Rho.Serving.Constraints;

/// <summary>A set of bytes.</summary>
internal readonly record struct ByteSet(ulong A, ulong B, ulong C, ulong D)
{
    public bool IsEmpty => (A | B | C | D) == 0;

    public bool Contains(byte value) => ((value >> 6) switch { 0 => A, 1 => B, 2 => C, _ => D } >> (value & 63) & 1) != 0;

    public static ByteSet Range(byte first, byte last)
    {
        Span<ulong> words = stackalloc ulong[4];
        for (var value = (int)first; value <= last; value++) words[value >> 6] |= 1UL << (value & 63);
        return new ByteSet(words[0], words[1], words[2], words[3]);
    }

    public static ByteSet operator |(ByteSet x, ByteSet y) => new(x.A | y.A, x.B | y.B, x.C | y.C, x.D | y.D);
}

internal enum ExpressionKind
{
    /// <summary>No text at all.</summary>
    Nothing,

    /// <summary>The empty text.</summary>
    Empty,
    Bytes,
    Sequence,
    Choice,
    Repeat,

    /// <summary>Texts of all of several languages.</summary>
    All,

    /// <summary>Texts that a language does not have.</summary>
    Not,

    /// <summary>A named expression, which may contain itself.</summary>
    Reference,
}

/// <summary>A language of byte strings. Equal expressions of one <see cref="ExpressionTable"/> are the same object.</summary>
internal sealed class Expression(ExpressionKind kind, int id)
{
    public int Id { get; } = id;

    public ExpressionKind Kind { get; } = kind;

    /// <summary>Whether the empty text belongs to it.</summary>
    public bool MayEnd { get; init; }

    public ByteSet Bytes { get; init; }

    /// <summary>Of a sequence the first part; of a repetition what is repeated; of a complement what is left out.</summary>
    public Expression? First { get; init; }

    public Expression? Rest { get; init; }

    /// <summary>Of a choice, and of what all of several have: these.</summary>
    public Expression[] Choices { get; init; } = [];

    public int Minimum { get; init; }

    /// <summary>-1 for any number.</summary>
    public int Maximum { get; init; }

    /// <summary>Of what all of several have: whether it has any text, once that is known.</summary>
    public bool? HasText { get; set; }

    /// <summary>What a reference stands for; set once known.</summary>
    public Expression? Target { get; set; }

    /// <summary>What may follow after each byte, as far as it was asked for.</summary>
    public Expression?[]? After { get; set; }
}

/// <summary>
/// Makes expressions, and says what is left of one after a byte (its derivative; Brzozowski, "Derivatives of regular expressions").
/// Common parts are shared and alternatives are kept as sets, so that texts of a regular language lead through finitely many
/// expressions; references add recursion, with what follows as the stack. Not thread-safe.
/// </summary>
internal sealed class ExpressionTable
{
    private const int MostExpressions = 100_000;
    private const long MostWork = 1_000_000;

    private readonly Dictionary<Key, Expression> _known = [];
    private int _count;
    private long _work;

    public ExpressionTable()
    {
        Nothing = new Expression(ExpressionKind.Nothing, _count++);
        Empty = new Expression(ExpressionKind.Empty, _count++) { MayEnd = true };
    }

    /// <summary>Whether half of what a table may hold or compute is spent: a text that begins now should have a new one.</summary>
    public bool IsWorn => _count > MostExpressions / 2 || _work > MostWork / 2;

    public Expression Nothing { get; }

    public Expression Empty { get; }

    public Expression Bytes(ByteSet set) => set.IsEmpty ? Nothing : Intern(new Key(ExpressionKind.Bytes, set, []), id => new Expression(ExpressionKind.Bytes, id) { Bytes = set });

    public Expression Byte(byte value) => Bytes(ByteSet.Range(value, value));

    public Expression Text(string text) => Sequence([.. Encoding.UTF8.GetBytes(text).Select(Byte)]);

    public Expression Sequence(params ReadOnlySpan<Expression> parts)
    {
        var result = Empty;
        for (var i = parts.Length - 1; i >= 0; i--) result = Then(parts[i], result);
        return result;
    }

    public Expression Choice(params IEnumerable<Expression> choices)
    {
        var bytes = default(ByteSet);
        var members = new List<Expression>();
        foreach (var choice in choices) Collect(choice, members, ref bytes);
        if (!bytes.IsEmpty) members.Add(Bytes(bytes));
        if ((_work += members.Count) > MostWork) throw TooComplex();
        members.Sort(static (a, b) => a.Id.CompareTo(b.Id));
        var count = 0;
        for (var i = 0; i < members.Count; i++)
        {
            if (count == 0 || members[count - 1] != members[i]) members[count++] = members[i];
        }

        if (count == 0) return Nothing;
        if (count == 1) return members[0];
        Expression[] array = [.. members.Take(count)];
        return Intern(
            new Key(ExpressionKind.Choice, default, Array.ConvertAll(array, static choice => choice.Id)),
            id => new Expression(ExpressionKind.Choice, id) { Choices = array, MayEnd = Array.Exists(array, static choice => choice.MayEnd) });
    }

    /// <summary>Adds a choice's alternatives; single bytes are joined to one set. The alternatives of a choice are none themselves.</summary>
    private void Collect(Expression choice, List<Expression> members, ref ByteSet bytes)
    {
        foreach (var alternative in choice.Kind == ExpressionKind.Choice ? choice.Choices : new ReadOnlySpan<Expression>(in choice))
        {
            if (alternative.Kind == ExpressionKind.Bytes) bytes |= alternative.Bytes;
            else if (alternative != Nothing) members.Add(alternative);
        }
    }

    /// <summary>
    /// Texts that every one of the languages has; these must be regular (no recursion through references). It is
    /// <see cref="Nothing"/> where there is no such text, so that no text begins that cannot be ended.
    /// </summary>
    public Expression All(params IEnumerable<Expression> languages) => AllOf(languages) is var all && IsEmpty(all) ? Nothing : all;

    /// <summary>Texts of bytes that a regular language does not have.</summary>
    public Expression Not(Expression expression) => expression.Kind == ExpressionKind.Not ? expression.First!
        : Intern(new Key(ExpressionKind.Not, default, [expression.Id]), id => new Expression(ExpressionKind.Not, id) { First = expression, MayEnd = !expression.MayEnd });

    /// <summary>Whether a text belongs to a language.</summary>
    public bool Matches(Expression language, string text)
    {
        foreach (var value in Encoding.UTF8.GetBytes(text)) language = After(language, value);
        return language.MayEnd;
    }

    private Expression AllOf(IEnumerable<Expression> languages)
    {
        var members = new SortedDictionary<int, Expression>();
        foreach (var language in languages)
        {
            foreach (var member in language.Kind == ExpressionKind.All ? language.Choices : new ReadOnlySpan<Expression>(in language)) members[member.Id] = member;
        }

        if (members.ContainsKey(Nothing.Id)) return Nothing;
        if (members.Count == 1) return members.First().Value;
        Expression[] array = [.. members.Values];
        if (array.Contains(Empty)) return array.All(member => member.MayEnd) ? Empty : Nothing;
        return Intern(
            new Key(ExpressionKind.All, default, Array.ConvertAll(array, static member => member.Id)),
            id => new Expression(ExpressionKind.All, id) { Choices = array, MayEnd = Array.TrueForAll(array, static member => member.MayEnd) });
    }

    /// <summary>
    /// Whether what all of several have is nothing: looks for the nearest text, breadth first. All that leads to a text is known to have
    /// one from then on.
    /// </summary>
    private bool IsEmpty(Expression start)
    {
        if (start.Kind != ExpressionKind.All || start.HasText is not null) return start == Nothing || start.HasText == false;
        var from = new Dictionary<Expression, Expression?> { [start] = null };
        var queue = new Queue<Expression>([start]);
        while (queue.TryDequeue(out var state))
        {
            var found = state.MayEnd || state.HasText == true;
            foreach (var value in found ? [] : Representatives(state))
            {
                if (++_work > MostWork) throw TooComplex();
                var next = state.Kind == ExpressionKind.All ? AllOf(state.Choices.Select(member => After(member, value))) : After(state, value);
                if (next == Nothing || next.HasText == false || !from.TryAdd(next, state)) continue;
                queue.Enqueue(next);
            }

            if (!found) continue;
            for (var on = state; on is not null; on = from[on]) on.HasText = true;
            return false;
        }

        foreach (var state in from.Keys) state.HasText = false;
        return true;
    }

    /// <summary>One byte of each kind that an expression tells apart at its beginning.</summary>
    private static List<byte> Representatives(Expression expression)
    {
        var sets = new HashSet<ByteSet>();
        Beginnings(expression, sets);
        if (sets.Count > 64) return [.. Enumerable.Range(0, 256).Select(value => (byte)value)];
        var list = sets.ToArray();
        var seen = new HashSet<ulong>();
        var result = new List<byte>();
        for (var value = 0; value < 256; value++)
        {
            var member = 0UL;
            for (var i = 0; i < list.Length; i++) member |= list[i].Contains((byte)value) ? 1UL << i : 0;
            if (seen.Add(member)) result.Add((byte)value);
        }

        return result;
    }

    private static void Beginnings(Expression expression, HashSet<ByteSet> sets)
    {
        switch (expression.Kind)
        {
            case ExpressionKind.Bytes:
                sets.Add(expression.Bytes);
                break;
            case ExpressionKind.Sequence:
                Beginnings(expression.First!, sets);
                if (expression.First!.MayEnd) Beginnings(expression.Rest!, sets);
                break;
            case ExpressionKind.Choice or ExpressionKind.All:
                foreach (var member in expression.Choices) Beginnings(member, sets);
                break;
            case ExpressionKind.Repeat or ExpressionKind.Not:
                Beginnings(expression.First!, sets);
                break;
            case ExpressionKind.Reference:
                Beginnings(expression.Target!, sets);
                break;
        }
    }

    public Expression Optional(Expression expression) => Choice(expression, Empty);

    /// <param name="maximum">-1 for any number.</param>
    public Expression Repeat(Expression expression, int minimum, int maximum)
    {
        if (maximum == 0 || expression == Empty) return Empty;
        if (expression == Nothing) return minimum == 0 ? Empty : Nothing;
        if (minimum == 1 && maximum == 1) return expression;
        return Intern(new Key(ExpressionKind.Repeat, default, [expression.Id, minimum, maximum]), id => new Expression(ExpressionKind.Repeat, id)
        {
            First = expression,
            Minimum = minimum,
            Maximum = maximum,
            MayEnd = minimum == 0 || expression.MayEnd,
        });
    }

    /// <summary>A reference to be given its <see cref="Expression.Target"/>, which must not contain the empty text.</summary>
    public Expression Reference() => new(ExpressionKind.Reference, Next());

    /// <summary>The texts that can follow after <paramref name="value"/>; <see cref="Nothing"/> where none can.</summary>
    public Expression After(Expression expression, byte value)
    {
        var known = expression.After ??= new Expression?[256];
        return known[value] ??= Derive(expression, value);
    }

    private Expression Derive(Expression expression, byte value)
    {
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack()) throw TooComplex();
        switch (expression.Kind)
        {
            case ExpressionKind.Bytes:
                return expression.Bytes.Contains(value) ? Empty : Nothing;
            case ExpressionKind.Sequence:
                var after = Then(After(expression.First!, value), expression.Rest!);
                return expression.First!.MayEnd ? Choice(after, After(expression.Rest!, value)) : after;
            case ExpressionKind.Choice:
                return Choice(expression.Choices.Select(choice => After(choice, value)));
            case ExpressionKind.Repeat:
                var left = Repeat(expression.First!, Math.Max(0, expression.Minimum - 1), expression.Maximum < 0 ? -1 : expression.Maximum - 1);
                return Then(After(expression.First!, value), left);
            case ExpressionKind.All:
                return All(expression.Choices.Select(member => After(member, value)));
            case ExpressionKind.Not:
                return Not(After(expression.First!, value));
            case ExpressionKind.Reference:
                return After(expression.Target!, value);
            default:
                return Nothing;
        }
    }

    private Expression Then(Expression first, Expression rest)
    {
        if (first == Nothing || rest == Nothing) return Nothing;
        if (first == Empty) return rest;
        if (rest == Empty) return first;
        var parts = new Stack<Expression>();
        for (; first.Kind == ExpressionKind.Sequence; first = first.Rest!) parts.Push(first.First!);
        var result = Pair(first, rest);
        while (parts.TryPop(out var part)) result = Pair(part, result);
        return result;
    }

    /// <summary>A sequence of two of which the first is none itself.</summary>
    private Expression Pair(Expression first, Expression rest) =>
        Intern(new Key(ExpressionKind.Sequence, default, [first.Id, rest.Id]), id => new Expression(ExpressionKind.Sequence, id)
        {
            First = first,
            Rest = rest,
            MayEnd = first.MayEnd && rest.MayEnd,
        });

    private Expression Intern(Key key, Func<int, Expression> create)
    {
        ref var known = ref CollectionsMarshal.GetValueRefOrAddDefault(_known, key, out _);
        return known ??= create(Next());
    }

    private int Next() => _count < MostExpressions ? _count++ : throw TooComplex();

    private static RhoException TooComplex() => new("the constraint is too complex: make the schema or the expression simpler");

    private readonly struct Key(ExpressionKind kind, ByteSet bytes, int[] parts) : IEquatable<Key>
    {
        private readonly ExpressionKind _kind = kind;
        private readonly ByteSet _bytes = bytes;
        private readonly int[] _parts = parts;

        public bool Equals(Key other) => _kind == other._kind && _bytes == other._bytes && _parts.AsSpan().SequenceEqual(other._parts);

        public override bool Equals(object? obj) => obj is Key other && Equals(other);

        public override int GetHashCode()
        {
            var hash = new HashCode();
            hash.Add(_kind);
            hash.Add(_bytes);
            foreach (var part in _parts) hash.Add(part);
            return hash.ToHashCode();
        }
    }
}
