using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using static TorchSharp.torch;

namespace Rho.Model.Cpu;

/// <summary>x / sqrt(mean(x^2) + epsilon) * (weight + shift) over the last dimension, in one pass over memory each way.</summary>
internal static unsafe class RmsNorm
{
    /// <summary>Into <paramref name="y"/>, of x's shape, which may be x.</summary>
    internal static void Norm(Tensor x, Tensor weight, Tensor y, double epsilon, float shift)
    {
        if (x.dtype == ScalarType.Float32) Forward<Float32>(x, weight, y, epsilon, shift);
        else Forward<BFloat16>(x, weight, y, epsilon, shift);
    }

    /// <summary>The gradient of x; that of the weight is added to <paramref name="sum"/>, which is float32.</summary>
    internal static Tensor Gradient(Tensor x, Tensor weight, Tensor gradient, double epsilon, float shift, Tensor sum)
    {
        var dx = empty_like(x);
        if (x.dtype == ScalarType.Float32) Backward<Float32>(x, weight, gradient, dx, sum, epsilon, shift);
        else Backward<BFloat16>(x, weight, gradient, dx, sum, epsilon, shift);
        return dx;
    }

    private static void Forward<T>(Tensor x, Tensor weight, Tensor y, double epsilon, float shift) where T : struct, IElement
    {
        var width = weight.NumberOfElements;
        var (px, pw, py) = ((nint)Work.Pointer(x), (nint)Work.Pointer(weight), (nint)Work.Pointer(y));
        Work.Over(x.NumberOfElements / width, (first, end) =>
        {
            for (var row = first; row < end; row++)
            {
                var start = row * width;
                var (inverse, offset) = (Vector512.Create(InverseRms<T>((void*)px, start, width, epsilon)), Vector512.Create(shift));
                for (long i = 0; i < width; i += 16)
                    T.Store(T.Load((void*)px, start + i) * inverse * (T.Load((void*)pw, i) + offset), (void*)py, start + i);
            }
        });
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static float InverseRms<T>(void* x, long start, long width, double epsilon) where T : struct, IElement
    {
        var sum = Vector512<float>.Zero;
        for (long i = 0; i < width; i += 16)
        {
            var value = T.Load(x, start + i);
            sum = Vector512.FusedMultiplyAdd(value, value, sum);
        }

        return (float)(1 / Math.Sqrt((Vector512.Sum(sum) / width) + epsilon));
    }

    // With r the inverse root mean square, n = x r and g = dy (w + shift): dx = r (g - n mean(g n)), dw = sum over rows of dy n.
    private static void Backward<T>(Tensor x, Tensor weight, Tensor gradient, Tensor dx, Tensor sum, double epsilon, float shift) where T : struct, IElement
    {
        var width = weight.NumberOfElements;
        var rows = x.NumberOfElements / width;
        const int parts = 8;   // fixed, so that the sum's order does not depend on the number of threads
        var partial = new float[parts * width];
        var (px, pw, pg, pd) = ((nint)Work.Pointer(x), (nint)Work.Pointer(weight), (nint)Work.Pointer(gradient), (nint)Work.Pointer(dx));
        fixed (float* sums = partial)
        {
            var (all, offset) = ((nint)sums, Vector512.Create(shift));
            Work.Over(parts, (firstPart, endPart) =>
            {
                for (var part = firstPart; part < endPart; part++)
                {
                    var weightSum = (float*)all + (part * width);
                    for (var row = rows * part / parts; row < rows * (part + 1) / parts; row++)
                    {
                        var start = row * width;
                        var r = InverseRms<T>((void*)px, start, width, epsilon);
                        var inverse = Vector512.Create(r);
                        var dot = Vector512<float>.Zero;
                        for (long i = 0; i < width; i += 16)
                        {
                            var n = T.Load((void*)px, start + i) * inverse;
                            var dy = T.Load((void*)pg, start + i);
                            Vector512.FusedMultiplyAdd(dy, n, Vector512.Load(weightSum + i)).Store(weightSum + i);
                            dot = Vector512.FusedMultiplyAdd(dy * (T.Load((void*)pw, i) + offset), n, dot);
                        }

                        var mean = Vector512.Create(Vector512.Sum(dot) / width);
                        for (long i = 0; i < width; i += 16)
                        {
                            var n = T.Load((void*)px, start + i) * inverse;
                            T.Store(inverse * ((T.Load((void*)pg, start + i) * (T.Load((void*)pw, i) + offset)) - (n * mean)), (void*)pd, start + i);
                        }
                    }
                }
            });
            var result = (float*)Work.Pointer(sum);
            for (long i = 0; i < width; i += 16)
            {
                var total = Vector512.Load(sums + i);
                for (var part = 1; part < parts; part++) total += Vector512.Load(sums + (part * width) + i);
                (Vector512.Load(result + i) + total).Store(result + i);
            }
        }
    }
}
