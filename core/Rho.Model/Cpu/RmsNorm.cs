using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using static TorchSharp.torch;

namespace Rho.Model.Cpu;

/// <summary>x / sqrt(mean(x^2) + epsilon) * weight over the last dimension, in one pass over memory each way.</summary>
internal sealed unsafe class RmsNorm : CpuFunction<RmsNorm>
{
    /// <summary>x [.., width], weight [width], epsilon</summary>
    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var (x, weight, epsilon) = ((Tensor)vars[0], (Tensor)vars[1], (double)vars[2]);
        x = x.contiguous();
        ctx.save_for_backward([x, weight]);
        ctx.save_data("epsilon", epsilon);
        return Normed(x, weight, epsilon);
    }

    protected override List<Tensor?> Gradients(autograd.AutogradContext ctx, Tensor gradient)
    {
        var saved = ctx.get_saved_variables();
        var (dx, dweight) = Gradients(saved[0], saved[1], gradient, (double)ctx.get_data("epsilon"));
        return [dx, dweight, null];
    }

    internal static Tensor Normed(Tensor x, Tensor weight, double epsilon)
    {
        var y = empty_like(x);
        Norm(x, weight, y, epsilon);
        return y;
    }

    /// <summary>Into <paramref name="y"/>, of x's shape.</summary>
    internal static void Norm(Tensor x, Tensor weight, Tensor y, double epsilon)
    {
        if (x.dtype == ScalarType.Float32) Forward<Float32>(x, weight, y, epsilon);
        else Forward<BFloat16>(x, weight, y, epsilon);
    }

    internal static (Tensor X, Tensor Weight) Gradients(Tensor x, Tensor weight, Tensor gradient, double epsilon)
    {
        var (dx, dweight) = (empty_like(x), empty_like(weight));
        if (x.dtype == ScalarType.Float32) Backward<Float32>(x, weight, gradient, dx, dweight, epsilon);
        else Backward<BFloat16>(x, weight, gradient, dx, dweight, epsilon);
        return (dx, dweight);
    }

    private static void Forward<T>(Tensor x, Tensor weight, Tensor y, double epsilon) where T : struct, IElement
    {
        var width = weight.NumberOfElements;
        var (px, pw, py) = ((nint)Work.Pointer(x), (nint)Work.Pointer(weight), (nint)Work.Pointer(y));
        Work.Over(x.NumberOfElements / width, (first, end) =>
        {
            for (var row = first; row < end; row++)
            {
                var start = row * width;
                var inverse = Vector512.Create(InverseRms<T>((void*)px, start, width, epsilon));
                for (long i = 0; i < width; i += 16)
                    T.Store(T.Load((void*)px, start + i) * inverse * T.Load((void*)pw, i), (void*)py, start + i);
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

    // With r the inverse root mean square, n = x r and g = dy w: dx = r (g - n mean(g n)), dw = sum over rows of dy n.
    private static void Backward<T>(Tensor x, Tensor weight, Tensor gradient, Tensor dx, Tensor dweight, double epsilon) where T : struct, IElement
    {
        var width = weight.NumberOfElements;
        var rows = x.NumberOfElements / width;
        const int parts = 8;   // fixed, so that the sum's order does not depend on the number of threads
        var partial = new float[parts * width];
        var (px, pw, pg, pd) = ((nint)Work.Pointer(x), (nint)Work.Pointer(weight), (nint)Work.Pointer(gradient), (nint)Work.Pointer(dx));
        fixed (float* sums = partial)
        {
            var all = (nint)sums;
            Work.Over(parts, (firstPart, endPart) =>
            {
                for (var part = firstPart; part < endPart; part++)
                {
                    var sum = (float*)all + (part * width);
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
                            Vector512.FusedMultiplyAdd(dy, n, Vector512.Load(sum + i)).Store(sum + i);
                            dot = Vector512.FusedMultiplyAdd(dy * T.Load((void*)pw, i), n, dot);
                        }

                        var mean = Vector512.Create(Vector512.Sum(dot) / width);
                        for (long i = 0; i < width; i += 16)
                        {
                            var n = T.Load((void*)px, start + i) * inverse;
                            T.Store(inverse * ((T.Load((void*)pg, start + i) * T.Load((void*)pw, i)) - (n * mean)), (void*)pd, start + i);
                        }
                    }
                }
            });
            var result = Work.Pointer(dweight);
            for (long i = 0; i < width; i += 16)
            {
                var sum = Vector512.Load(sums + i);
                for (var part = 1; part < parts; part++) sum += Vector512.Load(sums + (part * width) + i);
                T.Store(sum, result, i);
            }
        }
    }
}
