using System.Diagnostics;
using Rho.Model;
using TorchSharp;

namespace Rho.Training;

/// <summary>A run in progress: the loop over steps, and what it opens for it.</summary>
internal sealed class RunSession : IAsyncDisposable
{
    private static readonly TimeSpan SlowData = TimeSpan.FromSeconds(5);
    private readonly RunPlan _plan;
    private readonly RunFolder? _folder;         // null on ranks that follow: they write nothing
    private readonly EventStream _events;
    private readonly StepRunner _runner;
    private readonly CheckpointWriter? _checkpoints;
    private readonly MetricsFile? _metrics;
    private readonly TensorBoardWriter? _tensorBoard;
    private readonly TrainingMeter _meter;
    private readonly bool _resumed;
    private readonly double _flopsPerStep;
    private RunProgress _progress;
    private PreparedBatch? _probe;
    private float[]? _probeWeights;
    private Dictionary<string, double> _losses = new(StringComparer.Ordinal);
    private long _evaluatedAt = -1;
    private long _checkpointAt = -1;
    private bool _allFail;                        // an error that all ranks have, so that they can still write a checkpoint together
    private TimeSpan _referenceTime;
    private TimeSpan _checkpointTime;             // since the step before
    private bool _metricsWait;                   // whether metrics are in memory that the disk did not take

    private RunSession(RunPlan plan, RunFolder? folder, EventStream events, StepRunner runner, CheckpointStore store, RunProgress progress, bool resumed)
    {
        (_plan, _folder, _events, _runner, _progress, _resumed) = (plan, folder, events, runner, progress, resumed);
        // By their folders' names, or, where two have the same, by all of their paths.
        var corpora = plan.Run.Data.Corpora.Select(corpus => Path.GetFileName(Path.TrimEndingDirectorySeparator(corpus.Path))).ToList();
        if (corpora.Distinct(StringComparer.Ordinal).Count() < corpora.Count) corpora = [.. plan.Run.Data.Corpora.Select(corpus => corpus.Path)];
        if (folder != null)
        {
            _metrics = new MetricsFile(folder.Directory, progress.Step);
            _tensorBoard = plan.Run.Metrics.Tensorboard ? new TensorBoardWriter(folder.TensorBoard, progress.Step, corpora) : null;
            _checkpoints = new CheckpointWriter(store, plan, runner, Publish);
        }

        _meter = new TrainingMeter(plan.Run.Name!, corpora);
        _flopsPerStep = RunPlan.FlopsPerToken(runner.Model.Config, runner.Model.Model.Parameters, plan.Data.Length) * plan.TokensPerStep;
        if (resumed) _checkpointAt = progress.Step;
    }

    public Action<SelectedBatch>? SelectionObserver
    {
        set => _runner.Observer = value;
    }

    /// <summary>Takes over a request for a checkpoint, if there is one.</summary>
    public Func<TaskCompletionSource<string>?> TakeCheckpointRequest { get; set; } = () => null;

    private bool Leads => _plan.Ranks.Rank == 0;

    /// <summary>Checks, connects, loads. Writes nothing before all of that has worked, on all ranks.</summary>
    public static async Task<RunSession> OpenAsync(RunFile run, bool resume, EventStream events, IRankGroup ranks, CancellationToken cancellation)
    {
        var early = new List<string>();
        RunSession? session = null;
        void Warn(string message)
        {
            if (session != null) session.Warn(message);
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
            var progress = RunProgress.Start(run.Data.Corpora.Count);
            // The leader chooses, having verified it; the others read the same.
            var newest = ranks.Broadcast(resume && leads && store.Newest(Warn) is { } found ? found : "");
            if (newest.Length > 0)
            {
                var state = CheckpointStore.StateOf(newest);
                CheckResumable(state, newest, plan);
                CheckpointStore.Restore(newest, state, runner);
                progress = RunProgress.From(state);
            }

            session = new RunSession(plan, folder, events, runner, store, progress, resumed: progress.Step > 0);
            foreach (var message in early) session.Warn(message);
            return session;
        }
        catch
        {
            runner?.Dispose();
            if (plan != null) await plan.DisposeAsync();
            folder?.Dispose();
            throw;
        }
    }

