using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Rho.Kernels;

/// <summary>An activation of the form x logistic(z(x)), of which the slope is s (1 + x (1 - s) z'(x)) with s = logistic(z(x)).</summary>
public interface IActivation
{
    /// <summary>z(x)</summary>
    static abstract Vector512<float> Argument(Vector512<float> x);

    /// <summary>z'(x)</summary>
    static abstract Vector512<float> ArgumentSlope(Vector512<float> x);
}

/// <summary>z(x) = x</summary>
public readonly struct Silu : IActivation
{
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Argument(Vector512<float> x) => x;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> ArgumentSlope(Vector512<float> x) => Vector512<float>.One;
}

/// <summary>x / 2 (1 + tanh(u)), u = sqrt(2 / pi) (x + a x^3): as (1 + tanh(u)) / 2 = logistic(2 u), z = 2 u.</summary>
public readonly struct GeluTanh : IActivation
{
    private const float TwoRoots = 2 * 0.7978845608f, A = 0.044715f;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Argument(Vector512<float> x) => x * (Vector512<float>.One + (x * x * A)) * TwoRoots;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> ArgumentSlope(Vector512<float> x) => (Vector512<float>.One + (x * x * (3 * A))) * TwoRoots;
}

/// <summary>activation(gate) * up of rows of any width; forward and backward in one pass over memory.</summary>
public static unsafe class Gates
{
    /// <param name="gateUp">gate, then up. [rows, 2 width]</param>
    /// <param name="y">[rows, width], <paramref name="stride"/> numbers from row to row; may be the gate's place</param>
    public static void Forward<T, TActivation>(void* gateUp, void* y, long rows, int width, long stride, int threads)
        where T : struct, IWritableFormat where TActivation : struct, IActivation =>
        Work.Over(rows, threads, (first, end) =>
        {
            for (var row = first; row < end; row++) Row<T, TActivation>((byte*)gateUp + T.RowBytes(row * 2 * width), (byte*)y + T.RowBytes(row * stride), width);
        });

    /// <summary>One row.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Row<T, TActivation>(void* gateUp, void* y, int width) where T : struct, IWritableFormat where TActivation : struct, IActivation
    {
        var whole = width & ~15;
        for (var i = 0; i < whole; i += 16) T.Store(Value<TActivation>(T.Load(gateUp, i)) * T.Load(gateUp, width + i), y, i);
        if (whole == width) return;
        var left = width - whole;
        VectorMath.StorePart<T>(Value<TActivation>(VectorMath.LoadPart<T>(gateUp, whole, left)) * VectorMath.LoadPart<T>(gateUp, width + whole, left), y, whole, left);
    }

    /// <summary>The gradient of gate and up, in their place.</summary>
    /// <param name="gradient">of the result. [rows, width]</param>
    public static void Backward<T, TActivation>(void* gateUp, void* gradient, long rows, int width, int threads) where T : struct, IWritableFormat where TActivation : struct, IActivation =>
        Work.Over(rows, threads, (first, end) =>
        {
            for (var row = first; row < end; row++) BackwardRow<T, TActivation>((byte*)gateUp + T.RowBytes(row * 2 * width), (byte*)gradient + T.RowBytes(row * width), width);
        });

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void BackwardRow<T, TActivation>(void* gateUp, void* gradient, int width) where T : struct, IWritableFormat where TActivation : struct, IActivation
    {
        var whole = width & ~15;
        for (var i = 0; i < whole; i += 16)
        {
            var (gate, up) = Gradient<TActivation>(T.Load(gateUp, i), T.Load(gateUp, width + i), T.Load(gradient, i));
            T.Store(gate, gateUp, i);
            T.Store(up, gateUp, width + i);
        }

        if (whole == width) return;
        var left = width - whole;
        var (lastGate, lastUp) = Gradient<TActivation>(
            VectorMath.LoadPart<T>(gateUp, whole, left), VectorMath.LoadPart<T>(gateUp, width + whole, left), VectorMath.LoadPart<T>(gradient, whole, left));
        VectorMath.StorePart<T>(lastGate, gateUp, whole, left);
        VectorMath.StorePart<T>(lastUp, gateUp, width + whole, left);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Vector512<float> Value<TActivation>(Vector512<float> x) where TActivation : struct, IActivation => x * VectorMath.Logistic(TActivation.Argument(x));

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static (Vector512<float> Gate, Vector512<float> Up) Gradient<TActivation>(Vector512<float> x, Vector512<float> up, Vector512<float> dy) where TActivation : struct, IActivation
    {
        var s = VectorMath.Logistic(TActivation.Argument(x));
        var slope = s * (Vector512<float>.One + (x * (Vector512<float>.One - s) * TActivation.ArgumentSlope(x)));
        return (dy * up * slope, dy * x * s);
    }
}
