using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Rho.Formats;
using Rho.Scoring.Caching;
using Rho.Scoring.Shards;
using Rho.TestSupport;
using StackExchange.Redis;

namespace Rho.Scoring.Tests;

/// <summary>
/// What replicas rely on when they share a cache: one holder of a lease at a time, and losses that are right or missing whatever key
/// vanishes and whoever is late. On every server that the README calls one that works.
/// </summary>
public sealed class SharedCacheTests : IDisposable
{
    private readonly ScoringMetrics _metrics = new();

    public static TheoryData<string> Servers => CacheServer.Kinds;

    public void Dispose() => _metrics.Dispose();

    [Theory]
    [MemberData(nameof(Servers))]
    public Task TryLease_StoresRace_OneHolds(string kind) => RaceAsync(kind, rounds: 300);

    [Theory]
    [MemberData(nameof(Servers))]
    [Trait("Category", "Slow")]
    public Task TryLease_StoresRaceForLong_OneHolds(string kind) => RaceAsync(kind, rounds: 10_000);

    [Theory]
    [MemberData(nameof(Servers))]
    public async Task Release_WhileTheLeaseExpires_FreesNobodyElses(string kind)
    {
        await using var server = await CacheServer.StartAsync(kind);
        await using var first = await StoreAsync(server);
        await using var second = await StoreAsync(server);
        var key = LossStoreTests.Key();
        for (var round = 0; round < 300; round++)
        {
            var late = await first.TryLeaseAsync(key, 0, default);
            Assert.NotNull(late);
            // It expires about when its holder releases it and the other store takes it.
            await server.Database.KeyExpireAsync(LeaseKey(key), TimeSpan.FromMilliseconds(1 + round % 3));
            var taking = Task.Run(async () =>
            {
                ISegmentLease? taken;
                while ((taken = await second.TryLeaseAsync(key, 0, default)) is null)
                {
                }

                return taken;
            });
            if (round % 2 == 0) await Task.Delay(round % 4);
            await late.DisposeAsync();
            await using var next = await taking.WaitAsync(TestScoring.Patience);
            Assert.Null(await first.TryLeaseAsync(key, 0, default));
        }
    }

    [Theory]
    [MemberData(nameof(Servers))]
    public async Task Write_LeaseKeyVanished_IsToldAndNobodyIsHarmed(string kind)
    {
        await using var server = await CacheServer.StartAsync(kind);
        await using var first = await StoreAsync(server);
        await using var second = await StoreAsync(server);
        var key = LossStoreTests.Key();
        var old = await first.TryLeaseAsync(key, 0, default);
        await old!.WriteAsync(0, LossStoreTests.Payload(key, 0), default);

        // Evicted, say: the holder learns it with its next write, before or after somebody else takes the lease.
        Assert.True(await server.Database.KeyDeleteAsync(LeaseKey(key)));
        var next = await second.TryLeaseAsync(key, 0, default);
        Assert.NotNull(next);
        await Assert.ThrowsAsync<LeaseLostException>(() => old.WriteAsync(1, LossStoreTests.Payload(key, 1), default));
        await Assert.ThrowsAsync<LeaseLostException>(() => old.WriteAsync(2, LossStoreTests.Payload(key, 2), default));
        await old.DisposeAsync();
        Assert.Null(await first.TryLeaseAsync(key, 0, default));
        await next.WriteAsync(1, LossStoreTests.Payload(key, 1), default);

        Assert.True(await server.Database.KeyDeleteAsync(LeaseKey(key)));
        await Assert.ThrowsAsync<LeaseLostException>(() => next.WriteAsync(3, LossStoreTests.Payload(key, 3), default));
        await next.DisposeAsync();
        await LossStoreTests.WriteAllAsync(first, key);
        await AssertAllReadAsync(second, key);
    }

