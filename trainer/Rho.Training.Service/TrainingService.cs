using Google.Protobuf.WellKnownTypes;
using Grpc.Core;
using Rho.Hosting;
using Rho.Protocol.Training.V1;
using Wire = Rho.Protocol.Training.V1;

namespace Rho.Training.Service;

/// <summary>rho.training.v1: maps messages, and leaves the work to <see cref="RunManager"/>.</summary>
internal sealed class TrainingService(RunManager runs, ServiceHealth health) : Wire.Training.TrainingBase
{
    public override async Task<StartRunResponse> StartRun(StartRunRequest request, ServerCallContext context) =>
        new() { Run = ToWire(await runs.StartAsync(request.RunFile, request.Id, context.CancellationToken)) };

    public override Task<ListRunsResponse> ListRuns(ListRunsRequest request, ServerCallContext context) =>
        Task.FromResult(new ListRunsResponse { Runs = { runs.List().Select(ToWire) } });

    public override Task<GetRunResponse> GetRun(GetRunRequest request, ServerCallContext context) =>
        Task.FromResult(new GetRunResponse { Run = ToWire(runs.Get(request.Id)) });

    public override async Task WatchRun(WatchRunRequest request, IServerStreamWriter<WatchRunResponse> responses, ServerCallContext context)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(context.CancellationToken, health.Draining);
        try
        {
            await foreach (var e in runs.WatchAsync(request.Id, request.AfterStep, stop.Token)) await responses.WriteAsync(ToWire(e), stop.Token);
        }
        catch (OperationCanceledException) when (health.Draining.IsCancellationRequested)
        {
            throw new UnavailableException("the service stops; watch again after the last step seen once it is back");
        }
    }

    public override async Task<CheckpointRunResponse> CheckpointRun(CheckpointRunRequest request, ServerCallContext context) =>
        new() { Path = await runs.CheckpointAsync(request.Id, context.CancellationToken) };

    public override async Task<StopRunResponse> StopRun(StopRunRequest request, ServerCallContext context) =>
        new() { Run = ToWire(await runs.StopAsync(request.Id, context.CancellationToken)) };

    public override async Task<ResumeRunResponse> ResumeRun(ResumeRunRequest request, ServerCallContext context) =>
        new() { Run = ToWire(await runs.ResumeAsync(request.Id, context.CancellationToken)) };

    private static Run ToWire(ManagedRun run)
    {
        var record = run.Record;
        var wire = new Run
        {
            Id = record.Id,
            State = record.State switch
            {
                ManagedState.Queued => Wire.RunState.Queued,
                ManagedState.Starting => Wire.RunState.Starting,
                ManagedState.Running => Wire.RunState.Running,
                ManagedState.Finished => Wire.RunState.Finished,
                ManagedState.Stopped => Wire.RunState.Stopped,
                _ => Wire.RunState.Failed,
            },
            Error = record.Error ?? "",
            Directory = run.Directory,
            Step = run.LastStep?.Step ?? run.Started?.Step ?? 0,
            Steps = run.Started?.Steps ?? 0,
            Created = Timestamp.FromDateTimeOffset(record.Created),
            Model = record.Model ?? "",
            LastStep = run.LastStep is { } step ? ToWire(step) : null,
        };
        foreach (var (name, loss) in run.LastEvaluation?.Losses ?? new Dictionary<string, double>(StringComparer.Ordinal)) wire.HeldOutLosses[name] = loss;
        return wire;
    }

    private static WatchRunResponse ToWire(TrainingEvent e)
    {
        var wire = new WatchRunResponse { Step = e.Step, Time = Timestamp.FromDateTimeOffset(e.Time) };
        switch (e)
        {
            case RunStarted started:
                wire.Started = new Wire.RunStarted
                {
                    Model = started.Model,
                    Parameters = started.Parameters,
                    Steps = started.Steps,
                    TokensPerStep = started.TokensPerStep,
                    Reference = started.Reference ?? "",
                    Resumed = started.Resumed,
                };
                break;
            case StepFinished step:
                wire.StepFinished = ToWire(step);
                break;
            case EvaluationFinished evaluation:
                wire.Evaluation = new Wire.EvaluationFinished { Tokens = evaluation.Tokens, Milliseconds = evaluation.Milliseconds };
                foreach (var (name, loss) in evaluation.Losses) wire.Evaluation.Losses[name] = loss;
                break;
            case CheckpointWritten checkpoint:
                wire.Checkpoint = new Wire.CheckpointWritten { Path = checkpoint.Path, StallMilliseconds = checkpoint.StallMilliseconds, Milliseconds = checkpoint.Milliseconds };
                if (checkpoint.MaskOverlap is { } overlap) wire.Checkpoint.MaskOverlap = overlap;
                break;
            case RunWarning warning:
                wire.Warning = new Warning { Message = warning.Message };
                break;
            case RunEnded ended:
                wire.Ended = new Wire.RunEnded
                {
                    State = ended.State switch { RunState.Finished => Wire.RunState.Finished, RunState.Stopped => Wire.RunState.Stopped, _ => Wire.RunState.Failed },
                    Message = ended.Message ?? "",
                    Model = ended.Model ?? "",
                };
                break;
        }

        return wire;
    }

    private static Wire.StepFinished ToWire(StepFinished step)
    {
        var wire = new Wire.StepFinished
        {
            Tokens = step.Tokens,
            SelectedTokens = step.SelectedTokens,
            Ratio = step.Ratio,
            LearningRate = step.LearningRate,
            Milliseconds = step.Milliseconds,
            TokensPerSecond = step.TokensPerSecond,
            ScoreWaitMilliseconds = step.ScoreWaitMilliseconds,
            DataWaitMilliseconds = step.DataWaitMilliseconds,
            ReferenceMilliseconds = step.ReferenceMilliseconds,
            BatchesWithoutReference = step.BatchesWithoutReference,
            Skipped = step.Skipped ?? "",
            TrainingMilliseconds = step.TrainingMilliseconds,
            CheckpointMilliseconds = step.CheckpointMilliseconds,
        };
        if (step.Loss is { } loss) wire.Loss = loss;
        if (step.AllLoss is { } all) wire.AllLoss = all;
        if (step.SelectedLoss is { } selected) wire.SelectedLoss = selected;
        if (step.UnselectedLoss is { } unselected) wire.UnselectedLoss = unselected;
        if (step.ReferenceLoss is { } reference) wire.ReferenceLoss = reference;
        if (step.SelectedShare is { } share) wire.SelectedShare = share;
        if (step.TrainedShare is { } trained) wire.TrainedShare = trained;
        if (step.Threshold is { } threshold) wire.Threshold = threshold;
        if (step.NegativeExcessShare is { } negative) wire.NegativeExcessShare = negative;
        if (step.ExcessQuantiles is { } quantiles) wire.ExcessQuantiles.AddRange(quantiles);
        if (step.SelectedShareByCorpus is { } corpora) wire.SelectedShareByCorpus.AddRange(corpora);
        if (step.RouterBalance is { } balance) wire.RouterBalance = balance;
        if (step.BusiestExpertShare is { } busiest) wire.BusiestExpertShare = busiest;
        if (step.GradientNorm is { } norm) wire.GradientNorm = norm;
        if (step.GradientCosine is { } cosine) wire.GradientCosine = cosine;
        if (step.GradientNormRatio is { } normRatio) wire.GradientNormRatio = normRatio;
        if (step.FlopsShare is { } flops) wire.FlopsShare = flops;
        return wire;
    }
}
