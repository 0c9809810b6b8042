using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
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
/// rho:{reference:shard}:layout:format:lease:S  who scores segment S: "fencing token:holder", expires
/// rho:{reference:shard}:layout:format:fence    the last fencing token
/// </code>
/// A value is a 24-byte header (magic, chunk, part, parts, payload bytes, checksum of the payload) and its part of the payload.
/// Memory: 2 bytes per token in F16 (1 in Log8, 4 in F32), and under 400 bytes per chunk of 16,384 tokens for keys and headers.
/// </summary>
public sealed class RedisLossStore : ILossStore
{
    internal const int PartBytes = 60_000;
    internal const int HeaderBytes = 24;
    private const uint Magic = 0x314F4852; // "RHO1"
    private const int ReadBytes = 512 * 1024;
    private static readonly TimeSpan ProbeInterval = TimeSpan.FromMilliseconds(500);

    // Acquire: KEYS lease, fence; ARGV holder, lease ms, time to live ms (0: none).
    private const string AcquireScript = """
        if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
        local token = redis.call('INCR', KEYS[2])
        if ARGV[3] ~= '0' then redis.call('PEXPIRE', KEYS[2], ARGV[3]) end
        redis.call('SET', KEYS[1], token .. ':' .. ARGV[1], 'NX', 'PX', ARGV[2])
        return token
        """;

    // Write: KEYS lease, parts...; ARGV lease value, time to live ms (0: none), parts...
    private const string WriteScript = """
        if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
        for i = 2, #KEYS do
          if ARGV[2] == '0' then redis.call('SET', KEYS[i], ARGV[i + 1])
          else redis.call('SET', KEYS[i], ARGV[i + 1], 'PX', ARGV[2]) end
        end
        return 1
        """;

    private const string RenewScript = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0";
    private const string ReleaseScript = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

    private readonly RedisOptions _options;
    private readonly ConnectionMultiplexer _connection;
    private readonly ScoringMetrics _metrics;
    private readonly ILogger _logger;
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _probing;
    private volatile bool _available;

    private RedisLossStore(RedisOptions options, ConnectionMultiplexer connection, bool available, ScoringMetrics metrics, ILogger logger)
    {
        _options = options;
        _connection = connection;
        _available = available;
        _metrics = metrics;
        _logger = logger;
        _probing = ProbeAsync(_stop.Token);
    }

    public string Kind => "redis";

    public bool Available => _available;

    /// <exception cref="RhoException">The configuration is no valid one, or Redis does not answer and is not optional.</exception>
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
        configuration.AbortOnConnectFail = false;
        configuration.ConnectTimeout = (int)options.CommandTimeout.TotalMilliseconds;
        configuration.SyncTimeout = (int)options.CommandTimeout.TotalMilliseconds;
        configuration.ClientName = "rho-scorer";
        var connection = await ConnectionMultiplexer.ConnectAsync(configuration).WaitAsync(cancellation).ConfigureAwait(false);
        var available = true;
        try
        {
            await connection.GetDatabase().PingAsync().WaitAsync(options.CommandTimeout, cancellation).ConfigureAwait(false);
        }
        catch (Exception e) when (e is RedisException or TimeoutException)
        {
            available = false;
            if (!options.Optional)
            {
                connection.Dispose();
                throw new RhoException($"redis: no answer from {options.Configuration}; start Redis there, correct the address, or use a cache folder instead", e);
            }

            logger.LogWarning("Redis at {Address} does not answer: scoring without cache until it does", options.Configuration);
        }

        return new RedisLossStore(options, connection, available, metrics, logger);
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

