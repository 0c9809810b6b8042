using System.Runtime.CompilerServices;
using System.Text.RegularExpressions;
using Microsoft.Extensions.Logging;

namespace Rho.Training.Service;

/// <summary>The runs of a service: starts, queues, stops and resumes them, and takes up again what was wanted when the service last ended.</summary>
internal sealed partial class RunManager : IAsyncDisposable
{
    private readonly TrainingServiceOptions _options;
    private readonly ILogger<RunManager> _logger;
    private readonly SemaphoreSlim _slots;
    private readonly Lock _lock = new();
    private readonly Dictionary<string, ManagedRun> _runs = new(StringComparer.Ordinal);
    private readonly CancellationTokenSource _ending = new();

    /// <exception cref="RhoException">The folder of runs cannot be used.</exception>
    public RunManager(TrainingServiceOptions options, ILogger<RunManager> logger)
    {
        (_options, _logger) = (options, logger);
        _slots = new SemaphoreSlim(options.MaxConcurrentRuns);
        try
        {
            Directory.CreateDirectory(options.Runs);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new RhoException($"folder of runs {options.Runs} cannot be used: {e.Message}", e);
        }

        foreach (var directory in Directory.EnumerateDirectories(options.Runs))
        {
            if (RunRecord.Load(directory) is not { } record || record.Id != Path.GetFileName(directory)) continue;
            var run = new ManagedRun(Path.GetFullPath(directory), record);
            _runs.Add(run.Id, run);
            foreach (var e in MetricsFile.Read(run.Directory)) run.Note(e);
        }
    }

    /// <summary>Takes up the runs that were wanted when the service last ended, oldest first.</summary>
    public void TakeUp()
    {
        foreach (var run in List().Reverse().Where(run => run.Record.Wanted))
        {
            TakingUp(run.Id);
            _ = Launch(run);
        }
    }

    /// <summary>Newest first.</summary>
    public IReadOnlyList<ManagedRun> List()
    {
        lock (_lock) return [.. _runs.Values.OrderByDescending(run => run.Record.Created)];
    }

    /// <exception cref="NotFoundException">There is no such run.</exception>
    public ManagedRun Get(string id)
    {
        lock (_lock) return _runs.TryGetValue(id, out var run) ? run : throw new NotFoundException($"no run \"{id}\"");
    }

    public async Task<ManagedRun> StartAsync(string runFile, string id, CancellationToken cancellation)
    {
        var options = RunFile.Parse(runFile, _options.Data ?? _options.Runs);
        if (id.Length == 0) id = Path.GetFileName(Path.TrimEndingDirectorySeparator(options.Output));
        if (!IdPattern().IsMatch(id)) throw new RhoException($"run id \"{id}\" is to have 1 to 64 letters, digits, \"-\", \"_\" and \".\", and to begin with a letter or digit");
        var directory = Path.Combine(Path.GetFullPath(_options.Runs), id);
        options = options with { Output = directory, Name = id };
        var record = new RunRecord { Id = id, Created = DateTimeOffset.UtcNow, Wanted = true, State = ManagedState.Queued, RunFile = options.ToJson() };
        var run = new ManagedRun(directory, record);
        lock (_lock)
        {
            if (Directory.Exists(directory) || !_runs.TryAdd(id, run)) throw new RhoException($"run \"{id}\" exists already; resume it, or choose another id");
        }

        Directory.CreateDirectory(directory);
        record.Save(directory);
        await LaunchAndWaitAsync(run, cancellation);
        return run;
    }

    public async Task<ManagedRun> ResumeAsync(string id, CancellationToken cancellation)
    {
        var run = Get(id);
        lock (_lock)
        {
            if (!run.Work.IsCompleted) throw new MismatchException($"run \"{id}\" is {run.Record.State.ToString().ToLowerInvariant()} already");
            if (run.Record.State == ManagedState.Finished) throw new MismatchException($"run \"{id}\" has finished");
            run.Update(record => record with { Wanted = true, State = ManagedState.Queued, Error = null });
        }

        await LaunchAndWaitAsync(run, cancellation);
        return run;
    }

    public async Task<ManagedRun> StopAsync(string id, CancellationToken cancellation)
    {
        var run = Get(id);
        run.Update(record => record with { Wanted = false });
        if (run.Stop is { } stop) await stop.CancelAsync();
        await run.Work.WaitAsync(cancellation);
        return run;
    }

    public Task<string> CheckpointAsync(string id, CancellationToken cancellation)
    {
        var run = Get(id);
        return run.Current?.CheckpointAsync(cancellation) ?? throw new MismatchException($"run \"{id}\" is {run.Record.State.ToString().ToLowerInvariant()}, so it has nothing to write");
    }

