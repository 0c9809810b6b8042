using System.Buffers;

namespace Rho.Selection;

/// <summary>Selection of the highest scores in linear time: a radix search for the threshold, then one pass in order of position.</summary>
public static class TopK
{
    private const int Bits = 11;
    private const int Bins = 1 << Bits;

    /// <summary>
    /// The number of tokens kept: ceil(ratio * candidates), at least one. Computed in decimal, so that 7 % of 100 is 7 and not 8.
    /// </summary>
    public static int Count(double ratio, int candidates) =>
        candidates == 0 ? 0 : Math.Clamp((int)decimal.Ceiling((decimal)ratio * candidates), 1, candidates);

    /// <summary>How many scores are numbers: those that are candidates.</summary>
    public static int Candidates(ReadOnlySpan<float> scores)
    {
        var count = 0;
        foreach (var score in scores) count += float.IsNaN(score) ? 0 : 1;
        return count;
    }

    /// <summary>Sets weight 1 at the <paramref name="count"/> highest scores and 0 elsewhere. Of equal scores the lowest positions win; NaN never does.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There are fewer candidates than <paramref name="count"/>.</exception>
    public static void Mark(ReadOnlySpan<float> scores, int count, Span<float> weights) => Mark(scores, default, count, weights);

    /// <summary>
    /// The same for groups of tokens: item i stands for <paramref name="sizes"/>[i] tokens, and the best items are marked until
    /// their sizes reach <paramref name="count"/>. Empty sizes are all 1.
    /// </summary>
    public static void Mark(ReadOnlySpan<float> scores, ReadOnlySpan<int> sizes, int count, Span<float> weights)
    {
        if (count <= 0)
        {
            weights.Clear();
            return;
        }

        var (threshold, remaining) = Find(scores, sizes, count);
        for (var i = 0; i < scores.Length; i++)
        {
            var key = Key(scores[i]);
            var take = key > threshold || (key == threshold && remaining > 0);
            if (key == threshold) remaining -= sizes.IsEmpty ? 1 : sizes[i];
            weights[i] = take ? 1f : 0f;
        }
    }

    /// <summary>The <paramref name="rank"/>-th highest score, 1 being the highest; NaN is passed over.</summary>
    public static float Value(ReadOnlySpan<float> scores, int rank)
    {
        var key = Find(scores, default, rank).Threshold;
        return BitConverter.UInt32BitsToSingle((key & 0x80000000) != 0 ? key ^ 0x80000000 : ~key);
    }

    /// <summary>The key of the item that reaches <paramref name="count"/> when going down from the highest, and what is left to take among items of that key.</summary>
    private static (uint Threshold, long Remaining) Find(ReadOnlySpan<float> scores, ReadOnlySpan<int> sizes, int count)
    {
        var keys = ArrayPool<uint>.Shared.Rent(Math.Max(1, scores.Length));
        var tokens = sizes.IsEmpty ? null : ArrayPool<int>.Shared.Rent(scores.Length);
        try
        {
            var n = 0;
            for (var i = 0; i < scores.Length; i++)
            {
                var key = Key(scores[i]);
                if (key == 0) continue;
                if (tokens is not null) tokens[n] = sizes[i];
                keys[n++] = key;
            }

            Span<long> histogram = stackalloc long[Bins];
            uint threshold = 0;
            long remaining = count;
            for (var shift = 32 - Bits; ; shift = Math.Max(0, shift - Bits))
            {
                histogram.Clear();
                for (var i = 0; i < n; i++) histogram[(int)(keys[i] >> shift) & (Bins - 1)] += tokens?[i] ?? 1;
                var bin = Bins - 1;
                while (bin >= 0 && histogram[bin] < remaining) remaining -= histogram[bin--];
                ArgumentOutOfRangeException.ThrowIfNegative(bin, nameof(count));
                threshold = (threshold & ~((uint)(Bins - 1) << shift)) | ((uint)bin << shift);
                if (shift == 0) return (threshold, remaining);

                // Only keys of the bin that holds the threshold go on.
                var kept = 0;
                for (var i = 0; i < n; i++)
                {
                    if (((keys[i] >> shift) & (Bins - 1)) != bin) continue;
                    if (tokens is not null) tokens[kept] = tokens[i];
                    keys[kept++] = keys[i];
                }

                n = kept;
            }
        }
        finally
        {
            ArrayPool<uint>.Shared.Return(keys);
            if (tokens is not null) ArrayPool<int>.Shared.Return(tokens);
        }
    }

    /// <summary>An unsigned integer that orders as the float does. Both zeros are one; NaN is 0, below every number's key.</summary>
    private static uint Key(float score)
    {
        if (float.IsNaN(score)) return 0;
        var bits = BitConverter.SingleToUInt32Bits(score + 0f);
        return (bits & 0x80000000) != 0 ? ~bits : bits | 0x80000000;
    }
}
