using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Rho.Kernels;

/// <summary>x / sqrt(mean(x^2) + epsilon) * (weight + shift) of rows, in one pass over memory each way.</summary>
public static unsafe class RmsNorm
{
    /// <param name="x">[rows, width]</param>
    /// <param name="weight">[width]</param>
    /// <param name="y">[rows, width]; may be x</param>
    public static void Forward<T>(void* x, void* weight, void* y, long rows, int width, double epsilon, float shift, int threads) where T : struct, IWritableFormat =>
        Work.Over(rows, threads, (first, end) =>
        {
            for (var row = first; row < end; row++) Row<T>((byte*)x + T.RowBytes(row * width), weight, (byte*)y + T.RowBytes(row * width), width, epsilon, shift);
        });

    /// <summary>One row, of any width. x and y may be the same.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Row<T>(void* x, void* weight, void* y, int width, double epsilon, float shift) where T : struct, IWritableFormat
    {
        var (inverse, offset) = (Vector512.Create(InverseRms<T>(x, width, epsilon)), Vector512.Create(shift));
        var whole = width & ~15;
        for (var i = 0; i < whole; i += 16) T.Store(T.Load(x, i) * inverse * (T.Load(weight, i) + offset), y, i);
        if (whole == width) return;
        var left = width - whole;
        VectorMath.StorePart<T>(VectorMath.LoadPart<T>(x, whole, left) * inverse * (VectorMath.LoadPart<T>(weight, whole, left) + offset), y, whole, left);
    }

    /// <summary>With r the inverse root mean square, n = x r and g = dy (w + shift): dx = r (g - n mean(g n)), dw = sum over rows of dy n.</summary>
    /// <param name="width">a multiple of 16</param>
    /// <param name="gradient">of the result. [rows, width]</param>
    /// <param name="dx">[rows, width], written; may be the gradient</param>
    /// <param name="dw">[width], added to</param>
    public static void Backward<T>(void* x, void* weight, void* gradient, void* dx, float* dw, long rows, int width, double epsilon, float shift, int threads)
        where T : struct, IWritableFormat
    {
        const int parts = 8;   // fixed, so that the sum's order does not depend on the number of threads
        using var partial = new NativeBuffer((long)parts * width * sizeof(float));
        var sums = partial.Floats;
        Work.Over(parts, threads, (firstPart, endPart) =>
        {
            for (var part = firstPart; part < endPart; part++)
            {
                for (var row = rows * part / parts; row < rows * (part + 1) / parts; row++)
                {
                    var at = T.RowBytes(row * width);
                    BackwardRow<T>((byte*)x + at, weight, (byte*)gradient + at, (byte*)dx + at, sums + (part * width), width, epsilon, shift);
                }
            }
        });
        for (var i = 0; i < width; i += 16)
        {
            var total = Vector512.Load(sums + i);
            for (var part = 1; part < parts; part++) total += Vector512.Load(sums + (part * width) + i);
            (Vector512.Load(dw + i) + total).Store(dw + i);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void BackwardRow<T>(void* x, void* weight, void* gradient, void* dx, float* dw, int width, double epsilon, float shift) where T : struct, IWritableFormat
    {
        var (inverse, offset, dot) = (Vector512.Create(InverseRms<T>(x, width, epsilon)), Vector512.Create(shift), Vector512<float>.Zero);
        for (var i = 0; i < width; i += 16)
        {
            var n = T.Load(x, i) * inverse;
            var dy = T.Load(gradient, i);
            Vector512.FusedMultiplyAdd(dy, n, Vector512.Load(dw + i)).Store(dw + i);
            dot = Vector512.FusedMultiplyAdd(dy * (T.Load(weight, i) + offset), n, dot);
        }

        var mean = Vector512.Create(Vector512.Sum(dot) / width);
        for (var i = 0; i < width; i += 16)
            T.Store(inverse * ((T.Load(gradient, i) * (T.Load(weight, i) + offset)) - (T.Load(x, i) * inverse * mean)), dx, i);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static float InverseRms<T>(void* x, int width, double epsilon) where T : struct, INumberFormat
    {
        var (whole, sum) = (width & ~15, Vector512<float>.Zero);
        for (var i = 0; i < whole; i += 16)
        {
            var value = T.Load(x, i);
            sum = Vector512.FusedMultiplyAdd(value, value, sum);
        }

        if (whole < width && VectorMath.LoadPart<T>(x, whole, width - whole) is var last) sum = Vector512.FusedMultiplyAdd(last, last, sum);
        return (float)(1 / Math.Sqrt((Vector512.Sum(sum) / width) + epsilon));
    }
}
