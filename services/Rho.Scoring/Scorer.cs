using Microsoft.Extensions.Logging;
using Rho.Formats;
using Rho.Scoring.Caching;
using Rho.Scoring.Sequences;
using Rho.Scoring.Shards;

namespace Rho.Scoring;

/// <summary>What a client can rely on when it opens a stream, and what it has to expect.</summary>
public sealed record ScorerStatus(
    IReadOnlyList<string> References, int MaxSequenceLength, long MaxShardTokens, long MaxQueuedTokens, int MaxStreams,
    long QueuedTokens, int Streams, double TokensPerSecond, TimeSpan ExpectedWait, string Cache, bool CacheAvailable, bool Draining);

public enum CoverageState
{
    Cached,
    InWork,
    Missing,
}

/// <summary>How far a shard is cached, and the time that the rest takes at the speed measured (zero: not measured).</summary>
public sealed record Coverage(CoverageState State, long CachedSequences, TimeSpan TimeLeft);

/// <summary>The scoring service without its wire: references, cache and limits.</summary>
internal sealed partial class Scorer(
    IReadOnlyList<ServedReference> references, ILossStore store, ScoringOptions options, ScoringMetrics metrics, ILogger<Scorer> logger, CancellationToken draining)
{
    private const int CoverageAtOnce = 16;

    private readonly VerifiedShards _verified = new();

    public IReadOnlyList<ServedReference> References => references;

    public ScoringMetrics Metrics => metrics;

    /// <summary>Cancelled when open streams are to end, because the service stops.</summary>
    public CancellationToken Draining => draining;

    /// <summary>The reference with a fingerprint; the first where it is empty.</summary>
    /// <exception cref="MismatchException">It is not served here, or its tokenizer is another than the client's.</exception>
    public ServedReference Find(string fingerprint, string tokenizerFingerprint)
    {
        var reference = fingerprint.Length == 0
            ? references[0]
            : references.FirstOrDefault(reference => reference.Fingerprint == fingerprint)
                ?? throw new MismatchException($"reference {fingerprint} is not served here; served: {string.Join(", ", references.Select(reference => reference.Fingerprint))}");
        if (tokenizerFingerprint.Length > 0 && tokenizerFingerprint != reference.TokenizerFingerprint)
        {
            throw new MismatchException(
                $"tokenizers differ: the tokens are of tokenizer {tokenizerFingerprint}, reference {reference.Fingerprint} reads tokenizer {reference.TokenizerFingerprint}; "
                + "build the corpus with the reference's tokenizer");
        }

        return reference;
    }

    /// <summary>Counts a stream until it is disposed.</summary>
    /// <exception cref="OverloadedException">Too many are open.</exception>
    public IDisposable OpenStream()
    {
        if (draining.IsCancellationRequested) throw new UnavailableException("the scorer is stopping; go on with another replica");
        var stream = new OpenedStream(metrics);
        if (metrics.Streams <= options.MaxStreams) return stream;
        stream.Dispose();
        throw new OverloadedException($"{options.MaxStreams} streams are open, the limit; retry in 1 s or on another replica", TimeSpan.FromSeconds(1));
    }

    public ShardStream OpenShard(ServedReference reference, ShardRequest request, TokenSource tokens)
    {
        request.Validate(MaxSequenceLength(reference), options.MaxShardTokens);
        return new ShardStream(request, reference, store, _verified, options, tokens, metrics, logger);
    }

    public SequenceStream OpenSequences(ServedReference reference, string client, ScoreFormat format) =>
        new(reference, client, format, MaxSequenceLength(reference));

    public int MaxSequenceLength(ServedReference reference) =>
        options.MaxSequenceLength == 0 ? reference.ContextLength : Math.Min(options.MaxSequenceLength, reference.ContextLength);

    public ScorerStatus Status() => new(
        [.. references.Select(reference => reference.Fingerprint)],
        MaxSequenceLength(references[0]),
        options.MaxShardTokens,
        options.MaxQueuedTokens,
        options.MaxStreams,
        references.Sum(reference => reference.Admission.QueuedTokens),
        metrics.Streams,
        references.Max(reference => reference.Loop.State.TokensPerSecond),
        TimeSpan.FromSeconds(references.Sum(reference => reference.Admission.ExpectedWait.TotalSeconds)),
        store.Kind,
        store.Available,
        draining.IsCancellationRequested);

    /// <summary>How far shards are cached; without a cache all are missing.</summary>
    public async Task<IReadOnlyList<Coverage>> CoverageAsync(ServedReference reference, IReadOnlyList<ShardRequest> shards, CancellationToken cancellation)
    {
        var coverage = new Coverage[shards.Count];
        await Parallel.ForAsync(0, shards.Count, new ParallelOptions { MaxDegreeOfParallelism = CoverageAtOnce, CancellationToken = cancellation }, async (i, token) =>
            coverage[i] = await CoverageAsync(reference, shards[i], token));
        return coverage;
    }

    private async Task<Coverage> CoverageAsync(ServedReference reference, ShardRequest shard, CancellationToken cancellation)
    {
        shard.Validate(MaxSequenceLength(reference), options.MaxShardTokens);
        var (grid, cached, leased) = (shard.Grid, 0L, false);
        if (store.Available)
        {
            try
            {
                var key = new ScoreKey(reference.Fingerprint, shard.Sha256, shard.LayoutSha256, shard.Format, grid);
                var present = await store.PresentAsync(key, 0, grid.Chunks, cancellation);
                for (var chunk = 0; chunk < present.Length; chunk++)
                    if (present[chunk])
                        cached += grid.SequencesIn(chunk);
                leased = cached < grid.Sequences && await store.IsLeasedAsync(key, cancellation);
            }
            catch (StoreUnavailableException e)
            {
                CoverageIsUnknown(shard.Sha256, e.Message);
            }
        }

        var state = cached == grid.Sequences ? CoverageState.Cached : leased ? CoverageState.InWork : CoverageState.Missing;
        return new Coverage(state, cached, reference.Admission.TimeFor((grid.Sequences - cached) * grid.Length));
    }

    [LoggerMessage(LogLevel.Debug, "coverage of shard {Shard} is unknown: {Reason}")]
    private partial void CoverageIsUnknown(string shard, string reason);

    private sealed class OpenedStream : IDisposable
    {
        private readonly ScoringMetrics _metrics;

        public OpenedStream(ScoringMetrics metrics)
        {
            _metrics = metrics;
            metrics.StreamOpened();
        }

        public void Dispose() => _metrics.StreamClosed();
    }
}
