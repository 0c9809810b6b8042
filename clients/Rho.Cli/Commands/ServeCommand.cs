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
        var model = new Option<string[]>("--model") { Description = "Checkpoint folder to serve under its own or another name; several times for several", HelpName = "[NAME=]DIR", DefaultValueFactory = _ => [] };
        var watch = new Option<string?>("--watch") { Description = "Folder whose checkpoint folders are served as they appear and change", HelpName = "DIR" };
        var grpc = new Option<int?>("--grpc") { Description = "Port for gRPC (rho.inference.v1); 0 lets the system choose", HelpName = "P" };
        var http = new Option<int?>("--http") { Description = "Port for HTTP (/v1/completions, /v1/models, /healthz, /metrics)", HelpName = "P" };
        var device = new Option<string>("--device") { Description = "auto, cpu, cuda or cuda:N", DefaultValueFactory = _ => "auto" };
        var dtype = new Option<ComputeType>("--dtype") { Description = "Number type of weights and cache", DefaultValueFactory = _ => ComputeType.Auto };
        var int8 = new Option<bool>("--int8") { Description = "8-bit weights (CPU)" };
        var cache = new Option<int>("--cache-mib") { Description = "Memory for keys and values of each model", HelpName = "MIB", DefaultValueFactory = _ => 1024 };
        var threads = new Option<int>("--threads") { Description = "Threads that compute on the CPU; 0 takes one per processor", HelpName = "N" };
        var cors = new Option<string[]>("--cors") { Description = "Web origin that may call from a browser, or *", HelpName = "ORIGIN", DefaultValueFactory = _ => [] };
        var perKey = new Option<int>("--max-per-key") { Description = "Prompts of one API key (or address) under way at once; 0 is no limit", HelpName = "N" };
        var waiting = new Option<int>("--max-waiting") { Description = "Requests that may wait; further ones are refused (429)", HelpName = "N", DefaultValueFactory = _ => new EngineOptions().MaxWaitingRequests };
        var changes = new Option<bool>("--allow-model-changes") { Description = "Serve LoadModel and UnloadModel" };
        var vllm = new Option<bool>("--vllm-metrics") { Description = "Also show metrics under vLLM's names" };
        var service = new ServiceOptions("rho-serving");
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
            new ServingOptions
            {
                Host = service.Read(result, result.GetValue(grpc), result.GetValue(http)),
                Models = [.. result.GetValue(model)!.Select(ModelSource.Parse)],
                WatchFolder = result.GetValue(watch),
                Device = result.GetValue(device)!,
                Compute = result.GetValue(dtype),
                Weights = result.GetValue(int8) ? WeightFormat.Int8 : WeightFormat.Model,
                CacheBytes = (long)result.GetValue(cache) << 20,
                Threads = result.GetValue(threads),
                Engine = new EngineOptions { MaxRequestsPerClient = result.GetValue(perKey), MaxWaitingRequests = result.GetValue(waiting) },
                CorsOrigins = result.GetValue(cors)!,
                AllowModelChanges = result.GetValue(changes),
                VllmMetrics = result.GetValue(vllm),
            },
            cancellation));
        return command;
    }
}
