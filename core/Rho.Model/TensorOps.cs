using Rho.Model.Architectures;
using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>The parts of a block that are not matrix products, forward and backward: by the CPU's kernels where they take the tensor, else in libtorch's operations.</summary>
internal static class TensorOps
{
    /// <summary>float32, or float64 as it is.</summary>
    internal static Tensor Wide(Tensor x) => x.dtype == ScalarType.Float64 ? x : x.to(ScalarType.Float32);

    /// <summary>cap * tanh(x / cap) in place, where there is a cap.</summary>
    internal static Tensor Cap_(Tensor x, double? cap) => cap is { } most ? x.div_(most).tanh_().mul_(most) : x;

    /// <summary>The inputs of the first block. [tokens, hidden]</summary>
    internal static Tensor Embed(LanguageModel model, Tensor tokens)
    {
        var rows = model[model.Network.Embedding].index_select(0, tokens);
        return model.Network.EmbeddingScale == 1 ? rows : rows.mul_(EmbeddingScale(model));
    }

    /// <summary>Rounded to the model's type, as in the implementations that trained the models.</summary>
    internal static double EmbeddingScale(LanguageModel model)
    {
        using var scale = tensor(model.Network.EmbeddingScale, model.Dtype);
        using var wide = scale.to(ScalarType.Float64);
        return wide.item<double>();
    }

    /// <summary>x / sqrt(mean(x^2) + epsilon) * (weight + shift) over the last dimension, the mean in float32.</summary>
    internal static Tensor RmsNorm(Tensor x, Tensor weight, Norm norm)
    {
        var y = empty_like(x);
        RmsNorm(x, weight, norm, y);
        return y;
    }

    /// <summary>As above, into <paramref name="y"/>.</summary>
    internal static void RmsNorm(Tensor x, Tensor weight, Norm norm, Tensor y)
    {
        if (FitsRmsNorm(x, weight) && x.is_contiguous() && y.is_contiguous())
        {
            CpuKernels.Of(x).RmsNorm(x, weight, y, norm);
            return;
        }

        using var scope = NewDisposeScope();
        y.copy_(Wide(x).mul(InverseRms(Wide(x), norm)).mul_(Factor(weight, norm)));
    }

    /// <summary>Norms columns in place, in groups of the norm's width.</summary>
    internal static void RmsNorm_(Tensor columns, Tensor weight, Norm norm)
    {
        using var scope = NewDisposeScope();
        columns.copy_(RmsNorm(columns.reshape(-1, norm.Width), weight, norm).view_as(columns));
    }

    /// <summary>The gradient of a norm's input; that of its weight is added to <paramref name="sum"/>. With r the inverse root mean square, n = x r and g = dy (w + shift): dx = r (g - n mean(g n)), dw = sum over rows of dy n.</summary>
    internal static Tensor RmsNormGradient(Tensor x, Tensor weight, Norm norm, Tensor gradient, Tensor sum)
    {
        if (FitsRmsNorm(x, weight)) return CpuKernels.Of(x).RmsNormGradient(x.contiguous(), weight, gradient.contiguous(), norm, sum);
        using var scope = NewDisposeScope();
        var (wide, dy) = (Wide(x), Wide(gradient));
        var r = InverseRms(wide, norm);
        var n = wide.mul(r);
        var g = dy.mul(Factor(weight, norm));
        sum.add_(dy.mul(n).sum([0L]));
        return g.sub(n.mul(g.mul(n).mean([-1L], keepdim: true))).mul_(r).to(x.dtype).MoveToOuterDisposeScope();
    }

    private static Tensor InverseRms(Tensor wide, Norm norm) => wide.mul(wide).mean([-1L], keepdim: true).add_(norm.Epsilon).rsqrt_();

    private static Tensor Factor(Tensor weight, Norm norm) => norm.Shift == 0 ? Wide(weight) : Wide(weight).add(norm.Shift);

    private static bool FitsRmsNorm(Tensor x, Tensor weight) => CpuKernels.Fit(x) && x.dtype == weight.dtype && weight.NumberOfElements % 16 == 0;

    /// <summary>activation(gate) * up. [rows, 2 F] to [rows, F]</summary>
    internal static Tensor Gate(Tensor gateUp, Activation activation)
    {
        var y = empty([gateUp.size(0), gateUp.size(1) / 2], gateUp.dtype, gateUp.device);
        Gate(gateUp, activation, y);
        return y;
    }

    /// <summary>As above, into <paramref name="y"/>, which may be the columns of the gate.</summary>
    internal static void Gate(Tensor gateUp, Activation activation, Tensor y)
    {
        if (CpuKernels.Fit(gateUp))
        {
            CpuKernels.Of(gateUp).Gate(gateUp, activation, y);
            return;
        }

        using var scope = NewDisposeScope();
        var (gate, up) = Halves(gateUp);
        var (s, _) = Logistic(gate, activation);
        y.copy_(gate.mul(s).mul_(up));
    }

    /// <summary>The gradient of gate and up, in their place. [rows, 2 F], [rows, F]</summary>
    internal static void GateGradient_(Tensor gateUp, Tensor gradient, Activation activation)
    {
        if (CpuKernels.Fit(gateUp))
        {
            CpuKernels.Of(gateUp).GateGradient(gateUp, gradient.contiguous(), activation);
            return;
        }

        using var scope = NewDisposeScope();
        var (gate, up) = Halves(gateUp);
        var (s, argumentSlope) = Logistic(gate, activation);
        var value = gate.mul(s);
        var slope = s.neg().add_(1).mul_(gate).mul_(argumentSlope).add_(1).mul_(s);             // s (1 + x (1 - s) z')
        gate.copy_(slope.mul_(up).mul_(gradient));
        up.copy_(value.mul_(gradient));
    }

    /// <summary>Activations are x s with s = logistic(z(x)), as in <see cref="Rho.Kernels.IActivation"/>: s and z'(x).</summary>
    private static (Tensor S, Tensor ArgumentSlope) Logistic(Tensor x, Activation activation)
    {
        if (activation == Activation.Silu) return (x.sigmoid(), ones_like(x));
        const double a = 0.044715;
        var (roots, square) = (2 * Math.Sqrt(2 / Math.PI), x.mul(x));
        return (square.mul(a).add_(1).mul_(x).mul_(roots).sigmoid_(), square.mul(3 * a).add_(1).mul_(roots));
    }

    private static (Tensor Gate, Tensor Up) Halves(Tensor gateUp) => (gateUp.narrow(1, 0, gateUp.size(1) / 2), gateUp.narrow(1, gateUp.size(1) / 2, gateUp.size(1) / 2));
}
