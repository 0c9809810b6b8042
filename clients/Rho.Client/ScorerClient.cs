using System.Runtime.CompilerServices;
using System.Threading.Channels;
using Grpc.Core;
using Rho.Formats;
using Rho.Protocol.Scoring.V1;
using LossEncoding = Rho.Formats.LossEncoding;

namespace Rho.Client;

/// <summary>
/// Reference losses from one or many scorers. Each shard streams from the scorer that has the least to do; when that one dies,
/// freezes, fills up or stops, the stream goes on at another one with the first sequence that did not arrive. The losses are the
/// same whatever happened on the way. Safe for concurrent use; several shards may be scored at once.
/// </summary>
public sealed class ScorerClient : IAsyncDisposable
{
    private const int CoverageShards = 400;

    private readonly ScorerClientOptions _options;
    private readonly Metadata _headers;
    private readonly Replicas _replicas;
    private readonly Agreement _agreement;
    private readonly Failover _failover;
    private readonly SemaphoreSlim _describing = new(1);

    /// <exception cref="RhoException">An option is wrong.</exception>
    public ScorerClient(ScorerClientOptions options)
    {
        options.Validate();
        _options = options;
        _headers = new Metadata { { "rho-client", Guid.NewGuid().ToString("N") } };
        if (options.ApiKey is not null) _headers.Add("authorization", $"Bearer {options.ApiKey}");
        _replicas = new Replicas(options, _headers);
        _agreement = new Agreement(options, _headers);
        _failover = new Failover(_replicas, _agreement);
    }

