using Rho.Model;

namespace Rho.Training;

/// <summary>How long a step took, and what it stood still for.</summary>
/// <param name="Whole">From the first micro-batch asked for to the weights changed.</param>
/// <param name="Training">Of that, what the model computed.</param>
/// <param name="Checkpoint">Between the step before and this one.</param>
internal readonly record struct StepTimes(TimeSpan Whole, TimeSpan Training, TimeSpan ScoreWait, TimeSpan DataWait, TimeSpan Checkpoint);

/// <summary>What is said of each step: means of its sums, shares and speeds.</summary>
internal sealed class StepReport(RunPlan plan, TrainingModel model)
{
    private readonly double _flopsPerStep = RunPlan.FlopsPerToken(model.Config, model.Model.ActiveParameters, plan.Data.Length) * plan.TokensPerStep;
    private TimeSpan _referenceTime;

    /// <summary>The event of the step that has just been done; call it once for each.</summary>
    public StepFinished Of(RunProgress progress, StepOutcome outcome, StepTimes times)
    {
        static double? Number(double value) => double.IsFinite(value) ? value : null;
        var statistics = outcome.Sums.Statistics;
        var referenceTime = plan.Reference?.TimeSpent ?? TimeSpan.Zero;
        var reference = referenceTime - _referenceTime;
        _referenceTime = referenceTime;
        return new StepFinished
        {
            Step = progress.Step,
            Tokens = progress.Tokens,
            SelectedTokens = progress.SelectedTokens,
            Loss = Number(outcome.Sums.WeightedLossSum / outcome.Sums.WeightSum),
            AllLoss = Number(statistics.MeanLoss),
            SelectedLoss = Number(statistics.MeanSelectedLoss),
            UnselectedLoss = Number(statistics.MeanUnselectedLoss),
            ReferenceLoss = Number(statistics.ReferenceLossSum / statistics.Compared),
            Ratio = outcome.Ratio,
            SelectedShare = Number((double)statistics.Selected / statistics.Candidates),
            TrainedShare = plan.Run is { Objective: { Kind: ObjectiveKind.Slm, Floor: not null } } ? Number((double)outcome.Sums.Trained / statistics.Candidates) : null,
            Threshold = Number(statistics.Threshold),
            NegativeExcessShare = Number(statistics.NegativeExcessShare),
            ExcessQuantiles = statistics.ExcessQuantiles.Count > 0 ? statistics.ExcessQuantiles : null,
            SelectedShareByCorpus = outcome.Sums.ByCorpus.Length > 1 ? [.. outcome.Sums.ByCorpus.Select(count => count.Candidates == 0 ? 0 : (double)count.Selected / count.Candidates)] : null,
            RouterBalance = plan.Run.Loss.RouterBalance > 0 ? Number(outcome.Sums.RouterBalanceSum / outcome.Sums.WeightSum) : null,
            BusiestExpertShare = plan.Run.Loss.RouterBalance > 0 ? Number(outcome.Sums.BusiestExpertSum / outcome.Sums.WeightSum) : null,
            GradientNorm = outcome.GradientNorm,
            GradientCosine = outcome.GradientComparison?.Cosine,
            GradientNormRatio = outcome.GradientComparison?.NormRatio,
            LearningRate = outcome.LearningRate,
            Milliseconds = times.Whole.TotalMilliseconds,
            TrainingMilliseconds = times.Training.TotalMilliseconds,
            TokensPerSecond = plan.TokensPerStep / times.Whole.TotalSeconds,
            FlopsShare = plan.Run.Metrics.PeakFlops is { } peak ? _flopsPerStep / times.Whole.TotalSeconds / peak : null,
            ScoreWaitMilliseconds = times.ScoreWait.TotalMilliseconds,
            DataWaitMilliseconds = times.DataWait.TotalMilliseconds,
            ReferenceMilliseconds = reference.TotalMilliseconds,
            CheckpointMilliseconds = times.Checkpoint.TotalMilliseconds,
            BatchesWithoutReference = outcome.Sums.BatchesWithoutReference,
            Skipped = outcome.Skipped,
        };
    }
}
