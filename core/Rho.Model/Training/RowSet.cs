using Rho.Kernels;
using static TorchSharp.torch;

namespace Rho.Model.Training;

/// <summary>Some rows of a micro-batch, in order: those at which a gradient may not be zero.</summary>
internal sealed class RowSet : IDisposable
{
    /// <summary>Where so large a share of the rows is in a set, gathering costs more than it saves.</summary>
    private const double MostGathered = 0.9;

    private readonly long[]? _rows;
    private Tensor? _index;

    private RowSet(long[]? rows, long count) => (_rows, Count) = (rows, count);

    internal long Count { get; }
    internal bool IsAll => _rows is null;

    internal static RowSet All(long count) => new(null, count);

    /// <param name="rows">ascending</param>
    internal static RowSet Of(long[] rows) => new(rows, rows.Length);

    /// <summary>What these rows have, at the rows of a larger set; zero at its others.</summary>
    /// <param name="part">[count, width]</param>
    /// <returns>[larger's count, width]</returns>
    internal Tensor Spread(Tensor part, RowSet larger)
    {
        if (larger.Count == Count) return part;
        using var at = larger.IsAll ? Index(part.device).alias() : tensor(Within(larger), device: part.device);
        return zeros([larger.Count, part.size(1)], part.dtype, part.device).index_copy_(0, at, part);
    }

    internal ChosenRows Chosen => new(_rows);

    /// <summary>Row numbers. [count]</summary>
    internal Tensor Index(Device device) => _index ??= tensor(_rows ?? throw new InvalidOperationException("all rows need no index"), device: device).DetachFromDisposeScope();

    /// <summary>These rows of what has all; itself where these are all.</summary>
    internal Tensor Of(Tensor all) => IsAll ? all : all.index_select(0, Index(all.device));

    /// <summary>Adds rows of a subset to those of this set. [count, ..], [subset, ..]</summary>
    internal void Add(Tensor sum, RowSet subset, Tensor part)
    {
        if (ReferenceEquals(subset, this) || (IsAll && subset.IsAll))
        {
            sum.add_(part);
            return;
        }

        using var scope = NewDisposeScope();
        GradientSum.AddRows(sum, IsAll ? subset.Index(sum.device) : tensor(subset.Within(this), device: sum.device), part);
    }

    internal bool Contains(RowSet other) => ReferenceEquals(this, other) || IsAll || (!other.IsAll && other.Count <= Count && Array.TrueForAll(other.Within(this), at => at >= 0));

    /// <summary>These rows and up to <paramref name="before"/> before each, of its document; all rows where that is nearly all.</summary>
    /// <param name="firstSeen">as for <see cref="Seen"/>, where a whole document is seen</param>
    internal RowSet Widened(int before, int sequences, int length, int[]? firstSeen)
    {
        if (_rows is null) return this;
        List<long> wide = [];
        long next = 0;
        foreach (var row in _rows)
        {
            var start = row - (row % length) + (firstSeen is null ? 0 : firstSeen[row]);
            for (next = Math.Max(next, Math.Max(start, row - before)); next <= row; next++) wide.Add(next);
        }

        var all = (long)sequences * length;
        return wide.Count > MostGathered * all ? All(all) : wide.Count == Count ? this : Of([.. wide]);
    }

    /// <summary>The set of the rows that these attend to, themselves included; this one where it has them all.</summary>
    /// <param name="firstSeen">null where every token sees all before it. [rows]</param>
    internal RowSet Seen(int sequences, int length, int[]? firstSeen)
    {
        if (_rows is null) return this;
        var seen = new long[(long)sequences * length];
        var count = 0;
        for (long b = 0, from = 0; b < sequences; b++)
        {
            var (i, to) = Chosen.Between(b * length, (b + 1) * length);
            for (from = b * length; i < to; i++)
            {
                from = Math.Max(from, (b * length) + (firstSeen is null ? 0 : firstSeen[_rows[i]]));
                while (from <= _rows[i]) seen[count++] = from++;
            }
        }

        return count == Count ? this : count > MostGathered * seen.Length ? All(seen.Length) : new RowSet(seen[..count], count);
    }

    /// <summary>Where this set's rows are among those of a larger one; -1 for a row that it does not have.</summary>
    private long[] Within(RowSet larger)
    {
        var at = new long[Count];
        for (int i = 0, j = 0; i < at.Length; i++)
        {
            while (j < larger._rows!.Length && larger._rows[j] < _rows![i]) j++;
            at[i] = j < larger._rows.Length && larger._rows[j] == _rows![i] ? j : -1;
        }

        return at;
    }

    public void Dispose() => _index?.Dispose();
}