    /// <summary>Describes the reference that all scorers of this client serve. Asked once; later calls return the same.</summary>
    /// <exception cref="UnavailableException">No scorer answers within the connect timeout.</exception>
    /// <exception cref="MismatchException">The reference or its tokenizer is not the one that the options name; nothing was scored.</exception>
    public async Task<ReferenceDescription> DescribeAsync(CancellationToken cancellation = default)
    {
        if (_agreement.Reference is { } known) return known;
        await _describing.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            // To agree with the first replica is all that there is to do.
            if (_agreement.Reference is null) await _failover.RunAsync(_options.ConnectTimeout, static () => 0, static (_, _) => Task.CompletedTask, cancellation).ConfigureAwait(false);
            return _agreement.Reference!;
        }
        finally
        {
            _describing.Release();
        }
    }

    /// <summary>Losses of a shard, in order, from a sequence on. Blocks hold whole sequences and are fetched ahead of the reader.</summary>
    /// <param name="shard">Stays open until the enumeration ends.</param>
    /// <param name="documentsSeeEachOther">Whether a token is predicted from earlier documents of its sequence too.</param>
    /// <exception cref="UnavailableException">No scorer made progress for the budget.</exception>
    /// <exception cref="MismatchException">A scorer serves another reference, or one with another tokenizer.</exception>
    /// <exception cref="CorruptDataException">The shard's tokens do not have its hash.</exception>
    /// <exception cref="RhoException">The scorer refuses the shard, such as for sequences that are too long; the message says why.</exception>
    public async IAsyncEnumerable<LossBlock> ScoreShardAsync(
        TokenShard shard, bool documentsSeeEachOther, long firstSequence = 0, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        await foreach (var block in ScoreShardEncodedAsync(shard, documentsSeeEachOther, firstSequence, endSequence: null, cancellation).ConfigureAwait(false))
        {
            yield return new LossBlock(block.FirstSequence, block.Sequences, shard.Length, block.Scores.Decode());
        }
    }

    /// <summary>As <see cref="ScoreShardAsync"/>, with the losses as they are stored and sent, up to before <paramref name="endSequence"/> (null: to the shard's end).</summary>
    public async IAsyncEnumerable<EncodedLossBlock> ScoreShardEncodedAsync(
        TokenShard shard, bool documentsSeeEachOther, long firstSequence = 0, long? endSequence = null, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(firstSequence);
        var end = endSequence ?? shard.Sequences;
        ArgumentOutOfRangeException.ThrowIfGreaterThan(firstSequence, end);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(end, shard.Sequences);
        await DescribeAsync(cancellation).ConfigureAwait(false);
        var reader = new ShardReader(shard, ShardIdentity.Of(shard, documentsSeeEachOther), _options, _headers, _replicas, _agreement, _failover);
        await foreach (var block in AheadAsync<EncodedLossBlock>((output, stop) => reader.ReadAsync(firstSequence, end, output, stop), cancellation).ConfigureAwait(false)) yield return block;
    }

    /// <summary>
    /// Losses of sequences made on the fly, in the order in which they get ready. Sequences are read from
    /// <paramref name="sequences"/> as the scorer takes them; those without an answer are sent again when a scorer fails.
    /// </summary>
    public async IAsyncEnumerable<SequenceLosses> ScoreAsync(IAsyncEnumerable<SequenceTokens> sequences, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        var reference = await DescribeAsync(cancellation).ConfigureAwait(false);
        await foreach (var result in AheadAsync<SequenceLosses>(async (output, stop) =>
        {
            var exchange = new SequenceExchange(sequences, _options, reference, output);
            await using var ending = exchange.ConfigureAwait(false);
            await _failover.RunAsync(_options.Budget, static () => 0, (attempt, token) => exchange.RunAsync(attempt, _headers, token), stop).ConfigureAwait(false);
        }, cancellation).ConfigureAwait(false)) yield return result;
    }

    /// <summary>Limits and load of each scorer that answers.</summary>
    public async Task<IReadOnlyList<ScorerInfo>> InfoAsync(CancellationToken cancellation = default)
    {
        await DescribeAsync(cancellation).ConfigureAwait(false);
        var all = await _replicas.AllAsync(cancellation).ConfigureAwait(false);
        var infos = await Task.WhenAll(all.Select(async replica =>
        {
            try
            {
                var info = await replica.Client.InfoAsync(new InfoRequest(), _headers, DateTime.UtcNow + _options.HedgeAfter, cancellation).ConfigureAwait(false);
                return new ScorerInfo(
                    replica.Address, info.Version, info.QueuedTokens, info.Streams, info.TokensPerSecond, TimeSpan.FromMilliseconds(info.ExpectedWaitMs),
                    info.MaxSequenceLength, info.MaxShardTokens, info.MaxQueuedTokens, info.MaxStreams, info.Cache, info.CacheAvailable, info.Draining);
            }
            catch (RpcException)
            {
                cancellation.ThrowIfCancellationRequested();
                return null;
            }
        })).ConfigureAwait(false);
        return [.. infos.OfType<ScorerInfo>()];
    }

    /// <summary>How much of each of a corpus' shards the scorers have cached, in the corpus' order.</summary>
    public async Task<IReadOnlyList<ShardCoverage>> CoverageAsync(Corpus corpus, CancellationToken cancellation = default)
    {
        var reference = await DescribeAsync(cancellation).ConfigureAwait(false);
        var coverage = new List<ShardCoverage>();
        for (var first = 0; first < corpus.Shards.Count; first += CoverageShards)
        {
            var request = new CoverageRequest { Reference = reference.Fingerprint, Format = _options.Format.ToWire() };
            for (var i = first; i < Math.Min(first + CoverageShards, corpus.Shards.Count); i++)
            {
                using var shard = corpus.OpenShard(i);
                request.Shards.Add(ShardIdentity.Of(shard, corpus.DocumentsSeeEachOther).Message);
            }

            await _failover.RunAsync(_options.Budget, static () => 0, async (attempt, token) =>
            {
                var response = await attempt.Replica.Client.CoverageAsync(request, _headers, DateTime.UtcNow + _options.StallTimeout, token).ConfigureAwait(false);
                coverage.AddRange(response.Shards.Zip(request.Shards, (answer, shard) => new ShardCoverage(
                    answer.State switch { CoverageState.Cached => ShardState.Cached, CoverageState.InWork => ShardState.InWork, _ => ShardState.Missing },
                    answer.CachedSequences, shard.Sequences, TimeSpan.FromMilliseconds(answer.TimeLeftMs))));
            }, cancellation).ConfigureAwait(false);
        }

        return coverage;
    }

    /// <summary>Scorers known now: as many shards as this, or a few more, keep all of them busy.</summary>
    public async Task<int> CountScorersAsync(CancellationToken cancellation = default)
    {
        await DescribeAsync(cancellation).ConfigureAwait(false);
        return (await _replicas.AllAsync(cancellation).ConfigureAwait(false)).Count;
    }

    public LossEncoding Encoding => _options.Encoding;

    public bool Entropy => _options.Entropy;

    public int TopK => _options.TopK;

    public async ValueTask DisposeAsync()
    {
        await _replicas.DisposeAsync().ConfigureAwait(false);
        _describing.Dispose();
    }

    /// <summary>What is produced a few items ahead of its reader, until that leaves.</summary>
    private async IAsyncEnumerable<T> AheadAsync<T>(Func<ChannelWriter<T>, CancellationToken, Task> produce, [EnumeratorCancellation] CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var items = Channel.CreateBounded<T>(new BoundedChannelOptions(_options.PrefetchBlocks) { SingleReader = true, SingleWriter = true });
        var producing = ProduceAsync();
        try
        {
            await foreach (var item in items.Reader.ReadAllAsync(cancellation).ConfigureAwait(false)) yield return item;
        }
        finally
        {
            await stop.CancelAsync().ConfigureAwait(false);
            await producing.ConfigureAwait(false);
        }

        async Task ProduceAsync()
        {
            try
            {
                await produce(items.Writer, stop.Token).ConfigureAwait(false);
                items.Writer.Complete();
            }
            catch (Exception e)
            {
                items.Writer.Complete(e);
            }
        }
    }
}