    private static void CheckResumable(CheckpointState state, string path, RunPlan plan)
    {
        if (state.DataFingerprint != plan.Data.Fingerprint)
            throw new MismatchException($"{path}: the corpora, their weights or data.shuffle_tokens are not those it was trained on, so the order of the data cannot go on");
        if (state.TokenizerFingerprint != plan.Data.TokenizerFingerprint)
            throw new MismatchException($"{path}: was trained with tokenizer {TrainingData.Short(state.TokenizerFingerprint)}, the corpora have {TrainingData.Short(plan.Data.TokenizerFingerprint)}");
        if (state.ReferenceFingerprint != plan.ReferenceFingerprint)
            throw new MismatchException($"{path}: was trained with reference {TrainingData.Short(state.ReferenceFingerprint ?? "none")}, now it is {TrainingData.Short(plan.ReferenceFingerprint ?? "none")}");
        if (state.Seed != plan.Run.Seed) throw new MismatchException($"{path}: was trained with seed {state.Seed}, now it is {plan.Run.Seed}");
        if (state.Ranks != plan.Ranks.Size) throw new MismatchException($"{path}: was trained by {state.Ranks} processes, now they are {plan.Ranks.Size}");
    }

    /// <summary>The loop. Runs on the thread that owns the model.</summary>
    public RunResult Run(CancellationToken stop)
    {
        // The parent of all that follows, requests to scorers among it.
        using var activity = TrainingActivities.Start("training.run", _plan.Run.Name!, _progress.Step);
        Publish(Started());
        using (var pipeline = new BatchPipeline(_plan.Data, _plan.Reference, _plan.Run.Batch.Sequences, _plan.Ranks.Rank, Randomness.Derive((ulong)_plan.Run.Seed, 0xDA7A), _progress.Consumed, stop))
        {
            try
            {
                if (!_resumed) Evaluate(stop);
                while (_progress.Step < _plan.Steps)
                {
                    if (!Step(pipeline, stop)) return Stop();
                    var done = _progress.Step == _plan.Steps;
                    if (done || IsDue(_plan.Run.Evaluation.EverySteps)) Evaluate(stop);
                    if (!done) CheckpointIfDue(stop);
                }

                Evaluate(stop);
            }
            catch (OperationCanceledException) when (stop.IsCancellationRequested)
            {
                return Stop();
            }
            catch (RhoException) when (_plan.Ranks.Size == 1 || _allFail)
            {
                // The weights are those of the last step done: keep them before the error goes on its way.
                if (_checkpointAt != _progress.Step) WriteCheckpoint(wait: true);
                throw;
            }
        }

        Finish(stop);
        return new RunResult(RunState.Finished, _progress.Step, RunFolder.FinalModelOf(_plan.Run.Output), _losses);
    }

    /// <summary>Publishes the last event.</summary>
    public void End(RunState state, string? message, string? model) =>
        Publish(new RunEnded { Step = _progress.Step, State = state, Message = message, Model = model });

    public async ValueTask DisposeAsync()
    {
        if (_checkpoints != null) await _checkpoints.DisposeAsync();
        _runner.Dispose();
        await _plan.DisposeAsync();
        _metrics?.Dispose();
        _tensorBoard?.Dispose();
        _meter.Dispose();
        _folder?.Dispose();
    }

    /// <summary>One step; false when the run is to stop before it.</summary>
    private bool Step(BatchPipeline pipeline, CancellationToken stop)
    {
        var start = Stopwatch.GetTimestamp();
        var waits = new Waits();
        var batches = new List<PreparedBatch>();
        if (!AllGoOn(() =>
        {
            for (var i = 0; i < _plan.Run.Batch.Accumulation; i++) batches.Add(Take(pipeline, waits, stop));
        }, stop)) return false;
        _probe ??= batches[0];

        using var activity = TrainingActivities.Start("training.step", _plan.Run.Name!, _progress.Step + 1);
        var training = Stopwatch.GetTimestamp();
        var outcome = _runner.Run(_progress.Step, batches);
        var trained = Stopwatch.GetElapsedTime(training);
        _progress = _progress with
        {
            Step = _progress.Step + 1,
            Tokens = _progress.Tokens + _plan.TokensPerStep,
            SelectedTokens = _progress.SelectedTokens + outcome.Sums.Statistics.Selected,
            Consumed = batches[^1].Consumed,
            NonFiniteSteps = outcome.NonFinite ? _progress.NonFiniteSteps + 1 : 0,
        };
        Publish(Finished(outcome, Stopwatch.GetElapsedTime(start), trained, waits));
        activity?.SetTag("training.loss", outcome.Sums.WeightedLossSum / outcome.Sums.WeightSum);
        if (outcome.Skipped != null) activity?.SetStatus(ActivityStatusCode.Error, outcome.Skipped);
        _allFail = _progress.NonFiniteSteps >= _plan.Run.Optimizer.MaxNonFiniteSteps;
        if (_allFail)
            throw new RhoException($"training stopped at step {_progress.Step}: {_progress.NonFiniteSteps} steps in a row were skipped, because {outcome.Skipped}; a lower learning rate or float32 may help, or the data is damaged there");
        return true;
    }

