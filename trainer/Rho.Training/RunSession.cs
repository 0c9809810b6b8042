using System.Diagnostics;
using Rho.Model;

namespace Rho.Training;

/// <summary>
/// A run in progress: opens all that it works with, and goes from step to step. A step is 1. micro-batches from the
/// <see cref="BatchPipeline"/>, made ahead with their reference losses; 2. losses, selection, gradients and new weights by the
/// <see cref="StepRunner"/>; 3. the counters and the event that says what happened; 4. evaluation and checkpoint where they are due.
/// </summary>
internal sealed class RunSession : IAsyncDisposable
{
    private readonly RunPlan _plan;
    private readonly RunFolder? _folder;         // null on ranks that follow: they write nothing
    private readonly StepRunner _runner;
    private readonly RunReporter _reporter;
    private readonly RankAgreement _agreement;
    private readonly StepReport _report;
    private readonly HeldOutEvaluation _evaluation;
    private readonly RunCheckpoints _checkpoints;
    private readonly bool _resumed;
    private RunProgress _progress;

    private RunSession(RunPlan plan, RunFolder? folder, StepRunner runner, RunReporter reporter, CheckpointStore store, RunProgress progress)
    {
        (_plan, _folder, _runner, _reporter, _progress) = (plan, folder, runner, reporter, progress);
        _resumed = progress.Step > 0;
        _agreement = new RankAgreement(plan.Ranks);
        _report = new StepReport(plan, runner.Model);
        _evaluation = new HeldOutEvaluation(plan, runner, reporter);
        _checkpoints = new RunCheckpoints(plan, runner, store, _evaluation, _agreement, reporter, _resumed ? progress.Step : -1);
    }

    public Action<SelectedBatch>? SelectionObserver
    {
        set => _runner.Observer = value;
    }

    /// <summary>Takes over a request for a checkpoint, if there is one.</summary>
    public Func<TaskCompletionSource<string>?> TakeCheckpointRequest { get; set; } = () => null;

    /// <summary>Checks, connects, loads. Writes nothing before all of that has worked, on all ranks.</summary>
    public static async Task<RunSession> OpenAsync(RunFile run, bool resume, EventStream events, IRankGroup ranks, CancellationToken cancellation)
    {
        var early = new List<string>();
        RunReporter? reporter = null;
        void Warn(string message)
        {
            if (reporter is not null) reporter.Warn(message);
            else lock (early) early.Add(message);
        }

        var leads = ranks.Rank == 0;
        RunFolder? folder = null;
        RunPlan? plan = null;
        StepRunner? runner = null;
        try
        {
            if (resume && leads) folder = RunFolder.Open(run.Output);
            plan = await RunPlan.PrepareAsync(run, ranks, Warn, cancellation);
            var words = SelectorFactory.Needs(run.Objective).Words;
            var model = plan.CreateModel();
            runner = new StepRunner(run, model, plan.Steps, words ? new WordTable(plan.Tokenizer, model.Config.VocabularySize) : null, ranks);
            if (leads) folder ??= RunFolder.Create(run);
            var store = new CheckpointStore(RunFolder.CheckpointsOf(run.Output), run.Checkpoints);
            if (leads) store.Clean();
            var progress = RunCheckpoints.Restore(plan, runner, store, resume, Warn) ?? RunProgress.Start(run.Data.Corpora.Count);
            reporter = new RunReporter(run, folder, events, leads, progress.Step);
            foreach (var message in early) reporter.Warn(message);
            return new RunSession(plan, folder, runner, reporter, store, progress);
        }
        catch
        {
            reporter?.Dispose();
            runner?.Dispose();
            if (plan is not null) await plan.DisposeAsync();
            folder?.Dispose();
            throw;
        }
    }

    /// <summary>The loop. Runs on the thread that owns the model.</summary>
    public RunResult Run(CancellationToken cancellation)
    {
        // The parent of all that follows, requests to scorers among it.
        using var activity = TrainingActivities.Start("training.run", _plan.Run.Name!, _progress.Step);
        _reporter.Publish(Started());
        var stuck = false;
        using (var pipeline = new BatchPipeline(_plan.Data, _plan.Reference, _plan.History, _plan.Run.Batch.Sequences, _plan.Ranks.Rank, Randomness.Derive((ulong)_plan.Run.Seed, 0xDA7A), _progress.Consumed, MayCut(_plan.Run), cancellation))
        {
            var feed = new BatchFeed(pipeline, _plan, _reporter.Warn);
            try
            {
                if (!_resumed) _evaluation.Run(_progress, cancellation);
                while (_progress.Step < _plan.Steps)
                {
                    if (!Step(feed, out var skipped, cancellation)) return Stopped();
                    stuck = _progress.NonFiniteSteps >= _plan.Run.Optimizer.MaxNonFiniteSteps;
                    if (stuck)
                        throw new RhoException($"training stopped at step {_progress.Step}: {_progress.NonFiniteSteps} steps in a row were skipped, because {skipped}; a lower learning rate or float32 may help, or the data is damaged there");
                    var done = _progress.Step == _plan.Steps;
                    if (done || IsDue(_plan.Run.Evaluation.EverySteps)) _evaluation.Run(_progress, cancellation);
                    if (!done) CheckpointIfDue(cancellation);
                }

                _evaluation.Run(_progress, cancellation);
            }
            catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
            {
                return Stopped();
            }
            catch (RhoException) when (_plan.Ranks.Size == 1 || _agreement.AllFailed || stuck)
            {
                // The weights are those of the last step done, and all ranks are here: keep them before the error goes on its way.
                _checkpoints.WriteIfMissing(_progress);
                throw;
            }
        }

        _checkpoints.Finish(_progress, cancellation);
        return new RunResult(RunState.Finished, _progress.Step, RunFolder.FinalModelOf(_plan.Run.Output), _evaluation.Losses);
    }

