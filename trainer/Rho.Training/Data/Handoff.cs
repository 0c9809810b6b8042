namespace Rho.Training;

/// <summary>A bounded queue from an asynchronous producer to a thread that may block: the training thread owns the model and stays the same.</summary>
internal sealed class Handoff<T>(int capacity) : IDisposable
{
    private readonly Queue<T> _items = new();
    private readonly SemaphoreSlim _free = new(capacity);
    private readonly SemaphoreSlim _filled = new(0);
    private Exception? _error;

    public async Task PutAsync(T item, CancellationToken cancellation)
    {
        await _free.WaitAsync(cancellation);
        lock (_items) _items.Enqueue(item);
        _filled.Release();
    }

    /// <summary>Nothing more comes; with an error, takers get it after what is queued.</summary>
    public void Complete(Exception? error = null)
    {
        _error = error;
        _filled.Release();
    }

    /// <summary>Waits until an item or the end is there; false when the time is over first.</summary>
    public bool Wait(TimeSpan timeout, CancellationToken cancellation)
    {
        if (!_filled.Wait(timeout, cancellation)) return false;
        _filled.Release();
        return true;
    }

    /// <summary>The next item, waiting for it; false when the producer has completed.</summary>
    /// <exception cref="Exception">What the producer completed with.</exception>
    public bool Take(out T item, CancellationToken cancellation)
    {
        _filled.Wait(cancellation);
        lock (_items)
        {
            if (_items.TryDequeue(out item!))
            {
                _free.Release();
                return true;
            }
        }

        _filled.Release(); // Completed: every later take ends here too.
        if (_error is not null) System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(_error);
        return false;
    }

    public void Dispose()
    {
        _free.Dispose();
        _filled.Dispose();
    }
}
