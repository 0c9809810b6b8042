using System.Diagnostics;
using Rho.Model;
using TorchSharp;

namespace Rho.Training;

/// <summary>What is kept of a run: its checkpoints, which rank 0 writes when all ranks come by, and the final model.</summary>
internal sealed class RunCheckpoints : IAsyncDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);
    private readonly RunPlan _plan;
    private readonly StepRunner _runner;
    private readonly HeldOutEvaluation _evaluation;
    private readonly RankAgreement _agreement;
    private readonly RunReporter _reporter;
    private readonly CheckpointWriter? _writer;  // null on ranks that follow
    private long _step;
    private TimeSpan _time;

    /// <param name="resumedAt">The step of the checkpoint that the run goes on from; -1 for a run that begins.</param>
    public RunCheckpoints(
        RunPlan plan, StepRunner runner, CheckpointStore store, HeldOutEvaluation evaluation, RankAgreement agreement, RunReporter reporter, long resumedAt)
    {
        (_plan, _runner, _evaluation, _agreement, _reporter, _step) = (plan, runner, evaluation, agreement, reporter, resumedAt);
        if (plan.Ranks.Rank == 0) _writer = new CheckpointWriter(store, plan, runner, reporter.Publish);
        Probe = new SelectionProbe(plan, runner);
    }

    public SelectionProbe Probe { get; }

    /// <summary>Puts the newest whole checkpoint into the runner. Null where there is none: the run begins.</summary>
    /// <exception cref="MismatchException">The checkpoint is of a run with other data, references, seed or processes.</exception>
    public static RunProgress? Restore(RunPlan plan, StepRunner runner, CheckpointStore store, bool resume, Action<string> warn)
    {
        // The leader chooses, having verified it; the others read the same.
        var newest = plan.Ranks.Broadcast(resume && plan.Ranks.Rank == 0 && store.Newest(warn) is { } found ? found : "");
        if (newest.Length == 0) return null;
        var state = CheckpointStore.StateOf(newest);
        CheckResumable(state, newest, plan);
        CheckpointStore.Restore(newest, state, runner);
        return RunProgress.From(state);
    }

    /// <param name="wait">Whether to come back only when it is on disk.</param>
    /// <param name="request">Who asked for it, to be told.</param>
    /// <param name="failureEndsRun">Otherwise a failure is a warning, and the next checkpoint tries again.</param>
    public void Write(RunProgress progress, bool wait, TaskCompletionSource<string>? request = null, bool failureEndsRun = true)
    {
        var start = Stopwatch.GetTimestamp();
        _agreement.CheckSameWeights(_runner.ParameterNorm, progress.Step);
        _step = progress.Step;
        WriteState(progress, wait, request, failureEndsRun);
        _time = Stopwatch.GetElapsedTime(start);
    }

    /// <summary>Writes a checkpoint of this step and waits for it, unless there is one already.</summary>
    public void WriteIfMissing(RunProgress progress)
    {
        if (_step != progress.Step) Write(progress, wait: true);
    }

    /// <summary>The last checkpoint and the final model. What the disk does not take is tried again: the run is too dear to lose.</summary>
    public void Finish(RunProgress progress, CancellationToken cancellation)
    {
        if (_step != progress.Step)
        {
            _agreement.CheckSameWeights(_runner.ParameterNorm, progress.Step);
            UntilWritten(() => WriteState(progress, wait: true, request: null, failureEndsRun: true), cancellation);
        }

        var final = RunFolder.FinalModelOf(_plan.Run.Output);
        if (_writer is null || Directory.Exists(final)) return;
        UntilWritten(() =>
        {
            using var model = _runner.Model.Model.CopyTo(torch.CPU, _plan.Compute.Resolve(_plan.Device));
            model.Save(final, _plan.Tokenizer);
        }, cancellation);
    }

    /// <summary>How long training stood still for checkpoints since this was last asked.</summary>
    public TimeSpan TakeTime()
    {
        var time = _time;
        _time = TimeSpan.Zero;
        return time;
    }

    public async ValueTask DisposeAsync()
    {
        if (_writer is not null) await _writer.DisposeAsync();
    }

    private static void CheckResumable(CheckpointState state, string path, RunPlan plan)
    {
        if (state.DataFingerprint != plan.Data.Fingerprint)
            throw new MismatchException($"{path}: the corpora, their weights or data.shuffle_tokens are not those it was trained on, so the order of the data cannot go on");
        if (state.TokenizerFingerprint != plan.Data.TokenizerFingerprint)
            throw new MismatchException($"{path}: was trained with tokenizer {TrainingData.Short(state.TokenizerFingerprint)}, the corpora have {TrainingData.Short(plan.Data.TokenizerFingerprint)}");
        if (state.ReferenceFingerprint != plan.ReferenceFingerprint)
            throw new MismatchException($"{path}: was trained with reference {TrainingData.Short(state.ReferenceFingerprint ?? "none")}, now it is {TrainingData.Short(plan.ReferenceFingerprint ?? "none")}");
        if (state.HistoryFingerprint != plan.History?.Fingerprint)
            throw new MismatchException($"{path}: was trained with history {TrainingData.Short(state.HistoryFingerprint ?? "none")}, now it is {TrainingData.Short(plan.History?.Fingerprint ?? "none")}");
        if (state.Seed != plan.Run.Seed) throw new MismatchException($"{path}: was trained with seed {state.Seed}, now it is {plan.Run.Seed}");
        if (state.Ranks != plan.Ranks.Size) throw new MismatchException($"{path}: was trained by {state.Ranks} processes, now they are {plan.Ranks.Size}");
    }

    private void WriteState(RunProgress progress, bool wait, TaskCompletionSource<string>? request, bool failureEndsRun)
    {
        if (_writer is null) return;
        var start = Stopwatch.GetTimestamp();
        var state = new CheckpointState
        {
            Step = progress.Step,
            Steps = _plan.Steps,
            Tokens = progress.Tokens,
            SelectedTokens = progress.SelectedTokens,
            OptimizerSteps = _runner.Optimizer.Steps,
            NonFiniteSteps = progress.NonFiniteSteps,
            Consumed = progress.Consumed,
            DataFingerprint = _plan.Data.Fingerprint,
            Seed = _plan.Run.Seed,
            Ranks = _plan.Ranks.Size,
            ReferenceFingerprint = _plan.ReferenceFingerprint,
            HistoryFingerprint = _plan.History?.Fingerprint,
            TokenizerFingerprint = _plan.Data.TokenizerFingerprint,
            Ratio = _runner.Ratio.State,
            Evaluation = _evaluation.At(progress.Step),
        };
        _writer.Write(state, Probe.Overlap(progress.Step), start, wait, request, failureEndsRun);
    }

    private void UntilWritten(Action write, CancellationToken cancellation)
    {
        while (true)
        {
            try
            {
                write();
                return;
            }
            catch (RhoException e) when (!cancellation.IsCancellationRequested)
            {
                _reporter.Warn($"{e.Message}; trying again in {Patience.TotalSeconds} s (stop the run to give up)");
                if (cancellation.WaitHandle.WaitOne(Patience)) throw;
            }
        }
    }
}
