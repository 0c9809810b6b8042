using Microsoft.Extensions.Logging;
using Rho.Hosting;
using Rho.Model;
using Rho.Serving;
using Xunit.Runner.InProc.SystemConsole;

// The tests, or, run by them, a server of its own: serve FOLDER.
if (args is not ["serve", var folder]) return await ConsoleRunner.Run(args);
await ServingHost.RunAsync(
    new ServingOptions
    {
        Host = new RhoHostOptions { Service = "rho-serving", GrpcPort = 0, HttpPort = 0, LogLevel = LogLevel.Warning },
        Models = [new ModelSource("served", folder)],
        Compute = ComputeType.Float32,
        CacheBytes = 8 << 20,
        Threads = 2,
        Device = "cpu",
    },
    CancellationToken.None);
return 0;