    /// <summary>Publishes the last event.</summary>
    public void End(RunState state, string? message, string? model) =>
        _reporter.Publish(new RunEnded { Step = _progress.Step, State = state, Message = message, Model = model });

    public async ValueTask DisposeAsync()
    {
        await _checkpoints.DisposeAsync();
        _runner.Dispose();
        await _plan.DisposeAsync();
        _reporter.Dispose();
        _folder?.Dispose();
    }

    /// <summary>Sequences ranked together over micro-batches need one length; the load of experts is of all tokens that are read.</summary>
    private static bool MayCut(RunFile run) => run.Loss.RouterBalance == 0 && run.Objective is not { Kind: ObjectiveKind.Slm, Scope: ObjectiveScope.GlobalBatch };

    /// <summary>One step; false when the run is to stop before it.</summary>
    /// <param name="skipped">Why it left the weights as they were, if it did.</param>
    private bool Step(BatchFeed feed, out string? skipped, CancellationToken cancellation)
    {
        skipped = null;
        var start = Stopwatch.GetTimestamp();
        if (!_agreement.AllReady(() => feed.Take(cancellation), out var step, cancellation)) return false;
        _checkpoints.Probe.Offer(step.Batches[0]);

        using var activity = TrainingActivities.Start("training.step", _plan.Run.Name!, _progress.Step + 1);
        var training = Stopwatch.GetTimestamp();
        var outcome = _runner.Run(_progress.Step, step.Batches);
        var trained = Stopwatch.GetElapsedTime(training);
        _progress = _progress with
        {
            Step = _progress.Step + 1,
            Tokens = _progress.Tokens + _plan.TokensPerStep,
            SelectedTokens = _progress.SelectedTokens + outcome.Sums.Statistics.Selected,
            Consumed = step.Batches[^1].Consumed,
            NonFiniteSteps = outcome.NonFinite ? _progress.NonFiniteSteps + 1 : 0,
        };
        var times = new StepTimes(Stopwatch.GetElapsedTime(start), trained, step.ScoreWait, step.DataWait, _checkpoints.TakeTime());
        _reporter.Publish(_report.Of(_progress, outcome, times));
        activity?.SetTag("training.loss", outcome.Sums.WeightedLossSum / outcome.Sums.WeightSum);
        if (outcome.Skipped is not null) activity?.SetStatus(ActivityStatusCode.Error, outcome.Skipped);
        skipped = outcome.Skipped;
        return true;
    }

    private void CheckpointIfDue(CancellationToken cancellation)
    {
        var request = TakeCheckpointRequest();
        if (!_agreement.AnyWants(request is not null) && !IsDue(_plan.Run.Checkpoints.EverySteps)) return;
        if (_plan.Run.Checkpoints.KeepBestBy is not null) _evaluation.Run(_progress, cancellation);
        _checkpoints.Write(_progress, wait: !_plan.Run.Checkpoints.Asynchronous, request, failureEndsRun: false);
    }

    private bool IsDue(long every) => every > 0 && _progress.Step % every == 0;

    private RunResult Stopped()
    {
        _checkpoints.WriteIfMissing(_progress);
        return new RunResult(RunState.Stopped, _progress.Step, null, _evaluation.Losses);
    }

    private RunStarted Started()
    {
        var model = _runner.Model;
        var active = model.Model.ActiveParameters == model.Model.Parameters ? "" : $", {model.Model.ActiveParameters / 1e6:0.0} M a token";
        return new RunStarted
        {
            Step = _progress.Step,
            Name = _plan.Run.Name!,
            Directory = _plan.Run.Output,
            Model = $"{model.Config.ModelType}, {model.Model.Parameters / 1e6:0.0} M parameters{active}, {_plan.Compute.Resolve(_plan.Device).ToString().ToLowerInvariant()} on {_plan.Device}",
            Parameters = model.Model.Parameters,
            Steps = _plan.Steps,
            TokensPerStep = _plan.TokensPerStep,
            Reference = _plan.Reference is null ? _plan.ReferenceFingerprint : string.Join("; ", _plan.Reference.Identities.Select(identity => identity.Description)),
            Resumed = _resumed,
        };
    }
}
