using Rho.Model.Architectures;
using Rho.Model.Training;
using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>Mixtures of experts in libtorch's operations, forward and backward. E experts, k of them a row.</summary>
internal static class Mixture
{
    /// <param name="x">[rows, hidden]</param>
    /// <param name="balance">counts what the rows take</param>
    /// <returns>[rows, hidden]</returns>
    internal static Tensor Forward(LanguageModel model, Experts experts, Tensor x, RouterBalance? balance = null)
    {
        using var scope = NewDisposeScope();
        var (p, ids, shares, _) = Route(model, experts, x);
        balance?.Add(p, ids);
        var result = zeros_like(x);
        for (var e = 0; e < experts.All.Count; e++)
        {
            using var inner = NewDisposeScope();
            var (rows, share) = Taking(e, ids, shares);
            if (rows.size(0) == 0) continue;
            var (gateUp, down) = experts.All[e];
            var output = TensorOps.Gate(x.index_select(0, rows).mm(model[gateUp.Matrix].t()), Activation.Silu).mm(model[down.Matrix].t());
            result.index_add_(0, rows, output.mul_(share.to(x.dtype)), 1);
        }

        return result.MoveToOuterDisposeScope();
    }

    /// <summary>The input's gradient; those of the weights are added to <paramref name="sums"/>.</summary>
    internal static Tensor Backward(LanguageModel model, Experts experts, Tensor x, Tensor gradient, LanguageModel sums)
    {
        using var scope = NewDisposeScope();
        var (p, ids, shares, total) = Route(model, experts, x);
        var (dx, dShares) = (zeros_like(x), zeros_like(shares));
        for (var e = 0; e < experts.All.Count; e++)
        {
            using var inner = NewDisposeScope();
            var (rows, share) = Taking(e, ids, shares);
            if (rows.size(0) == 0) continue;
            var (gateUp, down) = experts.All[e];
            var (input, given) = (x.index_select(0, rows), gradient.index_select(0, rows));
            var both = input.mm(model[gateUp.Matrix].t());
            var gated = TensorOps.Gate(both, Activation.Silu);
            var dShare = TensorOps.Wide(given).mul(TensorOps.Wide(gated.mm(model[down.Matrix].t()))).sum([-1L], keepdim: true);
            dShares.index_add_(0, rows, dShare.mul(ids.index_select(0, rows).eq(e)), 1);
            var dOutput = given.mul(share.to(x.dtype));
            GradientSum.AddProduct(sums[down.Matrix], dOutput.t(), gated);
            TensorOps.GateGradient_(both, dOutput.mm(model[down.Matrix]), Activation.Silu);
            GradientSum.AddProduct(sums[gateUp.Matrix], both.t(), input);
            dx.index_add_(0, rows, both.mm(model[gateUp.Matrix]), 1);
        }

        // Shares are p / total: ds / total - sum(ds shares) / total; then through the softmax, of which the others have no part in the sum.
        if (experts.Normalized) dShares = dShares.sub(dShares.mul(shares).sum([-1L], keepdim: true)).div_(total);
        return dx.add_(RouterGradient(model, experts, x, p, zeros_like(p).scatter_(1, ids, dShares), sums)).MoveToOuterDisposeScope();
    }

    /// <summary>The input's gradient of the load-balancing loss; the router's is added to <paramref name="sums"/>.</summary>
    internal static Tensor BalanceGradient(LanguageModel model, Experts experts, Tensor x, RouterBalance balance, LanguageModel sums)
    {
        using var scope = NewDisposeScope();
        var p = Probabilities(model, experts, x);
        return RouterGradient(model, experts, x, p, balance.Gradient(p), sums).MoveToOuterDisposeScope();
    }

    /// <summary>Back through the softmax and the router, from the probabilities' gradient. [rows, E]</summary>
    private static Tensor RouterGradient(LanguageModel model, Experts experts, Tensor x, Tensor p, Tensor dp, LanguageModel sums)
    {
        var dLogits = p.mul(dp.sub(dp.mul(p).sum([-1L], keepdim: true))).to(x.dtype);
        GradientSum.AddProduct(sums[experts.Router.Matrix], dLogits.t(), x);
        return dLogits.mm(model[experts.Router.Matrix]);
    }

    private static Tensor Probabilities(LanguageModel model, Experts experts, Tensor x) => TensorOps.Wide(x.mm(model[experts.Router.Matrix].t())).softmax(-1);

    /// <returns>Probabilities, [rows, E]; the likeliest experts and what each counts, [rows, k] both; and the sum of their probabilities, [rows, 1].</returns>
    private static (Tensor Probabilities, Tensor Ids, Tensor Shares, Tensor Total) Route(LanguageModel model, Experts experts, Tensor x)
    {
        var p = Probabilities(model, experts, x);
        var (values, ids) = p.topk(experts.PerToken, -1);
        var total = values.sum([-1L], keepdim: true);
        return (p, ids, experts.Normalized ? values.div(total) : values, total);
    }

    /// <summary>The rows that take an expert, and what it counts at each. [n], [n, 1]</summary>
    private static (Tensor Rows, Tensor Shares) Taking(int expert, Tensor ids, Tensor shares)
    {
        var mine = ids.eq(expert);
        var rows = mine.any(1).nonzero().view(-1);
        return (rows, shares.mul(mine).sum([-1L], keepdim: true).index_select(0, rows));
    }
}
