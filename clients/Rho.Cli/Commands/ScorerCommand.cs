using System.CommandLine;
using Rho.Scoring;

namespace Rho.Cli.Commands;

/// <summary>rho scorer: the service that streams reference losses.</summary>
internal static class ScorerCommand
{
    private static string DefaultCache => Path.Combine(
        Environment.GetEnvironmentVariable("XDG_CACHE_HOME") is { Length: > 0 } folder ? folder : Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".cache"),
        "rho", "scores");

    public static Command Create()
    {
        var reference = new Option<string[]>("--reference") { Description = "Checkpoint folder of the reference; several times for several", HelpName = "DIR", Required = true };
        var port = new Option<int>("--port") { Description = "Port for gRPC; 0 lets the system choose", HelpName = "P", DefaultValueFactory = _ => 5001 };
        var http = new Option<int?>("--http") { Description = "Port for /healthz and /metrics; without it only gRPC is served", HelpName = "P" };
        var redis = new Option<string?>("--redis") { Description = "Redis that replicas share their losses by", HelpName = "HOST:PORT" };
        var optional = new Option<bool>("--redis-optional") { Description = "Start although Redis is away, and use it once it answers" };
        var cache = new Option<string?>("--cache") { Description = $"Folder for losses instead of Redis [default: {DefaultCache}]", HelpName = "DIR" };
        var device = new Option<string>("--device") { Description = "auto, cpu, cuda or cuda:N", DefaultValueFactory = _ => "cpu" };
        var dtype = new Option<string>("--dtype") { Description = "auto (what the device computes fastest), float32 or bfloat16", DefaultValueFactory = _ => "auto" };
        dtype.AcceptOnlyFromAmong("auto", "float32", "bfloat16");
        var batch = new Option<int>("--batch-tokens") { Description = "Tokens of a batch", HelpName = "N", DefaultValueFactory = _ => 16_384 };
        var lease = new Option<double>("--lease") { Description = "Seconds after which others take over the shard of a replica that died", HelpName = "SECONDS", DefaultValueFactory = _ => 10 };
        var ttl = new Option<double?>("--ttl") { Description = "Hours that Redis keeps losses [default: until it evicts them]", HelpName = "HOURS" };
        var length = new Option<int>("--max-length") { Description = "Tokens of a sequence at most; 0: the reference's context", HelpName = "N", DefaultValueFactory = _ => 0 };
        var queue = new Option<long>("--max-queued-tokens") { Description = "Accepted work past which new work is refused", HelpName = "N", DefaultValueFactory = _ => 1_000_000_000 };
        var streams = new Option<int>("--max-streams") { Description = "Open streams past which new ones are refused", HelpName = "N", DefaultValueFactory = _ => 1_000 };
        var spool = new Option<string?>("--spool") { Description = "Folder for the tokens of shards in work [default: the system's for temporary files]", HelpName = "DIR" };
        var service = new ServiceOptions("rho-scorer");
        var command = new ExampleCommand(
            "scorer", "Serve reference losses over gRPC, cached in Redis or in a folder.",
            "rho scorer --reference reference --port 5001 --cache scores",
            "rho scorer --reference reference --port 5001 --http 8001 --redis localhost:6379  # and again with other ports",
            "rho scorer --reference TinyLlama-1.1B --device cuda:0 --dtype bfloat16 --bind '*' --redis redis:6379") { reference, port, http, redis, optional, cache, device, dtype, batch, lease, ttl, length, queue, streams, spool };
        service.AddTo(command);
        command.SetAction((result, cancellation) => ScoringHost.RunAsync(
            new ScoringOptions
            {
                Host = service.Read(result, result.GetValue(port), result.GetValue(http)),
                References = result.GetValue(reference)!,
                Redis = result.GetValue(redis),
                RedisOptional = result.GetValue(optional),
                CacheDirectory = result.GetValue(cache) ?? (result.GetValue(redis) is null ? DefaultCache : null),
                Device = result.GetValue(device)!,
                Compute = result.GetValue(dtype)!,
                BatchTokens = result.GetValue(batch),
                LeaseTime = TimeSpan.FromSeconds(result.GetValue(lease)),
                CacheTimeToLive = result.GetValue(ttl) is { } hours ? TimeSpan.FromHours(hours) : null,
                MaxSequenceLength = result.GetValue(length),
                MaxQueuedTokens = result.GetValue(queue),
                MaxStreams = result.GetValue(streams),
                SpoolDirectory = result.GetValue(spool),
            },
            cancellation));
        return command;
    }
}
