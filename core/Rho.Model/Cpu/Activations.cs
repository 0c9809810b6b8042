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
            var whole = width & ~15L;
            for (var row = first; row < end; row++)
            {
                var (gates, ups, to) = (row * 2 * width, (row * 2 * width) + width, row * stride);
                for (long i = 0; i < whole; i += 16)
                {
                    var x = T.Load((void*)px, gates + i);
                    T.Store(TFunction.Value(x, TFunction.Inner(x)) * T.Load((void*)px, ups + i), (void*)py, to + i);
                }

                if (whole == width) continue;
                var last = Load<T>((void*)px, gates + whole, width - whole);
                Store<T>(TFunction.Value(last, TFunction.Inner(last)) * Load<T>((void*)px, ups + whole, width - whole), (void*)py, to + whole, width - whole);
            }
        });
    }

    private static void Backward<T, TFunction>(Tensor gateUp, Tensor gradient) where T : struct, IElement where TFunction : struct, IFunction
    {
        var width = gradient.size(1);
        var (px, pg) = ((nint)Work.Pointer(gateUp), (nint)Work.Pointer(gradient));
        Work.Over(gradient.size(0), (first, end) =>
        {
            var whole = width & ~15L;
            for (var row = first; row < end; row++)
            {
                var (gates, ups, given) = (row * 2 * width, (row * 2 * width) + width, row * width);
                for (long i = 0; i < whole; i += 16)
                {
                    var (x, dy) = (T.Load((void*)px, gates + i), T.Load((void*)pg, given + i));
                    var inner = TFunction.Inner(x);
                    T.Store(dy * T.Load((void*)px, ups + i) * TFunction.Slope(x, inner), (void*)px, gates + i);
                    T.Store(dy * TFunction.Value(x, inner), (void*)px, ups + i);
                }

                if (whole == width) continue;
                var (left, last) = (width - whole, Load<T>((void*)px, gates + whole, width - whole));
                var (end1, dy1) = (TFunction.Inner(last), Load<T>((void*)pg, given + whole, left));
                Store<T>(dy1 * Load<T>((void*)px, ups + whole, left) * TFunction.Slope(last, end1), (void*)px, gates + whole, left);
                Store<T>(dy1 * TFunction.Value(last, end1), (void*)px, ups + whole, left);
            }
        });
    }

    /// <summary>Fewer than 16 numbers; zeros beyond them.</summary>
    private static Vector512<float> Load<T>(void* p, long at, long count) where T : struct, IElement
    {
        var values = Vector512<float>.Zero;
        for (var i = 0; i < count; i++) values = values.WithElement(i, T.Get(p, at + i));
        return values;
    }

    private static void Store<T>(Vector512<float> values, void* p, long at, long count) where T : struct, IElement
    {
        for (var i = 0; i < count; i++) T.Set(values[i], p, at + i);
    }

    /// <summary>A function and its slope, both of what is found once.</summary>
    private interface IFunction
    {
        static abstract Vector512<float> Inner(Vector512<float> x);
        static abstract Vector512<float> Value(Vector512<float> x, Vector512<float> inner);
        static abstract Vector512<float> Slope(Vector512<float> x, Vector512<float> inner);
    }

    // With s = sigmoid(x): silu(x) = x s, and its slope is s (1 + x (1 - s)).
    private readonly struct SiluFunction : IFunction
    {
        public static Vector512<float> Inner(Vector512<float> x) => Vector512<float>.One / (Vector512<float>.One + Vector512.Exp(-x));

        public static Vector512<float> Value(Vector512<float> x, Vector512<float> s) => x * s;

        public static Vector512<float> Slope(Vector512<float> x, Vector512<float> s) => s * (Vector512<float>.One + (x * (Vector512<float>.One - s)));
    }

    // With u = sqrt(2 / pi) (x + a x^3) and t = tanh(u): gelu(x) = x (1 + t) / 2, and its slope is (1 + t) / 2 + x / 2 (1 - t^2) u'.
    private readonly struct GeluFunction : IFunction
    {
        private const float Root = 0.7978845608f, A = 0.044715f;

        public static Vector512<float> Inner(Vector512<float> x) => Tanh(x * (Vector512<float>.One + (x * x * A)) * Root);

        public static Vector512<float> Value(Vector512<float> x, Vector512<float> t) => x * 0.5f * (Vector512<float>.One + t);

        public static Vector512<float> Slope(Vector512<float> x, Vector512<float> t) =>
            ((Vector512<float>.One + t) * 0.5f) + (x * 0.5f * (Vector512<float>.One - (t * t)) * (Vector512<float>.One + (x * x * (3 * A))) * Root);
    }
}
