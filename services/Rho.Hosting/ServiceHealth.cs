namespace Rho.Hosting;

/// <summary>A moment's health: whether the service works at all, takes calls, and gets on with its work; and why not.</summary>
/// <param name="Live">False after a failure that only a restart mends.</param>
/// <param name="Ready">Whether everything that calls need is there, and the service is not stopping.</param>
/// <param name="Progressing">False when work waits and none was completed for the stall timeout.</param>
/// <param name="Reasons">What is missing, failed, stalled or degraded, one line each; degraded parts do not make a service unhealthy.</param>
public sealed record HealthReport(bool Live, bool Ready, bool Progressing, IReadOnlyList<string> Reasons)
{
    /// <summary>Whether calls should come here.</summary>
    public bool Serving => Live && Ready && Progressing;
}

/// <summary>
/// What a service reports of itself; probes, grpc.health.v1 and metrics read it. Safe for concurrent use.
/// A service is ready unless something is reported missing, so report a model that still loads before the service starts.
/// </summary>
public sealed class ServiceHealth(TimeProvider time, TimeSpan stallTimeout) : IDisposable
{
    private readonly Lock _lock = new();
    private readonly SortedDictionary<string, string> _missing = new(StringComparer.Ordinal);
    private readonly SortedDictionary<string, string> _degraded = new(StringComparer.Ordinal);
    private readonly CancellationTokenSource _draining = new();
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private string? _failure;
    private bool _stopping;
    private long _waiting;
    private long _lastProgress = time.GetTimestamp();

    /// <summary>
    /// Cancelled when the service stops, after balancers had time to notice. Long streams link to it, end at the next message
    /// boundary and let their client go on elsewhere; short calls just finish.
    /// </summary>
    public CancellationToken Draining => _draining.Token;

    /// <summary>Items of work that wait or run: added less completed and dropped.</summary>
    public long Waiting
    {
        get
        {
            lock (_lock) return _waiting;
        }
    }

    /// <summary>Calls cannot be served until <see cref="Ready"/> is said of the same thing: not ready.</summary>
    /// <param name="what">What is missing, such as "model".</param>
    /// <param name="reason">Why, for people: "loading /models/ref".</param>
    public void NotReady(string what, string reason) => Change(() => _missing[what] = reason);

    /// <summary>What was missing is there.</summary>
    public void Ready(string what) => Change(() => _missing.Remove(what));

    /// <summary>Something that calls can do without is away, such as "cache": shown, and still ready.</summary>
    public void Degraded(string what, string reason) => Change(() => _degraded[what] = reason);

    /// <summary>What was degraded is whole again.</summary>
    public void Restored(string what) => Change(() => _degraded.Remove(what));

    /// <summary>Something broke that only a restart mends, such as the loop that owns the model: neither live nor ready.</summary>
    public void Failed(string reason) => Change(() => _failure = reason);

    /// <summary>Work arrived.</summary>
    public void WorkAdded(int items = 1)
    {
        lock (_lock)
        {
            // An idle service starts its stall clock with the first item.
            if (_waiting == 0) _lastProgress = time.GetTimestamp();
            _waiting += items;
        }
    }

    /// <summary>Work was completed: a batch, a step.</summary>
    public void WorkCompleted(int items = 1)
    {
        lock (_lock)
        {
            _waiting -= items;
            _lastProgress = time.GetTimestamp();
        }
    }

    /// <summary>A batch got on without completing an item, such as one token of many sequences.</summary>
    public void Progressed() => WorkCompleted(0);

    /// <summary>Work went away undone, because its caller did. It counts as no progress.</summary>
    public void WorkDropped(int items = 1)
    {
        lock (_lock) _waiting -= items;
    }

    /// <summary>Health at this moment.</summary>
    public HealthReport Report()
    {
        lock (_lock)
        {
            var idle = time.GetElapsedTime(_lastProgress);
            var stalled = _waiting > 0 && idle > stallTimeout;
            var reasons = new List<string>();
            if (_failure is not null) reasons.Add($"failed: {_failure}");
            if (_stopping) reasons.Add("stopping");
            reasons.AddRange(_missing.Select(entry => $"{entry.Key}: {entry.Value}"));
            if (stalled) reasons.Add($"stalled: {_waiting} items wait, and none was completed for {idle.TotalSeconds:F0} s");
            reasons.AddRange(_degraded.Select(entry => $"degraded: {entry.Key}: {entry.Value}"));
            return new HealthReport(_failure is null, _failure is null && !_stopping && _missing.Count == 0, !stalled, reasons);
        }
    }

    /// <summary>Done at the next change that was reported. A stall is no event: who watches looks again from time to time.</summary>
    internal Task NextChange()
    {
        lock (_lock) return _changed.Task;
    }

    internal void Stop() => Change(() => _stopping = true);

    internal void EndStreams() => _draining.Cancel();

    /// <inheritdoc/>
    public void Dispose() => _draining.Dispose();

    private void Change(Action change)
    {
        TaskCompletionSource changed;
        lock (_lock)
        {
            change();
            changed = _changed;
            _changed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        }

        changed.SetResult();
    }
}
