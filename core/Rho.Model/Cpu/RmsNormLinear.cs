using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Model.Cpu;

/// <summary>rmsNorm(x) weight^T + bias; the normed rows are computed again in the backward instead of kept. [rows, D], [O, D] to [rows, O]</summary>
internal sealed class RmsNormLinear : CpuFunction<RmsNormLinear>
{
    /// <summary>x [rows, D], norm [D], epsilon, weight [O, D], bias [O] or null</summary>
    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var (x, norm, epsilon, weight, bias) = ((Tensor)vars[0], (Tensor)vars[1], (double)vars[2], (Tensor)vars[3], (Tensor?)vars[4]);
        x = x.contiguous();
        ctx.save_for_backward([x, norm, weight]);
        ctx.save_data("epsilon", epsilon);
        ctx.save_data("bias", bias is not null);
        using var normed = RmsNorm.Normed(x, norm, epsilon);
        return nn.functional.linear(normed, weight, bias);
    }

    protected override List<Tensor?> Gradients(autograd.AutogradContext ctx, Tensor gradient)
    {
        var saved = ctx.get_saved_variables();
        var (x, norm, weight) = (saved[0], saved[1], saved[2]);
        var epsilon = (double)ctx.get_data("epsilon");
        Tensor weightGradient;                                              // of the gradient [rows, O]
        using (var normed = RmsNorm.Normed(x, norm, epsilon)) weightGradient = gradient.t().mm(normed);
        using var normedGradient = gradient.mm(weight);                     // [rows, D]
        var (dx, dnorm) = RmsNorm.Gradients(x, norm, normedGradient, epsilon);
        return [dx, dnorm, null, weightGradient, (bool)ctx.get_data("bias") ? gradient.sum(0L) : null];
    }
}
