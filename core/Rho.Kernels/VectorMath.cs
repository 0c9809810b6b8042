using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Rho.Kernels;

/// <summary>Functions of 16 numbers at a time, and what is left of a row after the last 16.</summary>
public static unsafe class VectorMath
{
    /// <summary>
    /// exp within 2 units in the last place for results from the smallest normal number up; below that 0, above 1.6e38 that. NaN stays
    /// NaN. Range reduction by ln 2 in two parts and a polynomial of degree 6 (Cephes, expf).
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Exp(Vector512<float> x)
    {
        var clamped = Vector512.Min(Vector512.Max(x, Vector512.Create(-87.3f)), Vector512.Create(88.0f));
        // Adding and taking away 1.5 * 2^23 rounds to an integer n; with the exponent's bias besides, n + 127 is in the low bits.
        var shifter = Vector512.Create(12582912f + 127);
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
        return Vector512.ConditionalSelect(Vector512.LessThan(x, Vector512.Create(-87.3f)), Vector512<float>.Zero, p * power);
    }

    /// <summary>1 / (1 + exp(-x))</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Logistic(Vector512<float> x) => Vector512<float>.One / (Vector512<float>.One + Exp(-x));

    public static Vector512<float> Tanh(Vector512<float> x)
    {
        // Near zero the quotient's error would be large beside the result: the series there.
        var square = x * x;
        var near = Vector512.Create(62 / 2835f);
        near = Vector512.FusedMultiplyAdd(near, square, Vector512.Create(-17 / 315f));
        near = Vector512.FusedMultiplyAdd(near, square, Vector512.Create(2 / 15f));
        near = Vector512.FusedMultiplyAdd(near, square, Vector512.Create(-1 / 3f));
        near = x * Vector512.FusedMultiplyAdd(near, square, Vector512<float>.One);
        var far = Vector512<float>.One - (Vector512.Create(2f) / (Exp(x + x) + Vector512<float>.One));
        return Vector512.ConditionalSelect(Vector512.LessThan(square, Vector512.Create(0.09f)), near, far);
    }

    /// <summary>The largest of 16, none of which is NaN.</summary>
    public static float Largest(Vector512<float> x)
    {
        var half = Vector256.MaxNative(x.GetLower(), x.GetUpper());
        var quarter = Vector128.MaxNative(half.GetLower(), half.GetUpper());
        return float.MaxNative(float.MaxNative(quarter[0], quarter[1]), float.MaxNative(quarter[2], quarter[3]));
    }

    /// <summary>Fewer than 16 numbers, and <paramref name="rest"/> beyond them.</summary>
    public static Vector512<float> LoadPart<T>(void* row, long at, long count, float rest = 0) where T : struct, INumberFormat
    {
        var values = Vector512.Create(rest);
        for (var i = 0; i < count; i++) values = values.WithElement(i, T.Get(row, at + i));
        return values;
    }

    public static void StorePart<T>(Vector512<float> values, void* row, long at, long count) where T : struct, IWritableFormat
    {
        for (var i = 0; i < count; i++) T.Set(values[i], row, at + i);
    }
}
