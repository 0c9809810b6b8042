using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Rho.Kernels;

/// <summary>
/// y[n, r] = sum_k x[n, k] w[r, k] for few to some hundred rows of x. Weights are read as they lie and once per block of tokens.
/// Every output is one chain of fused multiply-adds over k in 16 lanes and one fixed sum of the lanes (and of what is left of k), whatever else is computed
/// beside it: a row's result does not depend on the rows it shares the call with.
/// </summary>
// N tokens, R weight rows, K columns.
public static unsafe class MatrixKernel<TFormat> where TFormat : struct, INumberFormat
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
                var b = bias is null ? null : bias + r;
                var n = n0;
                for (; n + 4 <= n1; n += 4)
                {
                    Tile4x4(row, rowBytes, Math.Min(4, rows), K, x + (n * xStride), xStride, y + (n * yStride) + r, yStride, b, accumulate);
                    if (rows > 4)
                        Tile4x4(row + (4 * rowBytes), rowBytes, rows - 4, K, x + (n * xStride), xStride, y + (n * yStride) + r + 4, yStride, b is null ? null : b + 4, accumulate);
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

    /// <summary>Up to 8 weight rows and one token. Rows past the end repeat the last one and are not stored.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Tile8x1(byte* w, nint rowBytes, int rows, int K, float* x, float* y, float* bias, bool accumulate)
    {
        byte* w1 = w + (Math.Min(1, rows - 1) * rowBytes), w2 = w + (Math.Min(2, rows - 1) * rowBytes), w3 = w + (Math.Min(3, rows - 1) * rowBytes);
        byte* w4 = w + (Math.Min(4, rows - 1) * rowBytes), w5 = w + (Math.Min(5, rows - 1) * rowBytes), w6 = w + (Math.Min(6, rows - 1) * rowBytes), w7 = w + (Math.Min(7, rows - 1) * rowBytes);
        Four low = default, high = default;
        for (nint k = 0; k + Lanes <= K; k += Lanes)
        {
            var v = Vector512.Load(x + k);
            low.Add(Four.Load<TFormat>(w, w1, w2, w3, k), v);
            high.Add(Four.Load<TFormat>(w4, w5, w6, w7, k), v);
        }

        Store(low, Math.Min(4, rows), y, bias, accumulate);
        if (rows > 4) Store(high, rows - 4, y + 4, bias is null ? null : bias + 4, accumulate);
    }

    /// <summary>Up to 8 weight rows and two tokens.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Tile8x2(byte* w, nint rowBytes, int rows, int K, float* x, nint xStride, float* y, nint yStride, float* bias, bool accumulate)
    {
        byte* w1 = w + (Math.Min(1, rows - 1) * rowBytes), w2 = w + (Math.Min(2, rows - 1) * rowBytes), w3 = w + (Math.Min(3, rows - 1) * rowBytes);
        byte* w4 = w + (Math.Min(4, rows - 1) * rowBytes), w5 = w + (Math.Min(5, rows - 1) * rowBytes), w6 = w + (Math.Min(6, rows - 1) * rowBytes), w7 = w + (Math.Min(7, rows - 1) * rowBytes);
        var x1 = x + xStride;
        Four low = default, high = default, low1 = default, high1 = default;
        for (nint k = 0; k + Lanes <= K; k += Lanes)
        {
            var (u, v) = (Vector512.Load(x + k), Vector512.Load(x1 + k));
            var m = Four.Load<TFormat>(w, w1, w2, w3, k);
            low.Add(m, u);
            low1.Add(m, v);
            m = Four.Load<TFormat>(w4, w5, w6, w7, k);
            high.Add(m, u);
            high1.Add(m, v);
        }

        Store(low, Math.Min(4, rows), y, bias, accumulate);
        Store(low1, Math.Min(4, rows), y + yStride, bias, accumulate);
        if (rows <= 4) return;
        var upperBias = bias is null ? null : bias + 4;
        Store(high, rows - 4, y + 4, upperBias, accumulate);
        Store(high1, rows - 4, y + yStride + 4, upperBias, accumulate);
    }

    /// <summary>Up to 4 weight rows and four tokens.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Tile4x4(byte* w, nint rowBytes, int rows, int K, float* x, nint xStride, float* y, nint yStride, float* bias, bool accumulate)
    {
        byte* w1 = w + (Math.Min(1, rows - 1) * rowBytes), w2 = w + (Math.Min(2, rows - 1) * rowBytes), w3 = w + (Math.Min(3, rows - 1) * rowBytes);
        float* x1 = x + xStride, x2 = x1 + xStride, x3 = x2 + xStride;
        Four a = default, b = default, c = default, d = default;
        for (nint k = 0; k + Lanes <= K; k += Lanes)
        {
            var m = Four.Load<TFormat>(w, w1, w2, w3, k);
            a.Add(m, Vector512.Load(x + k));
            b.Add(m, Vector512.Load(x1 + k));
            c.Add(m, Vector512.Load(x2 + k));
            d.Add(m, Vector512.Load(x3 + k));
        }

        Store(a, rows, y, bias, accumulate);
        Store(b, rows, y + yStride, bias, accumulate);
        Store(c, rows, y + (2 * yStride), bias, accumulate);
        Store(d, rows, y + (3 * yStride), bias, accumulate);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static void Store(Four four, int rows, float* y, float* bias, bool accumulate)
    {
        var sums = Four.SumLanes(four);
        if (rows == 4)
        {
            if (bias is not null) sums += Vector128.Load(bias);
            if (accumulate) sums += Vector128.Load(y);
            sums.Store(y);
            return;
        }

        for (var r = 0; r < rows; r++)
        {
            var sum = sums[r] + (bias is null ? 0 : bias[r]);
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
                for (var k = K / Lanes * Lanes; k < K; k++) sum += x[(n * xStride) + k] * TFormat.Get(w + (r * rowBytes), k);
                y[(n * yStride) + r] += sum;
            }
        }
    }
}
