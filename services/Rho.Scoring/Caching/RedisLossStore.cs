using System.Buffers.Binary;
using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Microsoft.Extensions.Logging;
using StackExchange.Redis;

namespace Rho.Scoring.Caching;

public sealed record RedisOptions
{
    /// <summary>"host:port", or a StackExchange.Redis configuration string (several hosts, ssl=true, password=...).</summary>
    public required string Configuration { get; init; }

    /// <summary>How long cached scores live after they were written; null: until Redis evicts them.</summary>
    public TimeSpan? TimeToLive { get; init; }

    /// <summary>How long a lease outlives its last renewal: the time until a dead leader is replaced.</summary>
    public TimeSpan LeaseTime { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>How long one command may take before Redis counts as away.</summary>
    public TimeSpan CommandTimeout { get; init; } = TimeSpan.FromSeconds(2);

    /// <summary>Start without Redis where it cannot be reached, and use it once it can.</summary>
    public bool Optional { get; init; }
}

/// <summary>
/// Scores in Redis. All keys of a shard carry the hash tag {reference:shard}, so a cluster keeps them on one slot:
/// <code>
/// rho:{reference:shard}:layout:format:N        payload of chunk N, its first part
/// rho:{reference:shard}:layout:format:N:P      part P &gt; 0, where a payload is larger than 60,000 bytes
/// rho:{reference:shard}:layout:format:lease:S  who scores segment S: a value that no other lease ever has; expires
/// </code>
/// A value is a 24-byte header (magic, chunk, part, parts, payload bytes, checksum of the payload) and its part of the payload.
/// Memory: 2 bytes per token in F16 (1 in Log8, 4 in F32), and under 400 bytes per chunk of 16,384 tokens for keys and headers.
/// </summary>
/// <remarks>
/// No scripts: whether those are atomic, or allowed, depends on the server. What holds, and the single command that guards it:
/// <list type="bullet">
/// <item>One holder: SET NX with expiry takes a lease. Its value is set once, so who finds it has held the lease ever since.</item>
/// <item>What is stored stays as it is: SET NX stores a part. Whoever is late, or writes without knowing that its lease is gone, adds what
/// is missing or nothing; the checksum covers the whole address, and tells parts of two writers whose losses are rounded differently.</item>
/// <item>A writer whose lease is gone, evicted and flushed ones included, learns it with its next write: GET of the lease follows the SETs.</item>
/// <item>Renewing is PEXPIRE, then GET: who is late prolongs another's lease by one term, and stops.</item>
/// <item>Releasing compares and deletes under WATCH: nobody's lease but the own is ever deleted.</item>
/// </list>
/// </remarks>
public sealed partial class RedisLossStore : ILossStore
{
    internal const int PartBytes = 60_000;
    internal const int HeaderBytes = 24;
    private const uint Magic = 0x314F4852; // "RHO1"
    private const int ReadBytes = 512 * 1024;
    private static readonly TimeSpan WatchInterval = TimeSpan.FromMilliseconds(500);
    private static readonly TimeSpan RecheckInterval = TimeSpan.FromSeconds(5);

    private readonly RedisOptions _options;
    private readonly string _address;
    private readonly ConnectionMultiplexer _connection;
    private readonly ScoringMetrics _metrics;
    private readonly ILogger _logger;
    private readonly CancellationTokenSource _stop = new();
    private readonly Lock _gate = new();
    private Task _watching = Task.CompletedTask;
    private volatile bool _available;
    private volatile string? _trouble;
    private long _troubledAt;
    private int _reconnected;
    private int _checked;

    private RedisLossStore(RedisOptions options, string address, ConnectionMultiplexer connection, ScoringMetrics metrics, ILogger logger)
    {
        _options = options;
        _address = address;
        _connection = connection;
        _metrics = metrics;
        _logger = logger;
        _connection.ConnectionRestored += (_, restored) =>
        {
            if (restored.ConnectionType == ConnectionType.Interactive) Interlocked.Increment(ref _reconnected);
        };
    }

