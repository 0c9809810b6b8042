using Microsoft.Extensions.Logging;
using Xunit.Runner.InProc.SystemConsole;

namespace Rho.Hosting.Tests;

/// <summary>The tests, or, run by them, the probe as a process of its own: "serve PORT [json]". Errors of the user go to stderr as one line, as the CLI has it.</summary>
internal static class Program
{
    public static async Task<int> Main(string[] args)
    {
        if (args is not ["serve", var port, ..]) return await ConsoleRunner.Run(args);
        try
        {
            await using var app = ProbeHost.Build(ProbeHost.Options with { GrpcPort = int.Parse(port), HttpPort = null, JsonLogs = args.Contains("json"), LogLevel = LogLevel.Information });
            await app.RunRhoAsync();
            return 0;
        }
        catch (RhoException exception)
        {
            await Console.Error.WriteLineAsync(exception.Message);
            return 1;
        }
    }
}
