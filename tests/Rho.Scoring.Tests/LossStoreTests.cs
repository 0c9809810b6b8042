using Microsoft.Extensions.Logging.Abstractions;
using Rho.Formats;
using Rho.Scoring.Caching;
using Rho.TestSupport;

namespace Rho.Scoring.Tests;

/// <summary>What every store promises. Each test runs on a folder and on a real Redis.</summary>
public abstract class LossStoreTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    [Theory]
    [InlineData(LossEncoding.F16, 0)]
    [InlineData(LossEncoding.F32, 8)] // more than one value per chunk in Redis
    [InlineData(LossEncoding.Log8, 0)]
    public async Task Write_ThenRead_GivesTheSameBytes(LossEncoding encoding, int topK)
    {
        await using var stores = await OpenAsync();
        var key = Key(encoding, topK, sequences: 50);
        await using (var lease = await stores.First.TryLeaseAsync(key, 0, None))
        {
            Assert.NotNull(lease);
            for (var chunk = 0; chunk < key.Grid.Chunks; chunk++) await lease.WriteAsync(chunk, Payload(key, chunk), None);
        }

        foreach (var store in new[] { stores.First, stores.Second })
        {
            var read = new List<byte[]>();
            while (read.Count < key.Grid.Chunks) read.AddRange(await store.ReadAsync(key, read.Count, key.Grid.Chunks - read.Count, None));
            for (var chunk = 0; chunk < key.Grid.Chunks; chunk++) Assert.Equal(Payload(key, chunk), read[chunk]);
            Assert.All(await store.PresentAsync(key, 0, key.Grid.Chunks, None), Assert.True);
        }
    }

    [Fact]
    public async Task Read_SomeChunksMissing_StopsAtTheFirstGap()
    {
        await using var stores = await OpenAsync();
        var key = Key();
        await using var lease = await stores.First.TryLeaseAsync(key, 0, None);
        foreach (var chunk in new[] { 0, 1, 3 }) await lease!.WriteAsync(chunk, Payload(key, chunk), None);

        Assert.Equal(2, (await stores.Second.ReadAsync(key, 0, 4, None)).Count);
        Assert.Empty(await stores.Second.ReadAsync(key, 2, 2, None));
        Assert.Single(await stores.Second.ReadAsync(key, 3, 1, None));
        Assert.Equal(new[] { true, true, false, true }, await stores.Second.PresentAsync(key, 0, key.Grid.Chunks, None));
    }

    [Fact]
    public async Task Read_OtherReferenceShardLayoutOrFormat_FindsNothing()
    {
        await using var stores = await OpenAsync();
        var key = Key();
        await WriteAllAsync(stores.First, key);
        foreach (var other in new[]
                 {
                     key with { Reference = "sha256:" + new string('9', 64) }, key with { Shard = new string('9', 64) },
                     key with { Layout = new string('9', 64) }, key with { Format = new ScoreFormat(LossEncoding.Log8) },
                 })
        {
            Assert.Empty(await stores.First.ReadAsync(other, 0, 4, None));
        }
    }

    [Fact]
    public async Task Lease_WhileHeld_IsNobodyElses()
    {
        await using var stores = await OpenAsync();
        var key = Key();
        var first = await stores.First.TryLeaseAsync(key, 0, None);
        Assert.NotNull(first);
        Assert.Null(await stores.Second.TryLeaseAsync(key, 0, None));
        Assert.Null(await stores.First.TryLeaseAsync(key, 0, None));
        Assert.True(await stores.Second.IsLeasedAsync(key, None));

        await first.DisposeAsync();
        Assert.False(await stores.Second.IsLeasedAsync(key, None));
        await using var second = await stores.Second.TryLeaseAsync(key, 0, None);
        Assert.NotNull(second);
    }

    [Fact]
    public async Task Probe_FirstStored_IsWhatLaterOnesGet()
    {
        await using var stores = await OpenAsync();
        Assert.Equal(new[] { 1f, 2f }, await stores.First.ProbeAsync("sha256:abc", [1f, 2f], None));
        Assert.Equal(new[] { 1f, 2f }, await stores.Second.ProbeAsync("sha256:abc", [3f, 4f], None));
    }

    internal static ScoreKey Key(LossEncoding encoding = LossEncoding.F16, int topK = 0, long sequences = 50, int length = 1000) =>
        new("sha256:" + new string('a', 64), new string('c', 64), "", new ScoreFormat(encoding, false, topK), new ChunkGrid(sequences, length));

    internal static byte[] Payload(ScoreKey key, int chunk)
    {
        var payload = new byte[key.PayloadBytes(chunk)];
        new Random(chunk).NextBytes(payload);
        return payload;
    }

    internal static async Task WriteAllAsync(ILossStore store, ScoreKey key)
    {
        await using var lease = await store.TryLeaseAsync(key, 0, None);
        for (var chunk = 0; chunk < key.Grid.Chunks; chunk++) await lease!.WriteAsync(chunk, Payload(key, chunk), None);
    }

    private protected abstract Task<Pair> OpenAsync();

    /// <summary>Two stores as two processes have them, on the same data.</summary>
    private protected sealed class Pair(ILossStore first, ILossStore second, IDisposable? data, IAsyncDisposable? server) : IAsyncDisposable
    {
        public ILossStore First => first;

        public ILossStore Second => second;

        public async ValueTask DisposeAsync()
        {
            await first.DisposeAsync();
            await second.DisposeAsync();
            data?.Dispose();
            if (server is not null) await server.DisposeAsync();
        }
    }
}

