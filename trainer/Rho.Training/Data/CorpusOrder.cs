using Rho.Formats;

namespace Rho.Training;

/// <summary>
/// <see cref="Count"/> neighbouring sequences of one shard, read in the order of <see cref="Permutation"/> from <see cref="Skip"/> on;
/// what it does not have is left out.
/// </summary>
internal sealed record Stretch(int Shard, long FirstSequence, int Count, int[] Permutation, int Skip);

/// <summary>
/// The order in which a corpus is read, without end: each epoch takes the shards in a new random order, each shard its stretches
/// from first to last (so that losses stream in), each stretch its sequences in random order. The first stretches of the run are
/// short and double in length, since training cannot begin before a whole one has its losses. The order follows from the seed and
/// is entered at any sequence without reading what is before. Sequences that are left out leave the order of the others as it is.
/// </summary>
/// <param name="kept">By shard, which sequences are read; null for all.</param>
internal sealed class CorpusOrder(IReadOnlyList<ShardEntry> shards, ulong seed, long firstSequences, long stretchSequences, IReadOnlyList<bool[]>? kept = null)
{
    private readonly long _epochSequences = kept is null ? shards.Sum(shard => shard.Sequences) : kept.Sum(flags => (long)flags.AsSpan().Count(true));

    /// <summary>Stretches from the <paramref name="consumed"/>-th sequence of the run on.</summary>
    public IEnumerable<Stretch> From(long consumed)
    {
        var skip = consumed % _epochSequences;
        for (var epoch = consumed / _epochSequences; ; epoch++)
        {
            var size = epoch == 0 ? firstSequences : stretchSequences;
            foreach (var shard in new Randomness(Randomness.Derive(seed, (ulong)epoch)).Permutation(shards.Count))
            {
                var sequences = shards[shard].Sequences;
                for (long first = 0; first < sequences;)
                {
                    var count = (int)Math.Min(size, sequences - first);
                    var read = kept is null ? count : kept[shard].AsSpan((int)first, count).Count(true);
                    if (skip < read)
                    {
                        var order = new Randomness(Randomness.Derive(seed, (ulong)epoch, (ulong)shard, (ulong)first)).Permutation(count);
                        if (kept is not null) order = [.. order.Where(place => kept[shard][first + place])];
                        yield return new Stretch(shard, first, count, order, (int)skip);
                    }

                    skip = Math.Max(0, skip - read);
                    first += count;
                    size = Math.Min(stretchSequences, size * 2);
                }
            }
        }
    }
}

/// <summary>Which corpus the next sequence comes from: the one furthest behind its weight. It follows from how much was taken of each.</summary>
internal sealed class Mixture(double[] weights, long[] limits)
{
    /// <summary>The corpus, or -1 when all have reached their limits.</summary>
    public int Next(ReadOnlySpan<long> taken)
    {
        var best = -1;
        var lowest = double.PositiveInfinity;
        for (var i = 0; i < weights.Length; i++)
        {
            var due = (taken[i] + 0.5) / weights[i];
            if (taken[i] >= limits[i] || due >= lowest) continue;
            (best, lowest) = (i, due);
        }

        return best;
    }
}