    [Theory]
    [MemberData(nameof(Servers))]
    public async Task Write_LateAfterAFlush_ChangesNothingThatIsStored(string kind)
    {
        await using var server = await CacheServer.StartAsync(kind);
        await using var first = await StoreAsync(server);
        await using var second = await StoreAsync(server);
        foreach (var key in new[] { LossStoreTests.Key(), LossStoreTests.Key(LossEncoding.F32, topK: 8) })
        {
            await using var old = await first.TryLeaseAsync(key, 0, default);
            await old!.WriteAsync(0, LossStoreTests.Payload(key, 0), default);
            await server.FlushAsync();
            await using var next = await second.TryLeaseAsync(key, 0, default);
            await next!.WriteAsync(0, LossStoreTests.Payload(key, 0), default);

            // On another processor losses may be rounded differently: other bytes, as right as these. Readers keep seeing one of them.
            await Assert.ThrowsAsync<LeaseLostException>(() => old.WriteAsync(0, Other(key, 0), default));
            for (var chunk = 1; chunk < key.Grid.Chunks; chunk++) await next.WriteAsync(chunk, LossStoreTests.Payload(key, chunk), default);
            await AssertAllReadAsync(first, key);
        }
    }

    [Theory]
    [MemberData(nameof(Servers))]
    public async Task Read_PartsOfTwoWriters_AreTakenForDamageAndWrittenAgain(string kind)
    {
        await using var server = await CacheServer.StartAsync(kind);
        await using var store = await StoreAsync(server);
        var key = LossStoreTests.Key(LossEncoding.F32, topK: 8);
        await LossStoreTests.WriteAllAsync(store, key);

        // A part is evicted, and a writer whose losses are rounded differently fills the gap.
        await server.Database.KeyDeleteAsync(ChunkKey(key, 1) + ":2");
        Assert.Equal(new[] { true, false, true, true }, await store.PresentAsync(key, 0, 4, default));
        await using (var lease = await store.TryLeaseAsync(key, 0, default)) await lease!.WriteAsync(1, Other(key, 1), default);
        using (var counter = new CorruptCounter(_metrics))
        {
            Assert.Empty(await store.ReadAsync(key, 1, 1, default));
            Assert.Equal(1, counter.Count);
        }

        Assert.Equal(new[] { true, false, true, true }, await store.PresentAsync(key, 0, 4, default));
        await using (var lease = await store.TryLeaseAsync(key, 0, default)) await lease!.WriteAsync(1, LossStoreTests.Payload(key, 1), default);
        await AssertAllReadAsync(store, key);
    }

    [Theory]
    [MemberData(nameof(Servers))]
    public async Task Score_LeasesAndChunksVanishMidWay_AllLossesArriveAtAllReplicas(string kind)
    {
        await using var server = await CacheServer.StartAsync(kind);
        using var folder = new TemporaryFolder();
        using var shard = TestScoring.Shard(folder["shard"], 1200, 700);
        var expected = TestScoring.Expected(shard, true);
        using var stop = new CancellationTokenSource();
        var evicting = EvictAsync();
        var replicas = Enumerable.Range(0, 3).Select(_ => ScoreAsync()).ToArray();
        var results = await Task.WhenAll(replicas).WaitAsync(TestScoring.Patience);
        await stop.CancelAsync();
        Assert.True(await evicting > 0);
        Assert.All(results, losses => Assert.Equal(expected, losses));

        async Task<float[]> ScoreAsync()
        {
            using var reference = await ServedReference.StartAsync(new HashModel { Rate = 400_000 }, new ScoringOptions(), _metrics, watch: null, default);
            await using var store = await StoreAsync(server);
            await using var stream = new ShardStream(
                Requests.Of(shard, client: Guid.NewGuid().ToString()), reference, store, new VerifiedShards(), new ScoringOptions(), Requests.Source(shard), _metrics, NullLogger.Instance);
            var losses = new List<float>();
            await foreach (var ready in stream.RunAsync(default))
            {
                if (ready.NeedsTokens) continue;
                losses.AddRange(ready.Scores.Decode().Losses);
            }

            return [.. losses];
        }

        async Task<long> EvictAsync()
        {
            var random = new Random(3);
            var evicted = 0L;
            while (!stop.IsCancellationRequested)
            {
                await foreach (var name in server.Admin.GetServers()[0].KeysAsync(pattern: "rho:*"))
                    if (random.Next(4) == 0 && await server.Database.KeyDeleteAsync(name))
                        evicted++;
                await Task.Delay(50);
            }

            return evicted;
        }
    }