    /// <summary>
    /// Gets ready for a step, and agrees with the other ranks whether it comes: they would wait for ever for one that stops or fails
    /// by itself.
    /// </summary>
    private bool AllGoOn(Action prepare, CancellationToken stop)
    {
        const double goOn = 2, stops = 1, failed = 0;
        Exception? error = null;
        Span<double> verdict = [goOn];
        try
        {
            stop.ThrowIfCancellationRequested();
            prepare();
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            verdict[0] = stops;
        }
        catch (Exception e) when (_plan.Ranks.Size > 1)
        {
            (error, verdict[0]) = (e, failed);
        }

        _plan.Ranks.Lowest(verdict);
        _allFail = verdict[0] == failed;
        if (error != null) System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(error);
        return verdict[0] switch
        {
            failed => throw new UnavailableException("another process of the run failed; its own message says why"),
            stops => false,
            _ => true,
        };
    }

    /// <summary>The next micro-batch. What is waited for counts as waiting for scores if the reference is what is missing.</summary>
    private PreparedBatch Take(BatchPipeline pipeline, Waits waits, CancellationToken stop)
    {
        if (!pipeline.Wait(TimeSpan.Zero, stop))
        {
            var start = Stopwatch.GetTimestamp();
            var forScores = _plan.Reference?.IsWaiting ?? false;
            if (!pipeline.Wait(SlowData, stop))
                Warn(_plan.Reference?.IsWaiting ?? false
                    ? $"training waits for reference losses: a stretch of up to {Math.Min(_plan.Data.StretchSequences, _plan.Data.Corpora.Max(corpus => corpus.Sequences)) * _plan.Data.Length} tokens (data.shuffle_tokens) is to have all of its losses"
                    : "training waits for data");
            while (!pipeline.Wait(SlowData, stop)) forScores |= _plan.Reference?.IsWaiting ?? false;
            var elapsed = Stopwatch.GetElapsedTime(start);
            if (forScores) waits.Scores += elapsed;
            else waits.Data += elapsed;
        }

        if (!pipeline.Take(out var batch, stop)) throw new InvalidOperationException("the data ended before the run's last step");
        return batch;
    }

    private void Evaluate(CancellationToken stop)
    {
        // The leader alone evaluates; it does not stop on the way, since the others wait for it.
        if (_plan.Sets.Count == 0 || _evaluatedAt == _progress.Step || !Leads) return;
        if (_plan.Ranks.Size > 1) stop = CancellationToken.None;
        var start = Stopwatch.GetTimestamp();
        using var activity = TrainingActivities.Start("training.evaluation", _plan.Run.Name!, _progress.Step);
        var losses = new Dictionary<string, double>(StringComparer.Ordinal);
        foreach (var set in _plan.Sets)
        {
            double sum = 0;
            long count = 0;
            foreach (var batch in set.Batches(_plan.Run.Batch.Sequences))
            {
                stop.ThrowIfCancellationRequested();
                var (batchSum, batchCount) = _runner.Evaluate(batch);
                sum += batchSum;
                count += batchCount;
            }

            losses[set.Name] = sum / count;
        }

        _losses = losses;
        _evaluatedAt = _progress.Step;
        Publish(new EvaluationFinished { Step = _progress.Step, Tokens = _progress.Tokens, Losses = losses, Milliseconds = Stopwatch.GetElapsedTime(start).TotalMilliseconds });
    }

