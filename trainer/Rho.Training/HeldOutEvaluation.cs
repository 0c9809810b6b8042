using System.Diagnostics;

namespace Rho.Training;

/// <summary>The run's losses on held-out text, which rank 0 alone computes.</summary>
internal sealed class HeldOutEvaluation(RunPlan plan, StepRunner runner, RunReporter reporter)
{
    private long _step = -1;

    /// <summary>The last ones by set, in nats per token; none before the first evaluation.</summary>
    public IReadOnlyDictionary<string, double> Losses { get; private set; } = new Dictionary<string, double>(StringComparer.Ordinal);

    /// <summary><see cref="Losses"/> if they are of that step.</summary>
    public IReadOnlyDictionary<string, double>? At(long step) => _step == step ? Losses : null;

    /// <summary>Evaluates all sets, unless that was done at this step already.</summary>
    public void Run(RunProgress progress, CancellationToken cancellation)
    {
        if (plan.Sets.Count == 0 || _step == progress.Step || plan.Ranks.Rank != 0) return;
        // The others wait for the leader, so it does not stop on the way.
        if (plan.Ranks.Size > 1) cancellation = CancellationToken.None;
        var start = Stopwatch.GetTimestamp();
        using var activity = TrainingActivities.Start("training.evaluation", plan.Run.Name!, progress.Step);
        var losses = new Dictionary<string, double>(StringComparer.Ordinal);
        foreach (var set in plan.Sets)
        {
            double sum = 0;
            long count = 0;
            foreach (var batch in set.Batches(plan.Run.Batch.Sequences))
            {
                cancellation.ThrowIfCancellationRequested();
                var (batchSum, batchCount) = runner.Evaluate(batch);
                sum += batchSum;
                count += batchCount;
            }

            losses[set.Name] = sum / count;
        }

        (Losses, _step) = (losses, progress.Step);
        reporter.Publish(new EvaluationFinished { Step = progress.Step, Tokens = progress.Tokens, Losses = losses, Milliseconds = Stopwatch.GetElapsedTime(start).TotalMilliseconds });
    }
}
