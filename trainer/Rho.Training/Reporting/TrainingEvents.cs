namespace Rho.Training;

/// <summary>What happens in a run, as it happens. Steps count from 1: the event of step n comes when n steps are done.</summary>
public abstract record TrainingEvent
{
    public required long Step { get; init; }

    public DateTimeOffset Time { get; init; } = DateTimeOffset.UtcNow;
}

/// <summary>All checks passed and the model is ready; <see cref="TrainingEvent.Step"/> is where the run starts.</summary>
public sealed record RunStarted : TrainingEvent
{
    public required string Name { get; init; }

    public required string Directory { get; init; }

    /// <summary>For people, such as "llama, 3.1M parameters, float32 on cpu".</summary>
    public required string Model { get; init; }

    public required long Parameters { get; init; }

    /// <summary>Of the whole run.</summary>
    public required long Steps { get; init; }

    /// <summary>Tokens that one step reads, over all ranks.</summary>
    public required long TokensPerStep { get; init; }

    /// <summary>Null for runs without a reference.</summary>
    public string? Reference { get; init; }

    public bool Resumed { get; init; }
}

/// <summary>One optimizer step. Losses are means in nats per token; what a step has none of is null.</summary>
public sealed record StepFinished : TrainingEvent
{
    /// <summary>Tokens read so far in the run, over all ranks.</summary>
    public required long Tokens { get; init; }

    /// <summary>Tokens so far that were selected.</summary>
    public required long SelectedTokens { get; init; }

    /// <summary>What was minimised: the weighted mean over the step's tokens.</summary>
    public double? Loss { get; init; }

    /// <summary>Over all tokens with a target.</summary>
    public double? AllLoss { get; init; }

    public double? SelectedLoss { get; init; }

    /// <summary>Rises under selective training by design: not a measure of quality.</summary>
    public double? UnselectedLoss { get; init; }

    public double? ReferenceLoss { get; init; }

    /// <summary>Share of the candidates that were to be kept.</summary>
    public double Ratio { get; init; }

    /// <summary>Share of the candidates that were kept.</summary>
    public double? SelectedShare { get; init; }

    /// <summary>Share of the candidates that counted in the loss: the selected, and those that objective.floor drew. Null without a floor, where it is <see cref="SelectedShare"/>.</summary>
    public double? TrainedShare { get; init; }

    /// <summary>The lowest excess loss that was kept.</summary>
    public double? Threshold { get; init; }

    /// <summary>Share of candidates that the model predicts better than the reference does.</summary>
    public double? NegativeExcessShare { get; init; }

    /// <summary>Excess loss at the 10th, 50th and 90th percent of the candidates.</summary>
    public IReadOnlyList<float>? ExcessQuantiles { get; init; }

    /// <summary>Share of each corpus's candidates that were kept, in the order of data.corpora; null with one corpus.</summary>
    public IReadOnlyList<double>? SelectedShareByCorpus { get; init; }

    /// <summary>The load-balancing loss of a mixture of experts, without its weight: the experts of a token where they are taken evenly, all experts at most. The mean over micro-batches, each counted by its tokens that count in the loss. Null without loss.router_balance.</summary>
    public double? RouterBalance { get; init; }

    /// <summary>Share of a layer's choices of experts that its busiest expert has, in the layer where it is largest; the same mean.</summary>
    public double? BusiestExpertShare { get; init; }

    /// <summary>Before clipping.</summary>
    public double? GradientNorm { get; init; }

    /// <summary>Cosine between the filtered and the exact gradient of one micro-batch; null in steps that do not compare them.</summary>
    public double? GradientCosine { get; init; }

    /// <summary>Norm of that filtered gradient over the exact one's.</summary>
    public double? GradientNormRatio { get; init; }

    public required double LearningRate { get; init; }

    /// <summary>Of the whole step, waiting included.</summary>
    public required double Milliseconds { get; init; }

    /// <summary>Of those, the time of the passes, the reduction over ranks and the update: the step without waiting.</summary>
    public double TrainingMilliseconds { get; init; }

    /// <summary>Tokens read per second, over all ranks.</summary>
    public required double TokensPerSecond { get; init; }

    /// <summary>Share of metrics.peak_flops; null where that is not given.</summary>
    public double? FlopsShare { get; init; }

    /// <summary>Time in which training stood still because reference losses were not there.</summary>
    public double ScoreWaitMilliseconds { get; init; }

    /// <summary>Time in which training stood still for other data.</summary>
    public double DataWaitMilliseconds { get; init; }

    /// <summary>Time that was spent until reference losses came, ahead of their use, since the step before.</summary>
    public double ReferenceMilliseconds { get; init; }

    /// <summary>Time in which training stood still for a checkpoint between the step before and this one; not part of <see cref="Milliseconds"/>.</summary>
    public double CheckpointMilliseconds { get; init; }

    /// <summary>Micro-batches that trained on all tokens because their reference was away.</summary>
    public int BatchesWithoutReference { get; init; }

    /// <summary>Why the weights were left as they were; null for a normal step.</summary>
    public string? Skipped { get; init; }
}

/// <summary>Held-out losses.</summary>
public sealed record EvaluationFinished : TrainingEvent
{
    public required long Tokens { get; init; }

    /// <summary>Mean loss in nats per token, by the name of the set.</summary>
    public required IReadOnlyDictionary<string, double> Losses { get; init; }

    public required double Milliseconds { get; init; }
}

/// <summary>A checkpoint is on disk, whole.</summary>
public sealed record CheckpointWritten : TrainingEvent
{
    public required string Path { get; init; }

    /// <summary>Time that training stood still for it, with the forward pass that <see cref="MaskOverlap"/> needs.</summary>
    public required double StallMilliseconds { get; init; }

    /// <summary>From start to end of the writing.</summary>
    public required double Milliseconds { get; init; }

    /// <summary>Share of the tokens selected in the probe batch at the checkpoint before that are selected in it now; null where there is none.</summary>
    public double? MaskOverlap { get; init; }
}

/// <summary>Something to know that does not end the run.</summary>
public sealed record RunWarning : TrainingEvent
{
    public required string Message { get; init; }
}

public enum RunState
{
    /// <summary>All steps are done and the final model is written.</summary>
    Finished,
    /// <summary>Stopped on request, with a checkpoint; it can be resumed.</summary>
    Stopped,
    /// <summary>Ended by an error; it can be resumed from its last checkpoint.</summary>
    Failed,
}

/// <summary>The last event of a run.</summary>
public sealed record RunEnded : TrainingEvent
{
    public required RunState State { get; init; }

    /// <summary>The error of a failed run.</summary>
    public string? Message { get; init; }

    /// <summary>The final model's folder; null unless the run finished.</summary>
    public string? Model { get; init; }
}