        var values = await Run(database => database.StringGetAsync([.. keys]), cancellation).ConfigureAwait(false);
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
            _logger.LogWarning("Dropped a damaged value of chunk {Chunk} of shard {Shard}", first + payloads.Count, key.Shard);
            await Run(database => database.KeyDeleteAsync([.. damaged]), cancellation).ConfigureAwait(false);
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
            var found = await Run(database => Task.WhenAll(group.Select(part => database.KeyExistsAsync(PartKey(key, part.Chunk, part.Part)))), cancellation).ConfigureAwait(false);
            for (var i = 0; i < group.Length; i++) present[group[i].Chunk - first] &= found[i];
        }

        return present;
    }

    public async Task<ISegmentLease?> TryLeaseAsync(ScoreKey key, int segment, CancellationToken cancellation)
    {
        var holder = Guid.NewGuid().ToString("N");
        var token = (long)await Evaluate(
            AcquireScript,
            [LeaseKey(key, segment), Prefix(key) + ":fence"],
            [holder, Milliseconds(_options.LeaseTime), Milliseconds(2 * (_options.TimeToLive ?? TimeSpan.Zero))],
            cancellation).ConfigureAwait(false);
        return token == 0 ? null : new Lease(this, key, segment, token, $"{token}:{holder}");
    }

    public async Task<bool> IsLeasedAsync(ScoreKey key, CancellationToken cancellation)
    {
        var leases = await Run(
            database => Task.WhenAll(Enumerable.Range(0, key.Grid.Segments).Select(segment => database.KeyExistsAsync(LeaseKey(key, segment)))), cancellation).ConfigureAwait(false);
        return leases.Contains(true);
    }

    public async Task<float[]> ProbeAsync(string reference, float[] losses, CancellationToken cancellation)
    {
        RedisKey key = $"rho:{{{reference}}}:probe";
        var own = MemoryMarshal.AsBytes(losses.AsSpan()).ToArray();
        await Run(database => database.StringSetAsync(key, own, when: When.NotExists), cancellation).ConfigureAwait(false);
        byte[]? stored = await Run(database => database.StringGetAsync(key), cancellation).ConfigureAwait(false);
        return stored is null ? losses : MemoryMarshal.Cast<byte, float>(stored.AsSpan(0, stored.Length / sizeof(float) * sizeof(float))).ToArray();
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync().ConfigureAwait(false);
        await _probing.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _connection.Dispose();
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

    private static string Milliseconds(TimeSpan time) => ((long)time.TotalMilliseconds).ToString(CultureInfo.InvariantCulture);

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

    // EVAL with its text rather than by its hash: the scripts are short, and a Redis that came back empty knows none.
    private Task<RedisResult> Evaluate(string script, RedisKey[] keys, object[] arguments, CancellationToken cancellation, [CallerMemberName] string operation = "") =>
        Run(database => database.ExecuteAsync("EVAL", [script, keys.Length, .. keys.Cast<object>(), .. arguments]), cancellation, operation);

    private async Task<T> Run<T>(Func<IDatabase, Task<T>> command, CancellationToken cancellation, [CallerMemberName] string operation = "")
    {
        using var activity = ScoringMetrics.Activities.StartActivity($"redis {operation}", ActivityKind.Client);
        activity?.SetTag("db.system", "redis");
        if (!_available) throw new StoreUnavailableException("Redis is away");
        try
        {
            return await command(_connection.GetDatabase()).WaitAsync(_options.CommandTimeout, cancellation).ConfigureAwait(false);
        }
        catch (RedisServerException e)
        {
            // Redis is there and says no: out of memory, read-only replica, loading its data.
            _metrics.CacheFailures.Add(1);
            throw new StoreUnavailableException($"Redis refuses: {e.Message}", e);
        }
        catch (Exception e) when (e is RedisException or TimeoutException or ObjectDisposedException)
        {
            _metrics.CacheFailures.Add(1);
            if (_available)
            {
                _available = false;
                _logger.LogWarning("Redis does not answer ({Reason}): scoring without cache until it does", e.GetType().Name);
            }

            throw new StoreUnavailableException($"Redis is away: {e.Message}", e);
        }
    }

    /// <summary>The circuit's other half: pings at intervals, so that a lost Redis is noticed when idle and used again once it answers.</summary>
    private async Task ProbeAsync(CancellationToken stop)
    {
        using var timer = new PeriodicTimer(ProbeInterval);
        while (await timer.WaitForNextTickAsync(stop).ConfigureAwait(false))
        {
            try
            {
                await _connection.GetDatabase().PingAsync().WaitAsync(_options.CommandTimeout, stop).ConfigureAwait(false);
                if (_available) continue;
                _available = true;
                _logger.LogInformation("Redis answers again: scores are cached");
            }
            catch (Exception e) when (e is RedisException or TimeoutException)
            {
                if (!_available) continue;
                _available = false;
                _logger.LogWarning("Redis does not answer ({Reason}): scoring without cache until it does", e.GetType().Name);
            }
        }
    }

    private sealed class Lease : ISegmentLease
    {
        private readonly RedisLossStore _store;
        private readonly ScoreKey _key;
        private readonly int _segment;
        private readonly string _value;
        private readonly CancellationTokenSource _stop = new();
        private readonly Task _renewing;
        private volatile bool _lost;

        public Lease(RedisLossStore store, ScoreKey key, int segment, long fencingToken, string value)
        {
            _store = store;
            _key = key;
            _segment = segment;
            _value = value;
            FencingToken = fencingToken;
            _renewing = RenewAsync(_stop.Token);
        }

        public long FencingToken { get; }

        public async Task WriteAsync(int chunk, ReadOnlyMemory<byte> payload, CancellationToken cancellation)
        {
            if (_lost) throw Lost();
            var ttl = Milliseconds(_store._options.TimeToLive ?? TimeSpan.Zero);
            var written = (long)await _store.Evaluate(
                WriteScript, [LeaseKey(_key, _segment), .. PartKeys(_key, chunk)], [_value, ttl, .. Split(_key, chunk, payload.Span)], cancellation).ConfigureAwait(false);
            if (written == 0) throw Lost();
        }

        public async ValueTask DisposeAsync()
        {
            await _stop.CancelAsync().ConfigureAwait(false);
            await _renewing.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            _stop.Dispose();
            if (_lost) return;
            try
            {
                await _store.Evaluate(ReleaseScript, [LeaseKey(_key, _segment)], [_value], CancellationToken.None).ConfigureAwait(false);
            }
            catch (StoreUnavailableException)
            {
                // It expires by itself.
            }
        }

        private async Task RenewAsync(CancellationToken stop)
        {
            using var timer = new PeriodicTimer(_store._options.LeaseTime / 3);
            while (await timer.WaitForNextTickAsync(stop).ConfigureAwait(false))
            {
                try
                {
                    var renewed = (long)await _store.Evaluate(
                        RenewScript, [LeaseKey(_key, _segment)], [_value, Milliseconds(_store._options.LeaseTime)], stop).ConfigureAwait(false);
                    if (renewed != 0) continue;
                    _lost = true;
                    return;
                }
                catch (StoreUnavailableException)
                {
                    // The next tick tries again; a lease that expired meanwhile is refused then.
                }
            }
        }

        private LeaseLostException Lost() => new($"the lease of segment {_segment} of shard {_key.Shard} with fencing token {FencingToken} has expired or passed on");
    }
}
