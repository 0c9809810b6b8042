namespace Rho.Training;

/// <summary>How a run ended.</summary>
/// <param name="State">Finished or stopped; a failed run throws.</param>
/// <param name="Step">Steps done.</param>
/// <param name="Model">The final model's folder; null for a stopped run.</param>
/// <param name="Losses">The last held-out losses by set, in nats per token.</param>
public sealed record RunResult(RunState State, long Step, string? Model, IReadOnlyDictionary<string, double> Losses);

/// <summary>
/// One training run, from its run file or resumed from its folder. <see cref="RunAsync"/> runs it once; the other members may be
/// used from any thread meanwhile.
/// </summary>
public sealed class TrainingRun
{
    private readonly EventStream _events = new();
    private readonly bool _resume;
    private TaskCompletionSource<string>? _wanted;
    private int _used;

    private TrainingRun(RunFile options, bool resume) => (Options, _resume) = (options, resume);

    public RunFile Options { get; }

    public string Directory => Options.Output;

    /// <summary>
    /// Sees each micro-batch with its losses and weights, on the training thread; it holds up training while it runs. Set it before
    /// the run starts.
    /// </summary>
    public Action<SelectedBatch>? SelectionObserver { get; set; }

    /// <summary>Whether this process was started by mpirun beside others and is not their first: it trains, and leaves files and progress to that one.</summary>
    public static bool IsFollower => RankGroups.IsFollower;

    /// <summary>A new run. Nothing is opened or written before <see cref="RunAsync"/>.</summary>
    /// <exception cref="RhoException">The output folder has a run already.</exception>
    public static TrainingRun Start(RunFile run)
    {
        // Of processes that start together, the leader may have made the folder already.
        if (!RankGroups.IsFollower) RunFolder.RefuseUsed(run.Output);
        return new TrainingRun(run, resume: false);
    }

    /// <summary>A run that goes on from the newest whole checkpoint in its folder, or from its start where there is none yet.</summary>
    /// <exception cref="RhoException">The folder has no run.</exception>
    public static TrainingRun Resume(string directory)
    {
        var path = Path.Combine(directory, RunFolder.RunFileName);
        if (!File.Exists(path)) throw new NotFoundException($"{directory} has no run to resume: it has no {RunFolder.RunFileName}");
        // The folder may have moved since: it is where it is now.
        return new TrainingRun(RunFile.Load(path) with { Output = Path.GetFullPath(directory) }, resume: true);
    }

    /// <summary>Events from now on until the run's end, after <see cref="RunStarted"/>. A slow watcher loses old events, never the last.</summary>
    public async IAsyncEnumerable<TrainingEvent> WatchAsync([System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellation = default)
    {
        var reader = _events.Watch();
        try
        {
            await foreach (var e in reader.ReadAllAsync(cancellation)) yield return e;
        }
        finally
        {
            _events.Remove(reader);
        }
    }

    /// <summary>Asks for a checkpoint after the step in progress. Returns its folder once it is on disk.</summary>
    /// <exception cref="RhoException">It could not be written, or the run ended before.</exception>
    public Task<string> CheckpointAsync(CancellationToken cancellation = default)
    {
        var fresh = new TaskCompletionSource<string>(TaskCreationOptions.RunContinuationsAsynchronously);
        var wanted = Interlocked.CompareExchange(ref _wanted, fresh, null) ?? fresh;
        return wanted.Task.WaitAsync(cancellation);
    }

    /// <summary>
    /// Runs until all steps are done or <paramref name="cancellation"/> is cancelled, which ends the run after the step in progress with a
    /// checkpoint.
    /// </summary>
    /// <exception cref="RhoException">Something does not fit, cannot be reached or cannot be written. What was complete stays.</exception>
    public async Task<RunResult> RunAsync(CancellationToken cancellation = default)
    {
        if (Interlocked.Exchange(ref _used, 1) != 0) throw new InvalidOperationException("a run runs once");
        RunSession? session = null;
        IRankGroup? ranks = null;
        try
        {
            ranks = RankGroups.Join();
            session = await RunSession.OpenAsync(Options, _resume, _events, ranks, cancellation);
            session.SelectionObserver = SelectionObserver;
            session.TakeCheckpointRequest = () => Interlocked.Exchange(ref _wanted, null);
            var running = session;
            // A thread of its own: libtorch keeps one pool of workers per calling thread.
            var result = await Task.Factory.StartNew(() => running.Run(cancellation), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
            session.End(result.State, null, result.Model);
            await session.DisposeAsync();
            session = null;
            ranks.Dispose();
            return result;
        }
        catch (Exception e)
        {
            var stopped = e is OperationCanceledException && cancellation.IsCancellationRequested;
            session?.End(stopped ? RunState.Stopped : RunState.Failed, stopped ? null : e.Message, null);
            ranks?.Abort(e.Message);
            if (session is null && stopped) return new RunResult(RunState.Stopped, 0, null, new Dictionary<string, double>(StringComparer.Ordinal));
            throw;
        }
        finally
        {
            Interlocked.Exchange(ref _wanted, null)?.TrySetException(new RhoException("the run ended before the checkpoint"));
            if (session is not null) await session.DisposeAsync();
            _events.Complete();
        }
    }
}
