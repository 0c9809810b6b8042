using System.Runtime.Intrinsics;
using static TorchSharp.torch;

namespace Rho.Model.Cpu;

/// <summary>
/// (silu(gate) * up) down^T of rows that hold gate, then up. [rows, 2 F], [D, F] to [rows, D]
/// The product's input is computed again in the backward: it is cheap to make and, kept, a fifth of a block's memory.
/// </summary>
internal sealed unsafe class SwiGluLinear : CpuFunction<SwiGluLinear>
{
    /// <summary>gateUp [rows, 2 F], down [D, F]</summary>
    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var (gateUp, down) = ((Tensor)vars[0], (Tensor)vars[1]);
        ctx.save_for_backward([gateUp, down]);
        using var inner = Activate(gateUp);
        return nn.functional.linear(inner, down);
    }

    protected override List<Tensor?> Gradients(autograd.AutogradContext ctx, Tensor gradient)
    {
        var saved = ctx.get_saved_variables();
        var (gateUp, down) = (saved[0], saved[1]);
        Tensor downGradient;                                                // of the gradient [rows, D]
        using (var inner = Activate(gateUp)) downGradient = gradient.t().mm(inner);
        using var innerGradient = gradient.mm(down);                        // [rows, F]
        return [Differentiate(gateUp, innerGradient), downGradient];
    }

    /// <summary>[rows, 2 F] to [rows, F]</summary>
    internal static Tensor Activate(Tensor gateUp)
    {
        var (rows, width) = (gateUp.size(0), gateUp.size(1) / 2);
        var y = empty([rows, width], gateUp.dtype);
        if (gateUp.dtype == ScalarType.Float32) Forward<Float32>(gateUp, gateUp, width, y);
        else Forward<BFloat16>(gateUp, gateUp, width, y);
        return y;
    }

    /// <summary>silu(gate) * up, in place of the gate. Both [rows, F]</summary>
    internal static void Activate_(Tensor gate, Tensor up)
    {
        if (gate.dtype == ScalarType.Float32) Forward<Float32>(gate, up, 0, gate);
        else Forward<BFloat16>(gate, up, 0, gate);
    }

    /// <summary>The gradient of <see cref="Activate"/>'s input. [rows, 2 F], [rows, F] to [rows, 2 F]</summary>
    internal static Tensor Differentiate(Tensor gateUp, Tensor gradient)
    {
        var (rows, width) = (gateUp.size(0), gateUp.size(1) / 2);
        var result = empty_like(gateUp);
        if (gateUp.dtype == ScalarType.Float32) Backward<Float32>(gateUp, gradient, result, rows, width);
        else Backward<BFloat16>(gateUp, gradient, result, rows, width);
        return result;
    }

    private static Vector512<float> Sigmoid(Vector512<float> x) => Vector512<float>.One / (Vector512<float>.One + Vector512.Exp(-x));

    /// <param name="gates">rows that begin with gates</param>
    /// <param name="ups">rows as long, with the factors from <paramref name="firstUp"/> on</param>
    /// <param name="y">[rows, F], written; may be the gates</param>
    private static void Forward<T>(Tensor gates, Tensor ups, long firstUp, Tensor y) where T : struct, IElement
    {
        var (stride, width) = (gates.size(1), y.size(1));
        var (pg, pu, py) = ((nint)Work.Pointer(gates), (nint)Work.Pointer(ups), (nint)Work.Pointer(y));
        Work.Over(y.size(0), (first, end) =>
        {
            var whole = width & ~15L;
            for (var row = first; row < end; row++)
            {
                var (gate, up, to) = (row * stride, (row * stride) + firstUp, row * width);
                for (long i = 0; i < whole; i += 16)
                {
                    var value = T.Load((void*)pg, gate + i);
                    T.Store(value * Sigmoid(value) * T.Load((void*)pu, up + i), (void*)py, to + i);
                }

                for (var i = whole; i < width; i++)
                {
                    var value = T.Get((void*)pg, gate + i);
                    T.Set(value / (1 + MathF.Exp(-value)) * T.Get((void*)pu, up + i), (void*)py, to + i);
                }
            }
        });
    }

    // d silu(g) = s (1 + g (1 - s)) with s = sigmoid(g).
    private static void Backward<T>(Tensor gateUp, Tensor gradient, Tensor result, long rows, long width) where T : struct, IElement
    {
        var (px, pg, pd) = ((nint)Work.Pointer(gateUp), (nint)Work.Pointer(gradient), (nint)Work.Pointer(result));
        Work.Over(rows, (first, end) =>
        {
            for (var row = first; row < end; row++)
            {
                var start = row * 2 * width;
                for (long i = 0; i < width; i += 16)
                {
                    var gate = T.Load((void*)px, start + i);
                    var up = T.Load((void*)px, start + width + i);
                    var dy = T.Load((void*)pg, (row * width) + i);
                    var s = Sigmoid(gate);
                    T.Store(dy * up * s * (Vector512<float>.One + (gate * (Vector512<float>.One - s))), (void*)pd, start + i);
                    T.Store(dy * gate * s, (void*)pd, start + width + i);
                }
            }
        });
    }
}