    public string Kind => "redis";

    public bool Available => _available;

    public string? Trouble => _trouble;

    /// <exception cref="RhoException">The configuration is no valid one, or Redis does not answer or cannot be used and is not optional.</exception>
    public static async Task<RedisLossStore> ConnectAsync(RedisOptions options, ScoringMetrics metrics, ILogger logger, CancellationToken cancellation = default)
    {
        ConfigurationOptions configuration;
        try
        {
            configuration = ConfigurationOptions.Parse(options.Configuration);
        }
        catch (Exception e) when (e is ArgumentException or FormatException)
        {
            throw new RhoException($"redis: '{options.Configuration}' is no Redis address: {e.Message}; give HOST:PORT", e);
        }

        if (configuration.EndPoints.Count == 0)
            throw new RhoException($"redis: '{options.Configuration}' names no server; give HOST:PORT");
        var address = configuration.ToString(includePassword: false);
        configuration.AbortOnConnectFail = !options.Optional;
        configuration.ConnectTimeout = (int)options.CommandTimeout.TotalMilliseconds;
        configuration.SyncTimeout = configuration.AsyncTimeout = (int)options.CommandTimeout.TotalMilliseconds;
        configuration.ReconnectRetryPolicy = new LinearRetry((int)WatchInterval.TotalMilliseconds);
        // What cannot be sent now is scored without cache now; nothing queues for a server that may come back.
        configuration.BacklogPolicy = BacklogPolicy.FailFast;
        configuration.AllowAdmin = true; // for INFO
        configuration.ClientName = "rho-scorer";
        ConnectionMultiplexer connection;
        try
        {
            connection = await ConnectionMultiplexer.ConnectAsync(configuration).WaitAsync(cancellation);
        }
        catch (RedisConnectionException e)
        {
            throw e.FailureType == ConnectionFailureType.AuthenticationFailure
                ? new RhoException($"redis: {address} does not accept this user or password; give HOST:PORT,user=NAME,password=PASSWORD", e)
                : new RhoException($"redis: no answer from {address}; start Redis there, correct the address, or use a cache folder instead", e);
        }

        var store = new RedisLossStore(options, address, connection, metrics, logger);
        try
        {
            await store.CheckAsync(cancellation);
            if (!store.Available && !options.Optional) throw new RhoException($"redis: {store.Trouble}");
        }
        catch
        {
            await store.DisposeAsync();
            throw;
        }

        store._watching = store.WatchAsync(store._stop.Token);
        return store;
    }

    public async Task<IReadOnlyList<byte[]>> ReadAsync(ScoreKey key, int first, int count, CancellationToken cancellation)
    {
        var keys = new List<RedisKey>();
        var chunks = 0;
        for (long bytes = 0; chunks < count && (chunks == 0 || bytes < ReadBytes); chunks++)
        {
            bytes += key.PayloadBytes(first + chunks);
            keys.AddRange(PartKeys(key, first + chunks));
        }

        var values = await Run(database => database.StringGetAsync([.. keys]), cancellation);
        var payloads = new List<byte[]>(chunks);
        var damaged = new List<RedisKey>();
        for (int chunk = first, at = 0; chunk < first + chunks; chunk++)
        {
            var parts = Parts(key, chunk);
            var payload = Assemble(key, chunk, values.AsSpan(at, parts), out var isDamaged);
            if (isDamaged) damaged.AddRange(keys.GetRange(at, parts));
            if (payload is null) break;
            payloads.Add(payload);
            at += parts;
        }

        if (damaged.Count > 0)
        {
            _metrics.CacheCorrupt.Add(1);
            DroppedDamaged(first + payloads.Count, key.Shard);
            await Run(database => database.KeyDeleteAsync([.. damaged]), cancellation);
        }

        return payloads;
    }