public sealed class FolderLossStoreTests : LossStoreTests, IDisposable
{
    private readonly ScoringMetrics _metrics = new();
    private readonly TemporaryFolder _folder = new();

    public void Dispose()
    {
        _folder.Dispose();
        _metrics.Dispose();
    }

    [Fact]
    public async Task Write_AllChunks_LeavesAScoreFileThatAnyoneReads()
    {
        var store = Store();
        var key = Key();
        await WriteAllAsync(store, key);

        var file = Assert.Single(Directory.GetFiles(_folder.Path, "*.safetensors", SearchOption.AllDirectories));
        Assert.Empty(Directory.GetFiles(_folder.Path, "*.partial", SearchOption.AllDirectories));
        using var scores = ScoreFile.Open(file);
        Assert.Equal(key.Reference, scores.ReferenceFingerprint);
        Assert.Equal(key.Shard, scores.ShardSha256);
        Assert.Equal(Payload(key, 1), scores.Bytes(key.Grid.FirstSequence(1), key.Grid.SequencesIn(1)).ToArray());
    }

    [Fact]
    public async Task Read_DamagedScoreFile_LosesOnlyTheDamagedChunk()
    {
        var store = Store();
        var key = Key();
        await WriteAllAsync(store, key);
        var file = Directory.GetFiles(_folder.Path, "*.safetensors", SearchOption.AllDirectories).Single();
        Flip(file, new FileInfo(file).Length - 70_000);

        using var counter = new CorruptCounter(_metrics);
        Assert.NotEqual(4, (await store.ReadAsync(key, 0, 4, default)).Count);
        Assert.Equal(1, counter.Count);
        await using (var lease = await store.TryLeaseAsync(key, 0, default))
        {
            var present = await store.PresentAsync(key, 0, key.Grid.Chunks, default);
            Assert.Equal(3, present.Count(p => p));
            var lost = Array.IndexOf(present, false);
            await lease!.WriteAsync(lost, Payload(key, lost), default);
        }

        Assert.Equal(4, (await store.ReadAsync(key, 0, 4, default)).Count);
        Assert.True(File.Exists(file));
    }

