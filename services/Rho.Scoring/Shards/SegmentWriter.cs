using System.Diagnostics;
using Microsoft.Extensions.Logging;
using Rho.Scoring.Caching;

namespace Rho.Scoring.Shards;

/// <summary>Stores a segment's chunks while it can: goes on without a store that is away, and comes back to it.</summary>
/// <param name="lease">The right to store; null where the store is away or, with <paramref name="despiteLease"/>, where its holder makes no progress.</param>
internal sealed class SegmentWriter(
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
            if (_lease is null) await RegainLeaseAsync(cancellation).ConfigureAwait(false);
            if (_lease is null) return false;
            await _lease.WriteAsync(chunk, payload, cancellation).ConfigureAwait(false);
            return true;
        }
        catch (LeaseLostException e)
        {
            metrics.LeasesLost.Add(1);
            logger.LogWarning("{Message}", e.Message);
            await GiveUpLeaseAsync().ConfigureAwait(false);
            HandedOver = !despiteLease;
            return false;
        }
        catch (StoreUnavailableException e)
        {
            logger.LogDebug("Chunk {Chunk} of shard {Shard} is not cached: {Reason}", chunk, key.Shard, e.Message);
            await GiveUpLeaseAsync().ConfigureAwait(false);
            return false;
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (_lease is not null) await _lease.DisposeAsync().ConfigureAwait(false);
        _lease = null;
    }

    private async Task RegainLeaseAsync(CancellationToken cancellation)
    {
        if (HandedOver || !store.Available || Stopwatch.GetElapsedTime(_triedAt) < LeaseRetry) return;
        _triedAt = Stopwatch.GetTimestamp();
        _lease = await store.TryLeaseAsync(key, segment, cancellation).ConfigureAwait(false);
        HandedOver = _lease is null && !despiteLease;
    }

    private async Task GiveUpLeaseAsync()
    {
        _triedAt = Stopwatch.GetTimestamp();
        await DisposeAsync().ConfigureAwait(false);
    }
}
