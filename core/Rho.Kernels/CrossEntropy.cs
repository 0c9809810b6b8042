using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Rho.Kernels;

/// <summary>The gradient of rows' cross entropies, with their extras: d/dlogits of -(1 - smoothing) ln p_target - smoothing mean(ln p) + zLoss logSum^2.</summary>
/// <param name="Vocabulary">tokens in all</param>
/// <param name="Cap">that the logits are under, 0 for none: the gradient is of those before it, as d cap tanh(l / cap) = 1 - tanh^2</param>
public readonly unsafe record struct CrossEntropy(long Vocabulary, double ZLoss, double Smoothing, double Cap)
{
    /// <summary>Turns each row of logits into weight * d loss / d logits.</summary>
    /// <param name="logits">those of a slice of the vocabulary. [rows, columns]</param>
    /// <param name="first">the slice's first token</param>
    /// <param name="targets">tokens, which need not be in the slice. [rows]</param>
    /// <param name="logSums">log-sum-exp of each row over the vocabulary. [rows]</param>
    /// <param name="weights">[rows]</param>
    public void Backward<T>(void* logits, long first, int columns, long[] targets, float[] logSums, float[] weights, int threads) where T : struct, IWritableFormat
    {
        var loss = this;
        Work.Over(targets.Length, threads, (begin, end) =>
        {
            for (var row = begin; row < end; row++) loss.BackwardRow<T>((byte*)logits + T.RowBytes(row * columns), columns, targets[row] - first, logSums[row], weights[row]);
        });
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private void BackwardRow<T>(void* p, int columns, long target, float logSum, float weight) where T : struct, IWritableFormat
    {
        var inverse = Cap == 0 ? 0 : (float)(1 / Cap);
        var (scale, even) = ((float)(weight * (1 + (2 * ZLoss * logSum))), (float)(weight * Smoothing / Vocabulary));
        var (offset, scales, evens, square) = (Vector512.Create(logSum), Vector512.Create(scale), Vector512.Create(even), Vector512.Create(inverse * inverse));
        var here = target >= 0 && target < columns;
        var own = here ? T.Get(p, target) : 0;
        var whole = columns & ~15;
        for (var i = 0; i < whole; i += 16)
        {
            var values = T.Load(p, i);
            var gradient = (VectorMath.Exp(values - offset) * scales) - evens;
            T.Store(inverse == 0 ? gradient : gradient * (Vector512<float>.One - (values * values * square)), p, i);
        }

        float One(float logit, double less) => (float)((Math.Exp(logit - logSum) * scale) - even - less) * (1 - (logit * logit * inverse * inverse));
        for (var i = whole; i < columns; i++) T.Set(One(T.Get(p, i), 0), p, i);
        if (here) T.Set(One(own, weight * (1 - Smoothing)), p, target);
    }
}
