using System.ComponentModel;
using Rho.Hosting;
using Rho.Torch;

namespace Rho.Scoring;

/// <summary>Settings of the reference scorer; <see cref="Validate"/> says what is wrong with them.</summary>
public sealed record ScoringOptions
{
    /// <summary>Ports, TLS, keys, telemetry, drain; its StallTimeout is how long waiting work may see no batch complete.</summary>
    public RhoHostOptions Host { get; init; } = new() { Service = "rho-scorer", GrpcPort = 5001 };

    /// <summary>Checkpoint folders of the references to serve. The first is the default for clients that name none.</summary>
    public IReadOnlyList<string> References { get; init; } = [];

    /// <summary>Where references compute; "auto" takes a GPU where there is one.</summary>
    [Description(Devices.Names)]
    public string Device { get; init; } = "cpu";

    [Description("auto (what the device computes fastest), float32 or bfloat16")]
    public string Compute { get; init; } = "auto";

    /// <summary>Redis as "host:port" or a StackExchange.Redis configuration string; excludes <see cref="CacheDirectory"/>.</summary>
    [Description("Redis that replicas share their losses by")]
    public string? Redis { get; init; }

    /// <summary>Folder of score files; null without <see cref="Redis"/>: no cache.</summary>
    [Description("Folder for losses instead of Redis")]
    public string? CacheDirectory { get; init; }

    [Description("Start although Redis is away, and use it once it answers")]
    public bool RedisOptional { get; init; }

    /// <summary>How long Redis keeps scores; null: until it evicts them.</summary>
    [Description("Hours that Redis keeps losses [default: until it evicts them]")]
    public TimeSpan? CacheTimeToLive { get; init; }

    /// <summary>How long a replica that died keeps others from going on with its shard.</summary>
    [Description("Seconds after which others take over the shard of a replica that died")]
    public TimeSpan LeaseTime { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>How long a stream waits for a chunk that another replica has leased before it scores it itself, uncached.</summary>
    public TimeSpan FollowPatience { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>How long a client that was asked for tokens may pause.</summary>
    public TimeSpan UploadPatience { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>Token budget of a batch that is put together from single sequences (Score).</summary>
    [Description("Tokens of a batch")]
    public int BatchTokens { get; init; } = 16_384;

    /// <summary>Accepted work in tokens past which new work is refused (RESOURCE_EXHAUSTED).</summary>
    [Description("Accepted work past which new work is refused")]
    public long MaxQueuedTokens { get; init; } = 1_000_000_000;

    [Description("Open streams past which new ones are refused")]
    public int MaxStreams { get; init; } = 1_000;

    /// <summary>Tokens of a sequence; 0: the reference's context length.</summary>
    [Description("Tokens of a sequence at most; 0: the reference's context")]
    public int MaxSequenceLength { get; init; }

    /// <summary>Tokens of a shard.</summary>
    public long MaxShardTokens { get; init; } = 4_000_000_000;

    /// <summary>Where the tokens of shards in work lie (2 or 4 bytes per token) until they are scored; null: the system's folder for temporary files.</summary>
    [Description("Folder for the tokens of shards in work [default: the system's for temporary files]")]
    public string? SpoolDirectory { get; init; }

    /// <exception cref="RhoException">One line that names every wrong setting.</exception>
    public void Validate()
    {
        var errors = new List<string>();
        void Require(bool condition, string message)
        {
            if (!condition) errors.Add(message);
        }

        Require(Redis is null || CacheDirectory is null, "redis and cache exclude each other: give one");
        Require(BatchTokens >= 1, $"batch tokens must be at least 1, not {BatchTokens}");
        Require(MaxQueuedTokens >= 1, $"max queued tokens must be at least 1, not {MaxQueuedTokens}");
        Require(MaxStreams >= 1, $"max streams must be at least 1, not {MaxStreams}");
        Require(MaxSequenceLength >= 0, $"max sequence length must be at least 0, not {MaxSequenceLength}");
        Require(MaxShardTokens >= 1, $"max shard tokens must be at least 1, not {MaxShardTokens}");
        Require(LeaseTime >= TimeSpan.FromMilliseconds(100), $"lease time must be at least 0.1 s, not {LeaseTime.TotalSeconds} s");
        Require(CacheTimeToLive is null || CacheTimeToLive >= TimeSpan.FromSeconds(1), $"cache time to live must be at least 1 s, not {CacheTimeToLive?.TotalSeconds} s");
        Require(FollowPatience > TimeSpan.Zero, "follow patience must be positive");
        Require(UploadPatience > TimeSpan.Zero, "upload patience must be positive");
        if (errors.Count > 0) throw new RhoException("scorer settings: " + string.Join("; ", errors));
    }
}
