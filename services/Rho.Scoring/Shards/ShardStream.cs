using System.Diagnostics;
using System.Runtime.CompilerServices;
using Microsoft.Extensions.Logging;
using Rho.Formats;
using Rho.Scoring.Caching;

namespace Rho.Scoring.Shards;

/// <summary>
/// The losses of one shard for one client, in order, from wherever they come first:
/// 1. from the own job, where this stream is the one that scores;
/// 2. from the store, where they are cached or another replica is writing them;
/// 3. where they are missing, by becoming the one that scores: lease, tokens from the client, job;
/// 4. where another holds the lease, by waiting for what it writes, and taking over when it dies or makes no progress.
/// Without a store, or when it is away, every stream scores for itself.
/// </summary>
internal sealed partial class ShardStream : IAsyncDisposable
{
    private const int ReadChunks = 8;
    private static readonly TimeSpan FirstPoll = TimeSpan.FromMilliseconds(5);
    private static readonly TimeSpan LongestPoll = TimeSpan.FromMilliseconds(100);

    private readonly ShardRequest _request;
    private readonly ServedReference _reference;
    private readonly ILossStore _store;
    private readonly VerifiedShards _verified;
    private readonly ScoringOptions _options;
    private readonly TokenSource _tokens;
    private readonly ScoringMetrics _metrics;
    private readonly ILogger _logger;
    private readonly ScoreKey _key;
    private TokenSpool? _spool;
    private bool _sees; // others wait for this stream to see the whole shard
    private ShardJob? _job;

    public ShardStream(
        ShardRequest request, ServedReference reference, ILossStore store, VerifiedShards verified, ScoringOptions options, TokenSource tokens, ScoringMetrics metrics, ILogger logger)
    {
        _request = request;
        _reference = reference;
        _store = store;
        _verified = verified;
        _options = options;
        _tokens = tokens;
        _metrics = metrics;
        _logger = logger;
        _key = new ScoreKey(reference.Fingerprint, request.Sha256, request.LayoutSha256, request.Format, request.Grid);
    }

