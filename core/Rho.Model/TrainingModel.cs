using Rho.Formats;
using Rho.Model.Architectures;
using Rho.Model.Training;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>Which rows a backward pass goes over.</summary>
public enum BackwardRows
{
    /// <summary>All that the loss reaches: the gradient of the selected tokens' loss.</summary>
    Exact,

    /// <summary>Those of the selected tokens everywhere: keys and values of other rows get no gradient, so it is an approximation
    /// (Centrifuge, arXiv 2502.00340).</summary>
    Filtered,
}

/// <summary>How near a filtered gradient is to the exact one.</summary>
/// <param name="Cosine">of the angle between the two</param>
/// <param name="NormRatio">the filtered one's norm over the exact one's</param>
public readonly record struct GradientComparison(double Cosine, double NormRatio);

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

    public BackwardRows Backward { get; init; }

    /// <summary>Tokens before each selected one, of its document, that a filtered backward takes too.</summary>
    public int BackwardHalo { get; init; }

    /// <summary>Share of the target spread over the vocabulary; 0 for none.</summary>
    public double LabelSmoothing { get; init; }

    /// <summary>Weight of the load-balancing loss of mixtures of experts; 0 for none.</summary>
    public double RouterBalance { get; init; }
}

/// <summary>A model in training: flat float32 weights and gradients, and the step's forward and backward over one micro-batch.</summary>
public sealed class TrainingModel : IDisposable
{
    private readonly LanguageModel _master;
    private readonly LanguageModel? _copy;         // the weights in the compute type, where that is not float32
    private readonly LanguageModel _gradients;     // float32, laid out as the weights
    private readonly LanguageModel _weights;       // that products are computed with
    private readonly Angles.Cache _angles = new();
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
        _weights = _copy ?? model;
    }

    public LanguageModel Model => _master;
    public ModelConfig Config => _master.Config;
    public IReadOnlyList<ParameterSpan> Layout => _master.Layout.Spans;

    /// <summary>Master weights. [parameters], float32</summary>
    public Tensor Parameters => _master.Flat;

    /// <summary>Sum over the micro-batches since <see cref="ClearGradients"/> of sum_t weight_t * d loss_t, and with <see cref="TrainingOptions.RouterBalance"/> the gradient of each micro-batch's load-balancing loss times sum_t weight_t. [parameters], float32</summary>
    public Tensor Gradients => _gradients.Flat;

    /// <summary>Forward, selection and backward of one micro-batch; adds to <see cref="Gradients"/>.</summary>
    /// <param name="losses">current losses in nats, NaN where there is no target. [sequences, length], written</param>
    /// <param name="weights">what the weighting gave. [sequences, length], written</param>
    /// <param name="probe">answered before the weighting is called</param>
    /// <param name="final">Told during the backward, each time more of the gradients is done: from which offset on they are. It falls, not necessarily to 0.</param>
    public MicroBatchResult AccumulateGradients(
        TokenBatch batch, TokenWeighting weighting, float[] losses, float[] weights, TokenProbe? probe = null, Action<long>? final = null) =>
        AccumulateGradients(batch, weighting, losses, weights, probe, final, _gradients, _options.Backward);

    /// <summary>
    /// Compares the filtered gradient of one micro-batch with the exact one: two passes, and memory for one more gradient
    /// (4 bytes a parameter). To be called while <see cref="Gradients"/> are zero; leaves them so.
    /// </summary>
    /// <returns>null where nothing is selected, or what is found is not finite</returns>
    public GradientComparison? CompareGradients(TokenBatch batch, TokenWeighting weighting, TokenProbe? probe = null)
    {
        using var guard = no_grad();
        using var exact = LanguageModel.Empty(_master.Config, _master.Device, ScalarType.Float32);
        exact.Flat.zero_();
        var (losses, weights) = (new float[batch.Tokens.Length], new float[batch.Tokens.Length]);
        AccumulateGradients(batch, weighting, losses, weights, probe, null, exact, BackwardRows.Exact);
        AccumulateGradients(batch, weighting, losses, weights, probe, null, _gradients, BackwardRows.Filtered);
        // Parameter by parameter, so that a sum in float32 is not too long.
        double product = 0, filteredSquares = 0, exactSquares = 0;
        foreach (var span in Layout)
        {
            using var scope = NewDisposeScope();
            var (f, e) = (Gradients.narrow(0, span.Offset, span.Count), exact.Flat.narrow(0, span.Offset, span.Count));
            product += f.dot(e).item<float>();
            filteredSquares += f.dot(f).item<float>();
            exactSquares += e.dot(e).item<float>();
        }

        ClearGradients();
        var comparison = new GradientComparison(product / Math.Sqrt(filteredSquares * exactSquares), Math.Sqrt(filteredSquares / exactSquares));
        return double.IsFinite(comparison.Cosine) && double.IsFinite(comparison.NormRatio) ? comparison : null;
    }

    private MicroBatchResult AccumulateGradients(
        TokenBatch batch, TokenWeighting weighting, float[] losses, float[] weights, TokenProbe? probe, Action<long>? final, LanguageModel sums, BackwardRows backward)
    {
        using var guard = no_grad();
        using var scope = NewDisposeScope();
        var network = _weights.Network;
        var filtered = backward == BackwardRows.Filtered;
        using var micro = new MicroBatch(batch, _angles, filtered, balanced: _options.RouterBalance > 0 && Config.Experts > 0);
        using var tape = new Tape(_weights, sums, micro);
        var rows = PredictingRows.Of(batch);
        var tokens = tensor(batch.Tokens, [batch.Tokens.Length], device: _weights.Device);

        // 1. Forward. With checkpointing only the blocks' inputs are kept; the last block's backward comes at once, and needs it all.
        using var embedded = tape.Leaf(TensorOps.Embed(_weights, tokens));
        var (x, starts) = (embedded, new Stack<int>());
        foreach (var block in network.Blocks)
        {
            starts.Push(tape.Count);
            x = _options.ActivationCheckpointing && starts.Count < network.Blocks.Count ? tape.RunAgain(block, x) : block.Run(tape, x);
        }

        var end = tape.Count;
        var normed = tape.Norm(x, network.FinalNorm);

        // 2. Losses of all candidates, then the selection among them.
        using var head = Head(normed, micro, rows);
        var values = Losses(head, rows, probe);

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

        // Counted as much as the tokens' losses together, so that the step's division leaves the mean of the micro-batches'.
        var load = micro.Balance?.Close(_options.RouterBalance * weightSum);
        var result = new MicroBatchResult(lossSum, weightSum, load?.Loss, load?.Busiest);
        if (selected.Count == 0 || !double.IsFinite(lossSum)) return result;

        // 3. Backward: from the head at the selected rows to the first block, each freed as it is done.
        var chosen = micro.Own(RowSet.Of([.. selected.Select(i => rows.Positions[i])]));
        var gradient = head.Backward([.. selected], [.. shares], sums[network.Head], _options);
        head.Dispose(); // its logits, before the blocks' backward needs memory
        var set = micro.Widened(chosen, filtered ? _options.BackwardHalo : 0);
        normed.Accumulate(set, chosen.Spread(gradient, set));
        tape.Unwind(end);
        final?.Invoke(network.FinalNorm.Weight.Offset);
        for (var i = network.Blocks.Count - 1; i >= 0; i--)
        {
            tape.Unwind(starts.Pop());
            final?.Invoke(network.Starts[i]);
        }

        foreach (var part in embedded.TakeGradient())
        {
            using (part)
                GradientSum.AddRows(sums[network.Embedding], part.Rows.Of(tokens).to(int64), network.EmbeddingScale == 1 ? part.Data : part.Data.mul(network.EmbeddingScale));
        }

        return result;
    }

    /// <summary>The head at the rows that predict a token.</summary>
    private OutputLoss Head(Value normed, MicroBatch micro, PredictingRows rows) => new(
        normed.Rows(micro.Own(RowSet.Of(rows.Positions))), _weights[_weights.Network.Head], _weights.Network.LogitsCap, rows.Targets, _options.LogitsBudgetBytes);

    private static float[] Losses(OutputLoss head, PredictingRows rows, TokenProbe? probe)
    {
        var found = head.Forward(new HeadScores(rows.Targets.Length, asked: probe is null ? null : rows.Asked(probe)));
        if (probe is not null) rows.Spread<float>(found.AskedLogProbabilities, probe.LogProbabilities, probe.K);
        return found.Tokens.Losses;
    }

    /// <summary>Current losses without gradients, in nats, NaN where there is no target. [sequences, length]</summary>
    /// <param name="probe">answered too</param>
    public void Evaluate(TokenBatch batch, Span<float> losses, TokenProbe? probe = null)
    {
        using var guard = no_grad();
        using var scope = NewDisposeScope();
        var rows = PredictingRows.Of(batch);
        using var head = Head(batch, rows);
        losses.Fill(float.NaN);
        rows.Spread(Losses(head, rows, probe), losses);
    }

    /// <summary>Current losses without gradients and, of the distributions that they are taken from, what there is room for.</summary>
    /// <param name="scores">[sequences, length], written</param>
    public void Evaluate(TokenBatch batch, TokenScores scores)
    {
        using var guard = no_grad();
        using var scope = NewDisposeScope();
        var rows = PredictingRows.Of(batch);
        using var head = Head(batch, rows);
        scores.Clear();
        rows.Spread(head.Forward(new HeadScores(rows.Targets.Length, scores.Entropies.Length > 0, scores.TopK)).Tokens, scores);
    }

    /// <summary>The head after the blocks, of which nothing is kept.</summary>
    private OutputLoss Head(TokenBatch batch, PredictingRows rows)
    {
        using var micro = new MicroBatch(batch, _angles);
        using var tape = new Tape(_weights, _gradients, micro);
        var x = tape.Leaf(TensorOps.Embed(_weights, tensor(batch.Tokens, [batch.Tokens.Length], device: _weights.Device)));
        foreach (var block in _weights.Network.Blocks)
        {
            using var before = x;
            x = tape.RunAgain(block, x);
        }

        return Head(tape.Norm(x, _weights.Network.FinalNorm), micro, rows);
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
        if (_master.Device.type == DeviceType.CPU) Kernels.NativeHeap.Trim();
    }

    public void Dispose()
    {
        _gradients.Dispose();
        _copy?.Dispose();
        _master.Dispose();
    }
}
