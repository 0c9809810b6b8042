using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Rho.Model.Inference.Kernels;

/// <summary>Element-wise parts of a decoder layer on float32 rows. Buffers need no alignment; lengths are any.</summary>
internal static unsafe class VectorKernels
{
    private const int Lanes = 16;

    /// <summary>y = x / sqrt(mean(x^2) + epsilon) * (weight + shift). x and y may be the same.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void RmsNorm(float* x, float* weight, float* y, int length, float epsilon, float shift = 0)
    {
        var sums = Vector512<float>.Zero;
        var i = 0;
        for (; i + Lanes <= length; i += Lanes)
        {
            var v = Vector512.Load(x + i);
            sums = Vector512.FusedMultiplyAdd(v, v, sums);
        }

        var sum = Vector512.Sum(sums);
        for (; i < length; i++) sum += x[i] * x[i];

        var scale = 1 / MathF.Sqrt((sum / length) + epsilon);
        for (i = 0; i + Lanes <= length; i += Lanes) (Vector512.Load(x + i) * scale * (Vector512.Load(weight + i) + Vector512.Create(shift))).Store(y + i);
        for (; i < length; i++) y[i] = x[i] * scale * (weight[i] + shift);
    }

    /// <summary>Rotates the pairs (x[i], x[i + size/2]) by the angles whose cosines and sines are given, size/2 of each.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Rotate(float* x, float* cosine, float* sine, int size)
    {
        var half = size / 2;
        var y = x + half;
        var i = 0;
        for (; i + Lanes <= half; i += Lanes)
        {
            Vector512<float> a = Vector512.Load(x + i), b = Vector512.Load(y + i), c = Vector512.Load(cosine + i), s = Vector512.Load(sine + i);
            ((a * c) - (b * s)).Store(x + i);
            ((b * c) + (a * s)).Store(y + i);
        }

        for (; i < half; i++)
        {
            float a = x[i], b = y[i];
            x[i] = (a * cosine[i]) - (b * sine[i]);
            y[i] = (b * cosine[i]) + (a * sine[i]);
        }
    }

    /// <summary>y = gate / (1 + exp(-gate)) * up. y may be either input.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void SwiGlu(float* gate, float* up, float* y, int length)
    {
        var i = 0;
        for (; i + Lanes <= length; i += Lanes)
        {
            var g = Vector512.Load(gate + i);
            (g / (Vector512<float>.One + Exp(-g)) * Vector512.Load(up + i)).Store(y + i);
        }

        for (; i < length; i++) y[i] = gate[i] / (1 + MathF.Exp(-gate[i])) * up[i];
    }

    /// <summary>y = gelu(gate) * up, gelu by its tanh form. y may be either input.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void GeGlu(float* gate, float* up, float* y, int length)
    {
        const float root = 0.7978845608f, a = 0.044715f;
        var i = 0;
        for (; i + Lanes <= length; i += Lanes)
        {
            var g = Vector512.Load(gate + i);
            var inner = g * (Vector512<float>.One + (g * g * a)) * root;
            // (1 + tanh(u)) / 2 is the logistic function of 2 u.
            (g / (Vector512<float>.One + Exp(inner * -2f)) * Vector512.Load(up + i)).Store(y + i);
        }

        for (; i < length; i++) y[i] = gate[i] / (1 + MathF.Exp(-2 * root * (gate[i] + (a * gate[i] * gate[i] * gate[i])))) * up[i];
    }

    /// <summary>x = cap * tanh(x / cap)</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Cap(float* x, int length, float cap)
    {
        var i = 0;
        for (; i + Lanes <= length; i += Lanes) (Cpu.Activations.Tanh(Vector512.Load(x + i) * (1 / cap)) * cap).Store(x + i);
        for (; i < length; i++) x[i] = cap * MathF.Tanh(x[i] / cap);
    }

