using Rho.Formats;

namespace Rho.Training;

/// <summary>Neighbouring sequences of one shard, read in the order of <see cref="Permutation"/> from <see cref="Skip"/> on.</summary>
internal sealed record Stretch(int Shard, long FirstSequence, int[] Permutation, int Skip);

/// <summary>
/// The order in which a corpus is read, without end: each epoch takes the shards in a new random order, each shard its stretches
/// from first to last (so that losses stream in), each stretch its sequences in random order. The first stretches of the run are
/// short and double in length, since training cannot begin before a whole one has its losses. The order follows from the seed and
/// is entered at any sequence without reading what is before.
/// </summary>
internal sealed class CorpusOrder(IReadOnlyList<ShardEntry> shards, ulong seed, long firstSequences, long stretchSequences)
{
    private readonly long _epochSequences = shards.Sum(shard => shard.Sequences);

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
                    if (skip < count)
                    {
                        var order = new Randomness(Randomness.Derive(seed, (ulong)epoch, (ulong)shard, (ulong)first)).Permutation(count);
                        yield return new Stretch(shard, first, order, (int)skip);
                    }

                    skip = Math.Max(0, skip - count);
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
