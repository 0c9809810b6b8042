using System.Diagnostics;
using Polly;
using Polly.Retry;

namespace Rho.Client;

/// <summary>
/// The one place that decides on which replica something is done, when, how often, and when to give up: each attempt goes to the
/// replica that has the least to do and did not fail last; after a failure the next one follows at once where the last one got
/// somewhere, otherwise after a growing time or the one that the scorer asked for; without any progress for the budget it is over.
/// </summary>
internal sealed class Failover(Replicas replicas, Agreement agreement)
{
    /// <param name="tokens">What the next attempt is going to ask of its replica.</param>
    /// <param name="work">Goes on where the attempt before it got to.</param>
    /// <exception cref="UnavailableException">No attempt made progress for the budget.</exception>
    public async Task RunAsync(TimeSpan budget, Func<long> tokens, Func<Attempt, CancellationToken, Task> work, CancellationToken cancellation)
    {
        var progress = new Progress(budget);
        var retrying = new ResiliencePipelineBuilder()
            .AddRetry(new RetryStrategyOptions
            {
                MaxRetryAttempts = int.MaxValue,
                ShouldHandle = outcome => ValueTask.FromResult(outcome.Outcome.Exception is ReplicaFailedException failure && progress.MayGoOn(failure)),
                DelayGenerator = outcome => ValueTask.FromResult<TimeSpan?>(progress.DelayAfter((ReplicaFailedException)outcome.Outcome.Exception!)),
                OnRetry = _ =>
                {
                    if (!progress.GotSomewhere) ClientMetrics.Retries.Add(1);
                    return ValueTask.CompletedTask;
                },
            })
            .Build();
        try
        {
            await retrying.ExecuteAsync(async token => await TryAsync(progress, tokens(), work, token).ConfigureAwait(false), cancellation).ConfigureAwait(false);
        }
        catch (ReplicaFailedException e)
        {
            cancellation.ThrowIfCancellationRequested();
            throw new UnavailableException($"no scorer of {replicas.Names} made progress for {progress.Idle.TotalSeconds:0} s; last: {e.Message}");
        }
    }

    private async Task TryAsync(Progress progress, long tokens, Func<Attempt, CancellationToken, Task> work, CancellationToken cancellation)
    {
        using var reserved = await replicas.ChooseAsync(progress.LastFailed, tokens, cancellation).ConfigureAwait(false);
        try
        {
            await agreement.WithAsync(reserved.Replica, cancellation).ConfigureAwait(false);
            await work(new Attempt(reserved, progress), cancellation).ConfigureAwait(false);
            reserved.Replica.MarkWell();
        }
        catch (Exception e)
        {
            var replica = reserved.Replica;
            var error = ScorerErrors.Translate(replica.Address, e, cancellation);
            if (error is ReplicaFailedException)
            {
                progress.LastFailed = replica;
                replica.MarkFailed();
                ClientMetrics.Failures.Add(1, new KeyValuePair<string, object?>("replica", replica.Address));
            }

            if (error == e) throw;
            throw error;
        }
    }

    /// <summary>How far some work has got over all its attempts, and whether another attempt is worth it.</summary>
    internal sealed class Progress(TimeSpan budget)
    {
        private const int MaxInternalFailures = 4;
        private static readonly TimeSpan FirstDelay = TimeSpan.FromMilliseconds(100);
        private static readonly TimeSpan LongestDelay = TimeSpan.FromSeconds(5);

        private long _last = Stopwatch.GetTimestamp();
        private bool _stepped;
        private int _failures;
        private int _internalFailures;

        /// <summary>The replica that failed last; the next attempt prefers others.</summary>
        public Replica? LastFailed { get; set; }

        /// <summary>Time without progress.</summary>
        public TimeSpan Idle => Stopwatch.GetElapsedTime(_last);

        /// <summary>Whether the attempt that failed last had made progress before.</summary>
        public bool GotSomewhere => _stepped && _failures == 1;

        public void Step()
        {
            _last = Stopwatch.GetTimestamp();
            _stepped = true;
            (_failures, _internalFailures) = (0, 0);
        }

        /// <summary>Counts a failure. Whether to try again: while there is budget, and not for ever with scorers that break.</summary>
        public bool MayGoOn(ReplicaFailedException failure)
        {
            _failures++;
            if (failure.IsInternal) _internalFailures++;
            return Idle < budget && _internalFailures < MaxInternalFailures;
        }

        public TimeSpan DelayAfter(ReplicaFailedException failure)
        {
            if (failure.RetryAfter is { } asked) return asked;
            if (GotSomewhere) return TimeSpan.Zero;
            var delay = FirstDelay * Math.Pow(2, Math.Min(_failures - 1, 10)) * (0.5 + Random.Shared.NextDouble());
            return delay < LongestDelay ? delay : LongestDelay;
        }
    }
}

/// <summary>One try at one replica.</summary>
internal sealed class Attempt(Replica.Reservation reserved, Failover.Progress progress)
{
    public Replica Replica => reserved.Replica;

    /// <summary>Another replica was quicker to answer: what comes now, also a failure, is its.</summary>
    public void MoveTo(Replica other) => reserved.MoveTo(other);

    /// <summary>The attempt got somewhere.</summary>
    /// <param name="tokens">Done of those that it was going to ask for.</param>
    public void Step(long tokens = 0)
    {
        reserved.Done(tokens);
        reserved.Replica.MarkWell();
        progress.Step();
    }
}