    /// <summary>
    /// exp within 2 units in the last place for results from the smallest normal number up; below that 0, above 3e38 the largest
    /// finite result. Range reduction by ln 2 in two parts and a polynomial of degree 6 (Cephes, expf).
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Exp(Vector512<float> x)
    {
        var clamped = Vector512.Min(Vector512.Max(x, Vector512.Create(-87.3f)), Vector512.Create(88.0f));
        // Adding and taking away 1.5 * 2^23 rounds to an integer, which is then in the low bits.
        var shifter = Vector512.Create(12582912f);
        var shifted = Vector512.FusedMultiplyAdd(clamped, Vector512.Create(1.44269504f), shifter);
        var n = shifted - shifter;
        var r = Vector512.FusedMultiplyAdd(n, Vector512.Create(-0.693359375f), clamped);
        r = Vector512.FusedMultiplyAdd(n, Vector512.Create(2.12194440e-4f), r);
        var p = Vector512.Create(1.9875691500e-4f);
        p = Vector512.FusedMultiplyAdd(p, r, Vector512.Create(1.3981999507e-3f));
        p = Vector512.FusedMultiplyAdd(p, r, Vector512.Create(8.3334519073e-3f));
        p = Vector512.FusedMultiplyAdd(p, r, Vector512.Create(4.1665795894e-2f));
        p = Vector512.FusedMultiplyAdd(p, r, Vector512.Create(1.6666665459e-1f));
        p = Vector512.FusedMultiplyAdd(p, r, Vector512.Create(5.0000001201e-1f));
        p = Vector512.FusedMultiplyAdd(p, r * r, r) + Vector512<float>.One;
        var power = (shifted.AsInt32() << 23).AsSingle();
        var result = (p.AsInt32() + power.AsInt32()).AsSingle();
        return Vector512.ConditionalSelect(Vector512.LessThan(x, Vector512.Create(-87.3f)), Vector512<float>.Zero, result);
    }

    /// <summary>The largest value's index (the first, where several are largest); NaN is never it.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static int IndexOfMax(ReadOnlySpan<float> values)
    {
        fixed (float* p = values)
        {
            var best = Vector512.Create(float.NegativeInfinity);
            var i = 0;
            for (; i + Lanes <= values.Length; i += Lanes)
            {
                var v = Vector512.Load(p + i);
                best = Vector512.ConditionalSelect(Vector512.GreaterThan(v, best), v, best);
            }

            var largest = float.NegativeInfinity;
            for (var lane = 0; lane < Lanes; lane++) largest = MathF.Max(largest, best[lane]);
            for (; i < values.Length; i++)
            {
                if (p[i] > largest) largest = p[i];
            }

            var index = values.IndexOf(largest);
            return Math.Max(index, 0);
        }
    }

    /// <summary>ln sum_i exp(values[i]).</summary>
    public static double LogSumExp(ReadOnlySpan<float> values)
    {
        var largest = values[IndexOfMax(values)];
        return float.IsInfinity(largest) ? largest : largest + Math.Log(SumOfExp(values, largest, 1));
    }

    /// <summary>sum_i exp((values[i] - shift) * scale), where no exponent is far above 0.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static double SumOfExp(ReadOnlySpan<float> values, float shift, float scale)
    {
        fixed (float* p = values)
        {
            double total = 0;
            var i = 0;
            while (i + Lanes <= values.Length)
            {
                // Partial sums of 64 vectors keep the relative error near that of one float32 rounding.
                var sum = Vector512<float>.Zero;
                for (var end = Math.Min(values.Length - Lanes, i + (63 * Lanes)); i <= end; i += Lanes)
                    sum += Exp((Vector512.Load(p + i) - Vector512.Create(shift)) * scale);
                total += Vector512.Sum(sum);
            }

            for (; i < values.Length; i++) total += Math.Exp((p[i] - shift) * scale);
            return total;
        }
    }

    /// <summary>values[i] = exp((values[i] - shift) * scale).</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Exp(Span<float> values, float shift, float scale)
    {
        fixed (float* p = values)
        {
            var i = 0;
            for (; i + Lanes <= values.Length; i += Lanes) Exp((Vector512.Load(p + i) - Vector512.Create(shift)) * scale).Store(p + i);
            for (; i < values.Length; i++) p[i] = MathF.Exp((p[i] - shift) * scale);
        }
    }
}
