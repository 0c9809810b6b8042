namespace Rho.Scoring.Work;

/// <summary>
/// What is accepted and not yet scored, in tokens. Past the limit new work is refused with the time after which room is
/// expected, so that clients go to other replicas rather than wait in a queue that grows.
/// </summary>
internal sealed class Admission(long limit, Func<double> tokensPerSecond)
{
    private long _queued;

    public long Limit => limit;

    public long QueuedTokens => Interlocked.Read(ref _queued);

    /// <summary>Until all that is queued is scored, at the speed measured; zero while nothing is measured.</summary>
    public TimeSpan ExpectedWait => TimeFor(QueuedTokens);

    public TimeSpan TimeFor(long tokens)
    {
        var speed = tokensPerSecond();
        return speed > 0 ? TimeSpan.FromSeconds(Math.Min(tokens / speed, 1e9)) : TimeSpan.Zero;
    }

    /// <summary>Takes room for work. A service with nothing to do takes work of any size.</summary>
    /// <exception cref="OverloadedException">There is no room.</exception>
    public AdmittedWork Admit(long tokens)
    {
        var before = Interlocked.Read(ref _queued);
        while (true)
        {
            if (before > 0 && before + tokens > limit)
            {
                var wait = TimeSpan.FromSeconds(Math.Clamp(TimeFor(before + tokens - limit).TotalSeconds, 1, 60));
                throw new OverloadedException($"the queue is full: {before} tokens wait, {tokens} more would pass the limit of {limit}; retry in {wait.TotalSeconds:0} s or on another replica", wait);
            }

            var seen = Interlocked.CompareExchange(ref _queued, before + tokens, before);
            if (seen == before) return new AdmittedWork(this, tokens);
            before = seen;
        }
    }

    internal void Release(long tokens) => Interlocked.Add(ref _queued, -tokens);
}

/// <summary>Room in the queue; freed as the work is done, the rest when disposed.</summary>
internal sealed class AdmittedWork(Admission admission, long tokens) : IDisposable
{
    private long _left = tokens;

    public void Done(long count)
    {
        // Work may be done twice (a chunk that the cache lost again); room is freed once.
        var left = Interlocked.Read(ref _left);
        while (true)
        {
            var freed = Math.Min(count, left);
            var seen = Interlocked.CompareExchange(ref _left, left - freed, left);
            if (seen == left)
            {
                admission.Release(freed);
                return;
            }

            left = seen;
        }
    }

    public void Dispose() => Done(long.MaxValue);
}