    /// <exception cref="OverloadedException">There is no room in the queue for what has to be scored.</exception>
    /// <exception cref="CorruptDataException">The client's tokens do not have the shard's hash.</exception>
    public async IAsyncEnumerable<ShardEvent> RunAsync([EnumeratorCancellation] CancellationToken cancellation)
    {
        var grid = _request.Grid;
        var chunk = grid.ChunkOf(_request.FirstSequence);
        var end = _request.EndSequence > _request.FirstSequence ? grid.ChunkOf(_request.EndSequence - 1) + 1 : chunk;
        long waitingSince = 0;
        var poll = FirstPoll;
        while (chunk < end)
        {
            // 1.
            if (_job is not null && await _job.TakeAsync(chunk, cancellation) is { } own)
            {
                yield return Scored(chunk++, own, fromCache: false);
                continue;
            }

            // 2.
            var stored = await ReadStoreAsync(chunk, end, cancellation);
            foreach (var payload in stored) yield return Scored(chunk++, payload, fromCache: true);
            if (stored.Count > 0)
            {
                EndWait(ref waitingSince);
                poll = FirstPoll;
                continue;
            }

            if (_job is { HandedOver: true })
            {
                await _job.DisposeAsync();
                _job = null;
            }

            if (_job is not null)
            {
                // Stored, and lost again since.
                while (await LackingAsync([chunk], cancellation) is { } lost)
                {
                    yield return ShardEvent.TokensPlease(lost);
                    await ReceiveTokensAsync(cancellation);
                }

                yield return Scored(chunk, await _job.ScoreAsync(chunk), fromCache: false);
                chunk++;
                continue;
            }

            // 3.
            var impatient = waitingSince != 0 && Stopwatch.GetElapsedTime(waitingSince) > _options.FollowPatience;
            var lead = await TryLeadAsync(chunk, end, impatient, cancellation);
            if (lead is not null)
            {
                await using (lead)
                {
                    EndWait(ref waitingSince);
                    if (!lead.HasWork) continue;
                    while (await LackingAsync(lead.Missing, cancellation) is { } lacking)
                    {
                        yield return ShardEvent.TokensPlease(lacking);
                        await ReceiveTokensAsync(cancellation);
                    }

                    _job = lead.Start(_spool!, cancellation);
                }

                continue;
            }

            // 4.
            if (waitingSince == 0)
            {
                waitingSince = Stopwatch.GetTimestamp();
                _metrics.CacheMisses.Add(1);
            }

            await Task.Delay(poll, cancellation);
            poll = poll * 2 < LongestPoll ? poll * 2 : LongestPoll;
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (_job is not null) await _job.DisposeAsync();
        if (_sees) _verified.GiveUp(_request.Content);
        _spool?.Dispose();
    }

    private ShardEvent Scored(int chunk, byte[] payload, bool fromCache)
    {
        var grid = _request.Grid;
        var first = grid.FirstSequence(chunk);
        var skip = (int)Math.Max(0, _request.FirstSequence - first) * grid.Length;
        if (fromCache) _metrics.CacheTokens.Add(grid.TokensIn(chunk), new KeyValuePair<string, object?>("store", _store.Kind));
        var count = (int)Math.Min(grid.TokensIn(chunk), (_request.EndSequence - first) * grid.Length) - skip;
        return new ShardEvent(Wanted: null, grid.FirstToken(chunk) + skip, new EncodedScores(_request.Format, payload).Slice(skip, count), fromCache);
    }

    private async Task<IReadOnlyList<byte[]>> ReadStoreAsync(int chunk, int end, CancellationToken cancellation)
    {
        if (!_store.Available) return [];
        try
        {
            return await _store.ReadAsync(_key, chunk, Math.Min(ReadChunks, end - chunk), cancellation);
        }
        catch (StoreUnavailableException)
        {
            return [];
        }
    }

    /// <summary>
    /// The right to score: with the lease; without one where the store is away, or where its holder wrote nothing for too long.
    /// Null where another holds the lease.
    /// </summary>
    private async Task<Lead?> TryLeadAsync(int chunk, int end, bool impatient, CancellationToken cancellation)
    {
        ISegmentLease? lease = null;
        var present = new bool[end - chunk];
        if (_store.Available)
        {
            try
            {
                lease = await _store.TryLeaseAsync(_key, ChunkGrid.SegmentOf(chunk), cancellation);
                if (lease is null && !impatient) return null;
                // The writer before may have stored more between this stream's look and the lease.
                present = await _store.PresentAsync(_key, chunk, end, cancellation);
            }
            catch (StoreUnavailableException e)
            {
                ScoredWithoutCache(_key.Shard, e.Message);
            }
        }

        try
        {
            var missing = 0L;
            for (var i = 0; i < present.Length; i++)
                if (!present[i])
                    missing += _request.Grid.TokensIn(chunk + i);
            return new Lead(this, chunk, end, present, lease, impatient, missing, missing == 0 ? null : _reference.Admission.Admit(missing));
        }
        catch
        {
            if (lease is not null) await lease.DisposeAsync();
            throw;
        }
    }

    /// <summary>What the client has to send so that chunks can be scored; null: nothing, it is all here.</summary>
    private async Task<IReadOnlyList<SequenceRange>?> LackingAsync(IReadOnlyList<int> chunks, CancellationToken cancellation)
    {
        _spool ??= new TokenSpool(
            _options.SpoolDirectory ?? Path.GetTempPath(), _request, _reference.VocabularySize, await ChunkHashesAsync(chunks.Count == _request.Grid.Chunks, cancellation));
        return _spool.Expect(chunks);
    }

    /// <summary>The hashes of the shard's chunks where a stream of this process has seen the shard, or is about to; null: this one is to see all of it.</summary>
    private async Task<byte[]?> ChunkHashesAsync(bool needsAll, CancellationToken cancellation)
    {
        if (!_request.TakesRanges) return null;
        while (true)
        {
            if (_verified.TryBegin(_request.Content, out var seen))
            {
                _sees = true;
                return null;
            }

            // Who needs all of the shard anyway has nothing to wait for.
            if (needsAll && !seen.IsCompleted) return null;
            try
            {
                if (await seen.WaitAsync(_options.UploadPatience, cancellation) is { } hashes) return hashes;
            }
            catch (TimeoutException)
            {
                return null;
            }
        }
    }

    private async Task ReceiveTokensAsync(CancellationToken cancellation)
    {
        var spool = _spool!;
        while (!spool.IsComplete)
        {
            using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            patience.CancelAfter(_options.UploadPatience);
            TokenBlock block;
            try
            {
                block = await _tokens(patience.Token)
                    ?? throw new RhoException($"the stream of tokens ended at token {spool.Next} of {_request.Grid.Tokens}");
            }
            catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
            {
                throw new UnavailableException($"the client was asked for tokens and sent none for {_options.UploadPatience.TotalSeconds:0} s, at token {spool.Next} of {_request.Grid.Tokens}");
            }

            spool.Append(block);
        }

        spool.Verify();
        if (spool.ChunkHashes is not { } hashes) return;
        _verified.Add(_request.Content, hashes);
        _sees = false;
    }

    private void EndWait(ref long waitingSince)
    {
        if (waitingSince == 0) return;
        _metrics.LeaseWaits.Record(Stopwatch.GetElapsedTime(waitingSince).TotalSeconds);
        waitingSince = 0;
    }

    [LoggerMessage(LogLevel.Debug, "shard {Shard} is scored without cache: {Reason}")]
    private partial void ScoredWithoutCache(string shard, string reason);

    /// <summary>What is held between winning the right to score and starting to: given back when anything in between fails.</summary>
    private sealed class Lead(
        ShardStream stream, int firstChunk, int endChunk, bool[] present, ISegmentLease? lease, bool despiteLease, long missing, Work.AdmittedWork? admitted) : IAsyncDisposable
    {
        private bool _started;

        public bool HasWork => missing > 0;

        /// <summary>The chunks that are to be scored.</summary>
        public IReadOnlyList<int> Missing => [.. Enumerable.Range(firstChunk, endChunk - firstChunk).Where(chunk => !present[chunk - firstChunk])];

        public ShardJob Start(TokenSpool spool, CancellationToken cancellation)
        {
            _started = true;
            return new ShardJob(
                stream._request, stream._key, stream._reference, stream._store, spool, admitted!, firstChunk, endChunk, present, lease,
                despiteLease, stream._metrics, stream._logger, cancellation);
        }

        public async ValueTask DisposeAsync()
        {
            if (_started) return;
            admitted?.Dispose();
            if (lease is not null) await lease.DisposeAsync();
        }
    }
}