    private void CheckpointIfDue(CancellationToken stop)
    {
        var request = TakeCheckpointRequest();
        Span<double> wanted = [request == null ? 0 : -1];
        _plan.Ranks.Lowest(wanted);
        if (wanted[0] == 0 && !IsDue(_plan.Run.Checkpoints.EverySteps)) return;
        if (_plan.Run.Checkpoints.KeepBestBy != null) Evaluate(stop);
        WriteCheckpoint(wait: !_plan.Run.Checkpoints.Asynchronous, request, failureEndsRun: false);
    }

    private bool IsDue(long every) => every > 0 && _progress.Step % every == 0;

    private void WriteCheckpoint(bool wait, TaskCompletionSource<string>? request = null, bool failureEndsRun = true)
    {
        var start = Stopwatch.GetTimestamp();
        CheckThatRanksAgree();
        _checkpointAt = _progress.Step;
        if (Leads) WriteState(wait, request, failureEndsRun);
        _checkpointTime = Stopwatch.GetElapsedTime(start);
    }

    private void WriteState(bool wait, TaskCompletionSource<string>? request = null, bool failureEndsRun = true)
    {
        var start = Stopwatch.GetTimestamp();
        var state = new CheckpointState
        {
            Step = _progress.Step,
            Steps = _plan.Steps,
            Tokens = _progress.Tokens,
            SelectedTokens = _progress.SelectedTokens,
            OptimizerSteps = _runner.Optimizer.Steps,
            NonFiniteSteps = _progress.NonFiniteSteps,
            Consumed = _progress.Consumed,
            DataFingerprint = _plan.Data.Fingerprint,
            Seed = _plan.Run.Seed,
            Ranks = _plan.Ranks.Size,
            ReferenceFingerprint = _plan.ReferenceFingerprint,
            TokenizerFingerprint = _plan.Data.TokenizerFingerprint,
            Ratio = _runner.Ratio.State,
            Evaluation = _evaluatedAt == _progress.Step ? _losses : null,
        };
        _checkpoints!.Write(state, MaskOverlap(), start, wait, request, failureEndsRun);
    }

    /// <summary>Weights that have parted between ranks, by a faulty machine or library, are not to be kept.</summary>
    private void CheckThatRanksAgree()
    {
        if (_plan.Ranks.Size == 1) return;
        var norm = _runner.ParameterNorm();
        Span<double> range = [norm, -norm];
        _plan.Ranks.Lowest(range);
        if (range[0] != -range[1]) throw new CorruptDataException($"the processes of the run have different weights at step {_progress.Step} (norms {range[0]:R} to {-range[1]:R})");
    }

    /// <summary>How much of what was selected in one fixed batch at the checkpoint before is selected now.</summary>
    private double? MaskOverlap()
    {
        if (_plan.Run.Objective.Kind != ObjectiveKind.Slm || _probe is not { WithoutReference: false }) return null;
        var before = _probeWeights;
        _probeWeights = _runner.Select(_progress.Step, _probe);
        if (before == null) return null;
        double both = 0, first = 0;
        for (var i = 0; i < before.Length; i++)
        {
            if (before[i] <= 0) continue;
            first++;
            if (_probeWeights[i] > 0) both++;
        }

        return first == 0 ? null : both / first;
    }

    private RunResult Stop()
    {
        if (_checkpointAt != _progress.Step || _progress.Step == 0) WriteCheckpoint(wait: true);
        return new RunResult(RunState.Stopped, _progress.Step, null, _losses);
    }

    /// <summary>The last checkpoint and the final model. What the disk does not take is tried again: the run is too dear to lose.</summary>
    private void Finish(CancellationToken stop)
    {
        if (_checkpointAt != _progress.Step)
        {
            CheckThatRanksAgree();
            if (Leads) UntilWritten(() => WriteState(wait: true), stop);
        }

        var final = RunFolder.FinalModelOf(_plan.Run.Output);
        if (!Leads || Directory.Exists(final)) return;
        UntilWritten(() =>
        {
            using var model = _runner.Model.Model.CopyTo(torch.CPU, _plan.Compute.Resolve(_plan.Device));
            model.Save(final, _plan.Tokenizer);
        }, stop);
    }

    private void UntilWritten(Action write, CancellationToken stop)
    {
        while (true)
        {
            try
            {
                write();
                return;
            }
            catch (RhoException e) when (!stop.IsCancellationRequested)
            {
                Warn($"{e.Message}; trying again in 10 s (stop the run to give up)");
                if (stop.WaitHandle.WaitOne(TimeSpan.FromSeconds(10))) throw;
            }
        }
    }

