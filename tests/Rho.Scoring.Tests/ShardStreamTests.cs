using Microsoft.Extensions.Logging.Abstractions;
using Rho.Formats;
using Rho.Scoring.Caching;
using Rho.Scoring.Shards;
using Rho.TestSupport;

namespace Rho.Scoring.Tests;

/// <summary>One shard's way to one client: leading, following, taking over, resuming, without a store and with one that fails.</summary>
public sealed class ShardStreamTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly ScoringMetrics _metrics = new();
    private readonly List<ServedReference> _references = [];

    public void Dispose()
    {
        _references.ForEach(reference => reference.Dispose());
        _metrics.Dispose();
        _folder.Dispose();
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Run_NothingCached_GivesTheModelsLosses(bool documentsSeeEachOther)
    {
        using var shard = TestScoring.Shard(_folder["shard"], 100, 700, withDocuments: true);
        var (losses, asked) = await ReadAsync(await ServeAsync(new HashModel()), new NoLossStore(), shard, documentsSeeEachOther);
        Assert.Equal(TestScoring.Expected(shard, documentsSeeEachOther), losses);
        Assert.True(asked);
    }

    [Fact]
    public async Task Run_SecondTime_ComesFromTheStoreWithoutTokens()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 100, 700);
        var model = new HashModel();
        var reference = await ServeAsync(model);
        var (first, _) = await ReadAsync(reference, Store(), shard);
        var scored = model.TokensScored;
        var (second, asked) = await ReadAsync(reference, Store(), shard);

        Assert.Equal(first, second);
        Assert.False(asked);
        Assert.Equal(scored, model.TokensScored);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(37)]
    [InlineData(99)]
    [InlineData(100)]
    public async Task Run_FromAnySequence_GivesTheSameBytes(int first)
    {
        // The model's losses depend on how many sequences share a batch; the grid must not depend on where a stream begins.
        using var shard = TestScoring.Shard(_folder["shard"], 100, 700);
        var reference = await ServeAsync(new HashModel { DependsOnBatch = true });
        var (all, _) = await ReadAsync(reference, new NoLossStore(), shard);
        var (rest, _) = await ReadAsync(reference, new NoLossStore(), shard, first: first);
        Assert.Equal(all[(first * 700)..], rest);
    }

    [Fact]
    public async Task Run_SequencesLongerThanAChunk_AreChunksOfTheirOwn()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 3, 40_000, vocabularySize: 1000);
        var (losses, _) = await ReadAsync(await ServeAsync(new HashModel()), Store(), shard);
        Assert.Equal(TestScoring.Expected(shard, true), losses);
    }

    [Fact]
    public async Task Run_EmptyShard_EndsAtOnce()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 0, 10);
        var (losses, asked) = await ReadAsync(await ServeAsync(new HashModel()), Store(), shard);
        Assert.Empty(losses);
        Assert.False(asked);
    }

    [Fact]
    public async Task Run_ManyStreamsAtOnce_ScoreEachChunkOnce()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 100, 700);
        var models = Enumerable.Range(0, 3).Select(_ => new HashModel { Rate = 200_000 }).ToList();
        var streams = new List<Task<(float[] Losses, bool Asked)>>();
        foreach (var model in models)
        {
            var reference = await ServeAsync(model);
            for (var i = 0; i < 3; i++) streams.Add(ReadAsync(reference, Store(), shard));
        }

        var results = await Task.WhenAll(streams).WaitAsync(TestScoring.Patience);
        var expected = TestScoring.Expected(shard, true);
        Assert.All(results, result => Assert.Equal(expected, result.Losses));
        Assert.Equal(1, results.Count(result => result.Asked));
        Assert.Equal(70_000, models.Sum(model => model.TokensScored - 256));
    }

    [Fact]
    public async Task Run_LeaderGoes_FollowerTakesOverAndScoresOnlyTheRest()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 200, 700);
        var (slow, other) = (new HashModel { Rate = 100_000 }, new HashModel());
        using var leave = new CancellationTokenSource();
        var (store, reference) = (Store(), await ServeAsync(slow));
        var leader = new List<float>();
        var leading = Task.Run(async () =>
        {
            await foreach (var losses in StreamAsync(reference, store, shard, cancellation: leave.Token))
            {
                leader.AddRange(losses);
                if (leader.Count > 40_000) await leave.CancelAsync();
            }
        });
        await WaitForAsync(() => slow.TokensScored > 256);
        var (losses, _) = await ReadAsync(await ServeAsync(other), Store(), shard);

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => leading).WaitAsync(TestScoring.Patience);
        Assert.Equal(TestScoring.Expected(shard, true), losses);
        // The leader's chunk in flight may be scored again, no more.
        Assert.InRange(slow.TokensScored + other.TokensScored - 512, 140_000, 140_000 + 2 * 16_100);
        Assert.InRange(other.TokensScored, 1, 120_000);
    }

    [Fact]
    public async Task Run_LeaderHoldsTheLeaseAndDoesNothing_FollowerScoresForItself()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 30, 700);
        var key = new ScoreKey(new HashModel().Fingerprint, shard.Sha256, "", new ScoreFormat(LossEncoding.F16), new ChunkGrid(30, 700));
        await using var stuck = await Store().TryLeaseAsync(key, 0, default);
        var options = new ScoringOptions { FollowPatience = TimeSpan.FromMilliseconds(300) };
        var (losses, _) = await ReadAsync(await ServeAsync(new HashModel()), Store(), shard, options: options);
        Assert.Equal(TestScoring.Expected(shard, true), losses);
    }

    [Fact]
    public async Task Run_SlowReader_KeepsNobodyWaitingAndHoldsLittle()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 300, 700);
        var reference = await ServeAsync(new HashModel());
        using var stop = new CancellationTokenSource();
        await using var slow = StreamAsync(reference, Store(), shard, cancellation: stop.Token).GetAsyncEnumerator();
        Assert.True(await slow.MoveNextAsync().AsTask().WaitAsync(TestScoring.Patience));

        var (losses, asked) = await ReadAsync(reference, Store(), shard).WaitAsync(TestScoring.Patience);
        Assert.Equal(TestScoring.Expected(shard, true), losses);
        Assert.False(asked);
        Assert.Equal(0, reference.Admission.QueuedTokens);
        await stop.CancelAsync();
    }

    [Fact]
    public async Task Run_WithoutStoreSlowReader_StopsScoringAhead()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 600, 700);
        var model = new HashModel();
        var reference = await ServeAsync(model);
        using var stop = new CancellationTokenSource();
        await using var slow = StreamAsync(reference, new NoLossStore(), shard, cancellation: stop.Token).GetAsyncEnumerator();
        Assert.True(await slow.MoveNextAsync().AsTask().WaitAsync(TestScoring.Patience));
        await Task.Delay(500);
        Assert.InRange(model.TokensScored, 1, 9 * 16_384);
        await stop.CancelAsync();
    }

    [Fact]
    public async Task Run_ClientLeaves_FreesQueueAndLease()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 300, 700);
        var reference = await ServeAsync(new HashModel { Rate = 50_000 });
        using var leave = new CancellationTokenSource();
        var reading = Task.Run(async () =>
        {
            await foreach (var _ in StreamAsync(reference, Store(), shard, cancellation: leave.Token)) await leave.CancelAsync();
        });
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => reading).WaitAsync(TestScoring.Patience);

        Assert.Equal(0, reference.Admission.QueuedTokens);
        Assert.False(reference.Loop.State.HasWork);
        var key = new ScoreKey(reference.Fingerprint, shard.Sha256, "", new ScoreFormat(LossEncoding.F16), new ChunkGrid(300, 700));
        Assert.False(await Store().IsLeasedAsync(key, default));
    }

    [Fact]
    public async Task Run_StoreFailsAndComesBack_LosesNoLossAndCachesAgain()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 300, 700);
        var store = new FlakyStore(Store());
        var model = new HashModel { Rate = 150_000 };
        var reference = await ServeAsync(model);
        var losses = new List<float>();
        await foreach (var part in StreamAsync(reference, store, shard))
        {
            losses.AddRange(part);
            store.IsAway = losses.Count is > 30_000 and < 90_000;
        }

        Assert.Equal(TestScoring.Expected(shard, true), losses);
        var present = await Store().PresentAsync(new ScoreKey(reference.Fingerprint, shard.Sha256, "", new ScoreFormat(LossEncoding.F16), new ChunkGrid(300, 700)), 0, 14, default);
        Assert.True(present[0]);
        Assert.Contains(false, present);
        Assert.True(present[^1]);
        Assert.Equal(210_000, model.TokensScored - 256);
    }

    [Fact]
    public async Task Run_TokensOfAnotherShard_IsDataLossAndCachesNothing()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 30, 700);
        using var other = TestScoring.Shard(_folder["other"], 30, 700, seed: 2);
        var reference = await ServeAsync(new HashModel());
        await using var stream = new ShardStream(Requests.Of(shard), reference, Store(), new VerifiedShards(), new ScoringOptions(), Requests.Source(other), _metrics, NullLogger.Instance);
        await Assert.ThrowsAsync<CorruptDataException>(async () =>
        {
            await foreach (var _ in stream.RunAsync(default)) { }
        }).WaitAsync(TestScoring.Patience);

        var key = new ScoreKey(reference.Fingerprint, shard.Sha256, "", new ScoreFormat(LossEncoding.F16), new ChunkGrid(30, 700));
        Assert.DoesNotContain(true, await Store().PresentAsync(key, 0, key.Grid.Chunks, default));
        Assert.False(await Store().IsLeasedAsync(key, default));
        Assert.Equal(0, reference.Admission.QueuedTokens);
    }

    [Fact]
    public async Task Run_ShardMetBefore_AsksForTheTokensOfMissingChunksOnly()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 300, 700, withDocuments: true);
        var reference = await ServeAsync(new HashModel());
        var verified = new VerifiedShards();
        var expected = TestScoring.Expected(shard, false);

        // Nobody has seen the shard: all of it, whatever is wanted.
        var (losses, asked) = await ReadRangesAsync(reference, new NoLossStore(), verified, shard, 50, 60);
        Assert.Equal(expected[(50 * 700)..(60 * 700)], losses);
        Assert.Equal([], Assert.Single(asked));

        // Chunks have 23 sequences.
        (losses, asked) = await ReadRangesAsync(reference, new NoLossStore(), verified, shard, 100, 150);
        Assert.Equal(expected[(100 * 700)..(150 * 700)], losses);
        Assert.Equal([new SequenceRange(92, 161)], Assert.Single(asked));

        // What is cached needs no tokens.
        (_, asked) = await ReadRangesAsync(reference, Store(), verified, shard, 100, 150);
        Assert.Equal([new SequenceRange(92, 161)], Assert.Single(asked));
        (losses, asked) = await ReadRangesAsync(reference, Store(), verified, shard, 0, 300);
        Assert.Equal(expected, losses);
        Assert.Equal([new SequenceRange(0, 92), new SequenceRange(161, 300)], Assert.Single(asked));
        (losses, asked) = await ReadRangesAsync(reference, Store(), verified, shard, 0, 300);
        Assert.Equal(expected, losses);
        Assert.Empty(asked);
    }

    [Fact]
    public async Task Run_StreamsOfOneShardAtTheSameTime_SeeAllOfItOnce()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 300, 700);
        var reference = await ServeAsync(new HashModel());
        var verified = new VerifiedShards();
        var results = await Task.WhenAll(Enumerable.Range(0, 6).Select(i => Task.Run(() => ReadRangesAsync(reference, new NoLossStore(), verified, shard, 50 * i, 50 * (i + 1)))))
            .WaitAsync(TestScoring.Patience);
        Assert.Equal(TestScoring.Expected(shard, true), results.SelectMany(result => result.Losses));
        Assert.Single(results, result => result.Asked.Single().Count == 0);
    }

    [Fact]
    public async Task Run_RangeWithOtherTokensOrLayout_IsDataLossAndCachesNothing()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 60, 700, withDocuments: true);
        using var other = TestScoring.Shard(_folder["other"], 60, 700, seed: 2, withDocuments: true);
        var reference = await ServeAsync(new HashModel());
        var verified = new VerifiedShards();
        await ReadRangesAsync(reference, new NoLossStore(), verified, shard, 0, 1);

        foreach (var (sent, documentsSeeEachOther) in new[] { (other, false), (shard, true) })
        {
            await Assert.ThrowsAsync<CorruptDataException>(() => ReadRangesAsync(reference, Store(), verified, shard, 30, 40, new RangeSource(sent, documentsSeeEachOther)))
                .WaitAsync(TestScoring.Patience);
        }

        var key = new ScoreKey(reference.Fingerprint, shard.Sha256, Requests.Of(shard, false).LayoutSha256, new ScoreFormat(LossEncoding.F16), new ChunkGrid(60, 700));
        Assert.DoesNotContain(true, await Store().PresentAsync(key, 0, key.Grid.Chunks, default));
        Assert.False(await Store().IsLeasedAsync(key, default));
    }

    [Fact]
    public async Task Run_FirstStreamOfAShardFails_NextOneSeesAllOfIt()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 60, 700);
        using var other = TestScoring.Shard(_folder["other"], 60, 700, seed: 2);
        var reference = await ServeAsync(new HashModel());
        var verified = new VerifiedShards();
        await Assert.ThrowsAsync<CorruptDataException>(() => ReadRangesAsync(reference, new NoLossStore(), verified, shard, 0, 60, new RangeSource(other, false)))
            .WaitAsync(TestScoring.Patience);
        var (losses, asked) = await ReadRangesAsync(reference, new NoLossStore(), verified, shard, 30, 40).WaitAsync(TestScoring.Patience);
        Assert.Equal(TestScoring.Expected(shard, true)[(30 * 700)..(40 * 700)], losses);
        Assert.Equal([], Assert.Single(asked));
    }

    [Fact]
    public async Task Run_CachedChunksVanishBehindARange_AreAskedForAndScored()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 1600, 700);
        var reference = await ServeAsync(new HashModel());
        var verified = new VerifiedShards();
        await ReadRangesAsync(reference, new NoLossStore(), verified, shard, 0, 1);

        // All but the first segment's chunks are said to be stored until the stream has begun; they never were.
        var store = new ForgetfulStore(Store(), ChunkGrid.SegmentChunks);
        var (losses, asked) = await ReadRangesAsync(reference, store, verified, shard, 0, 1600).WaitAsync(TestScoring.Patience);
        Assert.Equal(TestScoring.Expected(shard, true), losses);
        Assert.Equal([new SequenceRange(0, 23 * ChunkGrid.SegmentChunks)], asked[0]);
        Assert.Equal(1600, asked.Sum(ranges => ranges.Sum(range => range.End - range.First)));
        Assert.True(asked.Count > 1);
    }

    [Fact]
    public async Task Run_ClientSendsNoTokens_EndsAndFreesTheLease()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 30, 700);
        var reference = await ServeAsync(new HashModel());
        var options = new ScoringOptions { UploadPatience = TimeSpan.FromMilliseconds(200) };
        await using var stream = new ShardStream(
            Requests.Of(shard), reference, Store(), new VerifiedShards(), options,
            async token =>
            {
                await Task.Delay(Timeout.Infinite, token);
                return null;
            }, _metrics, NullLogger.Instance);
        await Assert.ThrowsAsync<UnavailableException>(async () =>
        {
            await foreach (var _ in stream.RunAsync(default)) { }
        }).WaitAsync(TestScoring.Patience);
        var (losses, _) = await ReadAsync(reference, Store(), shard);
        Assert.Equal(TestScoring.Expected(shard, true), losses);
    }

    [Fact]
    public async Task Run_QueueFull_IsRefusedWithATimeAndLeavesNoLease()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 100, 700);
        using var other = TestScoring.Shard(_folder["other"], 100, 700, seed: 3);
        var options = new ScoringOptions { MaxQueuedTokens = 100_000 };
        var reference = await ServeAsync(new HashModel { Rate = 10_000 }, options);
        using var stop = new CancellationTokenSource();
        var first = Task.Run(async () =>
        {
            await foreach (var _ in StreamAsync(reference, Store(), shard, options: options, cancellation: stop.Token)) { }
        });
        await WaitForAsync(() => reference.Admission.QueuedTokens > 60_000);
        var refused = await Assert.ThrowsAsync<OverloadedException>(() => ReadAsync(reference, Store(), other, options: options)).WaitAsync(TestScoring.Patience);
        Assert.InRange(refused.RetryAfter.TotalSeconds, 1, 60);
        var key = new ScoreKey(reference.Fingerprint, other.Sha256, "", new ScoreFormat(LossEncoding.F16), new ChunkGrid(100, 700));
        Assert.False(await Store().IsLeasedAsync(key, default));
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => first).WaitAsync(TestScoring.Patience);
    }

    private async Task<(float[] Losses, List<IReadOnlyList<SequenceRange>> Asked)> ReadRangesAsync(
        ServedReference reference, ILossStore store, VerifiedShards verified, TokenShard shard, long first, long end, RangeSource? source = null)
    {
        source ??= new RangeSource(shard, false);
        var request = Requests.Of(shard, documentsSeeEachOther: false, first, end, Guid.NewGuid().ToString()) with { TakesRanges = true };
        await using var stream = new ShardStream(request, reference, store, verified, new ScoringOptions(), source.NextAsync, _metrics, NullLogger.Instance);
        var (losses, asked) = (new List<float>(), new List<IReadOnlyList<SequenceRange>>());
        await foreach (var ready in stream.RunAsync(default))
        {
            if (ready.Wanted is not { } wanted)
            {
                losses.AddRange(ready.Scores.Decode().Losses);
                continue;
            }

            asked.Add(wanted);
            source.Ask(wanted);
        }

        return ([.. losses], asked);
    }

    /// <summary>A client that sends the ranges it is asked for.</summary>
    private sealed class RangeSource(TokenShard shard, bool documentsSeeEachOther)
    {
        private readonly Queue<TokenBlock> _blocks = new();

        public void Ask(IReadOnlyList<SequenceRange> ranges)
        {
            // One block a sequence.
            foreach (var block in Requests.Blocks(shard, documentsSeeEachOther, shard.Length))
                if (ranges.Count == 0 || ranges.Any(range => block.FirstToken / shard.Length >= range.First && block.FirstToken / shard.Length < range.End))
                    _blocks.Enqueue(block);
        }

        public Task<TokenBlock?> NextAsync(CancellationToken cancellation) => Task.FromResult<TokenBlock?>(_blocks.TryDequeue(out var block) ? block : null);
    }

    /// <summary>A store that at its first look says that chunks are stored which are not.</summary>
    private sealed class ForgetfulStore(ILossStore store, int from) : ILossStore
    {
        private bool _looked;

        public string Kind => store.Kind;

        public bool Available => store.Available;

        public string? Trouble => store.Trouble;

        public Task<IReadOnlyList<byte[]>> ReadAsync(ScoreKey key, int first, int count, CancellationToken cancellation) => store.ReadAsync(key, first, count, cancellation);

        public async Task<bool[]> PresentAsync(ScoreKey key, int first, int end, CancellationToken cancellation)
        {
            var present = await store.PresentAsync(key, first, end, cancellation);
            for (var chunk = Math.Max(first, from); !_looked && chunk < end; chunk++) present[chunk - first] = true;
            _looked = true;
            return present;
        }

        public Task<ISegmentLease?> TryLeaseAsync(ScoreKey key, int segment, CancellationToken cancellation) => store.TryLeaseAsync(key, segment, cancellation);

        public Task<bool> IsLeasedAsync(ScoreKey key, CancellationToken cancellation) => store.IsLeasedAsync(key, cancellation);

        public Task<float[]> ProbeAsync(string reference, float[] losses, CancellationToken cancellation) => store.ProbeAsync(reference, losses, cancellation);

        public ValueTask DisposeAsync() => store.DisposeAsync();
    }

    private static async Task WaitForAsync(Func<bool> condition)
    {
        using var patience = new CancellationTokenSource(TestScoring.Patience);
        while (!condition()) await Task.Delay(5, patience.Token);
    }

    private FolderLossStore Store() => new(_folder["cache"], _metrics, NullLogger.Instance);

    private async Task<ServedReference> ServeAsync(HashModel model, ScoringOptions? options = null)
    {
        var reference = await ServedReference.StartAsync(model, options ?? new ScoringOptions(), _metrics, watch: null, default);
        _references.Add(reference);
        return reference;
    }

    private async Task<(float[] Losses, bool AskedForTokens)> ReadAsync(
        ServedReference reference, ILossStore store, TokenShard shard, bool documentsSeeEachOther = true, int first = 0, ScoringOptions? options = null)
    {
        var losses = new List<float>();
        var asked = false;
        await foreach (var part in StreamAsync(reference, store, shard, documentsSeeEachOther, first, options, () => asked = true)) losses.AddRange(part);
        return ([.. losses], asked);
    }

    private async IAsyncEnumerable<float[]> StreamAsync(
        ServedReference reference, ILossStore store, TokenShard shard, bool documentsSeeEachOther = true, int first = 0, ScoringOptions? options = null, Action? onAsked = null,
        [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellation = default)
    {
        var request = Requests.Of(shard, documentsSeeEachOther, first, client: Guid.NewGuid().ToString());
        await using var stream = new ShardStream(
            request, reference, store, new VerifiedShards(), options ?? new ScoringOptions(), Requests.Source(shard, documentsSeeEachOther), _metrics, NullLogger.Instance);
        var next = (long)first * shard.Length;
        await foreach (var ready in stream.RunAsync(cancellation))
        {
            if (ready.NeedsTokens)
            {
                onAsked?.Invoke();
                continue;
            }

            Assert.Equal(next, ready.FirstToken);
            next += ready.Scores.Tokens;
            yield return ready.Scores.Decode().Losses;
        }

        Assert.Equal(shard.Sequences * shard.Length, next);
    }

    /// <summary>A store that is away when it is told to be.</summary>
    private sealed class FlakyStore(ILossStore store) : ILossStore
    {
        public bool IsAway { get; set; }

        public string Kind => store.Kind;

        public bool Available => !IsAway;

        public string? Trouble => IsAway ? "away" : store.Trouble;

        public Task<IReadOnlyList<byte[]>> ReadAsync(ScoreKey key, int first, int count, CancellationToken cancellation) => Here().ReadAsync(key, first, count, cancellation);

        public Task<bool[]> PresentAsync(ScoreKey key, int first, int end, CancellationToken cancellation) => Here().PresentAsync(key, first, end, cancellation);

        public async Task<ISegmentLease?> TryLeaseAsync(ScoreKey key, int segment, CancellationToken cancellation) =>
            await Here().TryLeaseAsync(key, segment, cancellation) is { } lease ? new Lease(this, lease) : null;

        public Task<bool> IsLeasedAsync(ScoreKey key, CancellationToken cancellation) => Here().IsLeasedAsync(key, cancellation);

        public Task<float[]> ProbeAsync(string reference, float[] losses, CancellationToken cancellation) => Here().ProbeAsync(reference, losses, cancellation);

        public ValueTask DisposeAsync() => store.DisposeAsync();

        private ILossStore Here() => IsAway ? throw new StoreUnavailableException("away") : store;

        private sealed class Lease(FlakyStore store, ISegmentLease lease) : ISegmentLease
        {
            public Task WriteAsync(int chunk, ReadOnlyMemory<byte> payload, CancellationToken cancellation) =>
                store.IsAway ? throw new StoreUnavailableException("away") : lease.WriteAsync(chunk, payload, cancellation);

            public ValueTask DisposeAsync() => lease.DisposeAsync();
        }
    }
}
