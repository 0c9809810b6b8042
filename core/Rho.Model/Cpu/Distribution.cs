using System.Runtime.Intrinsics;
using static TorchSharp.torch;

namespace Rho.Model.Cpu;

/// <summary>What logits' rows say of their distributions besides the loss, in float32 whatever the logits' type.</summary>
internal static unsafe class Distribution
{
    /// <summary>-sum_v p_v ln p_v of each row.</summary>
    /// <param name="logits">[rows, vocab]</param>
    /// <param name="logSums">log-sum-exp of each row. [rows]</param>
    /// <param name="entropies">nats. [rows]</param>
    internal static void Entropies(Tensor logits, ReadOnlySpan<float> logSums, Span<float> entropies)
    {
        if (logits.dtype == ScalarType.Float32) Entropies<Float32>(logits, logSums, entropies);
        else Entropies<BFloat16>(logits, logSums, entropies);
    }

    /// <summary>The k most likely tokens of each row, the likeliest first, of equal ones the lower id.</summary>
    /// <param name="logits">[rows, vocab]</param>
    /// <param name="logSums">log-sum-exp of each row. [rows]</param>
    /// <param name="ids">[rows, k]</param>
    /// <param name="logProbabilities">ln p. [rows, k]</param>
    internal static void Top(Tensor logits, ReadOnlySpan<float> logSums, int k, Span<int> ids, Span<float> logProbabilities)
    {
        MostLikely.Add(logits, 0, k, ids, logProbabilities);
        for (var i = 0; i < logProbabilities.Length; i++) logProbabilities[i] -= logSums[i / k];
    }

    /// <summary>The logits of given tokens.</summary>
    /// <param name="logits">[rows, vocab]</param>
    /// <param name="ids">below 0: none, its value stays. [rows, k]</param>
    /// <param name="values">[rows, k]</param>
    internal static void At(Tensor logits, ReadOnlySpan<long> ids, int k, Span<float> values)
    {
        if (logits.dtype == ScalarType.Float32) At<Float32>(logits, ids, k, values);
        else At<BFloat16>(logits, ids, k, values);
    }

    private static void At<T>(Tensor logits, ReadOnlySpan<long> ids, int k, Span<float> values) where T : struct, IElement
    {
        var vocabulary = logits.size(1);
        var p = Work.Pointer(logits);
        for (var i = 0; i < ids.Length; i++)
            if (ids[i] >= 0) values[i] = T.Get(p, (i / k * vocabulary) + ids[i]);
    }

    private static void Entropies<T>(Tensor logits, ReadOnlySpan<float> logSums, Span<float> entropies) where T : struct, IElement
    {
        var vocabulary = logits.size(1);
        var p = (nint)Work.Pointer(logits);
        fixed (float* logSum = logSums, entropy = entropies)
        {
            var (s, e) = ((nint)logSum, (nint)entropy);
            Work.Over(logits.size(0), (first, end) =>
            {
                for (var row = first; row < end; row++) ((float*)e)[row] = Entropy<T>((void*)p, row * vocabulary, vocabulary, ((float*)s)[row]);
            });
        }
    }

    private static float Entropy<T>(void* p, long start, long count, float logSum) where T : struct, IElement
    {
        var whole = count & ~15L;
        // p underflows to 0 long before ln p does, and p ln p goes to 0 with it; an impossible token (ln p = -inf) counts 0.
        var (offset, least, sum) = (Vector512.Create(logSum), Vector512.Create(-200f), Vector512<float>.Zero);
        for (long i = 0; i < whole; i += 16)
        {
            var logP = Vector512.Max(T.Load(p, start + i) - offset, least);
            sum += Vector512.Exp(logP) * logP;
        }

        double total = Vector512.Sum(sum);
        for (var i = whole; i < count; i++)
        {
            var logP = Math.Max(T.Get(p, start + i) - logSum, -200f);
            total += Math.Exp(logP) * logP;
        }

        return (float)Math.Max(0, -total);
    }
}