    private RunStarted Started()
    {
        var model = _runner.Model;
        return new RunStarted
        {
            Step = _progress.Step,
            Name = _plan.Run.Name!,
            Directory = _plan.Run.Output,
            Model = $"{model.Config.ModelType}, {model.Model.Parameters / 1e6:0.0} M parameters, {_plan.Compute.Resolve(_plan.Device).ToString().ToLowerInvariant()} on {_plan.Device}",
            Parameters = model.Model.Parameters,
            Steps = _plan.Steps,
            TokensPerStep = _plan.TokensPerStep,
            Reference = _plan.Reference == null ? _plan.ReferenceFingerprint : string.Join("; ", _plan.Reference.Identities.Select(identity => identity.Description)),
            Resumed = _resumed,
        };
    }

    private StepFinished Finished(StepOutcome outcome, TimeSpan elapsed, TimeSpan trained, Waits waits)
    {
        static double? Number(double value) => double.IsFinite(value) ? value : null;
        var statistics = outcome.Sums.Statistics;
        var referenceTime = _plan.Reference?.TimeSpent ?? TimeSpan.Zero;
        var reference = referenceTime - _referenceTime;
        _referenceTime = referenceTime;
        var checkpointTime = _checkpointTime;
        _checkpointTime = TimeSpan.Zero;
        return new StepFinished
        {
            Step = _progress.Step,
            Tokens = _progress.Tokens,
            SelectedTokens = _progress.SelectedTokens,
            Loss = Number(outcome.Sums.WeightedLossSum / outcome.Sums.WeightSum),
            AllLoss = Number(statistics.MeanLoss),
            SelectedLoss = Number(statistics.MeanSelectedLoss),
            UnselectedLoss = Number(statistics.MeanUnselectedLoss),
            ReferenceLoss = Number(statistics.ReferenceLossSum / statistics.Compared),
            Ratio = outcome.Ratio,
            SelectedShare = Number((double)statistics.Selected / statistics.Candidates),
            Threshold = Number(statistics.Threshold),
            NegativeExcessShare = Number(statistics.NegativeExcessShare),
            ExcessQuantiles = statistics.ExcessQuantiles.Count > 0 ? statistics.ExcessQuantiles : null,
            SelectedShareByCorpus = outcome.Sums.ByCorpus.Length > 1 ? [.. outcome.Sums.ByCorpus.Select(count => count.Candidates == 0 ? 0 : (double)count.Selected / count.Candidates)] : null,
            GradientNorm = outcome.GradientNorm,
            LearningRate = outcome.LearningRate,
            Milliseconds = elapsed.TotalMilliseconds,
            TrainingMilliseconds = trained.TotalMilliseconds,
            TokensPerSecond = _plan.TokensPerStep / elapsed.TotalSeconds,
            FlopsShare = _plan.Run.Metrics.PeakFlops is { } peak ? _flopsPerStep / elapsed.TotalSeconds / peak : null,
            ScoreWaitMilliseconds = waits.Scores.TotalMilliseconds,
            DataWaitMilliseconds = waits.Data.TotalMilliseconds,
            ReferenceMilliseconds = reference.TotalMilliseconds,
            CheckpointMilliseconds = checkpointTime.TotalMilliseconds,
            BatchesWithoutReference = outcome.Sums.BatchesWithoutReference,
            Skipped = outcome.Skipped,
        };
    }

    private void Warn(string message) => Publish(new RunWarning { Step = _progress.Step, Message = message });

    private void Publish(TrainingEvent e)
    {
        // Followers only say what goes wrong.
        if (!Leads && e is not (RunWarning or RunEnded)) return;
        // The loop, the checkpoint writer and the reference loader all have something to say.
        string? problem;
        bool isNew;
        lock (_events)
        {
            _metrics?.Write(e);
            _tensorBoard?.Write(e);
            problem = _metrics?.Problem ?? _tensorBoard?.Problem;
            isNew = problem != null && !_metricsWait;
            _metricsWait = problem != null;
        }

        _meter.Record(e);
        _events.Publish(e);
        if (isNew) Publish(new RunWarning { Step = e.Step, Message = $"metrics cannot be written: {problem}; they are kept in memory, and training goes on" });
    }

    private sealed class Waits
    {
        public TimeSpan Scores { get; set; }

        public TimeSpan Data { get; set; }
    }
}
