using Rho.Formats;
using Rho.Model;
using Rho.Selection;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Training;

/// <summary>What a micro-batch was trained on: weight 0 is dropped. Arrays are [sequences * length] and belong to the step; copy what is kept.</summary>
public sealed record SelectedBatch(long Step, PreparedBatch Batch, float[] Losses, float[] Weights);

/// <summary>What one step did.</summary>
internal sealed record StepOutcome
{
    public required StepSums Sums { get; init; }

    public required double Ratio { get; init; }

    public required double LearningRate { get; init; }

    public double? GradientNorm { get; init; }

    /// <summary>Of the filtered with the exact gradient, in steps that compare them.</summary>
    public GradientComparison? GradientComparison { get; init; }

    public string? Skipped { get; init; }

    public bool NonFinite { get; init; }
}

/// <summary>
/// The optimizer step: 1. reference losses by the moving average, where that is the reference; 2. for the global scope, a first pass
/// over the step's micro-batches and one selection over them; 3. per micro-batch losses, selection and gradients; 4. sums over
/// micro-batches (and ranks); 5. one division by the total weight, clipping by the global norm, AdamW.
/// </summary>
internal sealed class StepRunner : IDisposable
{
    private readonly RunFile _run;
    private readonly long _steps;
    private readonly int _corpora;
    private readonly ITokenSelector _selector;
    private readonly RestFloor? _floor;
    private readonly ReferenceNeeds _needs;
    private readonly AllTokens _all = new();
    private readonly WordTable? _words;
    private readonly IRankGroup _ranks;
    private readonly GradientReduction _reduction;

    public StepRunner(RunFile run, TrainingModel model, long steps, WordTable? words, IRankGroup ranks)
    {
        (_run, Model, _steps, _words, _ranks) = (run, model, steps, words, ranks);
        _corpora = run.Data.Corpora.Count;
        _selector = SelectorFactory.Create(run.Objective.Selector, run.Objective.Scope);
        _floor = run.Objective.Floor is { } floor ? new RestFloor(floor.Weight, floor.Share) : null;
        _needs = SelectorFactory.Needs(run.Objective);
        Ratio = SelectorFactory.CreateRatio(run.Objective, steps);
        _reduction = new GradientReduction(ranks, model.Gradients, overlapped: ranks.Size > 1 && model.Gradients.device_type == DeviceType.CPU);
        Optimizer = new AdamW(model.Parameters, model.Gradients, model.Layout, run.Optimizer);
        Average = run is { Objective.Kind: ObjectiveKind.Slm, Reference.MovingAverageDecay: { } decay } ? new MovingAverage(model, decay) : null;
    }

    public TrainingModel Model { get; }

    public AdamW Optimizer { get; }

    public MovingAverage? Average { get; }

    public RatioSchedule Ratio { get; }

    /// <summary>Sees what each micro-batch was trained on.</summary>
    public Action<SelectedBatch>? Observer { get; set; }

