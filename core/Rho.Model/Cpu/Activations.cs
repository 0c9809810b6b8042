using System.Runtime.Intrinsics;
using Rho.Model.Architectures;
using static TorchSharp.torch;

namespace Rho.Model.Cpu;

/// <summary>activation(gate) * up of rows that hold gate, then up; forward and backward in one pass over memory.</summary>
internal static unsafe class Activations
{
    /// <summary>[rows, 2 F], to [rows, F], whose rows may be apart, and may be those of the gate</summary>
    internal static void Gate(Tensor gateUp, Activation activation, Tensor y)
    {
        switch (gateUp.dtype, activation)
        {
            case (ScalarType.Float32, Activation.Silu): Forward<Float32, SiluFunction>(gateUp, y); break;
            case (ScalarType.Float32, _): Forward<Float32, GeluFunction>(gateUp, y); break;
            case (_, Activation.Silu): Forward<BFloat16, SiluFunction>(gateUp, y); break;
            default: Forward<BFloat16, GeluFunction>(gateUp, y); break;
        }
    }

    /// <summary>The gradient of gate and up, in their place. [rows, 2 F], [rows, F]</summary>
    internal static void Differentiate(Tensor gateUp, Tensor gradient, Activation activation)
    {
        switch (gateUp.dtype, activation)
        {
            case (ScalarType.Float32, Activation.Silu): Backward<Float32, SiluFunction>(gateUp, gradient); break;
            case (ScalarType.Float32, _): Backward<Float32, GeluFunction>(gateUp, gradient); break;
            case (_, Activation.Silu): Backward<BFloat16, SiluFunction>(gateUp, gradient); break;
            default: Backward<BFloat16, GeluFunction>(gateUp, gradient); break;
        }
    }

    internal static Vector512<float> Tanh(Vector512<float> x)
    {
        // Near zero the quotient's error would be large beside the result: the series there.
        var square = x * x;
        var near = x * (Vector512<float>.One + (square * (Vector512.Create(-1 / 3f) + (square * (Vector512.Create(2 / 15f) + (square * (Vector512.Create(-17 / 315f) + (square * (62 / 2835f)))))))));
        var far = Vector512<float>.One - (Vector512.Create(2f) / (Vector512.Exp(x + x) + Vector512<float>.One));
        return Vector512.ConditionalSelect(Vector512.LessThan(square, Vector512.Create(0.09f)), near, far);
    }

    private static void Forward<T, TFunction>(Tensor gateUp, Tensor y) where T : struct, IElement where TFunction : struct, IFunction
    {
        var (width, stride) = (y.size(1), y.stride(0));
        var (px, py) = ((nint)Work.Pointer(gateUp), FlatMemory.First(y));
        Work.Over(y.size(0), (first, end) =>
        {
            for (var row = first; row < end; row++)
            {
                var (from, to) = (row * 2 * width, row * stride);
                for (long i = 0; i < width; i += 16)
                    Store<T>(TFunction.Of(Load<T>((void*)px, from + i, width - i)).Value * Load<T>((void*)px, from + width + i, width - i), (void*)py, to + i, width - i);
            }
        });
    }

    private static void Backward<T, TFunction>(Tensor gateUp, Tensor gradient) where T : struct, IElement where TFunction : struct, IFunction
    {
        var width = gradient.size(1);
        var (px, pg) = ((nint)Work.Pointer(gateUp), (nint)Work.Pointer(gradient));
        Work.Over(gradient.size(0), (first, end) =>
        {
            for (var row = first; row < end; row++)
            {
                var start = row * 2 * width;
                for (long i = 0; i < width; i += 16)
                {
                    var (value, slope) = TFunction.Of(Load<T>((void*)px, start + i, width - i));
                    var up = Load<T>((void*)px, start + width + i, width - i);
                    var dy = Load<T>((void*)pg, (row * width) + i, width - i);
                    Store<T>(dy * up * slope, (void*)px, start + i, width - i);
                    Store<T>(dy * value, (void*)px, start + width + i, width - i);
                }
            }
        });
    }

    /// <summary>Up to 16 numbers; zeros beyond <paramref name="left"/>.</summary>
    [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.AggressiveInlining)]
    private static Vector512<float> Load<T>(void* p, long at, long left) where T : struct, IElement
    {
        if (left >= 16) return T.Load(p, at);
        var values = Vector512<float>.Zero;
        for (var i = 0; i < left; i++) values = values.WithElement(i, T.Get(p, at + i));
        return values;
    }

    [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.AggressiveInlining)]
    private static void Store<T>(Vector512<float> values, void* p, long at, long left) where T : struct, IElement
    {
        if (left >= 16) T.Store(values, p, at);
        else
            for (var i = 0; i < left; i++) T.Set(values[i], p, at + i);
    }

    private interface IFunction
    {
        static abstract (Vector512<float> Value, Vector512<float> Slope) Of(Vector512<float> x);
    }

    // d silu(x) = s (1 + x (1 - s)) with s = sigmoid(x).
    private readonly struct SiluFunction : IFunction
    {
        [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.AggressiveInlining)]
        public static (Vector512<float> Value, Vector512<float> Slope) Of(Vector512<float> x)
        {
            var s = Vector512<float>.One / (Vector512<float>.One + Vector512.Exp(-x));
            return (x * s, s * (Vector512<float>.One + (x * (Vector512<float>.One - s))));
        }
    }

    // With u = sqrt(2 / pi) (x + a x^3) and t = tanh(u): d gelu(x) = (1 + t) / 2 + x / 2 (1 - t^2) u'.
    private readonly struct GeluFunction : IFunction
    {
        [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.AggressiveInlining)]
        public static (Vector512<float> Value, Vector512<float> Slope) Of(Vector512<float> x)
        {
            const float root = 0.7978845608f, a = 0.044715f;
            var (one, half) = (Vector512<float>.One, x * 0.5f);
            var square = x * x;
            var t = Tanh(x * (one + (square * a)) * root);
            return (half * (one + t), ((one + t) * 0.5f) + (half * (one - (t * t)) * (one + (square * (3 * a))) * root));
        }
    }
}
