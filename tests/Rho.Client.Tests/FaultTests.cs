using Rho.Formats;
using Rho.TestSupport;

namespace Rho.Client.Tests;

/// <summary>
/// What befalls services in the field, done to real processes: scorers (the real service over a simulated accelerator) and a
/// real Redis. After each fault all losses arrive, equal to an undisturbed run's, and the work lost is bounded.
/// </summary>
public sealed class FaultTests : IAsyncLifetime
{
    private const int Chunk = 23 * 700; // tokens of a chunk of sequences of 700
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(3);

    private readonly TemporaryFolder _folder = new();
    private readonly List<IAsyncDisposable> _owned = [];
    private TokenShard _shard = null!;
    private float[] _expected = [];

    public ValueTask InitializeAsync()
    {
        _shard = TestScoring.Shard(_folder["shard"], 1000, 700);
        _expected = TestScoring.Expected(_shard, true);
        return ValueTask.CompletedTask;
    }

    public async ValueTask DisposeAsync()
    {
        for (var i = _owned.Count - 1; i >= 0; i--) await _owned[i].DisposeAsync().AsTask().WaitAsync(Patience);
        _shard.Dispose();
        _folder.Dispose();
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task LeaseHolderKilled_OtherGoesOnFromWhatIsCached()
    {
        var redis = await RedisAsync();
        var scorers = new[] { await ScorerAsync(redis, 200_000), await ScorerAsync(redis, 200_000) };
        var client = Client(scorers);
        StubScorer? killed = null;
        var reached = 0L;
        var losses = await ReadAsync(client, async block =>
        {
            if (killed is not null || block.FirstSequence < 300) return;
            killed = await BusiestAsync(client, scorers);
            killed.Kill();
            reached = block.FirstSequence * 700L;
        });

        Assert.Equal(_expected, losses);
        var other = scorers.Single(scorer => scorer != killed);
        // What the killed one had sent was cached; at most the chunks it had not written are scored again.
        Assert.InRange(await other.MetricAsync("rho_scoring_tokens_scored_total"), 1, 700_000 - reached + 2 * Chunk);
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task LeaseHolderFrozen_OtherTakesOverAndItsLateWritesAreRefused()
    {
        var redis = await RedisAsync();
        var scorers = new[] { await ScorerAsync(redis, 200_000), await ScorerAsync(redis, 200_000) };
        var client = Client(scorers, stall: TimeSpan.FromSeconds(6));
        StubScorer? frozen = null;
        var reached = 0L;
        var losses = await ReadAsync(client, async block =>
        {
            if (frozen is not null || block.FirstSequence < 300) return;
            frozen = await BusiestAsync(client, scorers);
            await frozen.FreezeAsync();
            reached = block.FirstSequence * 700L;
        });
        Assert.Equal(_expected, losses);
        // What the frozen one had sent was cached; at most the chunks it had not written are scored again.
        Assert.InRange(await scorers.Single(scorer => scorer != frozen).MetricAsync("rho_scoring_tokens_scored_total"), 1, 700_000 - reached + 2 * Chunk);

        await frozen!.ThawAsync();
        await EventuallyAsync(async () => await frozen.MetricAsync("rho_scoring_streams") == 0);
        Assert.Equal(_expected, await ReadAsync(Client([frozen])));
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task RedisKilledAndBackEmpty_ScoringGoesOnAndCachesAgain()
    {
        var redis = await RedisAsync();
        var scorer = await ScorerAsync(redis, 200_000);
        var (killed, back) = (false, false);
        var losses = await ReadAsync(Client([scorer]), async block =>
        {
            if (!killed && block.FirstSequence > 200)
            {
                killed = true;
                redis.Kill();
            }

            if (killed && !back && block.FirstSequence > 500)
            {
                Assert.Contains("scoring without cache", await scorer.HealthAsync(), StringComparison.Ordinal);
                back = true;
                await redis.RestartAsync();
            }
        });

        Assert.Equal(_expected, losses);
        Assert.Equal(700_000, await scorer.MetricAsync("rho_scoring_tokens_scored_total"));
        await EventuallyAsync(async () => !(await scorer.HealthAsync()).Contains("without cache", StringComparison.Ordinal));
        Assert.True(int.Parse((await redis.CommandAsync("DBSIZE"))[1..]) > 2, "nothing was cached after Redis came back");

        // What Redis forgot is scored again, once; then all is there.
        Assert.Equal(_expected, await ReadAsync(Client([scorer])));
        var scored = await scorer.MetricAsync("rho_scoring_tokens_scored_total");
        Assert.InRange(scored, 700_001, 1_400_000);
        Assert.Equal(_expected, await ReadAsync(Client([scorer])));
        Assert.Equal(scored, await scorer.MetricAsync("rho_scoring_tokens_scored_total"));
    }

    [Fact]
    public async Task RedisOutOfMemory_ScoringGoesOnUncached()
    {
        var redis = await RedisAsync("--maxmemory", "2mb", "--maxmemory-policy", "noeviction");
        var scorers = new[] { await ScorerAsync(redis, 400_000), await ScorerAsync(redis, 400_000) };
        var both = await Task.WhenAll(ReadAsync(Client([scorers[0]])), ReadAsync(Client([scorers[1]])));
        Assert.Equal(_expected, both[0]);
        Assert.Equal(_expected, both[1]);
        Assert.True(await scorers[0].MetricAsync("rho_scoring_cache_failures_total") + await scorers[1].MetricAsync("rho_scoring_cache_failures_total") > 0);
        // Whoever was refused says so; reading goes on.
        await EventuallyAsync(async () => (await scorers[0].HealthAsync() + await scorers[1].HealthAsync()).Contains("is full (OOM", StringComparison.Ordinal));
        await EventuallyAsync(async () => await scorers[0].MetricAsync("rho_scoring_cache_impaired") + await scorers[1].MetricAsync("rho_scoring_cache_impaired") >= 1);
        Assert.Equal(1, await scorers[0].MetricAsync("rho_scoring_cache_available"));
    }

    [Fact]
    public async Task CacheBytesCorrupted_AreDroppedCountedAndScoredAgain()
    {
        var redis = await RedisAsync();
        var scorer = await ScorerAsync(redis, 0);
        Assert.Equal(_expected, await ReadAsync(Client([scorer])));
        await redis.CommandAsync(
            "EVAL", "for _, k in ipairs(redis.call('KEYS', '*:f16:*')) do local n = tonumber(string.match(k, '(%d+)$')) if n and n % 7 == 0 then redis.call('SETRANGE', k, 999 + n, 'damaged') end end", "0");
        Assert.Equal(_expected, await ReadAsync(Client([scorer])));
        Assert.Equal(7, await scorer.MetricAsync("rho_scoring_cache_corrupt_total"));
        Assert.InRange(await scorer.MetricAsync("rho_scoring_tokens_scored_total"), 700_001, 700_000 + 7 * Chunk);
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task ClientStopsReading_OthersGoOnAndMemoryStaysFlat()
    {
        var redis = await RedisAsync();
        var scorer = await ScorerAsync(redis, 0);
        var stuck = new List<IAsyncEnumerator<LossBlock>>();
        var shards = Enumerable.Range(0, 10).Select(i => TestScoring.Shard(_folder[$"stuck{i}"], 1000, 700, seed: 50 + i)).ToList();
        foreach (var shard in shards)
        {
            // One block fetched and one read: then the stream is left standing.
            var reader = Client([scorer], prefetch: 1).ScoreShardAsync(shard, true).GetAsyncEnumerator();
            Assert.True(await reader.MoveNextAsync().AsTask().WaitAsync(Patience));
            stuck.Add(reader);
        }

        await Task.Delay(2000);
        var before = scorer.ResidentBytes;
        for (var i = 0; i < 5; i++)
        {
            using var other = TestScoring.Shard(_folder[$"other{i}"], 1000, 700, seed: 80 + i);
            Assert.Equal(TestScoring.Expected(other, true), await ReadAsync(Client([scorer]), shard: other));
        }

        Assert.InRange(scorer.ResidentBytes - before, long.MinValue, 60L << 20);
        for (var i = 0; i < stuck.Count; i++)
        {
            // They lose nothing by it.
            var losses = new List<float>(stuck[i].Current.Losses);
            while (await stuck[i].MoveNextAsync().AsTask().WaitAsync(Patience)) losses.AddRange(stuck[i].Current.Losses);
            Assert.Equal(TestScoring.Expected(shards[i], true), losses);
            await stuck[i].DisposeAsync();
            shards[i].Dispose();
        }
    }

    [Fact]
    public async Task ClientVanishes_ItsWorkIsFreedAndOthersGoOn()
    {
        var scorer = await StubScorer.StartAsync("rate=100000", $"cache={_folder["cache"]}");
        _owned.Add(scorer);
        var wire = new TcpProxy(new Uri($"http://{scorer.Address}"));
        _owned.Add(wire);
        var vanishing = Client(wire.Address);
        await using var reader = vanishing.ScoreShardAsync(_shard, true).GetAsyncEnumerator();
        Assert.True(await reader.MoveNextAsync().AsTask().WaitAsync(Patience));
        wire.Cut();
        await EventuallyAsync(async () => await scorer.MetricAsync("rho_scoring_streams") == 0 && await scorer.MetricAsync("rho_scoring_queue_tokens") == 0);

        using var small = TestScoring.Shard(_folder["small"], 50, 700, seed: 9);
        Assert.Equal(TestScoring.Expected(small, true), await ReadAsync(Client([scorer]), shard: small));
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task TwoHundredStreams_AllGetTheirLosses()
    {
        var redis = await RedisAsync();
        var scorers = new[] { await ScorerAsync(redis, 0), await ScorerAsync(redis, 0) };
        var clients = Enumerable.Range(0, 10).Select(_ => Client(scorers)).ToList();
        var shards = Enumerable.Range(0, 100).Select(i => TestScoring.Shard(_folder[$"s{i}"], 60, 700, seed: 200 + i)).ToList();
        var results = await Task.WhenAll(Enumerable.Range(0, 200).Select(i => ReadAsync(clients[i % 10], shard: shards[i / 2])));
        for (var i = 0; i < 200; i++) Assert.Equal(TestScoring.Expected(shards[i / 2], true), results[i]);

        // Two streams of each shard: scored once.
        var scored = await scorers[0].MetricAsync("rho_scoring_tokens_scored_total") + await scorers[1].MetricAsync("rho_scoring_tokens_scored_total");
        Assert.Equal(100 * 60 * 700, scored);
        foreach (var scorer in scorers) await EventuallyAsync(async () => await scorer.MetricAsync("rho_scoring_streams") == 0);
        shards.ForEach(shard => shard.Dispose());
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task RollingRestartUnderLoad_CostsNoLoss()
    {
        var redis = await RedisAsync();
        var scorers = new List<StubScorer> { await ScorerAsync(redis, 200_000), await ScorerAsync(redis, 200_000), await ScorerAsync(redis, 200_000) };
        var shards = Enumerable.Range(0, 6).Select(i => TestScoring.Shard(_folder[$"r{i}"], 600, 700, seed: 300 + i)).ToList();
        var client = Client(scorers);
        var reading = Task.WhenAll(shards.Select(shard => ReadAsync(client, shard: shard)));
        var replaced = 0L;
        foreach (var old in scorers.Take(2).ToList())
        {
            await Task.Delay(1500);
            replaced += await old.StopAsync();
        }

        var results = await reading.WaitAsync(Patience);
        for (var i = 0; i < shards.Count; i++) Assert.Equal(TestScoring.Expected(shards[i], true), results[i]);
        var scored = replaced + await scorers[2].MetricAsync("rho_scoring_tokens_scored_total");
        // All tokens once, and of each of the six streams the two chunks that a replica that stopped had in flight.
        Assert.InRange(scored, 6 * 420_000, 6 * 420_000 + 2 * 6 * 2 * Chunk);
        shards.ForEach(shard => shard.Dispose());
    }

    [Fact]
    public Task MixedLoad_LeavesNothingBehind() => MixedLoadAsync(rounds: 15);

    [Fact]
    [Trait("Category", "Slow")]
    public Task MixedLoad_ForLong_LeavesNothingBehind() => MixedLoadAsync(rounds: 600);

    /// <summary>New shards, cached ones, single sequences, and clients that leave, from several clients at once.</summary>
    private async Task MixedLoadAsync(int rounds)
    {
        var scorer = await StubScorer.StartAsync("rate=0", $"cache={_folder["cache"]}");
        _owned.Add(scorer);
        await Task.WhenAll(Enumerable.Range(0, 4).Select(i => RunAsync(i, 5)));
        var before = scorer.ResidentBytes;
        await Task.WhenAll(Enumerable.Range(0, 4).Select(i => RunAsync(i + 4, rounds)));
        await EventuallyAsync(async () => await scorer.MetricAsync("rho_scoring_streams") == 0 && await scorer.MetricAsync("rho_scoring_queue_tokens") == 0);
        Assert.InRange(scorer.ResidentBytes - before, long.MinValue, 400L << 20); // a heap may grow with the machine, a leak grows with the rounds

        async Task RunAsync(int index, int times)
        {
            var client = Client([scorer]);
            for (var round = 0; round < times; round++)
            {
                using var shard = TestScoring.Shard(_folder[$"mixed{index}"], 60, 700, seed: 1000 * index + round);
                Assert.Equal(TestScoring.Expected(shard, true), await ReadAsync(client, shard: shard));
                Assert.Equal(TestScoring.Expected(shard, true), await ReadAsync(client, shard: shard));
                await foreach (var _ in client.ScoreShardAsync(_shard, true)) break;
                var sequences = Enumerable.Range(0, 10).Select(i => new SequenceTokens((ulong)i, [.. Enumerable.Range(0, 50 * (i + 1)).Select(t => t % 1000)]));
                Assert.Equal(10, await client.ScoreAsync(sequences.ToAsyncEnumerable()).CountAsync());
            }
        }
    }

    private static async Task EventuallyAsync(Func<Task<bool>> condition)
    {
        using var patience = new CancellationTokenSource(Patience);
        while (!await condition()) await Task.Delay(50, patience.Token);
    }

    private static async Task<StubScorer> BusiestAsync(ScorerClient client, IEnumerable<StubScorer> scorers)
    {
        var busy = (await client.InfoAsync()).MaxBy(info => info.QueuedTokens)!;
        return scorers.Single(scorer => scorer.Address == busy.Address);
    }

    private async Task<float[]> ReadAsync(ScorerClient client, Func<LossBlock, Task>? onBlock = null, TokenShard? shard = null)
    {
        using var patience = new CancellationTokenSource(Patience);
        var losses = new List<float>();
        await foreach (var block in client.ScoreShardAsync(shard ?? _shard, true, 0, patience.Token))
        {
            losses.AddRange(block.Losses);
            if (onBlock is not null) await onBlock(block);
        }

        return [.. losses];
    }

    private async Task<RedisServer> RedisAsync(params string[] arguments)
    {
        var redis = await RedisServer.StartAsync(arguments);
        _owned.Add(redis);
        return redis;
    }

    private async Task<StubScorer> ScorerAsync(RedisServer redis, int rate)
    {
        var scorer = await StubScorer.StartAsync($"rate={rate}", $"redis={redis.Address}");
        _owned.Add(scorer);
        return scorer;
    }

    private ScorerClient Client(IEnumerable<StubScorer> scorers, TimeSpan? stall = null, int prefetch = 8) => Own(new ScorerClient(new ScorerClientOptions
    {
        Addresses = [.. scorers.Select(scorer => scorer.Address)],
        StallTimeout = stall ?? TimeSpan.FromSeconds(20),
        PrefetchBlocks = prefetch,
        Budget = TimeSpan.FromMinutes(2),
    }));

    private ScorerClient Client(string address) => Own(new ScorerClient(new ScorerClientOptions { Addresses = [address], Budget = TimeSpan.FromSeconds(1) }));

    private ScorerClient Own(ScorerClient client)
    {
        _owned.Add(client);
        return client;
    }
}