    /// <summary>All events of a run: those in its file, then those that happen, each once. Ends with the run.</summary>
    public async IAsyncEnumerable<TrainingEvent> WatchAsync(string id, long afterStep, [EnumeratorCancellation] CancellationToken cancellation)
    {
        var run = Get(id);
        // Watching begins before the file is read, so that nothing falls between.
        await using var live = run.Current?.WatchAsync(cancellation).GetAsyncEnumerator(cancellation);
        var next = live?.MoveNextAsync().AsTask();
        var seen = new HashSet<(Type, long, DateTimeOffset)>();
        foreach (var e in MetricsFile.Read(run.Directory))
        {
            seen.Add((e.GetType(), e.Step, e.Time));
            if (e.Step > afterStep || afterStep == 0) yield return e;
        }

        if (live is null || next is null) yield break;
        for (; await next; next = live.MoveNextAsync().AsTask())
        {
            var e = live.Current;
            if (!seen.Contains((e.GetType(), e.Step, e.Time)) && (e.Step > afterStep || afterStep == 0)) yield return e;
        }
    }

    /// <summary>Ends all work with checkpoints; what was wanted stays wanted.</summary>
    public async ValueTask DisposeAsync()
    {
        await _ending.CancelAsync();
        foreach (var run in List()) await run.Work;
        _slots.Dispose();
        _ending.Dispose();
    }

    /// <summary>Launches a run and waits until it trains, waits for its turn, or failed to start.</summary>
    private async Task LaunchAndWaitAsync(ManagedRun run, CancellationToken cancellation)
    {
        var underWay = Launch(run);
        await Task.WhenAny(underWay, run.Work).WaitAsync(cancellation);
        if (underWay.IsCompletedSuccessfully) return;
        var error = await run.Work.ContinueWith(_ => run.Record.Error, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
        if (error is null || run.Started is not null) return;
        // It never trained: what it leaves behind is its record alone.
        var failure = run.Failure;
        if (!File.Exists(Path.Combine(run.Directory, "run.json")))
        {
            lock (_lock) _runs.Remove(run.Id);
            Directory.Delete(run.Directory, recursive: true);
        }

        if (failure is not null) System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(failure);
    }

    /// <summary>Starts the work; the task completes when the run trains or waits for its turn.</summary>
    private Task Launch(ManagedRun run)
    {
        var underWay = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        lock (_lock)
        {
            run.Stop?.Dispose();
            run.Stop = CancellationTokenSource.CreateLinkedTokenSource(_ending.Token);
            run.Failure = null;
            run.Work = Task.Run(() => WorkAsync(run, underWay, run.Stop.Token), CancellationToken.None);
        }

        return underWay.Task;
    }

    private async Task WorkAsync(ManagedRun run, TaskCompletionSource underWay, CancellationToken cancellation)
    {
        var entered = false;
        try
        {
            if (!_slots.Wait(TimeSpan.Zero, CancellationToken.None))
            {
                run.Update(record => record with { State = ManagedState.Queued });
                underWay.TrySetResult();
                await _slots.WaitAsync(cancellation);
            }

            entered = true;
            run.Update(record => record with { State = ManagedState.Starting });
            var training = File.Exists(Path.Combine(run.Directory, "run.json"))
                ? TrainingRun.Resume(run.Directory)
                : TrainingRun.Start(RunFile.Parse(run.Record.RunFile, run.Directory));
            run.Current = training;
            var watching = FollowAsync(run, training, underWay);
            try
            {
                var result = await training.RunAsync(cancellation);
                run.Update(record => record with
                {
                    State = result.State == RunState.Finished ? ManagedState.Finished : ManagedState.Stopped,
                    Wanted = result.State != RunState.Finished && record.Wanted,
                    Model = result.Model,
                    Error = null,
                });
            }
            finally
            {
                await watching;
            }
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            run.Update(record => record with { State = ManagedState.Stopped });
        }
        catch (Exception e)
        {
            // A failed run waits for someone to look at it, also over a restart.
            run.Failure = e;
            if (e is not RhoException) RunBroke(run.Id, e);
            run.Update(record => record with { State = ManagedState.Failed, Wanted = false, Error = e.Message });
        }
        finally
        {
            run.Current = null;
            if (entered) _slots.Release();
        }
    }

    private static async Task FollowAsync(ManagedRun run, TrainingRun training, TaskCompletionSource underWay)
    {
        await foreach (var e in training.WatchAsync())
        {
            run.Note(e);
            if (e is not RunStarted) continue;
            run.Update(record => record with { State = ManagedState.Running });
            underWay.TrySetResult();
        }
    }

    [GeneratedRegex("^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", RegexOptions.CultureInvariant, 1000)]
    private static partial Regex IdPattern();

    [LoggerMessage(LogLevel.Information, "takes up run {Id}")]
    private partial void TakingUp(string id);

    [LoggerMessage(LogLevel.Error, "run {Id} broke")]
    private partial void RunBroke(string id, Exception exception);
}