    [Fact]
    public async Task Read_TruncatedScoreFile_IsScoredAnew()
    {
        var store = Store();
        var key = Key();
        await WriteAllAsync(store, key);
        var file = Directory.GetFiles(_folder.Path, "*.safetensors", SearchOption.AllDirectories).Single();
        using (var handle = File.OpenHandle(file, FileMode.Open, FileAccess.ReadWrite)) RandomAccess.SetLength(handle, 50_000);

        Assert.Empty(await store.ReadAsync(key, 0, 4, default));
        await WriteAllAsync(store, key);
        Assert.Equal(4, (await store.ReadAsync(key, 0, 4, default)).Count);
    }

    [Theory]
    [InlineData(-5)] // torn: the last record is cut
    [InlineData(1_000)] // torn the other way: what follows is no record
    public async Task Lease_AfterACrash_KeepsWholeChunksAndGoesOn(int change)
    {
        var key = Key();
        await using (var lease = await Store().TryLeaseAsync(key, 0, default))
            for (var chunk = 0; chunk < 2; chunk++)
                await lease!.WriteAsync(chunk, Payload(key, chunk), default);
        var log = Directory.GetFiles(_folder.Path, "*.partial", SearchOption.AllDirectories).Single();
        using (var handle = File.OpenHandle(log, FileMode.Open, FileAccess.ReadWrite)) RandomAccess.SetLength(handle, RandomAccess.GetLength(handle) + change);

        var whole = change < 0 ? 1 : 2;
        var reader = Store();
        Assert.Equal(whole, (await reader.ReadAsync(key, 0, 4, default)).Count);
        var next = Store();
        await using (var lease = await next.TryLeaseAsync(key, 0, default))
            for (var chunk = whole; chunk < 4; chunk++)
                await lease!.WriteAsync(chunk, Payload(key, chunk), default);
        var all = await reader.ReadAsync(key, 0, 4, default);
        Assert.Equal(Enumerable.Range(0, 4).Select(chunk => Payload(key, chunk)), all);
    }

    [Fact]
    public async Task Lease_DamagedRecordInTheLog_IsWrittenAgain()
    {
        var key = Key();
        await using (var lease = await Store().TryLeaseAsync(key, 0, default))
            for (var chunk = 0; chunk < 3; chunk++)
                await lease!.WriteAsync(chunk, Payload(key, chunk), default);
        var log = Directory.GetFiles(_folder.Path, "*.partial", SearchOption.AllDirectories).Single();
        Flip(log, 40_000);

        var store = Store();
        Assert.Single(await store.ReadAsync(key, 0, 4, default));
        await using var next = await store.TryLeaseAsync(key, 0, default);
        Assert.Equal(new[] { true, false, true, false }, await store.PresentAsync(key, 0, key.Grid.Chunks, default));
        foreach (var chunk in new[] { 1, 3 }) await next!.WriteAsync(chunk, Payload(key, chunk), default);
        Assert.Equal(Enumerable.Range(0, 4).Select(chunk => Payload(key, chunk)), await store.ReadAsync(key, 0, 4, default));
    }

    [Fact]
    public void Open_FolderThatCannotBeWritten_SaysSo()
    {
        File.WriteAllText(_folder["file"], "");
        var error = Assert.Throws<RhoException>(() => new FolderLossStore(_folder["file/cache"], _metrics, NullLogger.Instance));
        Assert.Contains("cache folder", error.Message, StringComparison.Ordinal);
    }

    private protected override Task<Pair> OpenAsync() => Task.FromResult(new Pair(Store(), Store(), null, null));

    private FolderLossStore Store() => new(_folder["cache"], _metrics, NullLogger.Instance);

    private static void Flip(string path, long offset)
    {
        using var handle = File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
        Span<byte> one = stackalloc byte[1];
        RandomAccess.Read(handle, one, offset);
        one[0] ^= 0x40;
        RandomAccess.Write(handle, one, offset);
    }
}

