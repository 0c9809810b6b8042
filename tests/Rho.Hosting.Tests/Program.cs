using Microsoft.Extensions.Logging;

namespace Rho.Hosting.Tests;

/// <summary>The probe as a process of its own: "PORT [json]". Errors of the user go to stderr as one line, as the CLI has it.</summary>
internal static class Program
{
    public static async Task<int> Main(string[] args)
    {
        try
        {
            await using var app = ProbeHost.Build(ProbeHost.Options with { GrpcPort = int.Parse(args[0]), HttpPort = null, JsonLogs = args.Contains("json"), LogLevel = LogLevel.Information });
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
