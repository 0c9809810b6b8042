using System.Runtime.Intrinsics;
using static TorchSharp.torch;

namespace Rho.Model.Cpu;

/// <summary>Losses and gradients of logits' rows, in float32 whatever the logits' type.</summary>
internal static unsafe class CrossEntropy
{
    /// <summary>Log-sum-exp of each row and -ln p of its target.</summary>
    /// <param name="logits">[rows, vocab]</param>
    internal static void Losses(Tensor logits, ReadOnlySpan<long> targets, Span<float> logSums, Span<float> losses)
    {
        if (logits.dtype == ScalarType.Float32) Losses<Float32>(logits, targets, logSums, losses);
        else Losses<BFloat16>(logits, targets, logSums, losses);
    }

    /// <summary>Turns each row into weight * d loss / d logits.</summary>
    /// <param name="logits">Those of a slice of the vocabulary. [rows, slice]</param>
    /// <param name="first">The slice's first token.</param>
    /// <param name="vocabulary">Tokens in all.</param>
    /// <param name="targets">Tokens, which need not be in the slice. [rows]</param>
    /// <param name="cap">that the logits are under: the gradient is of those before it, as d cap tanh(l / cap) = 1 - tanh^2</param>
    internal static void Differentiate(Tensor logits, long first, long vocabulary, ReadOnlySpan<long> targets, ReadOnlySpan<float> logSums, ReadOnlySpan<float> weights, double zLoss, double smoothing, double? cap)
    {
        if (logits.dtype == ScalarType.Float32) Differentiate<Float32>(logits, first, vocabulary, targets, logSums, weights, zLoss, smoothing, cap);
        else Differentiate<BFloat16>(logits, first, vocabulary, targets, logSums, weights, zLoss, smoothing, cap);
    }

    private static void Losses<T>(Tensor logits, ReadOnlySpan<long> targets, Span<float> logSums, Span<float> losses) where T : struct, IElement
    {
        var vocabulary = logits.size(1);
        var p = (nint)Work.Pointer(logits);
        fixed (long* target = targets)
        fixed (float* logSum = logSums, loss = losses)
        {
            var (t, s, l) = ((nint)target, (nint)logSum, (nint)loss);
            Work.Over(logits.size(0), (first, end) =>
            {
                for (var row = first; row < end; row++)
                {
                    var value = LogSumExp<T>((void*)p, row * vocabulary, vocabulary);
                    ((float*)s)[row] = value;
                    ((float*)l)[row] = value - T.Get((void*)p, (row * vocabulary) + ((long*)t)[row]);
                }
            });
        }
    }

    private static float LogSumExp<T>(void* p, long start, long count) where T : struct, IElement
    {
        var highest = RunningSoftmax.Highest<T>(p, start, count);
        return (float)(highest + Math.Log(RunningSoftmax.Sum<T>(p, start, count, highest)));
    }

    private static void Differentiate<T>(
        Tensor logits, long first, long vocabulary, ReadOnlySpan<long> targets, ReadOnlySpan<float> logSums, ReadOnlySpan<float> weights, double zLoss, double smoothing, double? cap)
        where T : struct, IElement
    {
        var columns = logits.size(1);
        var inverse = (float)(1 / (cap ?? double.PositiveInfinity));
        float Slope(float logit) => 1 - (logit * logit * inverse * inverse);
        var p = (nint)Work.Pointer(logits);
        fixed (long* target = targets)
        fixed (float* logSum = logSums, weight = weights)
        {
            var (t, s, w) = ((nint)target, (nint)logSum, (nint)weight);
            Work.Over(logits.size(0), (begin, end) =>
            {
                for (var row = begin; row < end; row++)
                {
                    var (start, sum, share) = (row * columns, ((float*)s)[row], ((float*)w)[row]);
                    var scale = (float)(share * (1 + (2 * zLoss * sum)));
                    var even = (float)(share * smoothing / vocabulary);
                    var at = ((long*)t)[row] - first;
                    var here = at >= 0 && at < columns;
                    var targetValue = here ? (((float)Math.Exp(T.Get((void*)p, start + at) - sum) * scale) - even - (float)(share * (1 - smoothing))) * Slope(T.Get((void*)p, start + at)) : 0;
                    var whole = columns & ~15L;
                    var (offset, scales, evens) = (Vector512.Create(sum), Vector512.Create(scale), Vector512.Create(even));
                    for (long i = 0; i < whole; i += 16)
                    {
                        var values = T.Load((void*)p, start + i);
                        var gradient = (Vector512.Exp(values - offset) * scales) - evens;
                        T.Store(inverse == 0 ? gradient : gradient * (Vector512<float>.One - (values * values * (inverse * inverse))), (void*)p, start + i);
                    }

                    for (var i = whole; i < columns; i++)
                        T.Set((((float)Math.Exp(T.Get((void*)p, start + i) - sum) * scale) - even) * Slope(T.Get((void*)p, start + i)), (void*)p, start + i);
                    if (here) T.Set(targetValue, (void*)p, start + at);
                }
            });
        }
    }
}
