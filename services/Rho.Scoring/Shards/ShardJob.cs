using System.Buffers;
using System.Diagnostics;
using Microsoft.Extensions.Logging;
using Rho.Data;
using Rho.Scoring.Caching;
using Rho.Scoring.Work;

namespace Rho.Scoring.Shards;

/// <summary>
/// Scores a shard's missing chunks in order and stores them. With a store it runs ahead of its own client, so that a client
/// that reads slowly keeps nobody waiting; what is not stored waits in a small window until the client took it.
/// </summary>
internal sealed class ShardJob : IAsyncDisposable
{
    /// <summary>Chunks in the model's queue at a time: one in work and one to follow, so that the model never waits for storing.</summary>
    private const int Ahead = 2;

    private const int WindowChunks = 4;
    private static readonly TimeSpan LeaseRetry = TimeSpan.FromSeconds(1);

    private readonly ShardRequest _request;
    private readonly ScoreKey _key;
    private readonly ServedReference _reference;
    private readonly ILossStore _store;
    private readonly TokenSpool _spool;
    private readonly AdmittedWork _admitted;
    private readonly bool _despiteLease;
    private readonly ScoringMetrics _metrics;
    private readonly ILogger _logger;
    private readonly CancellationTokenSource _stop;
    private readonly Lock _gate = new();
    private readonly Dictionary<int, byte[]> _window = [];
    private readonly Task _running;
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _passed;
    private IShardLease? _lease;
    private long _leaseTried;

    /// <param name="present">For each chunk whether the store has it.</param>
    /// <param name="lease">The right to store; null where the store is away or, with <paramref name="despiteLease"/>, where its holder makes no progress.</param>
    public ShardJob(
        ShardRequest request, ScoreKey key, ServedReference reference, ILossStore store, TokenSpool spool, AdmittedWork admitted,
        int firstChunk, bool[] present, IShardLease? lease, bool despiteLease, ScoringMetrics metrics, ILogger logger, CancellationToken cancellation)
    {
        _request = request;
        _key = key;
        _reference = reference;
        _store = store;
        _spool = spool;
        _admitted = admitted;
        _despiteLease = despiteLease;
        _metrics = metrics;
        _logger = logger;
        _stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        _passed = firstChunk;
        _lease = lease;
        _leaseTried = Stopwatch.GetTimestamp();
        _running = Task.Run(() => RunAsync(firstChunk, present), CancellationToken.None);
    }

    /// <summary>Another process has taken the lease: it scores on, this job has ended.</summary>
    public bool HandedOver { get; private set; }

