using static TorchSharp.torch;
using static TorchSharp.torch.nn.functional;

namespace Rho.Model;

/// <summary>
/// The last block in training. Its output only meets the loss at the selected positions, so at all others the feed-forward, the
/// attention's output projection and the queries have no gradient (keys and values have: selected positions attend to them). The
/// backward computes none there: it gathers the selected rows, and the result is exactly that of the masked loss. The forward is whole,
/// since selection looks at every token's loss. B sequences, T tokens, D hidden, N heads, K key-value heads, H head size, F intermediate.
/// </summary>
internal sealed class LastBlock : IDisposable
{
    private readonly ModelConfig _config;
    private readonly LayerWeights _layer;
    private readonly Tensor _input;      // [B * T, D], a leaf
    private readonly Tensor _normed;     // [B * T, D], of the input
    private readonly Tensor _qkv;        // [B * T, (N + 2 K) * H], a leaf
    private readonly Tensor _attended;   // [B * T, N * H], of the queries, keys and values
    private readonly Tensor _middle;     // [B * T, D]
    private readonly Tensor _gateUp;     // [B * T, 2 F]

    /// <summary>Forward. <paramref name="x"/> [B * T, D]</summary>
    internal LastBlock(ModelConfig config, LayerWeights layer, Tensor x, int sequences, AttentionContext context)
    {
        using var scope = NewDisposeScope();
        (_config, _layer) = (config, layer);
        _input = x.detach().requires_grad_();
        using (enable_grad()) _normed = Kernels.RmsNorm(_input, layer.InputNorm, config.NormEpsilon);
        using (no_grad()) _qkv = linear(_normed, layer.Qkv, layer.QkvBias).requires_grad_();
        using (enable_grad()) _attended = Transformer.Attend(config, layer, _qkv, sequences, context);
        using (no_grad())
        {
            _middle = x.add(linear(_attended, layer.Output));
            _gateUp = Kernels.RmsNormLinear(_middle, layer.PostNorm, config.NormEpsilon, layer.GateUp);
            Output = _middle.add(Kernels.SwiGluLinear(_gateUp, layer.Down));
        }

        foreach (var tensor in Kept) tensor.MoveToOuterDisposeScope();
    }

    /// <summary>[B * T, D]</summary>
    internal Tensor Output { get; }

    private Tensor[] Kept => [_input, _normed, _qkv, _attended, _middle, _gateUp, Output];

    /// <summary>Adds the weights' gradients to <paramref name="sums"/>, which are float32, and returns the input's.</summary>
    /// <param name="gradient">of the output's selected rows. [selected, D]</param>
    /// <param name="rows">which these are. [selected]</param>
    /// <returns>[B * T, D]</returns>
    internal Tensor Backward(Tensor gradient, Tensor rows, LayerWeights sums)
    {
        using var guard = no_grad();
        using var scope = NewDisposeScope();
        var gateUp = _gateUp.index_select(0, rows);
        GradientSum.AddProduct(sums.Down, gradient.t(), Kernels.SwiGlu(gateUp));
        var gateUpGradient = Kernels.SwiGluGradient(gateUp, gradient.mm(_layer.Down));           // [selected, 2 F]

        var middle = _middle.index_select(0, rows).requires_grad_();
        Tensor normed;
        using (enable_grad()) normed = Kernels.RmsNorm(middle, _layer.PostNorm, _config.NormEpsilon);
        GradientSum.AddProduct(sums.GateUp, gateUpGradient.t(), normed.detach());
        BackwardPass.Run(normed, gateUpGradient.mm(_layer.GateUp));
        var middleGradient = gradient.add(middle.grad!);                                        // [selected, D]

        GradientSum.AddProduct(sums.Output, middleGradient.t(), _attended.detach().index_select(0, rows));
        var attendedGradient = zeros_like(_attended).index_copy_(0, rows, middleGradient.mm(_layer.Output));
        BackwardPass.Run(_attended, attendedGradient);
        BackwardPass.Run(_normed, ProjectionGradient(_qkv.grad!, rows, sums));
        GradientSum.Collect(_layer.All, sums.All);
        return GradientSum.AddRows(_input.grad!, rows, middleGradient).MoveToOuterDisposeScope();
    }

    /// <summary>The gradient of the projections' input: queries at the selected rows, keys and values at all. [B * T, D]</summary>
    private Tensor ProjectionGradient(Tensor qkvGradient, Tensor rows, LayerWeights sums)
    {
        long queries = _config.Heads * _config.HeadSize, others = 2L * _config.KeyValueHeads * _config.HeadSize;
        var normed = _normed.detach();
        var queryGradient = qkvGradient.narrow(1, 0, queries).index_select(0, rows);            // [selected, N * H]
        var otherGradient = qkvGradient.narrow(1, queries, others);                             // [B * T, 2 K * H]
        GradientSum.AddProduct(sums.Qkv.narrow(0, 0, queries), queryGradient.t(), normed.index_select(0, rows));
        GradientSum.AddProduct(sums.Qkv.narrow(0, queries, others), otherGradient.t(), normed);
        if (sums.QkvBias is { } bias) GradientSum.Add(bias, qkvGradient.sum(0L));
        return GradientSum.AddRows(otherGradient.mm(_layer.Qkv.narrow(0, queries, others)), rows, queryGradient.mm(_layer.Qkv.narrow(0, 0, queries)));
    }

    /// <summary>Frees what the backward needed.</summary>
    public void Dispose()
    {
        foreach (var tensor in Kept) tensor.Dispose();
    }
}
