using System.CommandLine;
using Rho.Training.Service;

namespace Rho.Cli.Commands;

/// <summary>rho trainer: the service that starts, watches, stops and resumes runs.</summary>
internal static class TrainerCommand
{
    public static Command Create()
    {
        var defaults = new TrainingServiceOptions { Runs = "" };
        var runs = RecordOptions<TrainingServiceOptions>.Create<string?>("--runs", nameof(TrainingServiceOptions.Runs), null, "DIR");
        runs.Required = true;
        var data = RecordOptions<TrainingServiceOptions>.Create("--data", nameof(TrainingServiceOptions.Data), defaults.Data, "DIR");
        var port = new Option<int>("--port") { Description = "Port for gRPC (rho.training.v1); 0 lets the system choose", HelpName = "P", DefaultValueFactory = _ => defaults.Host.GrpcPort!.Value };
        var http = ServiceOptions.HealthPort();
        var parallel = RecordOptions<TrainingServiceOptions>.Create("--max-runs", nameof(TrainingServiceOptions.MaxConcurrentRuns), defaults.MaxConcurrentRuns, "N");
        var service = new ServiceOptions(defaults.Host);
        var command = new ExampleCommand(
            "trainer", "Serve training runs over gRPC. Runs survive a restart of the service.",
            "rho trainer --runs runs --port 5003",
            "rho trainer --runs runs --data /data --bind '*' --http 8003 --api-keys keys.txt") { runs, data, port, http, parallel };
        service.AddTo(command);
        command.SetAction((result, cancellation) => TrainingHost.RunAsync(
            defaults with
            {
                Host = service.Read(result, result.GetValue(port), result.GetValue(http)),
                Runs = result.GetValue(runs)!,
                Data = result.GetValue(data),
                MaxConcurrentRuns = result.GetValue(parallel),
            },
            cancellation));
        return command;
    }
}