    /// <summary>
    /// The chunk's payload once it is scored; null where the job has stored it and holds it no more, or has ended. A payload is
    /// given out once.
    /// </summary>
    public async Task<byte[]?> TakeAsync(int chunk, CancellationToken cancellation)
    {
        while (true)
        {
            Task changed;
            lock (_gate)
            {
                if (_window.Remove(chunk, out var payload))
                {
                    Signal();
                    return payload;
                }

                if (chunk < _passed) return null;
                changed = _changed.Task;
            }

            if (_running.IsCompleted)
            {
                await _running.ConfigureAwait(false);
                lock (_gate)
                {
                    return _window.Remove(chunk, out var payload) ? payload : null;
                }
            }

            await Task.WhenAny(changed, _running).WaitAsync(cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>Scores one chunk, also one that was scored before.</summary>
    public async Task<byte[]> ScoreAsync(int chunk)
    {
        var grid = _key.Grid;
        var count = grid.TokensIn(chunk);
        var tokens = ArrayPool<int>.Shared.Rent(count);
        var documents = _request.LayoutSha256.Length > 0 ? ArrayPool<int>.Shared.Rent(count) : null;
        var losses = ArrayPool<float>.Shared.Rent(count);
        try
        {
            _spool.Read(chunk, tokens, documents);
            await _reference.Loop.ScoreAsync(new ScoringWork
            {
                Client = _request.Client,
                Tokens = tokens,
                Sequences = grid.SequencesIn(chunk),
                Length = grid.Length,
                Documents = documents,
                Losses = losses,
                Cancellation = _stop.Token,
            }).ConfigureAwait(false);
            _admitted.Done(count);
            var payload = new byte[_key.PayloadBytes(chunk)];
            LossCodec.Encode(losses.AsSpan(0, count), _key.Format.Encoding, payload);
            return payload;
        }
        finally
        {
            ArrayPool<int>.Shared.Return(tokens);
            if (documents is not null) ArrayPool<int>.Shared.Return(documents);
            ArrayPool<float>.Shared.Return(losses);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _running.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (_lease is not null) await _lease.DisposeAsync().ConfigureAwait(false);
        _admitted.Dispose();
        _stop.Dispose();
    }

    private async Task RunAsync(int firstChunk, bool[] present)
    {
        var pending = new Queue<(int Chunk, Task<byte[]>? Payload)>();
        try
        {
            for (var chunk = firstChunk; chunk < _key.Grid.Chunks && !HandedOver; chunk++)
            {
                pending.Enqueue((chunk, present[chunk] ? null : ScoreAsync(chunk)));
                if (pending.Count >= Ahead) await PassAsync(pending.Dequeue()).ConfigureAwait(false);
            }

            while (pending.TryDequeue(out var last)) await PassAsync(last).ConfigureAwait(false);
        }
        finally
        {
            // What is still in the model's queue uses the spool: it has to be out before this job counts as ended.
            if (pending.Count > 0) await _stop.CancelAsync().ConfigureAwait(false);
            foreach (var (_, left) in pending)
                if (left is not null)
                    await ((Task)left).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            if (_lease is not null) await _lease.DisposeAsync().ConfigureAwait(false);
            _lease = null;
            _admitted.Dispose();
        }
    }

    private async Task PassAsync((int Chunk, Task<byte[]>? Payload) scored)
    {
        if (scored.Payload is null)
        {
            lock (_gate)
            {
                _passed = scored.Chunk + 1;
                Signal();
            }

            return;
        }

        var payload = await scored.Payload.ConfigureAwait(false);
        var stored = await StoreAsync(scored.Chunk, payload).ConfigureAwait(false);
        while (true)
        {
            Task changed;
            lock (_gate)
            {
                var room = _window.Count < WindowChunks;
                if (room) _window.Add(scored.Chunk, payload);
                if (room || stored)
                {
                    _passed = scored.Chunk + 1;
                    Signal();
                    return;
                }

                changed = _changed.Task;
            }

            await changed.WaitAsync(_stop.Token).ConfigureAwait(false);
        }
    }

    private async Task<bool> StoreAsync(int chunk, byte[] payload)
    {
        try
        {
            if (_lease is null) await RegainLeaseAsync().ConfigureAwait(false);
            if (_lease is null) return false;
            await _lease.WriteAsync(chunk, payload, _stop.Token).ConfigureAwait(false);
            return true;
        }
        catch (LeaseLostException e)
        {
            _metrics.LeasesLost.Add(1);
            _logger.LogWarning("{Message}", e.Message);
            await GiveUpLeaseAsync().ConfigureAwait(false);
            _leaseTried = 0; // find out at the next chunk who has it now
            return false;
        }
        catch (StoreUnavailableException e)
        {
            _logger.LogDebug("Chunk {Chunk} of shard {Shard} is not cached: {Reason}", chunk, _key.Shard, e.Message);
            await GiveUpLeaseAsync().ConfigureAwait(false);
            return false;
        }
    }

    private async Task RegainLeaseAsync()
    {
        if (!_store.Available || _leaseTried != 0 && Stopwatch.GetElapsedTime(_leaseTried) < LeaseRetry) return;
        _leaseTried = Stopwatch.GetTimestamp();
        _lease = await _store.TryLeaseAsync(_key, _stop.Token).ConfigureAwait(false);
        HandedOver = _lease is null && !_despiteLease;
    }

    private async Task GiveUpLeaseAsync()
    {
        _leaseTried = Stopwatch.GetTimestamp();
        if (_lease is not null) await _lease.DisposeAsync().ConfigureAwait(false);
        _lease = null;
    }

    private void Signal()
    {
        _changed.TrySetResult();
        _changed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}
