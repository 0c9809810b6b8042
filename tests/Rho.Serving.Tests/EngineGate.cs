namespace Rho.Serving.Tests;

/// <summary>
/// A clock that can hold engines: their threads, and no others, wait in it. So a test can have things happen while a request is under
/// way for certain, however quick or slow the machine is.
/// </summary>
internal sealed class EngineGate : TimeProvider
{
    private readonly Lock _lock = new();
    private readonly ManualResetEventSlim _open = new(true);
    private long _left = long.MaxValue;

    /// <param name="readings">How many times engines may still read the clock, which they do at least once in a step. 0 holds at the next.</param>
    public void Hold(long readings = 0)
    {
        lock (_lock)
        {
            _left = readings;
            if (readings > 0) _open.Set();
            else _open.Reset();
        }
    }

    public void Open() => Hold(long.MaxValue);

    public override long GetTimestamp()
    {
        if (Thread.CurrentThread.Name?.StartsWith("rho-engine-", StringComparison.Ordinal) == true) Pass();
        return base.GetTimestamp();
    }

    private void Pass()
    {
        while (true)
        {
            _open.Wait();
            lock (_lock)
            {
                if (_left == 0) continue;
                if (--_left == 0) _open.Reset();
                return;
            }
        }
    }
}