    public async Task<bool[]> PresentAsync(ScoreKey key, int first, int end, CancellationToken cancellation)
    {
        const int atOnce = 1024;
        var present = new bool[end - first];
        Array.Fill(present, value: true);
        var parts = Enumerable.Range(first, present.Length).SelectMany(chunk => Enumerable.Range(0, Parts(key, chunk)).Select(part => (Chunk: chunk, Part: part)));
        foreach (var group in parts.Chunk(atOnce))
        {
            var found = await Run(database => Task.WhenAll(group.Select(part => database.KeyExistsAsync(PartKey(key, part.Chunk, part.Part)))), cancellation);
            for (var i = 0; i < group.Length; i++) present[group[i].Chunk - first] &= found[i];
        }

        return present;
    }

    public async Task<ISegmentLease?> TryLeaseAsync(ScoreKey key, int segment, CancellationToken cancellation)
    {
        var holder = Guid.NewGuid().ToString("N");
        var taken = await Run(database => database.LockTakeAsync(LeaseKey(key, segment), holder, _options.LeaseTime), cancellation);
        return taken ? new Lease(this, key, segment, holder) : null;
    }

    public async Task<bool> IsLeasedAsync(ScoreKey key, CancellationToken cancellation)
    {
        RedisKey[] leases = [.. Enumerable.Range(0, key.Grid.Segments).Select(segment => LeaseKey(key, segment))];
        return await Run(database => database.KeyExistsAsync(leases), cancellation) > 0;
    }

    public async Task<float[]> ProbeAsync(string reference, float[] losses, CancellationToken cancellation)
    {
        RedisKey key = $"rho:{{{reference}}}:probe";
        var own = MemoryMarshal.AsBytes(losses.AsSpan()).ToArray();
        await Run(database => database.StringSetAsync(key, own, when: When.NotExists), cancellation);
        byte[]? stored = await Run(database => database.StringGetAsync(key), cancellation);
        return stored is null ? losses : MemoryMarshal.Cast<byte, float>(stored.AsSpan(0, stored.Length / sizeof(float) * sizeof(float))).ToArray();
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _watching.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await _connection.DisposeAsync();
        _stop.Dispose();
    }

    private static string Prefix(ScoreKey key) =>
        $"rho:{{{key.Reference}:{key.Shard}}}:{(key.Layout.Length == 0 ? "plain" : key.Layout)}:{key.Format}";

    private static RedisKey LeaseKey(ScoreKey key, int segment) => $"{Prefix(key)}:lease:{segment}";

    private static RedisKey PartKey(ScoreKey key, int chunk, int part) =>
        part == 0 ? $"{Prefix(key)}:{chunk}" : $"{Prefix(key)}:{chunk}:{part}";

    private static IEnumerable<RedisKey> PartKeys(ScoreKey key, int chunk) =>
        Enumerable.Range(0, Parts(key, chunk)).Select(part => PartKey(key, chunk, part));

    private static int Parts(ScoreKey key, int chunk) => (key.PayloadBytes(chunk) + PartBytes - 1) / PartBytes;

    private static byte[][] Split(ScoreKey key, int chunk, ReadOnlySpan<byte> payload)
    {
        var checksum = key.Checksum(chunk, payload);
        var parts = new byte[Parts(key, chunk)][];
        for (var part = 0; part < parts.Length; part++)
        {
            var slice = payload[(part * PartBytes)..Math.Min(payload.Length, (part + 1) * PartBytes)];
            var value = new byte[HeaderBytes + slice.Length];
            WriteHeader(value, chunk, part, parts.Length, payload.Length, checksum);
            slice.CopyTo(value.AsSpan(HeaderBytes));
            parts[part] = value;
        }

        return parts;
    }

    private static void WriteHeader(Span<byte> header, int chunk, int part, int parts, int payloadBytes, ulong checksum)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(header, Magic);
        BinaryPrimitives.WriteInt32LittleEndian(header[4..], chunk);
        BinaryPrimitives.WriteUInt16LittleEndian(header[8..], (ushort)part);
        BinaryPrimitives.WriteUInt16LittleEndian(header[10..], (ushort)parts);
        BinaryPrimitives.WriteInt32LittleEndian(header[12..], payloadBytes);
        BinaryPrimitives.WriteUInt64LittleEndian(header[16..], checksum);
    }

