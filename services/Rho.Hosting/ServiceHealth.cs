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
    private readonly TimeProvider _time = time;
    private readonly Lock _lock = new();
    private readonly SortedDictionary<string, string> _missing = new(StringComparer.Ordinal);
    private readonly SortedDictionary<string, string> _degraded = new(StringComparer.Ordinal);
    private readonly CancellationTokenSource _draining = new();
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private string? _failure;
    private readonly List<Worker> _workers = [];
    private bool _stopping;

    /// <summary>
    /// Cancelled when the service stops, after balancers had time to notice. Long streams link to it, end at the next message
    /// boundary and let their client go on elsewhere; short calls just finish.
    /// </summary>
    public CancellationToken Draining => _draining.Token;

    /// <summary>Items of work that wait or run at all workers: added less completed and dropped.</summary>
    public long Waiting
    {
        get
        {
            lock (_lock) return _workers.Sum(worker => worker.Waiting);
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

    /// <summary>Watches the progress of one of those that work, such as the loop that owns a model: others' progress does not hide its stall.</summary>
    /// <param name="name">What reasons call it.</param>
    public Worker Watch(string name)
    {
        lock (_lock)
        {
            var worker = new Worker(this, name);
            _workers.Add(worker);
            return worker;
        }
    }

    /// <summary>Health at this moment.</summary>
    public HealthReport Report()
    {
        lock (_lock)
        {
            var stalled = _workers.Where(worker => worker.Waiting > 0 && worker.Idle > stallTimeout).ToArray();
            var reasons = new List<string>();
            if (_failure is not null) reasons.Add($"failed: {_failure}");
            if (_stopping) reasons.Add("stopping");
            reasons.AddRange(_missing.Select(entry => $"{entry.Key}: {entry.Value}"));
            reasons.AddRange(stalled.Select(worker => $"stalled: {worker.Name}: {worker.Waiting} items wait, and none was completed for {worker.Idle.TotalSeconds:F0} s"));
            reasons.AddRange(_degraded.Select(entry => $"degraded: {entry.Key}: {entry.Value}"));
            return new HealthReport(_failure is null, _failure is null && !_stopping && _missing.Count == 0, stalled.Length == 0, reasons);
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

    /// <summary>One of those that work. Disposing it takes it out of the service's health.</summary>
    public sealed class Worker : IDisposable
    {
        private readonly ServiceHealth _health;
        private long _lastProgress;

        internal Worker(ServiceHealth health, string name)
        {
            (_health, Name) = (health, name);
            _lastProgress = health._time.GetTimestamp();
        }

        internal string Name { get; }

        internal long Waiting { get; private set; }

        internal TimeSpan Idle => _health._time.GetElapsedTime(_lastProgress);

        /// <summary>Work arrived.</summary>
        public void Added(int items = 1)
        {
            lock (_health._lock)
            {
                // Who is idle starts the stall clock with the first item.
                if (Waiting == 0) _lastProgress = _health._time.GetTimestamp();
                Waiting += items;
            }
        }

        /// <summary>Work was completed: a batch, a step.</summary>
        public void Completed(int items = 1)
        {
            lock (_health._lock)
            {
                Waiting -= items;
                _lastProgress = _health._time.GetTimestamp();
            }
        }

        /// <summary>A batch got on without completing an item, such as one token of many sequences.</summary>
        public void Progressed() => Completed(0);

        /// <summary>Work went away undone, because its caller did. It counts as no progress.</summary>
        public void Dropped(int items = 1)
        {
            lock (_health._lock) Waiting -= items;
        }

        /// <inheritdoc/>
        public void Dispose()
        {
            lock (_health._lock) _health._workers.Remove(this);
        }
    }
}