[Collection("redis")]
public sealed class RedisLossStoreTests : LossStoreTests, IAsyncLifetime
{
    private readonly ScoringMetrics _metrics = new();
    private RedisServer? _redis;

    public async ValueTask InitializeAsync()
    {
        _redis = await RedisServer.StartAsync();
    }

    public async ValueTask DisposeAsync()
    {
        if (_redis is not null) await _redis.DisposeAsync();
        _metrics.Dispose();
    }

    [Fact]
    public async Task Lease_HolderGoneWithoutRelease_ExpiresAndALiveOneIsRenewed()
    {
        await using var store = await StoreAsync(lease: TimeSpan.FromSeconds(2));
        var key = Key();
        await using (var live = await store.TryLeaseAsync(key, 0, default))
        {
            await Task.Delay(4000);
            Assert.Null(await store.TryLeaseAsync(key, 0, default));
        }

        await _redis!.CommandAsync("SET", LeaseKey(key), "dead", "PX", "500");
        Assert.Null(await store.TryLeaseAsync(key, 0, default));
        await Task.Delay(700);
        await using var next = await store.TryLeaseAsync(key, 0, default);
        Assert.NotNull(next);
    }

    [Theory]
    [InlineData("flip")]
    [InlineData("truncate")]
    [InlineData("swap")]
    [InlineData("empty")]
    public async Task Read_DamagedValue_IsDroppedCountedAndMissing(string damage)
    {
        await using var store = await StoreAsync();
        var key = Key();
        await WriteAllAsync(store, key);
        var name = ChunkKey(key, 2);
        await _redis!.CommandAsync(damage switch
        {
            "flip" => ["SETRANGE", name, "5000", "x!x!"],
            "truncate" => ["EVAL", "redis.call('SET', KEYS[1], redis.call('GETRANGE', KEYS[1], 0, 9999))", "1", name],
            "swap" => ["COPY", ChunkKey(key, 1), name, "REPLACE"],
            _ => ["SET", name, ""],
        });

        using var counter = new CorruptCounter(_metrics);
        Assert.Equal(2, (await store.ReadAsync(key, 0, 4, default)).Count);
        Assert.Equal(1, counter.Count);
        Assert.Equal(new[] { true, true, false, true }, await store.PresentAsync(key, 0, key.Grid.Chunks, default));
        Assert.Empty(await store.ReadAsync(key, 2, 2, default));
        Assert.Equal(1, counter.Count);
    }

    [Fact]
    public async Task Write_LargeChunk_KeepsEveryValueUnder64KiB()
    {
        await using var store = await StoreAsync();
        var key = Key(LossEncoding.F32, topK: 16, sequences: 1, length: 5000);
        await WriteAllAsync(store, key);
        Assert.Equal(Payload(key, 0), Assert.Single(await store.ReadAsync(key, 0, 1, default)));
        var longest = await _redis!.CommandAsync("EVAL", "local m = 0 for _, k in ipairs(redis.call('KEYS', '*')) do if redis.call('TYPE', k).ok == 'string' then m = math.max(m, redis.call('STRLEN', k)) end end return m", "0");
        Assert.InRange(int.Parse(longest[1..]), 50_000, 65_536);
    }

    [Fact]
    public async Task Write_WithTimeToLive_Expires()
    {
        await using var store = await StoreAsync(ttl: TimeSpan.FromSeconds(100));
        var key = Key();
        await WriteAllAsync(store, key);
        var left = await _redis!.CommandAsync("PTTL", ChunkKey(key, 0));
        Assert.InRange(int.Parse(left[1..]), 90_000, 100_000);
    }

