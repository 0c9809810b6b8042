using System.Diagnostics;

namespace Rho.Training;

/// <summary>A step's micro-batches.</summary>
/// <param name="ScoreWait">How long training stood still for reference losses.</param>
/// <param name="DataWait">How long it stood still for other data.</param>
internal sealed record StepBatches(IReadOnlyList<PreparedBatch> Batches, TimeSpan ScoreWait, TimeSpan DataWait);

/// <summary>Takes each step's micro-batches from the pipeline, says so when they are slow, and measures what training waits for.</summary>
internal sealed class BatchFeed(BatchPipeline pipeline, RunPlan plan, Action<string> warn)
{
    private static readonly TimeSpan SlowData = TimeSpan.FromSeconds(5);

    private bool WaitsForScores => plan.Reference is { IsWaiting: true } || plan.History is { IsWaiting: true };

    /// <summary>The next step's micro-batches of this rank, waiting for them.</summary>
    public StepBatches Take(CancellationToken cancellation)
    {
        var batches = new List<PreparedBatch>();
        TimeSpan scores = default, data = default;
        for (var i = 0; i < plan.Run.Batch.Accumulation; i++)
        {
            if (!pipeline.Wait(TimeSpan.Zero, cancellation))
            {
                // What is waited for counts as waiting for scores if the reference is what is missing.
                var start = Stopwatch.GetTimestamp();
                var forScores = WaitsForScores;
                if (!pipeline.Wait(SlowData, cancellation)) warn(WhatIsSlow());
                while (!pipeline.Wait(SlowData, cancellation)) forScores |= WaitsForScores;
                if (forScores) scores += Stopwatch.GetElapsedTime(start);
                else data += Stopwatch.GetElapsedTime(start);
            }

            if (!pipeline.Take(out var batch, cancellation)) throw new InvalidOperationException("the data ended before the run's last step");
            batches.Add(batch);
        }

        return new StepBatches(batches, scores, data);
    }

    private string WhatIsSlow() => WaitsForScores
        ? $"training waits for reference losses: a stretch of up to {Math.Min(plan.Data.StretchSequences, plan.Data.Corpora.Max(corpus => corpus.Sequences)) * plan.Data.Length} tokens (data.shuffle_tokens) is to have all of its losses"
        : "training waits for data";
}
