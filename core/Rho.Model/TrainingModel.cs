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
    private readonly LanguageModel _gradients;     // in the compute type, laid out as the weights
    private readonly LanguageModel _leaves;        // the compute weights as leaves of the graph, their grad fields on _gradients
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
        _gradients = LanguageModel.Empty(model.Config, model.Device, compute);
        _gradients.Flat.zero_();
        Gradients = _copy is null ? _gradients.Flat : zeros_like(model.Flat).DetachFromDisposeScope();
        _leaves = _copy ?? model;
        foreach (var (leaf, gradient) in Leaves.Zip(LeavesOf(_gradients)))
        {
            leaf.requires_grad = true;
            leaf.grad = gradient;
        }
    }

    public LanguageModel Model => _master;
    public ModelConfig Config => _master.Config;
    public IReadOnlyList<ParameterSpan> Layout => _master.Layout.Spans;

    /// <summary>Master weights. [parameters], float32</summary>
    public Tensor Parameters => _master.Flat;

    /// <summary>Sum over the micro-batches since <see cref="ClearGradients"/> of sum_t weight_t * d loss_t. [parameters], float32</summary>
    public Tensor Gradients { get; }

    private IEnumerable<Tensor> Leaves => LeavesOf(_leaves);

    private static IEnumerable<Tensor> LeavesOf(LanguageModel model) => model.Layers.SelectMany(layer => layer.All).Append(model.FinalNorm);

    /// <summary>Forward, selection and backward of one micro-batch; adds to <see cref="Gradients"/>.</summary>
    /// <param name="losses">current losses in nats, NaN where there is no target. [sequences, length], written</param>
    /// <param name="weights">what the weighting gave. [sequences, length], written</param>
    /// <param name="probe">answered before the weighting is called</param>
    public MicroBatchResult AccumulateGradients(TokenBatch batch, TokenWeighting weighting, float[] losses, float[] weights, TokenProbe? probe = null)
    {
        using var scope = NewDisposeScope();
        var model = _leaves;
        var (config, device) = (Config, model.Device);
        var documents = batch.Documents ?? [];
        var rows = HeadRows.Of(batch.Tokens, batch.Sequences, batch.Length, documents);
        var context = AttentionContext.For(config, batch.Sequences, batch.Length, documents);
        var tokens = tensor(batch.Tokens, [batch.Tokens.Length], device: device);

        // 1. Forward. Without checkpointing all blocks but the last stay one graph; with it only their inputs are kept.
        Tensor embedded;
        using (no_grad()) embedded = Transformer.Embed(model.Embedding, tokens);
        embedded.requires_grad = true;
        List<Tensor> inputs = [embedded];
        var x = embedded;
        using (set_grad_enabled(!_options.ActivationCheckpointing))
        {
            foreach (var layer in model.Layers.SkipLast(1))
            {
                x = Transformer.Block(config, layer, x, batch.Sequences, context);
                if (_options.ActivationCheckpointing) inputs.Add(x);
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

        // 3. Backward: the head and the last block at selected rows only, then the other blocks.
        var chosen = positions.index_select(0, tensor(selected.ToArray(), device: device));
        var hidden = block.Output.index_select(0, chosen).requires_grad_();                     // [selected, hidden]
        Tensor normed;
        using (enable_grad()) normed = Kernels.RmsNorm(hidden, model.FinalNorm, config.NormEpsilon);
        autograd.backward(normed, head.Backward([.. selected], [.. shares], _gradients.Head, _options));
        head.Dispose(); // its logits, before the blocks' backward needs memory
        var gradient = block.Backward(hidden.grad!, chosen, _gradients.Layers[^1]);
        block.Dispose();
        if (_options.ActivationCheckpointing)
        {
            for (var i = config.Layers - 2; i >= 0; i--)
            {
                using var inner = NewDisposeScope();
                using var recording = enable_grad();
                var input = inputs[i].detach().requires_grad_();
                var output = Transformer.Block(config, model.Layers[i], input, batch.Sequences, context);
                autograd.backward(output, gradient);
                gradient = input.grad!.MoveToOuterDisposeScope();
            }
        }
        else if (config.Layers > 1)
        {
            autograd.backward(x, gradient);
            gradient = embedded.grad!;
        }

        _gradients.Embedding.index_add_(0, tokens.to(int64), gradient, 1);
        if (!ReferenceEquals(Gradients, _gradients.Flat))
        {
            if (device.type == DeviceType.CPU)
            {
                Cpu.FlatSum.AddAndClear(Gradients, _gradients.Flat);
            }
            else
            {
                Gradients.add_(_gradients.Flat);
                _gradients.Flat.zero_();
            }
        }

        return new MicroBatchResult(lossSum, weightSum);
    }

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
        if (!ReferenceEquals(Gradients, _gradients.Flat)) Gradients.Dispose();
        _gradients.Dispose();
        _copy?.Dispose();
        _master.Dispose();
    }
}