    [Fact]
    public async Task Read_ServerDropsTheOldestKeys_GivesRightPayloadsOrNone()
    {
        await using var server = await CacheServer.StartAsync(CacheServer.SmallGarnet);
        await using var store = await StoreAsync(server);
        Assert.Null(store.Trouble);
        var key = LossStoreTests.Key(sequences: 16 * 30 * 32);
        var present = 0;
        for (var segment = 0; segment < key.Grid.Segments; segment++)
        {
            var lease = await store.TryLeaseAsync(key, segment, default);
            Assert.NotNull(lease);
            for (var chunk = segment * ChunkGrid.SegmentChunks; chunk < Math.Min(key.Grid.Chunks, (segment + 1) * ChunkGrid.SegmentChunks); chunk++)
            {
                try
                {
                    await lease!.WriteAsync(chunk, LossStoreTests.Payload(key, chunk), default);
                }
                catch (LeaseLostException)
                {
                    // Dropped as the oldest key there is.
                    lease = await store.TryLeaseAsync(key, segment, default);
                    Assert.NotNull(lease);
                }
            }

            await lease!.DisposeAsync();
        }

        for (var chunk = 0; chunk < key.Grid.Chunks; chunk++)
        {
            if (await store.ReadAsync(key, chunk, 1, default) is not [var payload]) continue;
            Assert.Equal(LossStoreTests.Payload(key, chunk), payload);
            present++;
        }

        Assert.InRange(present, 1, key.Grid.Chunks - 1);
    }

    [Theory]
    [MemberData(nameof(Servers))]
    public async Task Connect_ServerThatWorks_HasNoTroubleAndLeavesNoKeys(string kind)
    {
        await using var server = await CacheServer.StartAsync(kind);
        await using var store = await StoreAsync(server);
        Assert.True(store.Available);
        Assert.Null(store.Trouble);
        Assert.Empty(await server.Admin.GetServers()[0].KeysAsync().ToListAsync());
    }

