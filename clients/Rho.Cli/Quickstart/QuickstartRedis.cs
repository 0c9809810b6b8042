using System.Net;
using System.Net.Sockets;

namespace Rho.Cli.Quickstart;

/// <summary>A Redis for one job: in memory, on a free port, gone with the job.</summary>
internal static class QuickstartRedis
{
    private static readonly string[] Folders = ["/usr/bin", "/usr/local/bin", .. (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':', StringSplitOptions.RemoveEmptyEntries)];

    /// <summary>The program, or null where there is none.</summary>
    public static string? Find() => Folders.Select(folder => Path.Combine(folder, "redis-server")).FirstOrDefault(File.Exists);

    /// <exception cref="RhoException">There is no Redis here, or it does not start.</exception>
    public static async Task<(ChildProcess Process, int Port)> StartAsync(string? logPath, CancellationToken cancellation)
    {
        var program = Find() ?? throw new RhoException("redis-server is not installed; sudo apt-get install redis-server");
        // Between choosing a free port and Redis taking it, another process may take it first.
        for (var attempt = 1; ; attempt++)
        {
            var port = FreePort();
            var process = ChildProcess.Start(
                "redis-server", program,
                ["--port", $"{port}", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", Path.GetTempPath()],
                line => line.Contains("Ready to accept connections", StringComparison.Ordinal) ? "ready" : null, logPath);
            try
            {
                await process.ReadyAsync(TimeSpan.FromSeconds(20), cancellation);
                return (process, port);
            }
            catch (RhoException) when (attempt < 5 && process.Output.Contains("Address already in use", StringComparison.Ordinal))
            {
                await process.DisposeAsync();
            }
            catch
            {
                await process.DisposeAsync();
                throw;
            }
        }
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}