    private static byte[]? Assemble(ScoreKey key, int chunk, ReadOnlySpan<RedisValue> values, out bool damaged)
    {
        damaged = false;
        foreach (var value in values)
            if (value.IsNull)
                return null;

        damaged = true;
        var payload = new byte[key.PayloadBytes(chunk)];
        Span<byte> expected = stackalloc byte[HeaderBytes];
        ulong checksum = 0;
        for (var part = 0; part < values.Length; part++)
        {
            byte[] value = values[part]!;
            var slice = payload.AsSpan(part * PartBytes, Math.Min(PartBytes, payload.Length - part * PartBytes));
            if (value.Length != HeaderBytes + slice.Length) return null;
            if (part == 0) checksum = BinaryPrimitives.ReadUInt64LittleEndian(value.AsSpan(16));
            WriteHeader(expected, chunk, part, values.Length, payload.Length, checksum);
            if (!value.AsSpan(0, HeaderBytes).SequenceEqual(expected)) return null;
            value.AsSpan(HeaderBytes).CopyTo(slice);
        }

        if (key.Checksum(chunk, payload) != checksum) return null;
        damaged = false;
        return payload;
    }

    private async Task<T> Run<T>(Func<IDatabase, Task<T>> command, CancellationToken cancellation, [CallerMemberName] string operation = "")
    {
        using var activity = ScoringMetrics.Activities.StartActivity($"redis {operation}", ActivityKind.Client);
        activity?.SetTag("db.system", "redis");
        if (!_available) throw new StoreUnavailableException(_trouble ?? "Redis is away");
        try
        {
            // The client looks for timeouts once a second only.
            return await command(_connection.GetDatabase()).WaitAsync(_options.CommandTimeout, cancellation);
        }
        catch (RedisServerException e)
        {
            // Redis is there and says no: out of memory, read-only replica, loading its data.
            _metrics.CacheFailures.Add(1);
            Say(available: true, RedisCheck.Refusal(e));
            throw new StoreUnavailableException($"Redis refuses: {e.Message}", e);
        }
        catch (Exception e) when (e is RedisException or TimeoutException or ObjectDisposedException)
        {
            _metrics.CacheFailures.Add(1);
            Away(e);
            throw new StoreUnavailableException($"Redis is away: {e.Message}", e);
        }
    }

    /// <summary>
    /// The circuit's other half: pings at intervals, so that a lost Redis is noticed when idle and used again once it answers. One that
    /// was away, or connected to anew, or in trouble is tried again for what it must do.
    /// </summary>
    private async Task WatchAsync(CancellationToken cancellation)
    {
        using var timer = new PeriodicTimer(WatchInterval);
        while (await timer.WaitForNextTickAsync(cancellation))
        {
            var recheck = _trouble is not null && Stopwatch.GetElapsedTime(Interlocked.Read(ref _troubledAt)) >= RecheckInterval;
            if (!_available || recheck || Volatile.Read(ref _reconnected) != _checked)
            {
                await CheckAsync(cancellation);
                continue;
            }

            try
            {
                await _connection.GetDatabase().PingAsync().WaitAsync(_options.CommandTimeout, cancellation);
            }
            catch (Exception e) when (e is RedisException or TimeoutException)
            {
                Away(e);
            }
        }
    }

    private async Task CheckAsync(CancellationToken cancellation)
    {
        var reconnected = Volatile.Read(ref _reconnected);
        try
        {
            var check = await RedisCheck.RunAsync(_connection, _options, cancellation);
            _checked = reconnected;
            if (Say(check.Usable, check.Trouble) && check.Usable && check.Trouble is null) CachesAt(_address, check.Server);
        }
        catch (Exception e) when (e is RedisException or TimeoutException)
        {
            Away(e);
        }
    }