    [Theory]
    [InlineData("volatile-lru", false, "--ttl")]
    [InlineData("volatile-lru", true, null)]
    [InlineData("volatile-ttl", true, "allkeys-lru")]
    [InlineData("allkeys-lru", false, null)]
    [InlineData("noeviction", false, null)]
    public async Task Connect_EvictionPolicy_SaysWhatDoesNotFit(string policy, bool withTimeToLive, string? advice)
    {
        await using var redis = await RedisServer.StartAsync("--maxmemory", "100mb", "--maxmemory-policy", policy);
        await using var store = await StoreAsync(redis.Address, timeToLive: withTimeToLive ? TimeSpan.FromHours(1) : null);
        Assert.True(store.Available);
        if (advice is null) Assert.Null(store.Trouble);
        else Assert.Contains(advice, store.Trouble, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Connect_PasswordMissing_SaysSo()
    {
        await using var redis = await RedisServer.StartAsync();
        await redis.CommandAsync("CONFIG", "SET", "requirepass", "secret");
        var error = await Assert.ThrowsAsync<RhoException>(() => StoreAsync(redis.Address)).WaitAsync(TestScoring.Patience);
        Assert.Contains("password=", error.Message, StringComparison.Ordinal);
        await using var store = await StoreAsync(redis.Address + ",password=secret");
        Assert.Null(store.Trouble);
        error = await Assert.ThrowsAsync<RhoException>(() => StoreAsync(redis.Address + ",password=wrong-one")).WaitAsync(TestScoring.Patience);
        Assert.DoesNotContain("wrong-one", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("-set,-setnx", "NOPERM")]
    [InlineData("-expire,-pexpire", "NOPERM")]
    [InlineData("-multi", "MULTI")]
    public async Task Connect_UserMayNotDoAll_SaysWhatIsRefused(string denied, string said)
    {
        await using var redis = await RedisServer.StartAsync();
        await redis.CommandAsync(["ACL", "SETUSER", "scorer", "on", ">secret", "~rho:*", "+@all", .. denied.Split(',')]);
        await using var store = await StoreAsync(redis.Address + ",user=scorer,password=secret");
        Assert.True(store.Available);
        Assert.Contains(said, store.Trouble, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Redis_Full_IsSaidOnceAndUntilThereIsRoom()
    {
        await using var redis = await RedisServer.StartAsync("--maxmemory", "3mb", "--maxmemory-policy", "noeviction");
        var log = new Lines();
        await using var store = await StoreAsync(redis.Address, logger: log);
        Assert.Null(store.Trouble);
        var key = LossStoreTests.Key(sequences: 2000);
        await using (var lease = await store.TryLeaseAsync(key, 0, default))
        {
            var refused = 0;
            for (var round = 0; refused < 5; round++)
            {
                // Distinct keys until there is no room, and some more.
                Assert.InRange(round, 0, 200);
                var exception = await Record.ExceptionAsync(() => round < 32 ? lease!.WriteAsync(round, LossStoreTests.Payload(key, round), default) : store.ProbeAsync($"{round}", new float[8_000], default));
                if (exception is StoreUnavailableException) refused++;
                else Assert.Null(exception);
            }
        }

        Assert.Contains("is full (OOM", store.Trouble, StringComparison.Ordinal);
        Assert.True(store.Available);
        Assert.NotEmpty(await store.ReadAsync(key, 0, 4, default));
        Assert.Single(log.Warnings, line => line.Contains("is full", StringComparison.Ordinal));

        await redis.CommandAsync("CONFIG", "SET", "maxmemory-policy", "allkeys-lru");
        await EventuallyAsync(() => store.Trouble is null);
        await LossStoreTests.WriteAllAsync(store, LossStoreTests.Key(sequences: 100));
        Assert.Single(log.Warnings);
    }

    [Fact]
    public async Task Redis_Frozen_CountsAsAwayWhileItLasts()
    {
        await using var redis = await RedisServer.StartAsync();
        await using var store = await StoreAsync(redis.Address);
        var key = LossStoreTests.Key();
        await LossStoreTests.WriteAllAsync(store, key);
        await redis.CommandAsync("CLIENT", "PAUSE", "5000", "ALL");
        await EventuallyAsync(() => !store.Available);
        Assert.Contains("does not answer", store.Trouble, StringComparison.Ordinal);
        await Assert.ThrowsAsync<StoreUnavailableException>(() => store.ReadAsync(key, 0, 1, default));
        await EventuallyAsync(() => store.Available);
        Assert.Null(store.Trouble);
        await AssertAllReadAsync(store, key);
    }

    [Fact]
    public async Task Redis_ReplacedByAReadOnlyReplica_IsTriedAgainAndSaid()
    {
        await using var redis = await RedisServer.StartAsync();
        await using var store = await StoreAsync(redis.Address);
        Assert.Null(store.Trouble);
        // The connection breaks, and what answers next at this address is set up differently, between two looks at whether it answers.
        await redis.CommandAsync("CONFIG", "SET", "maxmemory", "100mb");
        await redis.CommandAsync("CONFIG", "SET", "maxmemory-policy", "volatile-lru");
        await redis.CommandAsync("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
        await EventuallyAsync(() => store.Trouble?.Contains("volatile-lru", StringComparison.Ordinal) is true);
        await redis.CommandAsync("REPLICAOF", "127.0.0.1", "1");
        await redis.CommandAsync("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
        await EventuallyAsync(() => store.Trouble?.Contains("read-only replica", StringComparison.Ordinal) is true);
        await redis.CommandAsync("REPLICAOF", "NO", "ONE");
        await redis.CommandAsync("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
        await redis.CommandAsync("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu");
        await EventuallyAsync(() => store.Trouble is null);
    }

    [Fact]
    public async Task Write_Chunk_CostsOneSetAPartAndOneGet()
    {
        await using var server = await CacheServer.StartAsync(CacheServer.Redis);
        await using var store = await StoreAsync(server);
        var admin = server.Admin.GetServers()[0];
        foreach (var (key, parts) in new[] { (LossStoreTests.Key(sequences: 500), 1), (LossStoreTests.Key(LossEncoding.F32, topK: 8, sequences: 500), 14) })
        {
            var payloads = Enumerable.Range(0, 30).Select(chunk => LossStoreTests.Payload(key, chunk)).ToArray();
            await using var lease = await store.TryLeaseAsync(key, 0, default);
            await admin.ExecuteAsync("CONFIG", "RESETSTAT");
            for (var chunk = 0; chunk < payloads.Length; chunk++) await lease!.WriteAsync(chunk, payloads[chunk], default);
            var counts = await CountsAsync();
            Assert.Equal(payloads.Length * parts, counts["setnx"]);
            Assert.Equal(payloads.Length, counts.GetValueOrDefault("get"));
            Assert.Empty(counts.Keys.Except(["setnx", "get", "ping", "config", "info", "pexpire", "expire"], StringComparer.Ordinal));
            var received = (await admin.InfoAsync("stats")).SelectMany(section => section).Single(pair => pair.Key == "total_net_input_bytes").Value;
            // Over the payload: keys, headers and the words of the commands; pings and this test's own commands.
            Assert.InRange(long.Parse(received), 0, payloads.Sum(payload => (long)payload.Length) + payloads.Length * (200 + 300 * parts) + 1000);
        }

        async Task<Dictionary<string, int>> CountsAsync() => (await admin.InfoAsync("commandstats")).SelectMany(section => section)
            .GroupBy(pair => pair.Key["cmdstat_".Length..].Split('|')[0], StringComparer.Ordinal)
            .ToDictionary(group => group.Key, group => group.Sum(pair => int.Parse(pair.Value["calls=".Length..pair.Value.IndexOf(',', StringComparison.Ordinal)])), StringComparer.Ordinal);
    }

    /// <summary>A chunk's payload as another writer has it.</summary>
    private static byte[] Other(ScoreKey key, int chunk)
    {
        var payload = LossStoreTests.Payload(key, chunk);
        for (var i = 0; i < payload.Length; i += 1000) payload[i] ^= 1;
        return payload;
    }

    private static RedisKey LeaseKey(ScoreKey key) => Prefix(key) + ":lease:0";

    private static string ChunkKey(ScoreKey key, int chunk) => $"{Prefix(key)}:{chunk}";

    private static string Prefix(ScoreKey key) => $"rho:{{{key.Reference}:{key.Shard}}}:plain:{key.Format}";

    private static async Task EventuallyAsync(Func<bool> condition)
    {
        using var patience = new CancellationTokenSource(TestScoring.Patience);
        while (!condition()) await Task.Delay(20, patience.Token);
    }

    private static async Task AssertAllReadAsync(ILossStore store, ScoreKey key)
    {
        var read = new List<byte[]>();
        while (read.Count < key.Grid.Chunks)
        {
            var more = await store.ReadAsync(key, read.Count, key.Grid.Chunks - read.Count, default);
            Assert.NotEmpty(more);
            read.AddRange(more);
        }

        for (var chunk = 0; chunk < key.Grid.Chunks; chunk++) Assert.Equal(LossStoreTests.Payload(key, chunk), read[chunk]);
    }

    private async Task RaceAsync(string kind, int rounds)
    {
        await using var server = await CacheServer.StartAsync(kind);
        var stores = new[] { await StoreAsync(server), await StoreAsync(server), await StoreAsync(server) };
        var key = LossStoreTests.Key();
        for (var round = 0; round < rounds; round++)
        {
            var leases = await Task.WhenAll(stores.Select(store => Task.Run(() => store.TryLeaseAsync(key, 0, default))));
            await using var held = Assert.Single(leases, lease => lease is not null);
        }

        foreach (var store in stores) await store.DisposeAsync();
    }

    private Task<RedisLossStore> StoreAsync(CacheServer server) => StoreAsync(server.Address);

    private Task<RedisLossStore> StoreAsync(string address, TimeSpan? timeToLive = null, ILogger? logger = null) =>
        RedisLossStore.ConnectAsync(new RedisOptions { Configuration = address, TimeToLive = timeToLive }, _metrics, logger ?? NullLogger.Instance);

    /// <summary>Warnings that were logged.</summary>
    private sealed class Lines : ILogger
    {
        private readonly System.Collections.Concurrent.ConcurrentQueue<string> _warnings = new();

        public IReadOnlyCollection<string> Warnings => _warnings;

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel >= LogLevel.Warning;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            if (IsEnabled(logLevel)) _warnings.Enqueue(formatter(state, exception));
        }
    }
}

/// <summary>What every store promises, on Garnet as it is without any setting.</summary>
public sealed class GarnetLossStoreTests : LossStoreTests, IDisposable
{
    private readonly ScoringMetrics _metrics = new();

    public void Dispose() => _metrics.Dispose();

    private protected override async Task<Pair> OpenAsync()
    {
        var server = await CacheServer.StartAsync(CacheServer.Garnet);
        return new Pair(await StoreAsync(server), await StoreAsync(server), null, server);
    }

    private Task<RedisLossStore> StoreAsync(CacheServer server) =>
        RedisLossStore.ConnectAsync(new RedisOptions { Configuration = server.Address }, _metrics, NullLogger.Instance);
}
