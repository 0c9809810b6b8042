using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Rho.Kernels;

/// <summary>Four registers of 16 numbers each: what small products are summed up in.</summary>
internal unsafe struct Four
{
    internal Vector512<float> A, B, C, D;

    /// <summary>The numbers from column <paramref name="at"/> on of four rows.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static Four Load<T>(void* a, void* b, void* c, void* d, long at) where T : struct, INumberFormat =>
        new() { A = T.Load(a, at), B = T.Load(b, at), C = T.Load(c, at), D = T.Load(d, at) };

    /// <summary>this += x y</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Add(in Four x, Vector512<float> y)
    {
        A = Vector512.FusedMultiplyAdd(x.A, y, A);
        B = Vector512.FusedMultiplyAdd(x.B, y, B);
        C = Vector512.FusedMultiplyAdd(x.C, y, C);
        D = Vector512.FusedMultiplyAdd(x.D, y, D);
    }

    /// <summary>this += (a[at], b[at], c[at], d[at]) y</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Add(float* a, float* b, float* c, float* d, nint at, Vector512<float> y)
    {
        A = Vector512.FusedMultiplyAdd(Vector512.Create(a[at]), y, A);
        B = Vector512.FusedMultiplyAdd(Vector512.Create(b[at]), y, B);
        C = Vector512.FusedMultiplyAdd(Vector512.Create(c[at]), y, C);
        D = Vector512.FusedMultiplyAdd(Vector512.Create(d[at]), y, D);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal readonly Four Scaled(float factor) => new() { A = A * factor, B = B * factor, C = C * factor, D = D * factor };

    /// <summary>To four rows that are <paramref name="stride"/> numbers apart.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal readonly void Store(float* to, nint stride)
    {
        A.Store(to);
        B.Store(to + stride);
        C.Store(to + (2 * stride));
        D.Store(to + (3 * stride));
    }

    /// <summary>The sums of four registers' lanes: over lanes i and i + 2, then i and i + 1 of each 128 bits, then over the 128-bit parts.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal static Vector128<float> SumLanes(Four x)
    {
        if (!Avx512F.IsSupported) return Vector128.Create(SumLanes(x.A), SumLanes(x.B), SumLanes(x.C), SumLanes(x.D));
        var ab = Avx512F.UnpackLow(x.A, x.B) + Avx512F.UnpackHigh(x.A, x.B);
        var cd = Avx512F.UnpackLow(x.C, x.D) + Avx512F.UnpackHigh(x.C, x.D);
        var sums = Avx512F.UnpackLow(ab.AsDouble(), cd.AsDouble()).AsSingle() + Avx512F.UnpackHigh(ab.AsDouble(), cd.AsDouble()).AsSingle();
        var half = sums.GetLower() + sums.GetUpper();
        return half.GetLower() + half.GetUpper();
    }

    private static float SumLanes(Vector512<float> a)
    {
        var half = a.GetLower() + a.GetUpper();
        var quarter = half.GetLower() + half.GetUpper();
        return quarter[0] + quarter[2] + (quarter[1] + quarter[3]);
    }
}