    private void Away(Exception reason) => Say(available: false, "does not answer: scoring without cache until it does", $" ({reason.GetType().Name})");

    /// <summary>Keeps how the server is, and logs trouble that is new. Whether anything is new.</summary>
    private bool Say(bool available, string? trouble, string reason = "")
    {
        var line = trouble is null ? null : $"Redis at {_address} {trouble}";
        lock (_gate)
        {
            Interlocked.Exchange(ref _troubledAt, Stopwatch.GetTimestamp());
            if (available == _available && line == _trouble) return false;
            _available = available;
            _trouble = line;
        }

        if (line is not null) Troubled(line, reason);
        return true;
    }

    [LoggerMessage(LogLevel.Warning, "dropped a damaged value of chunk {Chunk} of shard {Shard}")]
    private partial void DroppedDamaged(int chunk, string shard);

    [LoggerMessage(LogLevel.Information, "scores are cached at {Address}: {Server}")]
    private partial void CachesAt(string address, string server);

    [LoggerMessage(LogLevel.Warning, "{Trouble}{Reason}")]
    private partial void Troubled(string trouble, string reason);

    private sealed class Lease : ISegmentLease
    {
        private readonly RedisLossStore _store;
        private readonly ScoreKey _key;
        private readonly int _segment;
        private readonly RedisKey _leaseKey;
        private readonly string _holder;
        private readonly CancellationTokenSource _stop = new();
        private readonly Task _renewing;
        private volatile bool _lost;

        public Lease(RedisLossStore store, ScoreKey key, int segment, string holder)
        {
            _store = store;
            _key = key;
            _segment = segment;
            _leaseKey = LeaseKey(key, segment);
            _holder = holder;
            _renewing = RenewAsync(_stop.Token);
        }

        public async Task WriteAsync(int chunk, ReadOnlyMemory<byte> payload, CancellationToken cancellation)
        {
            if (_lost) throw Lost();
            var parts = Split(_key, chunk, payload.Span);
            var keys = PartKeys(_key, chunk).ToArray();
            var held = await _store.Run(
                database =>
                {
                    // One round trip: commands of a connection are answered in order, so the lease is looked at after the parts.
                    var stored = parts.Select((part, i) => database.StringSetAsync(keys[i], part, _store._options.TimeToLive, When.NotExists)).ToArray();
                    return HeldAfterAsync(database, Task.WhenAll(stored));
                },
                cancellation);
            if (held) return;
            _lost = true;
            throw Lost();
        }

        public async ValueTask DisposeAsync()
        {
            await _stop.CancelAsync();
            await _renewing.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            _stop.Dispose();
            if (_lost) return;
            try
            {
                await _store.Run(database => database.LockReleaseAsync(_leaseKey, _holder), CancellationToken.None);
            }
            catch (StoreUnavailableException)
            {
                // It expires by itself.
            }
        }

        private async Task RenewAsync(CancellationToken cancellation)
        {
            using var timer = new PeriodicTimer(_store._options.LeaseTime / 3);
            while (await timer.WaitForNextTickAsync(cancellation))
            {
                try
                {
                    if (await _store.Run(database => HeldAfterAsync(database, database.KeyExpireAsync(_leaseKey, _store._options.LeaseTime)), cancellation)) continue;
                    _lost = true;
                    return;
                }
                catch (StoreUnavailableException)
                {
                    // The next tick tries again; a lease that expired meanwhile is seen then.
                }
            }
        }

        /// <summary>Whether the lease was still held once commands that were sent just before had been carried out.</summary>
        private async Task<bool> HeldAfterAsync(IDatabase database, Task sent)
        {
            var holder = database.StringGetAsync(_leaseKey);
            await Task.WhenAll(sent, holder);
            return await holder == _holder;
        }

        private LeaseLostException Lost() => new($"the lease of segment {_segment} of shard {_key.Shard} has expired or passed on");
    }
}
