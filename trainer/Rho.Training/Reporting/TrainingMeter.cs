using System.Diagnostics.Metrics;

namespace Rho.Training;

/// <summary>A run's metrics as instruments of the meter "Rho.Training", for OpenTelemetry and the metrics endpoint. Losses in nats per token.</summary>
internal sealed class TrainingMeter : IDisposable
{
    public const string Name = "Rho.Training";

    private static readonly double[] QuantileShares = [0.1, 0.5, 0.9];

    private readonly Meter _meter = new(Name);
    private readonly KeyValuePair<string, object?> _run;
    private readonly IReadOnlyList<string> _corpora;
    private readonly Counter<long> _tokens;
    private readonly Counter<long> _selected;
    private readonly Counter<long> _skipped;
    private readonly Counter<long> _withoutReference;
    private readonly Counter<double> _scoreWait;
    private readonly Counter<double> _dataWait;
    private readonly Counter<double> _referenceTime;
    private readonly Counter<double> _trainingTime;
    private readonly Counter<double> _checkpointStall;
    private readonly Histogram<double> _stepTime;
    private readonly Histogram<double> _checkpointTime;
    private readonly Gauge<double> _loss;
    private readonly Gauge<double> _ratio;
    private readonly Gauge<double> _share;
    private readonly Gauge<double> _trainedShare;
    private readonly Gauge<double> _corpusShare;
    private readonly Gauge<double> _threshold;
    private readonly Gauge<double> _negativeExcess;
    private readonly Gauge<double> _quantile;
    private readonly Gauge<double> _overlap;
    private readonly Gauge<double> _routerBalance;
    private readonly Gauge<double> _busiestExpert;
    private readonly Gauge<double> _gradientNorm;
    private readonly Gauge<double> _gradientCosine;
    private readonly Gauge<double> _gradientNormRatio;
    private readonly Gauge<double> _learningRate;
    private readonly Gauge<double> _speed;
    private readonly Gauge<double> _flops;
    private readonly Gauge<double> _heldOut;
    private (long Tokens, long Selected) _last;

    /// <param name="run">The run's name.</param>
    /// <param name="corpora">Names of data.corpora, in their order.</param>
    public TrainingMeter(string run, IReadOnlyList<string> corpora)
    {
        (_run, _corpora) = (new("run", run), corpora);
        _tokens = _meter.CreateCounter<long>("rho.training.tokens", "{token}", "Tokens read");
        _selected = _meter.CreateCounter<long>("rho.training.selected_tokens", "{token}", "Tokens that were selected");
        _skipped = _meter.CreateCounter<long>("rho.training.skipped_steps", "{step}", "Steps that left the weights as they were");
        _withoutReference = _meter.CreateCounter<long>("rho.training.batches_without_reference", "{batch}", "Micro-batches that trained on all tokens because their reference was away");
        _scoreWait = _meter.CreateCounter<double>("rho.training.score_wait", "s", "Time that training stood still for reference losses");
        _dataWait = _meter.CreateCounter<double>("rho.training.data_wait", "s", "Time that training stood still for other data");
        _referenceTime = _meter.CreateCounter<double>("rho.training.reference_time", "s", "Time until reference losses came, ahead of their use");
        _trainingTime = _meter.CreateCounter<double>("rho.training.training_time", "s", "Time of steps without waiting");
        _checkpointStall = _meter.CreateCounter<double>("rho.training.checkpoint_stall", "s", "Time that training stood still for checkpoints");
        _stepTime = _meter.CreateHistogram<double>("rho.training.step.duration", "s", "Time of a step");
        _checkpointTime = _meter.CreateHistogram<double>("rho.training.checkpoint.duration", "s", "Time until a checkpoint was on disk");
        _loss = _meter.CreateGauge<double>("rho.training.loss", "nat", "Mean loss of a step, by tokens: trained (weighted), all, selected, unselected, and the reference's");
        _ratio = _meter.CreateGauge<double>("rho.training.ratio", null, "Share of the candidates that was to be kept");
        _share = _meter.CreateGauge<double>("rho.training.selected_share", null, "Share of the candidates that was kept");
        _trainedShare = _meter.CreateGauge<double>("rho.training.trained_share", null, "Share of the candidates that counted in the loss: the selected, and those that objective.floor drew");
        _corpusShare = _meter.CreateGauge<double>("rho.training.corpus_selected_share", null, "Share of a corpus's candidates that was kept");
        _threshold = _meter.CreateGauge<double>("rho.training.threshold", "nat", "Lowest excess loss kept");
        _negativeExcess = _meter.CreateGauge<double>("rho.training.negative_excess_share", null, "Share of candidates that the model predicts better than the reference does");
        _quantile = _meter.CreateGauge<double>("rho.training.excess", "nat", "Excess loss at a quantile of the candidates");
        _overlap = _meter.CreateGauge<double>("rho.training.mask_overlap", null, "Share of what was selected of one batch at the checkpoint before that is selected now");
        _routerBalance = _meter.CreateGauge<double>("rho.training.router_balance", null, "Load-balancing loss of a mixture of experts, without its weight");
        _busiestExpert = _meter.CreateGauge<double>("rho.training.busiest_expert_share", null, "Share of a layer's choices of experts that its busiest expert has, of the layer where it is largest");
        _gradientNorm = _meter.CreateGauge<double>("rho.training.gradient_norm", null, "Norm of the gradient before clipping");
        _gradientCosine = _meter.CreateGauge<double>("rho.training.gradient_cosine", null, "Cosine between the filtered and the exact gradient of one micro-batch");
        _gradientNormRatio = _meter.CreateGauge<double>("rho.training.gradient_norm_ratio", null, "Norm of the filtered gradient of one micro-batch over that of the exact one");
        _learningRate = _meter.CreateGauge<double>("rho.training.learning_rate", null, "Learning rate");
        _speed = _meter.CreateGauge<double>("rho.training.tokens_per_second", "{token}/s", "Tokens read per second");
        _flops = _meter.CreateGauge<double>("rho.training.flops_share", null, "Share of the peak floating-point operations per second");
        _heldOut = _meter.CreateGauge<double>("rho.training.held_out_loss", "nat", "Mean loss on held-out text");
    }

