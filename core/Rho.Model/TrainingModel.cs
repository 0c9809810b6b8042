using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>How gradients are computed.</summary>
public sealed record TrainingOptions
{
    /// <summary>Element type of the products; master weights and gradients are float32 in any case.</summary>
    public ComputeType Compute { get; init; } = ComputeType.Auto;

    /// <summary>Keeps only each block's input and computes the rest again in the backward: less memory, a third more time.</summary>
    public bool ActivationCheckpointing { get; init; }

    /// <summary>Most bytes of logits held at a time.</summary>
    public long LogitsBudgetBytes { get; init; } = 40 << 20;

    /// <summary>Weight of (log-sum-exp)^2 in the loss; 0 for none.</summary>
    public double ZLoss { get; init; }

    /// <summary>Share of the target spread over the vocabulary; 0 for none.</summary>
    public double LabelSmoothing { get; init; }
}

/// <summary>A model in training: flat float32 weights and gradients, and the step's forward and backward over one micro-batch.</summary>
public sealed class TrainingModel : IDisposable
{
    private readonly LanguageModel _master;
    private readonly LanguageModel? _copy;         // the weights in the compute type, where that is not float32
    private readonly LanguageModel _gradients;     // float32, laid out as the weights
    private readonly LanguageModel _leaves;        // the compute weights as leaves of the graph; float32 ones gather their gradients in _gradients
    private readonly TrainingOptions _options;

    /// <param name="model">float32; becomes this object's own</param>
    public TrainingModel(LanguageModel model, TrainingOptions options)
    {
        if (model.Dtype != ScalarType.Float32) throw new ArgumentException("master weights are float32", nameof(model));
        _master = model;
        _options = options;
        var compute = options.Compute.Resolve(model.Device);
        using var guard = no_grad();
        _copy = compute == ScalarType.Float32 ? null : model.CopyTo(model.Device, compute);
        _gradients = LanguageModel.Empty(model.Config, model.Device, ScalarType.Float32);
        _gradients.Flat.zero_();
        _leaves = _copy ?? model;
        foreach (var (leaf, gradient) in Leaves.Zip(LeavesOf(_gradients)))
        {
            leaf.requires_grad = true;
            if (_copy is null) leaf.grad = gradient;
        }
    }

    public LanguageModel Model => _master;
    public ModelConfig Config => _master.Config;
    public IReadOnlyList<ParameterSpan> Layout => _master.Layout.Spans;

    /// <summary>Master weights. [parameters], float32</summary>
    public Tensor Parameters => _master.Flat;

    /// <summary>Sum over the micro-batches since <see cref="ClearGradients"/> of sum_t weight_t * d loss_t. [parameters], float32</summary>
    public Tensor Gradients => _gradients.Flat;

    private IEnumerable<Tensor> Leaves => LeavesOf(_leaves);

    private static IEnumerable<Tensor> LeavesOf(LanguageModel model) => model.Layers.SelectMany(layer => layer.All).Append(model.FinalNorm);

    /// <summary>Forward, selection and backward of one micro-batch; adds to <see cref="Gradients"/>.</summary>
    /// <param name="losses">current losses in nats, NaN where there is no target. [sequences, length], written</param>
    /// <param name="weights">what the weighting gave. [sequences, length], written</param>
    /// <param name="probe">answered before the weighting is called</param>
    /// <param name="final">Told during the backward, each time more of the gradients is done: from which offset on they are. It falls, not necessarily to 0.</param>
    public MicroBatchResult AccumulateGradients(
        TokenBatch batch, TokenWeighting weighting, float[] losses, float[] weights, TokenProbe? probe = null, Action<long>? final = null)
    {
        using var scope = NewDisposeScope();
        var model = _leaves;
        var (config, device) = (Config, model.Device);
        var documents = batch.Documents ?? [];
        var rows = HeadRows.Of(batch.Tokens, batch.Sequences, batch.Length, documents);
        var context = AttentionContext.For(config, batch.Sequences, batch.Length, documents);
        var tokens = tensor(batch.Tokens, [batch.Tokens.Length], device: device);

        // 1. Forward. Every block is a graph of its own from its input on; with checkpointing only the inputs are kept.
        Tensor x;
        using (no_grad()) x = Transformer.Embed(model.Embedding, tokens);
        var blocks = new Stack<(Tensor Input, Tensor Output)>();
        using (set_grad_enabled(!_options.ActivationCheckpointing))
        {
            foreach (var layer in model.Layers.SkipLast(1))
            {
                var input = x.detach().requires_grad_();
                x = Transformer.Block(config, layer, input, batch.Sequences, context);
                blocks.Push((input, x));
            }
        }

        using var block = new LastBlock(config, model.Layers[^1], x, batch.Sequences, context);

        // 2. Losses of all candidates, then the selection among them.
        using var guard = no_grad();
        var positions = tensor(rows.Positions, device: device);
        using var head = new HeadLoss(Kernels.RmsNorm(block.Output.index_select(0, positions), model.FinalNorm, config.NormEpsilon), model.Head, rows.Targets, _options.LogitsBudgetBytes);
        var values = head.Forward(keepLogits: true, probe is null ? null : new HeadProbe(rows, probe));

        Array.Fill(losses, float.NaN);
        rows.Spread(values, losses);
        Array.Clear(weights);
        weighting(losses, weights);
        double lossSum = 0, weightSum = 0;
        List<long> selected = [];
        List<float> shares = [];
        for (var i = 0; i < rows.Positions.Length; i++)
        {
            var weight = weights[rows.Positions[i] + 1];
            if (weight == 0) continue;
            selected.Add(i);
            shares.Add(weight);
            lossSum += (double)weight * values[i];
            weightSum += weight;
        }

        if (selected.Count == 0 || !double.IsFinite(lossSum)) return new MicroBatchResult(lossSum, weightSum);

        // 3. Backward: the head and the last block at selected rows only, then block by block to the first, each freed as it is done.
        var chosen = positions.index_select(0, tensor(selected.ToArray(), device: device));
        var hidden = block.Output.index_select(0, chosen).requires_grad_();                     // [selected, hidden]
        Tensor normed;
        using (enable_grad()) normed = Kernels.RmsNorm(hidden, model.FinalNorm, config.NormEpsilon);
        BackwardPass.Run(normed, head.Backward([.. selected], [.. shares], _gradients.Head, _options));
        head.Dispose(); // its logits, before the blocks' backward needs memory
        GradientSum.Collect([model.FinalNorm], [_gradients.FinalNorm]);
        final?.Invoke(_master.Layout["model.norm.weight"].Offset);
        var gradient = block.Backward(hidden.grad!, chosen, _gradients.Layers[^1]);             // [B * T, hidden]
        block.Dispose();
        final?.Invoke(StartOf(config.Layers - 1));
        for (var i = config.Layers - 2; i >= 0; i--)
        {
            var (input, output) = blocks.Pop();
            gradient = Backward(i, input, output, gradient, batch.Sequences, context);
            final?.Invoke(StartOf(i));
        }

        GradientSum.AddRows(_gradients.Embedding, tokens.to(int64), gradient);
        return new MicroBatchResult(lossSum, weightSum);
    }

