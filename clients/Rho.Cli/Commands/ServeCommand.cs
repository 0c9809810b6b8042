using System.CommandLine;
using Rho.Model;
using Rho.Model.Inference;
using Rho.Serving;
using Rho.Serving.Engine;

namespace Rho.Cli.Commands;

/// <summary>rho serve: finished models behind gRPC and OpenAI-compatible HTTP.</summary>
internal static class ServeCommand
{
    public static Command Create()
    {
        var defaults = new ServingOptions();
        var model = new Option<string[]>("--model") { Description = "Checkpoint folder to serve under its own or another name; several times for several", HelpName = "[NAME=]DIR", DefaultValueFactory = _ => [] };
        var watch = Of("--watch", nameof(ServingOptions.WatchFolder), defaults.WatchFolder, "DIR");
        var grpc = new Option<int?>("--grpc") { Description = "Port for gRPC (rho.inference.v1); 0 lets the system choose", HelpName = "P" };
        var http = new Option<int?>("--http") { Description = "Port for HTTP (/v1/completions, /v1/models, /healthz, /metrics)", HelpName = "P" };
        var device = Of("--device", nameof(ServingOptions.Device), defaults.Device);
        var dtype = Of("--dtype", nameof(ServingOptions.Compute), defaults.Compute);
        dtype.DefaultValueFactory = _ => defaults.Compute; // the first of its type: help shows it all the same
        var int8 = Of("--int8", nameof(ServingOptions.Weights), defaults.Weights == WeightFormat.Int8);
        var cache = Of("--cache-mib", nameof(ServingOptions.CacheBytes), (int)(defaults.CacheBytes >> 20), "MIB");
        var threads = Of("--threads", nameof(ServingOptions.Threads), defaults.Threads, "N");
        var cors = Of("--cors", nameof(ServingOptions.CorsOrigins), defaults.CorsOrigins.ToArray(), "ORIGIN");
        var perKey = RecordOptions<EngineOptions>.Create("--max-per-key", nameof(EngineOptions.MaxRequestsPerClient), defaults.Engine.MaxRequestsPerClient, "N");
        var waiting = RecordOptions<EngineOptions>.Create("--max-waiting", nameof(EngineOptions.MaxWaitingRequests), defaults.Engine.MaxWaitingRequests, "N");
        var changes = Of("--allow-model-changes", nameof(ServingOptions.AllowModelChanges), defaults.AllowModelChanges);
        var vllm = Of("--vllm-metrics", nameof(ServingOptions.VllmMetrics), defaults.VllmMetrics);
        var service = new ServiceOptions(defaults.Host);
        var command = new ExampleCommand(
            "serve", "Serve models over gRPC and an OpenAI-compatible HTTP interface.",
            "rho serve --model runs/slm/final --grpc 5002 --http 8002",
            "rho serve --model math=runs/slm/final --http 8002 --bind '*' --api-keys keys.txt",
            "curl localhost:8002/v1/completions -d '{\"prompt\": \"2 + 2 =\", \"max_tokens\": 8}'") { model, watch, grpc, http, device, dtype, int8, cache, threads, cors, perKey, waiting, changes, vllm };
        service.AddTo(command);
        command.Validators.Add(result =>
        {
            if (result.GetValue(grpc) is null && result.GetValue(http) is null) result.AddError("name a port with --grpc, --http or both");
            if (result.GetValue(model)!.Length == 0 && result.GetValue(watch) is null && !result.GetValue(changes)) result.AddError("name what to serve with --model or --watch");
        });
        command.SetAction((result, cancellation) => ServingHost.RunAsync(
            defaults with
            {
                Host = service.Read(result, result.GetValue(grpc), result.GetValue(http)),
                Models = [.. result.GetValue(model)!.Select(ModelSource.Parse)],
                WatchFolder = result.GetValue(watch),
                Device = result.GetValue(device)!,
                Compute = result.GetValue(dtype),
                Weights = result.GetValue(int8) ? WeightFormat.Int8 : WeightFormat.Model,
                CacheBytes = (long)result.GetValue(cache) << 20,
                Threads = result.GetValue(threads),
                Engine = defaults.Engine with { MaxRequestsPerClient = result.GetValue(perKey), MaxWaitingRequests = result.GetValue(waiting) },
                CorsOrigins = result.GetValue(cors)!,
                AllowModelChanges = result.GetValue(changes),
                VllmMetrics = result.GetValue(vllm),
            },
            cancellation));
        return command;
    }

    private static Option<T> Of<T>(string name, string property, T value, string? helpName = null) => RecordOptions<ServingOptions>.Create(name, property, value, helpName);
}
