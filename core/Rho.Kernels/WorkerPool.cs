using System.Runtime.ExceptionServices;

namespace Rho.Kernels;

/// <summary>
/// Threads for many short parallel loops in a row, as one forward pass has: a worker spins a few tens of microseconds for the next
/// loop before it sleeps, which a general thread pool does not. One thread at a time calls <see cref="For"/>.
/// </summary>
public sealed class WorkerPool : IDisposable
{
    private const int SpinRounds = 2_000;

    private readonly Thread[] _workers;
    private readonly SemaphoreSlim _wake = new(0);
    private Job? _job;
    private int _sleeping;
    private volatile bool _stopping;

    /// <param name="threads">Threads that work, the calling one counted in; at least 1.</param>
    public WorkerPool(int threads)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(threads, 1);
        Threads = threads;
        _workers = new Thread[threads - 1];
        for (var i = 0; i < _workers.Length; i++)
        {
            var worker = i + 1;
            _workers[i] = new Thread(() => Work(worker)) { IsBackground = true, Name = $"rho-kernel-{worker}" };
            _workers[i].Start();
        }
    }

    public int Threads { get; }

    /// <summary>Calls <paramref name="body"/>(worker, index) for every index below <paramref name="count"/>; returns when all are done.</summary>
    /// <param name="count">Number of indices. They are handed out one by one, so that a thread that loses its core delays little.</param>
    /// <param name="body">worker is 0 for the caller and below <see cref="Threads"/>: two calls with one worker number never overlap.</param>
    public void For(int count, Action<int, int> body)
    {
        if (count <= 1 || _workers.Length == 0)
        {
            for (var i = 0; i < count; i++) body(0, i);
            return;
        }

        var job = new Job(count, body);
        Interlocked.Exchange(ref _job, job);
        var sleeping = Volatile.Read(ref _sleeping);
        if (sleeping > 0) _wake.Release(Math.Min(sleeping, count - 1));
        job.Run(0);

        // Indices taken by a worker that lost its core may take a while: spinning for them would keep it off the core.
        var spins = 0;
        while (!job.Finished)
        {
            if (++spins < SpinRounds) Thread.SpinWait(4);
            else Thread.Yield();
        }

        job.Failure?.Throw();
    }

    public void Dispose()
    {
        _stopping = true;
        if (_workers.Length > 0) _wake.Release(_workers.Length);
        foreach (var worker in _workers) worker.Join();
        _wake.Dispose();
    }

    private void Work(int worker)
    {
        Job? last = null;
        var idle = 0;
        while (!_stopping)
        {
            var job = Volatile.Read(ref _job);
            if (job is not null && !ReferenceEquals(job, last))
            {
                last = job;
                idle = 0;
                job.Run(worker);
            }
            else if (++idle < SpinRounds)
            {
                Thread.SpinWait(4);
            }
            else
            {
                // A job published between the look above and the count below is seen by the second look, or wakes this thread.
                Interlocked.Increment(ref _sleeping);
                if (ReferenceEquals(Volatile.Read(ref _job), last) && !_stopping) _wake.Wait();
                Interlocked.Decrement(ref _sleeping);
                idle = 0;
            }
        }
    }

    private sealed class Job(int count, Action<int, int> body)
    {
        private int _next;
        private int _done;

        public ExceptionDispatchInfo? Failure { get; private set; }

        public bool Finished => Volatile.Read(ref _done) >= count;

        public void Run(int worker)
        {
            int index;
            while ((index = Interlocked.Increment(ref _next) - 1) < count)
            {
                try
                {
                    body(worker, index);
                }
                catch (Exception exception)
                {
                    Failure = ExceptionDispatchInfo.Capture(exception);
                }

                Interlocked.Increment(ref _done);
            }
        }
    }
}