    [Fact]
    public async Task Redis_KilledAndBackEmpty_IsNoticedAndUsedAgain()
    {
        await using var store = await StoreAsync();
        var key = Key();
        await WriteAllAsync(store, key);

        _redis!.Kill();
        await EventuallyAsync(() => !store.Available);
        await Assert.ThrowsAsync<StoreUnavailableException>(() => store.ReadAsync(key, 0, 1, default));
        await _redis.RestartAsync();
        await EventuallyAsync(() => store.Available);
        Assert.Empty(await store.ReadAsync(key, 0, 4, default));
        await WriteAllAsync(store, key);
        Assert.Equal(4, (await store.ReadAsync(key, 0, 4, default)).Count);
    }

    [Fact]
    public async Task Write_RedisOutOfMemory_IsRefusedWhileReadsGoOn()
    {
        await using var store = await StoreAsync();
        var key = Key();
        await using var lease = await store.TryLeaseAsync(key, 0, default);
        await lease!.WriteAsync(0, Payload(key, 0), default);
        await _redis!.CommandAsync("CONFIG", "SET", "maxmemory-policy", "noeviction");
        await _redis.CommandAsync("CONFIG", "SET", "maxmemory", "1mb");

        var refused = await Assert.ThrowsAsync<StoreUnavailableException>(() => lease.WriteAsync(1, Payload(key, 1), default));
        Assert.Contains("OOM", refused.Message, StringComparison.Ordinal);
        Assert.True(store.Available);
        Assert.Single(await store.ReadAsync(key, 0, 4, default));
        await _redis.CommandAsync("CONFIG", "SET", "maxmemory", "0");
        await lease.WriteAsync(1, Payload(key, 1), default);
    }

    [Fact]
    public async Task Connect_NobodyThere_SaysSoUnlessOptional()
    {
        var port = _redis!.Port;
        _redis.Kill();
        var error = await Assert.ThrowsAsync<RhoException>(() => StoreAsync()).WaitAsync(TestScoring.Patience);
        Assert.Contains($"127.0.0.1:{port}", error.Message, StringComparison.Ordinal);
        await using var optional = await StoreAsync(optional: true).WaitAsync(TestScoring.Patience);
        Assert.False(optional.Available);
        await _redis.RestartAsync();
        await EventuallyAsync(() => optional.Available);
    }

    private protected override async Task<Pair> OpenAsync()
    {
        if (_redis is null) throw new InvalidOperationException("redis-server is not installed: apt-get install redis-server");
        await _redis.CommandAsync("FLUSHALL");
        return new Pair(await StoreAsync(), await StoreAsync(), null, null);
    }

    private static async Task EventuallyAsync(Func<bool> condition)
    {
        using var patience = new CancellationTokenSource(TestScoring.Patience);
        while (!condition()) await Task.Delay(20, patience.Token);
    }

    private static string Prefix(ScoreKey key) => $"rho:{{{key.Reference}:{key.Shard}}}:plain:{key.Format}";

    private static string LeaseKey(ScoreKey key) => Prefix(key) + ":lease:0";

    private static string ChunkKey(ScoreKey key, int chunk) => $"{Prefix(key)}:{chunk}";

    private Task<RedisLossStore> StoreAsync(TimeSpan? lease = null, TimeSpan? ttl = null, bool optional = false) => RedisLossStore.ConnectAsync(
        new RedisOptions { Configuration = _redis!.Address, LeaseTime = lease ?? TimeSpan.FromSeconds(10), TimeToLive = ttl, Optional = optional }, _metrics, NullLogger.Instance);
}

/// <summary>Counts damaged chunks that a store reports to its metrics.</summary>
internal sealed class CorruptCounter : IDisposable
{
    private readonly System.Diagnostics.Metrics.MeterListener _listener = new();
    private long _count;

    public CorruptCounter(ScoringMetrics metrics)
    {
        _listener.SetMeasurementEventCallback<long>((_, value, _, _) => Interlocked.Add(ref _count, value));
        _listener.EnableMeasurementEvents(metrics.CacheCorrupt);
    }

    public long Count => Interlocked.Read(ref _count);

    public void Dispose() => _listener.Dispose();
}