    /// <summary>Backward of one block, which is freed; its weights' gradients go to the sums. [B * T, hidden] to [B * T, hidden]</summary>
    private Tensor Backward(int block, Tensor input, Tensor output, Tensor gradient, int sequences, AttentionContext context)
    {
        using var scope = NewDisposeScope();
        var layer = _leaves.Layers[block];
        if (_options.ActivationCheckpointing)
        {
            output.Dispose();
            using var recording = enable_grad();
            output = Transformer.Block(Config, layer, input, sequences, context);
        }

        BackwardPass.Run(output, gradient);
        GradientSum.Collect(layer.All, _gradients.Layers[block].All);
        var result = input.grad!.MoveToOuterDisposeScope();
        foreach (var done in new[] { input, output, gradient }) done.Dispose();
        return result;
    }

    /// <summary>Where a block's parameters begin in the flat buffer; those of later blocks and of the head lie behind them.</summary>
    private long StartOf(int block) => _master.Layout[$"model.layers.{block}.input_layernorm.weight"].Offset;

    /// <summary>Current losses without gradients, in nats, NaN where there is no target. [sequences, length]</summary>
    /// <param name="probe">answered too</param>
    public void Evaluate(TokenBatch batch, Span<float> losses, TokenProbe? probe = null) => Evaluate(batch, losses, rows => probe is null ? null : new HeadProbe(rows, probe));

    /// <summary>Current losses, and of the distributions that they are taken from what <see cref="IDistributionModel"/> says of a reference's.</summary>
    public void Evaluate(TokenBatch batch, Span<float> losses, Span<float> entropies, int topK, Span<int> topIds, Span<float> topLogProbabilities)
    {
        var wantsEntropy = !entropies.IsEmpty;
        HeadRows? rows = null;
        HeadDistribution? distribution = null;
        Evaluate(batch, losses, all =>
        {
            rows = all;
            return distribution = new HeadDistribution(all.Targets.Length, wantsEntropy, topK);
        });
        entropies.Fill(float.NaN);
        topIds.Clear();
        topLogProbabilities.Fill(float.NaN);
        if (wantsEntropy) rows!.Spread<float>(distribution!.Entropies, entropies);
        rows!.Spread<int>(distribution!.TopIds, topIds, topK);
        rows.Spread<float>(distribution.TopLogProbabilities, topLogProbabilities, topK);
    }

    private void Evaluate(TokenBatch batch, Span<float> losses, Func<HeadRows, IHeadObserver?> observe)
    {
        using var guard = no_grad();
        using var scope = NewDisposeScope();
        var model = _leaves;
        var documents = batch.Documents ?? [];
        var rows = HeadRows.Of(batch.Tokens, batch.Sequences, batch.Length, documents);
        var context = AttentionContext.For(Config, batch.Sequences, batch.Length, documents);
        var x = Transformer.Embed(model.Embedding, tensor(batch.Tokens, [batch.Tokens.Length], device: model.Device));
        foreach (var layer in model.Layers)
        {
            var next = Transformer.Block(Config, layer, x, batch.Sequences, context);
            x.Dispose();
            x = next;
        }

        var normed = Kernels.RmsNorm(x.index_select(0, tensor(rows.Positions, device: model.Device)), model.FinalNorm, Config.NormEpsilon);
        using var head = new HeadLoss(normed, model.Head, rows.Targets, _options.LogitsBudgetBytes);
        losses.Fill(float.NaN);
        rows.Spread(head.Forward(keepLogits: false, observe(rows)), losses);
    }

    public void ClearGradients()
    {
        using var guard = no_grad();
        Gradients.zero_();
    }

    /// <summary>To be called after the master weights were written: refreshes the weights that products are computed with.</summary>
    public void WeightsChanged()
    {
        using var guard = no_grad();
        _copy?.Flat.copy_(_master.Flat);
        if (_master.Device.type == DeviceType.CPU) Cpu.NativeHeap.Trim();
    }

    public void Dispose()
    {
        foreach (var leaf in Leaves) leaf.grad = null;
        _gradients.Dispose();
        _copy?.Dispose();
        _master.Dispose();
    }
}