    public void Record(TrainingEvent e)
    {
        switch (e)
        {
            case RunStarted started when !started.Resumed:
                _last = default;
                break;
            case StepFinished step:
                Record(step);
                break;
            case EvaluationFinished evaluation:
                foreach (var (name, value) in evaluation.Losses) _heldOut.Record(value, _run, new("set", name));
                break;
            case CheckpointWritten checkpoint:
                _checkpointTime.Record(checkpoint.Milliseconds / 1000, _run);
                _checkpointStall.Add(checkpoint.StallMilliseconds / 1000, _run);
                Set(_overlap, checkpoint.MaskOverlap);
                break;
        }
    }

    private void Record(StepFinished step)
    {
        if (_last != default || step.Step == 1)
        {
            _tokens.Add(step.Tokens - _last.Tokens, _run);
            _selected.Add(step.SelectedTokens - _last.Selected, _run);
        }

        _last = (step.Tokens, step.SelectedTokens);
        if (step.Skipped is not null) _skipped.Add(1, _run);
        if (step.BatchesWithoutReference > 0) _withoutReference.Add(step.BatchesWithoutReference, _run);
        _scoreWait.Add(step.ScoreWaitMilliseconds / 1000, _run);
        _dataWait.Add(step.DataWaitMilliseconds / 1000, _run);
        _referenceTime.Add(step.ReferenceMilliseconds / 1000, _run);
        _trainingTime.Add(step.TrainingMilliseconds / 1000, _run);
        _stepTime.Record(step.Milliseconds / 1000, _run);
        foreach (var (tokens, loss) in new[] { ("trained", step.Loss), ("all", step.AllLoss), ("selected", step.SelectedLoss), ("unselected", step.UnselectedLoss), ("reference", step.ReferenceLoss) })
            Set(_loss, loss, "tokens", tokens);
        _ratio.Record(step.Ratio, _run);
        Set(_share, step.SelectedShare);
        Set(_trainedShare, step.TrainedShare);
        for (var i = 0; i < step.SelectedShareByCorpus?.Count; i++) Set(_corpusShare, step.SelectedShareByCorpus[i], "corpus", _corpora[i]);
        Set(_threshold, step.Threshold);
        Set(_negativeExcess, step.NegativeExcessShare);
        for (var i = 0; i < step.ExcessQuantiles?.Count; i++) Set(_quantile, step.ExcessQuantiles[i], "quantile", QuantileShares[i]);
        Set(_routerBalance, step.RouterBalance);
        Set(_busiestExpert, step.BusiestExpertShare);
        Set(_gradientNorm, step.GradientNorm);
        Set(_gradientCosine, step.GradientCosine);
        Set(_gradientNormRatio, step.GradientNormRatio);
        _learningRate.Record(step.LearningRate, _run);
        _speed.Record(step.TokensPerSecond, _run);
        Set(_flops, step.FlopsShare);
    }

    /// <summary>What a step has none of keeps its last value.</summary>
    private void Set(Gauge<double> gauge, double? value, string? tag = null, object? tagValue = null)
    {
        if (value is not { } number || !double.IsFinite(number)) return;
        if (tag is null) gauge.Record(number, _run);
        else gauge.Record(number, _run, new(tag, tagValue));
    }

    public void Dispose() => _meter.Dispose();
}
