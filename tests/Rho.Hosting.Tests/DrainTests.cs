using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using Grpc.Core;
using Grpc.Net.Client;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace Rho.Hosting.Tests;

public class DrainTests
{
    [Fact]
    public async Task Stop_RunningCall_Finishes()
    {
        var host = await ProbeHost.Start();
        using var channel = host.Channel();
        using var call = new Probe.ProbeClient(channel).UnaryAsync(new ProbeRequest { Action = "sleep", Payload = Google.Protobuf.ByteString.CopyFrom(1) });
        await Running(host, 1);
        await host.DisposeAsync();
        Assert.Equal(1, (await call).Bytes);
    }

    [Fact]
    public async Task Stop_StreamThatLinksToDraining_EndsAsUnavailable()
    {
        var host = await ProbeHost.Start();
        using var channel = host.Channel();
        using var call = new Probe.ProbeClient(channel).ServerStream(new ProbeRequest { Action = "wait" });
        Assert.True(await call.ResponseStream.MoveNext());
        var clock = Stopwatch.StartNew();
        await host.DisposeAsync();
        var error = await Assert.ThrowsAsync<RpcException>(() => call.ResponseStream.MoveNext());
        Assert.Equal(StatusCode.Unavailable, error.StatusCode);
        Assert.Contains("stopping", error.Status.Detail, StringComparison.Ordinal);
        Assert.True(clock.Elapsed < TimeSpan.FromSeconds(8), $"stopped after {clock.Elapsed}");
    }

    [Fact]
    public async Task Stop_CallThatHangs_IsCutAtTheTimeout()
    {
        var host = await ProbeHost.Start(ProbeHost.Options with { DrainTimeout = TimeSpan.FromSeconds(1) });
        using var channel = host.Channel();
        using var call = new Probe.ProbeClient(channel).ServerStream(new ProbeRequest { Action = "hang" });
        Assert.True(await call.ResponseStream.MoveNext());
        var clock = Stopwatch.StartNew();
        await host.DisposeAsync();
        Assert.InRange(clock.Elapsed, TimeSpan.FromSeconds(0.9), TimeSpan.FromSeconds(15));
        await Assert.ThrowsAsync<RpcException>(() => call.ResponseStream.MoveNext());
    }

    [Fact]
    public async Task Stop_ReadinessGoesFirst_AndCallsAreServedMeanwhile()
    {
        var host = await ProbeHost.Start(ProbeHost.Options with { DrainDelay = TimeSpan.FromSeconds(2) });
        using var http = host.Http();
        using var channel = host.Channel();
        var health = host.Health;
        var draining = health.Draining;
        var stopped = host.DisposeAsync();
        while (health.Report().Ready) await Task.Delay(10);

        using var ready = await http.GetAsync("/healthz/ready");
        using var live = await http.GetAsync("/healthz/live");
        Assert.Equal((HttpStatusCode.ServiceUnavailable, HttpStatusCode.OK), (ready.StatusCode, live.StatusCode));
        await new Probe.ProbeClient(channel).UnaryAsync(new ProbeRequest { Action = "ok" }, deadline: DateTime.UtcNow + ProbeHost.Limit);
        Assert.False(draining.IsCancellationRequested);
        await stopped;
        Assert.True(draining.IsCancellationRequested);
    }

    [Fact]
    public async Task Sigterm_EndsTheProcessOnceCallsHaveFinished()
    {
        using var process = StartProcess("0", "json");
        var port = 0;
        var errors = new List<string>();
        while (port == 0)
        {
            var line = await process.StandardError.ReadLineAsync().WaitAsync(ProbeHost.Limit);
            Assert.NotNull(line);
            errors.Add(line);
            using var json = JsonDocument.Parse(line);
            if (json.RootElement.GetProperty("Message").GetString()!.Contains("listens for gRPC", StringComparison.Ordinal))
                port = new Uri(json.RootElement.GetProperty("State").GetProperty("Address").GetString()!).Port;
        }

        using var channel = GrpcChannel.ForAddress($"http://127.0.0.1:{port}");
        using var call = new Probe.ProbeClient(channel).ServerStream(new ProbeRequest { Action = "sleep" });
        Assert.True(await call.ResponseStream.MoveNext());
        using (var kill = Process.Start("kill", ["-TERM", process.Id.ToString()])) await kill.WaitForExitAsync().WaitAsync(ProbeHost.Limit);
        Assert.False(await call.ResponseStream.MoveNext(CancellationToken.None).WaitAsync(ProbeHost.Limit));
        await process.WaitForExitAsync().WaitAsync(ProbeHost.Limit);
        Assert.Equal(0, process.ExitCode);
        Assert.Empty(await process.StandardOutput.ReadToEndAsync());
        var rest = await process.StandardError.ReadToEndAsync();
        Assert.All(rest.Split('\n', StringSplitOptions.RemoveEmptyEntries), line => JsonDocument.Parse(line).Dispose());
        Assert.Contains("rho-probe stopped", rest, StringComparison.Ordinal);
    }

    [Fact]
    public async Task PortInUse_IsOneClearLine()
    {
        using var taken = new TcpListener(IPAddress.Loopback, 0);
        taken.Start();
        var port = ((IPEndPoint)taken.LocalEndpoint).Port;
        using var process = StartProcess(port.ToString());
        var errors = await process.StandardError.ReadToEndAsync().WaitAsync(ProbeHost.Limit);
        await process.WaitForExitAsync().WaitAsync(ProbeHost.Limit);
        Assert.Equal(1, process.ExitCode);
        Assert.Equal($"GrpcPort: port {port} on 127.0.0.1 is in use; choose another one, or 0 to let the system choose", errors.Trim());
    }

    [Theory]
    [InlineData(0)]
    [InlineData(300)]
    public async Task BackgroundService_ThatBreaks_EndsTheRunWithItsError(int afterMilliseconds)
    {
        await using var app = ProbeHost.Build(ProbeHost.Options, builder => builder.Services.AddHostedService(_ => new Broken(afterMilliseconds)));
        var error = await Assert.ThrowsAsync<InvalidOperationException>(() => app.RunRhoAsync().WaitAsync(ProbeHost.Limit));
        Assert.Equal("the loop broke", error.Message);
    }

    private static Process StartProcess(params string[] arguments) => Process.Start(new ProcessStartInfo(Environment.ProcessPath!, ["serve", .. arguments])
    {
        UseShellExecute = false,
        RedirectStandardOutput = true,
        RedirectStandardError = true,
    })!;

    private static async Task Running(ProbeHost host, int calls)
    {
        using var http = host.Http();
        for (var clock = Stopwatch.StartNew(); !(await http.GetStringAsync("/metrics")).Contains($"rho_rpc_active{{method=\"/rho.hosting.tests.Probe/Unary\"}} {calls}", StringComparison.Ordinal); await Task.Delay(20))
            Assert.True(clock.Elapsed < ProbeHost.Limit);
    }

    private sealed class Broken(int afterMilliseconds) : BackgroundService
    {
        protected override async Task ExecuteAsync(CancellationToken cancellation)
        {
            await Task.Delay(afterMilliseconds, cancellation);
            throw new InvalidOperationException("the loop broke");
        }
    }
}
