using System.CommandLine;
using Rho.Training.Service;

namespace Rho.Cli.Commands;

/// <summary>rho trainer: the service that starts, watches, stops and resumes runs.</summary>
internal static class TrainerCommand
{
    public static Command Create()
    {
        var runs = new Option<string>("--runs") { Description = "Folder of the runs, one folder each", HelpName = "DIR", Required = true };
        var data = new Option<string?>("--data") { Description = "What relative paths in run files are relative to; the folder of the runs without it", HelpName = "DIR" };
        var port = new Option<int>("--port") { Description = "Port for gRPC (rho.training.v1); 0 lets the system choose", HelpName = "P", DefaultValueFactory = _ => 5003 };
        var http = new Option<int?>("--http") { Description = "Port for /healthz and /metrics; without it only gRPC is served", HelpName = "P" };
        var parallel = new Option<int>("--max-runs") { Description = "Runs at work at a time; others wait", HelpName = "N", DefaultValueFactory = _ => 1 };
        var service = new ServiceOptions("rho-trainer", drainSeconds: 300);
        var command = new ExampleCommand(
            "trainer", "Serve training runs over gRPC. Runs survive a restart of the service.",
            "rho trainer --runs runs --port 5003",
            "rho trainer --runs runs --data /data --bind '*' --http 8003 --api-keys keys.txt") { runs, data, port, http, parallel };
        service.AddTo(command);
        command.SetAction((result, cancellation) => TrainingHost.RunAsync(
            new TrainingServiceOptions
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
