using System.Diagnostics;
using Microsoft.Extensions.Logging;
using Rho.Scoring.Caching;

namespace Rho.Scoring.Shards;

/// <summary>Stores a segment's chunks while it can: goes on without a store that is away, and comes back to it.</summary>
/// <param name="lease">The right to store; null where the store is away or, with <paramref name="despiteLease"/>, where its holder makes no progress.</param>
internal sealed partial class SegmentWriter(
    ScoreKey key, int segment, ILossStore store, ISegmentLease? lease, bool despiteLease, ScoringMetrics metrics, ILogger logger) : IAsyncDisposable
{
    private static readonly TimeSpan LeaseRetry = TimeSpan.FromSeconds(1);

    private ISegmentLease? _lease = lease;
    private long _triedAt = Stopwatch.GetTimestamp();

    /// <summary>Another process has, or had, the lease: what it stored is to be looked at before more is scored.</summary>
    public bool HandedOver { get; private set; }

    /// <summary>Whether the chunk is stored now.</summary>
    public async Task<bool> StoreAsync(int chunk, byte[] payload, CancellationToken cancellation)
    {
        try
        {
            if (_lease is null) await RegainLeaseAsync(cancellation);
            if (_lease is null) return false;
            await _lease.WriteAsync(chunk, payload, cancellation);
            return true;
        }
        catch (LeaseLostException e)
        {
            metrics.LeasesLost.Add(1);
            LeaseLost(chunk, e.Message);
            await GiveUpLeaseAsync();
            HandedOver = !despiteLease;
            return false;
        }
        catch (StoreUnavailableException e)
        {
            NotCached(chunk, key.Shard, e.Message);
            await GiveUpLeaseAsync();
            return false;
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (_lease is not null) await _lease.DisposeAsync();
        _lease = null;
    }

    private async Task RegainLeaseAsync(CancellationToken cancellation)
    {
        if (HandedOver || !store.Available || Stopwatch.GetElapsedTime(_triedAt) < LeaseRetry) return;
        _triedAt = Stopwatch.GetTimestamp();
        _lease = await store.TryLeaseAsync(key, segment, cancellation);
        HandedOver = _lease is null && !despiteLease;
    }

    private async Task GiveUpLeaseAsync()
    {
        _triedAt = Stopwatch.GetTimestamp();
        await DisposeAsync();
    }
    [LoggerMessage(LogLevel.Warning, "chunk {Chunk} is not cached: {Reason}")]
    private partial void LeaseLost(int chunk, string reason);

    [LoggerMessage(LogLevel.Debug, "chunk {Chunk} of shard {Shard} is not cached: {Reason}")]
    private partial void NotCached(int chunk, string shard, string reason);
}