    /// <param name="step">From 0 on.</param>
    public StepOutcome Run(long step, IReadOnlyList<PreparedBatch> batches)
    {
        var selective = _run.Objective.Kind == ObjectiveKind.Slm && step >= _run.Objective.ClmSteps;
        var ratio = selective ? Ratio.At(step) : 1;
        var references = selective && Average is not null ? Average.Score(batches, _needs) : null;
        var chosen = selective && _run.Objective.Scope == ObjectiveScope.GlobalBatch && (batches.Count > 1 || _ranks.Size > 1)
            ? SelectGlobally(step, batches, references, ratio)
            : null;

        var statistics = new SelectionStatistics();
        var byCorpus = new (long Candidates, long Selected)[_corpora];
        double lossSum = 0, weightSum = 0, balanceSum = 0, busiestSum = 0;
        long trained = 0;
        string? problem = null;
        GradientComparison? comparison = null;
        for (var i = 0; i < batches.Count; i++)
        {
            var batch = batches[i];
            var reference = references?[i] ?? batch.Reference;
            var probe = selective && chosen is null ? Probe(reference) : null;
            var losses = new float[batch.Tokens.Tokens.Length];
            var weights = new float[losses.Length];
            var ranked = _floor is null ? weights : new float[losses.Length];
            var index = i;
            TokenWeighting weighting = (all, output) =>
            {
                var current = batch.Mask(all.ToArray());
                Weigh(step, index, batch, reference, current, probe, selective, ratio, chosen?[index], output);
                if (_floor is null) return;
                output.CopyTo(ranked);
                AddFloor(step, batch, current, output);
            };
            if (i == 0 && selective && ComparesGradients(step)) comparison = Model.CompareGradients(batch.Tokens, weighting, probe);
            var last = i == batches.Count - 1;
            if (last) _reduction.Begin();
            var result = Model.AccumulateGradients(batch.Tokens, weighting, losses, weights, probe, last ? _reduction.Advance : null);
            lossSum += result.WeightedLossSum;
            weightSum += result.WeightSum;
            balanceSum += result.WeightSum * result.RouterBalance ?? 0;
            busiestSum += result.WeightSum * result.BusiestExpertShare ?? 0;
            if (!double.IsFinite(result.WeightedLossSum) || HasLostTarget(batch.Tokens, losses)) problem ??= $"the loss of {Place(batch, losses)} is not a number";
            batch.Mask(losses);
            statistics = statistics.Add(SelectionStatistics.Measure(losses, reference?.Losses, ranked));
            Count(batch, losses, ranked, byCorpus);
            trained += weights.Count(weight => weight > 0);
            Observer?.Invoke(new SelectedBatch(step + 1, batch, losses, weights));
        }

        _reduction.End();
        var sums = new StepSums
        {
            WeightedLossSum = lossSum,
            WeightSum = weightSum,
            Statistics = statistics,
            ByCorpus = byCorpus,
            Trained = trained,
            BatchesWithoutReference = batches.Count(batch => batch.WithoutReference),
            RouterBalanceSum = balanceSum,
            BusiestExpertSum = busiestSum,
        }.Over(_ranks);
        if (selective && sums.Statistics.Compared > 0) Ratio.Observe(1 - sums.Statistics.NegativeExcessShare);
        return Update(new StepOutcome { Sums = sums, Ratio = ratio, LearningRate = LearningRate.At(_run.Schedule, step, _steps), GradientComparison = comparison }, problem);
    }

    /// <summary>Losses on held-out text: their sum and their number.</summary>
    public (double Sum, long Count) Evaluate(TokenBatch batch)
    {
        var losses = new float[batch.Tokens.Length];
        Model.Evaluate(batch, losses);
        double sum = 0;
        long count = 0;
        foreach (var loss in losses)
        {
            if (float.IsNaN(loss)) continue;
            sum += loss;
            count++;
        }

        return (sum, count);
    }

    /// <summary>What would be selected of a batch now.</summary>
    public float[] Select(long step, PreparedBatch batch)
    {
        var reference = Average?.Score([batch], _needs)[0] ?? batch.Reference;
        var probe = Probe(reference);
        var losses = new float[batch.Tokens.Tokens.Length];
        var weights = new float[losses.Length];
        Model.Evaluate(batch.Tokens, losses, probe);
        batch.Mask(losses);
        Weigh(step, 0, batch, reference, losses, probe, selective: true, Ratio.At(step), null, weights);
        return weights;
    }

    public double ParameterNorm() => Optimizer.ParameterNorm();

    public void Dispose()
    {
        Optimizer.Dispose();
        Average?.Dispose();
        Model.Dispose();
    }

    private StepOutcome Update(StepOutcome outcome, string? problem)
    {
        // Ranks have to agree, or their weights would part.
        Span<double> fine = [problem is null ? 1 : 0];
        _ranks.Lowest(fine);
        if (fine[0] == 0) problem ??= "the loss of another process is not a number";
        if (problem is null && outcome.Sums.WeightSum == 0)
        {
            Optimizer.ZeroGradients();
            return outcome with { Skipped = "no token was selected" };
        }

        var norm = Optimizer.GradientNorm() / outcome.Sums.WeightSum;
        if (problem is null && !double.IsFinite(norm)) problem = $"the gradient of {NonFiniteParameter()} is not a number";
        if (problem is not null)
        {
            Optimizer.ZeroGradients();
            return outcome with { Skipped = problem, NonFinite = true };
        }

        var clip = _run.Optimizer.Clip;
        var scale = (clip > 0 && norm > clip ? clip / norm : 1) / outcome.Sums.WeightSum;
        Optimizer.Step(outcome.LearningRate, scale);
        Model.WeightsChanged();
        Average?.Update();
        return outcome with { GradientNorm = norm };
    }

