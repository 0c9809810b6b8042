using System.Buffers;
using System.Collections.Concurrent;
using Microsoft.Extensions.Logging;
using Rho.Formats;
using Rho.Scoring.Caching;
using Rho.Scoring.Work;

namespace Rho.Scoring.Shards;

/// <summary>
/// Scores a shard's missing chunks in order and stores them, segment by segment, until it comes to one that another replica has
/// leased. With a store it runs ahead of its own client, so that a client that reads slowly keeps nobody waiting; what is not
/// stored waits in a small window until the client took it.
/// </summary>
internal sealed partial class ShardJob : IAsyncDisposable
{
    /// <summary>Chunks in the model's queue at a time: one in work and one to follow, so that the model never waits for storing.</summary>
    private const int Ahead = 2;

    private const int WindowChunks = 4;

    private readonly ShardRequest _request;
    private readonly ScoreKey _key;
    private readonly ServedReference _reference;
    private readonly ILossStore _store;
    private readonly TokenSpool _spool;
    private readonly AdmittedWork _admitted;
    private readonly ScoringMetrics _metrics;
    private readonly ILogger _logger;
    private readonly CancellationTokenSource _stop;
    private readonly Lock _gate = new();
    private readonly Dictionary<int, byte[]> _window = [];
    private readonly ConcurrentBag<TokenScores> _rooms = []; // of chunks that are encoded, for the next ones
    private readonly Task _running;
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _passed;

    /// <param name="present">For each chunk from the first to before the end whether the store has it.</param>
    /// <param name="lease">The right to store the first segment; null where the store is away or, with <paramref name="despiteLease"/>, where its holder makes no progress.</param>
    public ShardJob(
        ShardRequest request, ScoreKey key, ServedReference reference, ILossStore store, TokenSpool spool, AdmittedWork admitted,
        int firstChunk, int endChunk, bool[] present, ISegmentLease? lease, bool despiteLease, ScoringMetrics metrics, ILogger logger, CancellationToken cancellation)
    {
        _request = request;
        _key = key;
        _reference = reference;
        _store = store;
        _spool = spool;
        _admitted = admitted;
        _metrics = metrics;
        _logger = logger;
        _stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        _passed = firstChunk;
        var writer = new SegmentWriter(key, ChunkGrid.SegmentOf(firstChunk), store, lease, despiteLease, metrics, logger);
        _running = Task.Run(() => RunAsync(writer, firstChunk, endChunk, present), CancellationToken.None);
    }

    /// <summary>Another process scores on from where this job has ended, or did for a while.</summary>
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
                await _running;
                lock (_gate)
                {
                    return _window.Remove(chunk, out var payload) ? payload : null;
                }
            }

            await Task.WhenAny(changed, _running).WaitAsync(cancellation);
        }
    }

    /// <summary>Scores one chunk, also one that was scored before.</summary>
    public async Task<byte[]> ScoreAsync(int chunk)
    {
        var grid = _key.Grid;
        var count = grid.TokensIn(chunk);
        var tokens = ArrayPool<int>.Shared.Rent(count);
        var documents = _request.LayoutSha256.Length > 0 ? ArrayPool<int>.Shared.Rent(count) : null;
        if (!_rooms.TryTake(out var room) || room.Tokens != count) room = TokenScores.Room(count, _key.Format.Entropy, _key.Format.TopK);
        try
        {
            _spool.Read(chunk, tokens, documents);
            var work = new ScoringWork
            {
                Client = _request.Client,
                Tokens = tokens,
                Sequences = grid.SequencesIn(chunk),
                Length = grid.Length,
                Documents = documents,
                Format = _key.Format,
                Scores = room,
                Cancellation = _stop.Token,
            };
            await _reference.Loop.ScoreAsync(work);
            _admitted.Done(count);
            return work.Encode();
        }
        finally
        {
            ArrayPool<int>.Shared.Return(tokens);
            if (documents is not null) ArrayPool<int>.Shared.Return(documents);
            _rooms.Add(room);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _running.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _stop.Dispose();
    }

    private async Task RunAsync(SegmentWriter writer, int firstChunk, int endChunk, bool[] present)
    {
        var pending = new Queue<Scored>();
        try
        {
            for (var chunk = firstChunk; chunk < endChunk && !writer.HandedOver; chunk++)
            {
                var last = chunk + 1 == endChunk || ChunkGrid.SegmentOf(chunk + 1) != ChunkGrid.SegmentOf(chunk);
                pending.Enqueue(new Scored(chunk, present[chunk - firstChunk] ? null : ScoreAsync(chunk), writer, last));
                if (last && chunk + 1 < endChunk)
                {
                    // The next segment is leased before this one's last chunk is through, so that the model never waits.
                    if (await EnterAsync(chunk + 1) is not { } entered)
                    {
                        HandedOver = true;
                        break;
                    }

                    writer = entered.Writer;
                    entered.Present.CopyTo(present, chunk + 1 - firstChunk);
                }

                if (pending.Count >= Ahead) await PassAsync(pending.Dequeue());
            }

            while (pending.TryDequeue(out var left)) await PassAsync(left);
            HandedOver |= writer.HandedOver;
        }
        finally
        {
            // What is still in the model's queue uses the spool: it has to be out before this job counts as ended.
            if (pending.Count > 0) await _stop.CancelAsync();
            foreach (var left in pending)
            {
                if (left.Payload is { } payload) await ((Task)payload).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                await left.Writer.DisposeAsync();
            }

            await writer.DisposeAsync();
            _admitted.Dispose();
        }

        // The segment of a chunk: who stores it, and which of its chunks are stored already. Null where another replica has leased it,
        // or where there are no tokens of what is missing in it.
        async Task<(SegmentWriter Writer, bool[] Present)?> EnterAsync(int chunk)
        {
            var end = Math.Min(endChunk, chunk + ChunkGrid.SegmentChunks);
            ISegmentLease? lease = null;
            var stored = new bool[end - chunk];
            if (_store.Available)
            {
                try
                {
                    lease = await _store.TryLeaseAsync(_key, ChunkGrid.SegmentOf(chunk), _stop.Token);
                    if (lease is null) return null;
                    stored = await _store.PresentAsync(_key, chunk, end, _stop.Token);
                }
                catch (StoreUnavailableException e)
                {
                    GoesOnWithoutCache(_key.Shard, e.Message);
                }
            }

            if (Enumerable.Range(chunk, stored.Length).Any(other => !stored[other - chunk] && !_spool.Holds(other)))
            {
                // Was stored when this job began and is no more: the stream asks for its tokens.
                if (lease is not null) await lease.DisposeAsync();
                return null;
            }

            return (new SegmentWriter(_key, ChunkGrid.SegmentOf(chunk), _store, lease, despiteLease: false, _metrics, _logger), stored);
        }
    }

    private async Task PassAsync(Scored scored)
    {
        try
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

            var payload = await scored.Payload;
            var stored = await scored.Writer.StoreAsync(scored.Chunk, payload, _stop.Token);
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

                await changed.WaitAsync(_stop.Token);
            }
        }
        finally
        {
            if (scored.IsLastOfSegment) await scored.Writer.DisposeAsync();
        }
    }

    private void Signal()
    {
        _changed.TrySetResult();
        _changed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
    }

    [LoggerMessage(LogLevel.Debug, "shard {Shard} goes on without cache: {Reason}")]
    private partial void GoesOnWithoutCache(string shard, string reason);

    /// <param name="Payload">Null: the store has the chunk.</param>
    private sealed record Scored(int Chunk, Task<byte[]>? Payload, SegmentWriter Writer, bool IsLastOfSegment);
}
