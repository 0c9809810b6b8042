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
        var defaults = new ScoringOptions();
        var reference = new Option<string[]>("--reference") { Description = "Checkpoint folder of the reference; several times for several", HelpName = "DIR", Required = true };
        var port = new Option<int>("--port") { Description = "Port for gRPC; 0 lets the system choose", HelpName = "P", DefaultValueFactory = _ => defaults.Host.GrpcPort!.Value };
        var http = ServiceOptions.HealthPort();
        var redis = Of("--redis", nameof(ScoringOptions.Redis), defaults.Redis, "HOST:PORT");
        var optional = Of("--redis-optional", nameof(ScoringOptions.RedisOptional), defaults.RedisOptional);
        var cache = Of("--cache", nameof(ScoringOptions.CacheDirectory), defaults.CacheDirectory, "DIR");
        cache.Description += $" [default: {DefaultCache}]";
        var device = Of("--device", nameof(ScoringOptions.Device), defaults.Device);
        var dtype = Of("--dtype", nameof(ScoringOptions.Compute), defaults.Compute);
        dtype.AcceptOnlyFromAmong("auto", "float32", "bfloat16");
        var batch = Of("--batch-tokens", nameof(ScoringOptions.BatchTokens), defaults.BatchTokens, "N");
        var lease = Of("--lease", nameof(ScoringOptions.LeaseTime), defaults.LeaseTime.TotalSeconds, "SECONDS");
        var ttl = Of("--ttl", nameof(ScoringOptions.CacheTimeToLive), defaults.CacheTimeToLive?.TotalHours, "HOURS");
        var length = Of("--max-length", nameof(ScoringOptions.MaxSequenceLength), defaults.MaxSequenceLength, "N");
        length.DefaultValueFactory = _ => defaults.MaxSequenceLength; // 0 means something here: help shows it
        var queue = Of("--max-queued-tokens", nameof(ScoringOptions.MaxQueuedTokens), defaults.MaxQueuedTokens, "N");
        var streams = Of("--max-streams", nameof(ScoringOptions.MaxStreams), defaults.MaxStreams, "N");
        var spool = Of("--spool", nameof(ScoringOptions.SpoolDirectory), defaults.SpoolDirectory, "DIR");
        var service = new ServiceOptions(defaults.Host);
        var command = new ExampleCommand(
            "scorer", "Serve reference losses over gRPC, cached in Redis or in a folder.",
            "rho scorer --reference reference --port 5001 --cache scores",
            "rho scorer --reference reference --port 5001 --http 8001 --redis localhost:6379  # and again with other ports",
            "rho scorer --reference TinyLlama-1.1B --device cuda:0 --dtype bfloat16 --bind '*' --redis redis:6379") { reference, port, http, redis, optional, cache, device, dtype, batch, lease, ttl, length, queue, streams, spool };
        service.AddTo(command);
        command.SetAction((result, cancellation) => ScoringHost.RunAsync(
            defaults with
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

    private static Option<T> Of<T>(string name, string property, T value, string? helpName = null) => RecordOptions<ScoringOptions>.Create(name, property, value, helpName);
}
