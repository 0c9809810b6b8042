using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Rho.Kernels;

/// <summary>What is computed of rows of logits or scores. Rows have any length, and need no alignment.</summary>
public static unsafe class Softmax
{
    /// <summary>ln sum exp(logit), nats.</summary>
    public static double LogSumExp(ReadOnlySpan<float> logits)
    {
        var largest = logits[IndexOfMax(logits)];
        return float.IsInfinity(largest) ? largest : largest + Math.Log(SumOfExp(logits, largest, 1));
    }

    /// <summary>sum exp((logit - shift) * scale), where no exponent is far above 0.</summary>
    public static double SumOfExp(ReadOnlySpan<float> logits, float shift, float scale)
    {
        fixed (float* p = logits) return SumOfExp<Float32>(p, logits.Length, shift, scale);
    }

    /// <summary>Replaces every logit by exp((logit - shift) * scale).</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Exp(Span<float> logits, float shift, float scale)
    {
        fixed (float* p = logits)
        {
            var i = 0;
            for (; i + 16 <= logits.Length; i += 16) VectorMath.Exp((Vector512.Load(p + i) - Vector512.Create(shift)) * scale).Store(p + i);
            for (; i < logits.Length; i++) p[i] = MathF.Exp((p[i] - shift) * scale);
        }
    }

    /// <summary>The most likely token; the first, where several are. NaN is never it.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static int IndexOfMax(ReadOnlySpan<float> logits)
    {
        fixed (float* p = logits)
        {
            var best = Vector512.Create(float.NegativeInfinity);
            var i = 0;
            for (; i + 16 <= logits.Length; i += 16)
            {
                var v = Vector512.Load(p + i);
                best = Vector512.ConditionalSelect(Vector512.GreaterThan(v, best), v, best);
            }

            var largest = VectorMath.Largest(best);
            for (; i < logits.Length; i++)
            {
                if (p[i] > largest) largest = p[i];
            }

            return Math.Max(logits.IndexOf(largest), 0);
        }
    }

    /// <summary>x becomes cap * tanh(x / cap).</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Cap(float* x, int length, float cap)
    {
        var i = 0;
        for (; i + 16 <= length; i += 16) (VectorMath.Tanh(Vector512.Load(x + i) * (1 / cap)) * cap).Store(x + i);
        for (; i < length; i++) x[i] = cap * MathF.Tanh(x[i] / cap);
    }

    /// <summary>The highest of a row's logits. NaN may be passed over: the sum of exponentials is NaN then, and tells.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static float Highest<T>(void* row, long count) where T : struct, INumberFormat
    {
        var (whole, high) = (count & ~15L, Vector512.Create(float.NegativeInfinity));
        for (long i = 0; i < whole; i += 16) high = Vector512.MaxNative(high, T.Load(row, i));
        return VectorMath.Largest(Vector512.MaxNative(high, VectorMath.LoadPart<T>(row, whole, count - whole, float.NegativeInfinity)));
    }

    /// <summary>sum exp((l - shift) * scale) over a row.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static double SumOfExp<T>(void* row, long count, float shift, float scale = 1) where T : struct, INumberFormat
    {
        var (whole, offset, total) = (count & ~15L, Vector512.Create(shift), 0.0);
        for (long i = 0; i < whole;)
        {
            // Partial sums of 64 vectors keep the relative error near that of one float32 rounding.
            var sum = Vector512<float>.Zero;
            for (var end = Math.Min(whole, i + (64 * 16)); i < end; i += 16) sum += VectorMath.Exp((T.Load(row, i) - offset) * scale);
            total += Vector512.Sum(sum);
        }

        return total + Vector512.Sum(VectorMath.Exp((VectorMath.LoadPart<T>(row, whole, count - whole, float.NegativeInfinity) - offset) * scale));
    }

    /// <summary>sum exp(l - shift), and sum exp(l - shift) (l - shift), over a row.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static (double Sum, double Tilt) SumAndTilt<T>(void* row, long count, float shift) where T : struct, INumberFormat
    {
        // An exponential underflows to 0 long before its argument does, and their product goes to 0 with it; an impossible token (-inf) counts 0.
        var (whole, offset, least, total, tilted) = (count & ~15L, Vector512.Create(shift), Vector512.Create(-200f), 0.0, 0.0);
        for (long i = 0; i < whole;)
        {
            var (sum, tilt) = (Vector512<float>.Zero, Vector512<float>.Zero);
            for (var end = Math.Min(whole, i + (64 * 16)); i < end; i += 16)
            {
                var below = T.Load(row, i) - offset;
                var e = VectorMath.Exp(below);
                sum += e;
                tilt = Vector512.FusedMultiplyAdd(e, Vector512.Max(below, least), tilt);
            }

            (total, tilted) = (total + Vector512.Sum(sum), tilted + Vector512.Sum(tilt));
        }

        var left = VectorMath.LoadPart<T>(row, whole, count - whole, float.NegativeInfinity) - offset;
        var last = VectorMath.Exp(left);
        return (total + Vector512.Sum(last), tilted + Vector512.Sum(last * Vector512.Max(left, least)));
    }

    /// <summary>exp(x - highest) over first .. last of a row of scores, 0 elsewhere in from .. end, whole registers; returns the highest and the exponentials' sum.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static (float Highest, float Sum) Exponentials(float* row, int from, int end, int first, int last)
    {
        Mask(row, from, end, first, last);
        var high = Vector512.Create(float.NegativeInfinity);
        for (var j = from; j < end; j += 16) high = Vector512.MaxNative(high, Vector512.Load(row + j));
        var max = VectorMath.Largest(high);
        var (offset, sum) = (Vector512.Create(max), Vector512<float>.Zero);
        for (var j = from; j < end; j += 16)
        {
            var e = VectorMath.Exp(Vector512.Load(row + j) - offset);
            e.Store(row + j);
            sum += e;
        }

        return (max, Vector512.Sum(sum));
    }

    /// <summary>Minus infinity in from .. end, multiples of 16, outside first .. last. Whole registers are written: one that is read after parts of it were would wait for them.</summary>
    internal static void Mask(float* row, int from, int end, int first, int last)
    {
        for (var j = from; j < Math.Min(first, end); j += 16) MaskAt(row + j, first - j, last - j);
        for (var j = Math.Max(from, (last + 1) & ~15); j < end; j += 16) MaskAt(row + j, first - j, last - j);
    }

    private static void MaskAt(float* row, int first, int last)
    {
        var inside = Vector512.GreaterThanOrEqual(Vector512<int>.Indices, Vector512.Create(first)) & Vector512.LessThanOrEqual(Vector512<int>.Indices, Vector512.Create(last));
        Vector512.ConditionalSelect(inside.AsSingle(), Vector512.Load(row), Vector512.Create(float.NegativeInfinity)).Store(row);
    }
}