    private bool ComparesGradients(long step) =>
        _run.Objective.Backward == BackwardRows.Filtered && _run.Metrics.GradientCheckSteps is > 0 and var every && step % every == 0 && _ranks.Rank == 0;

    private void Weigh(
        long step, int index, PreparedBatch batch, TokenScores? reference, ReadOnlySpan<float> current, TokenProbe? probe,
        bool selective, double ratio, float[]? chosen, Span<float> weights)
    {
        var losses = Losses(step, index, batch, reference, current, probe);
        if (!selective || batch.WithoutReference)
        {
            _all.Select(losses, 1, weights);
            return;
        }

        if (chosen is not null)
        {
            chosen.CopyTo(weights);
            return;
        }

        CheckReference(batch, reference?.Losses, current);
        CheckHistory(batch, current);
        _selector.Select(losses, ratio, weights);
    }

    /// <summary>Draws follow from what a sequence is and from the step, not from the micro-batch or process that has it.</summary>
    private void AddFloor(long step, PreparedBatch batch, ReadOnlySpan<float> current, Span<float> weights)
    {
        var length = batch.Tokens.Length;
        for (var i = 0; i < batch.Origins.Length; i++)
        {
            var origin = batch.Origins[i];
            var seed = Randomness.Derive((ulong)_run.Seed, 0xF1008, (ulong)step, (ulong)origin.Corpus, (ulong)origin.Shard, (ulong)origin.Sequence);
            _floor!.Add(current.Slice(i * length, length), seed, weights.Slice(i * length, length));
        }
    }

    private TokenLosses Losses(long step, int index, PreparedBatch batch, TokenScores? reference, ReadOnlySpan<float> current, TokenProbe? probe) => new()
    {
        Current = current,
        Reference = reference?.Losses,
        History = batch.History,
        ReferenceEntropy = reference?.Entropies,
        Divergence = Divergences(reference, probe),
        Words = _words is null ? default : _words.Number(batch.Tokens.Tokens),
        Length = batch.Tokens.Length,
        Seed = Randomness.Derive((ulong)_run.Seed, 0x5E1EC7, (ulong)step, (ulong)(_ranks.Rank + _ranks.Size * index)),
    };

    /// <summary>What to find out of the model's own distributions; null for criteria that do not compare them.</summary>
    private TokenProbe? Probe(TokenScores? reference) => _needs.TopK > 0 && reference is { TopK: > 0 } ? new TokenProbe(reference.TopK, reference.TopIds) : null;

    /// <summary>[sequences * length] in nats; empty without a probe.</summary>
    private static float[] Divergences(TokenScores? reference, TokenProbe? probe)
    {
        if (probe is null) return [];
        var divergences = new float[probe.Ids.Length / probe.K];
        TopDivergence.Measure(reference!.TopLogProbabilities, probe.LogProbabilities, probe.K, divergences);
        return divergences;
    }

    /// <summary>
    /// The whole step as one batch: exact, at the price of a forward pass more. Ranks exchange what is ranked, micro-batch by
    /// micro-batch, so that the batch is in the order in which one process would have it.
    /// </summary>
    private float[][] SelectGlobally(long step, IReadOnlyList<PreparedBatch> batches, TokenScores[]? references, double ratio)
    {
        List<float> current = [], reference = [], history = [], entropy = [], divergence = [];
        List<int> words = [];
        var own = new int[batches.Count];
        for (var i = 0; i < batches.Count; i++)
        {
            var batch = batches[i];
            var losses = batch.WithoutReference ? [] : new float[batch.Tokens.Tokens.Length];
            var known = references?[i] ?? batch.Reference;
            var compared = batch.WithoutReference || !_needs.Reference ? [] : known!.Losses;
            var probe = Probe(known);
            if (losses.Length > 0)
            {
                Model.Evaluate(batch.Tokens, losses, probe);
                batch.Mask(losses);
                CheckReference(batch, compared, losses);
                CheckHistory(batch, losses);
            }

            own[i] = current.Count + _ranks.Gather<int>([losses.Length]).Take(_ranks.Rank).Sum();
            current.AddRange(_ranks.Gather<float>(losses));
            reference.AddRange(_ranks.Gather<float>(compared));
            if (_needs.History) history.AddRange(_ranks.Gather<float>(losses.Length > 0 ? batch.History! : []));
            if (_needs.Entropies) entropy.AddRange(_ranks.Gather<float>(losses.Length > 0 ? known!.Entropies : []));
            if (_needs.TopK > 0) divergence.AddRange(_ranks.Gather<float>(losses.Length > 0 ? Divergences(known, probe) : []));
            if (_words is not null) words.AddRange(_ranks.Gather<int>(losses.Length > 0 ? _words.Number(batch.Tokens.Tokens) : []));
        }

        var weights = new float[current.Count];
        _selector.Select(
            new TokenLosses
            {
                Current = current.ToArray(),
                Reference = reference.ToArray(),
                History = history.ToArray(),
                ReferenceEntropy = entropy.ToArray(),
                Divergence = divergence.ToArray(),
                Words = words.ToArray(),
                Length = batches[0].Tokens.Length,
                Seed = Randomness.Derive((ulong)_run.Seed, 0x5E1EC7, (ulong)step),
            }, ratio, weights);
        return [.. batches.Select((batch, i) => batch.WithoutReference ? [] : weights[own[i]..(own[i] + batch.Tokens.Tokens.Length)])];
    }

