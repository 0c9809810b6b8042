using System.Diagnostics;

namespace Rho.Serving.Tests;

/// <summary>Clients that others wrote, against a real server.</summary>
public sealed class ClientTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(3);
    private static readonly Lazy<Task> s_packages = new(() => RunAsync("npm", ["install", "--no-audit", "--no-fund", "--package-lock=false", "--loglevel=error"]));

    private static string Clients => Path.Combine(AppContext.BaseDirectory, "clients");

    private static string Protos => Path.Combine(AppContext.BaseDirectory, "protos");

    [Fact, Trait("Category", "Slow")]
    public async Task OpenAiPackage_EveryRouteAndOption()
    {
        await s_packages.Value;
        await using var server = await TestServer.StartAsync();
        Assert.EndsWith("ok", await RunAsync("node", ["openai_client.mjs", server.Addresses.Http!.ToString()]), StringComparison.Ordinal);
        await server.IdleAsync();
    }

    [Fact, Trait("Category", "Slow")]
    public async Task GrpcJs_GeneratesAndScores()
    {
        await s_packages.Value;
        await using var server = await TestServer.StartAsync();
        Assert.EndsWith("ok", await RunAsync("node", ["grpc_client.mjs", server.Addresses.Grpc!.Authority, Protos]), StringComparison.Ordinal);
    }

    [Fact]
    public async Task PythonGrpc_GeneratesAndScores()
    {
        await using var server = await TestServer.StartAsync();
        Assert.EndsWith("ok", await RunAsync("/usr/bin/python3", ["grpc_client.py", server.Addresses.Grpc!.Authority, Protos]), StringComparison.Ordinal);
        await server.IdleAsync();
    }

    [Fact]
    public async Task Curl_StreamsAsItShould()
    {
        await using var server = await TestServer.StartAsync();
        var output = await RunAsync("curl", ["-sSN", $"{server.Addresses.Http}v1/completions", "-d", """{"prompt": "The", "max_tokens": 3, "stream": true, "ignore_eos": true}"""]);
        Assert.EndsWith("data: [DONE]", output, StringComparison.Ordinal);
    }

    private static async Task<string> RunAsync(string program, IEnumerable<string> arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { WorkingDirectory = Clients, RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false };
        using var process = Process.Start(start)!;
        try
        {
            var output = process.StandardOutput.ReadToEndAsync();
            var errors = process.StandardError.ReadToEndAsync();
            await process.WaitForExitAsync().WaitAsync(s_patience);
            Assert.True(process.ExitCode == 0, $"{program}: {await errors}{await output}");
            return (await output).TrimEnd();
        }
        finally
        {
            if (!process.HasExited) process.Kill(entireProcessTree: true);
        }
    }
}
