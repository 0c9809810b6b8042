using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Rho.Model.Inference.Kernels;

/// <summary>
/// y[n, r] = sum_k x[n, k] w[r, k] for few to some hundred rows of x. Weights are read as they lie and once per block of tokens.
/// Every output is one chain of fused multiply-adds over k in 16 lanes and one fixed sum of the lanes (and of what is left of k), whatever else is computed
/// beside it: a row's result does not depend on the rows it shares the call with.
/// </summary>
// N tokens, R weight rows, K columns.
internal static unsafe class MatrixKernel<TFormat> where TFormat : struct, INumberFormat
{
    private const int Lanes = 16;

    // A block of x that stays in the second-level cache while weight rows pass by.
    private const int TokenBlockBytes = 256 << 10;

    /// <summary>Computes weight rows [first, last) for all tokens.</summary>
    /// <param name="w">First row of the weights.</param>
    /// <param name="rowBytes">Distance of two rows of w.</param>
    /// <param name="x">(N, K) with rows <paramref name="xStride"/> apart.</param>
    /// <param name="y">(N, R) with rows <paramref name="yStride"/> apart.</param>
    /// <param name="bias">(R), or null.</param>
    /// <param name="accumulate">Add to y instead of replacing it.</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Multiply(
        byte* w, nint rowBytes, int first, int last, int K, float* x, nint xStride, int N, float* y, nint yStride, float* bias, bool accumulate)
    {
        var tokenBlock = Math.Max(8, TokenBlockBytes / (K * sizeof(float)) & ~3);
        for (var n0 = 0; n0 < N; n0 += tokenBlock)
        {
            var n1 = Math.Min(N, n0 + tokenBlock);
            for (var r = first; r < last; r += 8)
            {
                var rows = Math.Min(8, last - r);
                var row = w + (r * rowBytes);
                var b = bias == null ? null : bias + r;
                var n = n0;
                for (; n + 4 <= n1; n += 4)
                {
                    Tile4x4(row, rowBytes, Math.Min(4, rows), K, x + (n * xStride), xStride, y + (n * yStride) + r, yStride, b, accumulate);
                    if (rows > 4)
                        Tile4x4(row + (4 * rowBytes), rowBytes, rows - 4, K, x + (n * xStride), xStride, y + (n * yStride) + r + 4, yStride, b == null ? null : b + 4, accumulate);
                }

                if (n + 2 <= n1)
                {
                    Tile8x2(row, rowBytes, rows, K, x + (n * xStride), xStride, y + (n * yStride) + r, yStride, b, accumulate);
                    n += 2;
                }

                if (n < n1) Tile8x1(row, rowBytes, rows, K, x + (n * xStride), y + (n * yStride) + r, b, accumulate);
                if (K % Lanes != 0) AddTails(row, rowBytes, rows, K, x + (n0 * xStride), xStride, n1 - n0, y + (n0 * yStride) + r, yStride);
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Tile8x1(byte* w, nint rowBytes, int rows, int K, float* x, float* y, float* bias, bool accumulate)
    {
        // Rows past the end repeat the last one and are not stored.
        byte* w1 = w + (Math.Min(1, rows - 1) * rowBytes), w2 = w + (Math.Min(2, rows - 1) * rowBytes), w3 = w + (Math.Min(3, rows - 1) * rowBytes);
        byte* w4 = w + (Math.Min(4, rows - 1) * rowBytes), w5 = w + (Math.Min(5, rows - 1) * rowBytes), w6 = w + (Math.Min(6, rows - 1) * rowBytes), w7 = w + (Math.Min(7, rows - 1) * rowBytes);
        Vector512<float> a0 = default, a1 = default, a2 = default, a3 = default, a4 = default, a5 = default, a6 = default, a7 = default;
        nint k = 0;
        for (; k + Lanes <= K; k += Lanes)
        {
            var v = Vector512.Load(x + k);
            a0 = Vector512.FusedMultiplyAdd(TFormat.Load(w, k), v, a0);
            a1 = Vector512.FusedMultiplyAdd(TFormat.Load(w1, k), v, a1);
            a2 = Vector512.FusedMultiplyAdd(TFormat.Load(w2, k), v, a2);
            a3 = Vector512.FusedMultiplyAdd(TFormat.Load(w3, k), v, a3);
            a4 = Vector512.FusedMultiplyAdd(TFormat.Load(w4, k), v, a4);
            a5 = Vector512.FusedMultiplyAdd(TFormat.Load(w5, k), v, a5);
            a6 = Vector512.FusedMultiplyAdd(TFormat.Load(w6, k), v, a6);
            a7 = Vector512.FusedMultiplyAdd(TFormat.Load(w7, k), v, a7);
        }

        Store(SumLanes(a0, a1, a2, a3), Math.Min(4, rows), y, bias, accumulate);
        if (rows > 4) Store(SumLanes(a4, a5, a6, a7), rows - 4, y + 4, bias == null ? null : bias + 4, accumulate);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Tile8x2(byte* w, nint rowBytes, int rows, int K, float* x, nint xStride, float* y, nint yStride, float* bias, bool accumulate)
    {
        byte* w1 = w + (Math.Min(1, rows - 1) * rowBytes), w2 = w + (Math.Min(2, rows - 1) * rowBytes), w3 = w + (Math.Min(3, rows - 1) * rowBytes);
        byte* w4 = w + (Math.Min(4, rows - 1) * rowBytes), w5 = w + (Math.Min(5, rows - 1) * rowBytes), w6 = w + (Math.Min(6, rows - 1) * rowBytes), w7 = w + (Math.Min(7, rows - 1) * rowBytes);
        var x1 = x + xStride;
        Vector512<float> a0 = default, a1 = default, a2 = default, a3 = default, a4 = default, a5 = default, a6 = default, a7 = default;
        Vector512<float> b0 = default, b1 = default, b2 = default, b3 = default, b4 = default, b5 = default, b6 = default, b7 = default;
        nint k = 0;
        for (; k + Lanes <= K; k += Lanes)
        {
            Vector512<float> u = Vector512.Load(x + k), v = Vector512.Load(x1 + k);
            var m = TFormat.Load(w, k);
            a0 = Vector512.FusedMultiplyAdd(m, u, a0);
            b0 = Vector512.FusedMultiplyAdd(m, v, b0);
            m = TFormat.Load(w1, k);
            a1 = Vector512.FusedMultiplyAdd(m, u, a1);
            b1 = Vector512.FusedMultiplyAdd(m, v, b1);
            m = TFormat.Load(w2, k);
            a2 = Vector512.FusedMultiplyAdd(m, u, a2);
            b2 = Vector512.FusedMultiplyAdd(m, v, b2);
            m = TFormat.Load(w3, k);
            a3 = Vector512.FusedMultiplyAdd(m, u, a3);
            b3 = Vector512.FusedMultiplyAdd(m, v, b3);
            m = TFormat.Load(w4, k);
            a4 = Vector512.FusedMultiplyAdd(m, u, a4);
            b4 = Vector512.FusedMultiplyAdd(m, v, b4);
            m = TFormat.Load(w5, k);
            a5 = Vector512.FusedMultiplyAdd(m, u, a5);
            b5 = Vector512.FusedMultiplyAdd(m, v, b5);
            m = TFormat.Load(w6, k);
            a6 = Vector512.FusedMultiplyAdd(m, u, a6);
            b6 = Vector512.FusedMultiplyAdd(m, v, b6);
            m = TFormat.Load(w7, k);
            a7 = Vector512.FusedMultiplyAdd(m, u, a7);
            b7 = Vector512.FusedMultiplyAdd(m, v, b7);
        }

        var low = Math.Min(4, rows);
        Store(SumLanes(a0, a1, a2, a3), low, y, bias, accumulate);
        Store(SumLanes(b0, b1, b2, b3), low, y + yStride, bias, accumulate);
        if (rows <= 4) return;
        var upperBias = bias == null ? null : bias + 4;
        Store(SumLanes(a4, a5, a6, a7), rows - 4, y + 4, upperBias, accumulate);
        Store(SumLanes(b4, b5, b6, b7), rows - 4, y + yStride + 4, upperBias, accumulate);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Tile4x4(byte* w, nint rowBytes, int rows, int K, float* x, nint xStride, float* y, nint yStride, float* bias, bool accumulate)
    {
        byte* w1 = w + (Math.Min(1, rows - 1) * rowBytes), w2 = w + (Math.Min(2, rows - 1) * rowBytes), w3 = w + (Math.Min(3, rows - 1) * rowBytes);
        float* x1 = x + xStride, x2 = x1 + xStride, x3 = x2 + xStride;
        Vector512<float> a0 = default, a1 = default, a2 = default, a3 = default, b0 = default, b1 = default, b2 = default, b3 = default;
        Vector512<float> c0 = default, c1 = default, c2 = default, c3 = default, d0 = default, d1 = default, d2 = default, d3 = default;
        nint k = 0;
        for (; k + Lanes <= K; k += Lanes)
        {
            Vector512<float> m0 = TFormat.Load(w, k), m1 = TFormat.Load(w1, k), m2 = TFormat.Load(w2, k), m3 = TFormat.Load(w3, k);
            var v = Vector512.Load(x + k);
            a0 = Vector512.FusedMultiplyAdd(m0, v, a0);
            a1 = Vector512.FusedMultiplyAdd(m1, v, a1);
            a2 = Vector512.FusedMultiplyAdd(m2, v, a2);
            a3 = Vector512.FusedMultiplyAdd(m3, v, a3);
            v = Vector512.Load(x1 + k);
            b0 = Vector512.FusedMultiplyAdd(m0, v, b0);
            b1 = Vector512.FusedMultiplyAdd(m1, v, b1);
            b2 = Vector512.FusedMultiplyAdd(m2, v, b2);
            b3 = Vector512.FusedMultiplyAdd(m3, v, b3);
            v = Vector512.Load(x2 + k);
            c0 = Vector512.FusedMultiplyAdd(m0, v, c0);
            c1 = Vector512.FusedMultiplyAdd(m1, v, c1);
            c2 = Vector512.FusedMultiplyAdd(m2, v, c2);
            c3 = Vector512.FusedMultiplyAdd(m3, v, c3);
            v = Vector512.Load(x3 + k);
            d0 = Vector512.FusedMultiplyAdd(m0, v, d0);
            d1 = Vector512.FusedMultiplyAdd(m1, v, d1);
            d2 = Vector512.FusedMultiplyAdd(m2, v, d2);
            d3 = Vector512.FusedMultiplyAdd(m3, v, d3);
        }

        Store(SumLanes(a0, a1, a2, a3), rows, y, bias, accumulate);
        Store(SumLanes(b0, b1, b2, b3), rows, y + yStride, bias, accumulate);
        Store(SumLanes(c0, c1, c2, c3), rows, y + (2 * yStride), bias, accumulate);
        Store(SumLanes(d0, d1, d2, d3), rows, y + (3 * yStride), bias, accumulate);
    }

    /// <summary>The sums of four vectors' lanes: first over lanes i and i + 2, then i and i + 1 of each 128 bits, then over the 128-bit parts.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector128<float> SumLanes(Vector512<float> a, Vector512<float> b, Vector512<float> c, Vector512<float> d)
    {
        if (Avx512F.IsSupported)
        {
            var ab = Avx512F.UnpackLow(a, b) + Avx512F.UnpackHigh(a, b);
            var cd = Avx512F.UnpackLow(c, d) + Avx512F.UnpackHigh(c, d);
            var sums = (Avx512F.UnpackLow(ab.AsDouble(), cd.AsDouble()).AsSingle()) + (Avx512F.UnpackHigh(ab.AsDouble(), cd.AsDouble()).AsSingle());
            var half = sums.GetLower() + sums.GetUpper();
            return half.GetLower() + half.GetUpper();
        }

        return Vector128.Create(SumLanes(a), SumLanes(b), SumLanes(c), SumLanes(d));
    }

    private static float SumLanes(Vector512<float> a)
    {
        var half = a.GetLower() + a.GetUpper();
        var quarter = half.GetLower() + half.GetUpper();
        return quarter[0] + quarter[2] + (quarter[1] + quarter[3]);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Store(Vector128<float> sums, int rows, float* y, float* bias, bool accumulate)
    {
        if (rows == 4)
        {
            if (bias != null) sums += Vector128.Load(bias);
            if (accumulate) sums += Vector128.Load(y);
            sums.Store(y);
            return;
        }

        for (var r = 0; r < rows; r++)
        {
            var sum = sums[r] + (bias == null ? 0 : bias[r]);
            y[r] = accumulate ? sum + y[r] : sum;
        }
    }

    /// <summary>Adds what the columns after the last multiple of 16 contribute. Apart, so that the tiles' sums stay in registers.</summary>
    private static void AddTails(byte* w, nint rowBytes, int rows, int K, float* x, nint xStride, int N, float* y, nint yStride)
    {
        for (var n = 0; n < N; n++)
        {
            for (var r = 0; r < rows; r++)
            {
                var sum = 0f;
                for (var k = K / Lanes * Lanes; k < K; k++) sum += x[(n * xStride) + k] * TFormat.LoadOne(w + (r * rowBytes), k);
                y[(n * yStride) + r] += sum;
            }
        }
    }
}