    /// <summary>A token with a target and without a reference loss means that the reference saw other text or other documents.</summary>
    private void CheckReference(PreparedBatch batch, float[]? reference, ReadOnlySpan<float> current)
    {
        if (!_needs.Reference) return;
        Check("reference", batch, reference ?? throw new InvalidOperationException("the step has no reference losses"), current);
    }

    private void CheckHistory(PreparedBatch batch, ReadOnlySpan<float> current)
    {
        if (_needs.History) Check("history", batch, batch.History ?? throw new InvalidOperationException("the step has no losses of the history"), current);
    }

    private void Check(string name, PreparedBatch batch, float[] known, ReadOnlySpan<float> current)
    {
        for (var i = 0; i < current.Length; i++)
        {
            if (float.IsNaN(current[i]) || !float.IsNaN(known[i])) continue;
            var origin = batch.Origins[i / batch.Tokens.Length];
            throw new MismatchException(
                $"the {name} has no loss for token {i % batch.Tokens.Length} of sequence {origin.Sequence} in shard {origin.Shard} of {_run.Data.Corpora[origin.Corpus].Path}, which has a target: " +
                "it was scored with another document mask or from other text");
        }
    }

    private static void Count(PreparedBatch batch, float[] losses, float[] weights, (long Candidates, long Selected)[] byCorpus)
    {
        for (var i = 0; i < losses.Length; i++)
        {
            if (float.IsNaN(losses[i])) continue;
            ref var count = ref byCorpus[batch.Origins[i / batch.Tokens.Length].Corpus];
            count.Candidates++;
            if (weights[i] > 0) count.Selected++;
        }
    }

    /// <summary>Whether a token that has a target has no loss: NaN says "no target" everywhere else, here it is what a broken model gives.</summary>
    private static bool HasLostTarget(TokenBatch batch, float[] losses)
    {
        for (var i = 0; i < losses.Length; i++)
            if (float.IsNaN(losses[i]) && IsTarget(batch, i)) return true;
        return false;
    }

    private static bool IsTarget(TokenBatch batch, int i) =>
        i % batch.Length != 0 && (batch.Documents is not { } documents || (documents[i] >= 0 && documents[i] == documents[i - 1]));

    private string Place(PreparedBatch batch, float[] losses)
    {
        var at = Math.Max(0, Array.FindIndex(losses, float.IsInfinity));
        for (var i = 0; i < losses.Length && at == 0; i++)
            if (float.IsNaN(losses[i]) && IsTarget(batch.Tokens, i)) at = i;
        var origin = batch.Origins[at / batch.Tokens.Length];
        return $"token {at % batch.Tokens.Length} of sequence {origin.Sequence} in shard {origin.Shard} of {_run.Data.Corpora[origin.Corpus].Path}";
    }

    private string NonFiniteParameter()
    {
        using var guard = no_grad();
        foreach (var span in Model.Layout)
        {
            using var scope = NewDisposeScope();
            if (!Model.Gradients.narrow(0, span.Offset, span.Count).isfinite().all().item<bool>()) return span.Name;
        }

        return "the model";
    }
}
