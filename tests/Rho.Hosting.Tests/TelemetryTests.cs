using System.Collections.Concurrent;
using System.Net;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.Logging;

namespace Rho.Hosting.Tests;

public class TelemetryTests
{
    [Fact]
    public async Task Otlp_TracesAndMetrics_ReachACollector()
    {
        // A collector that keeps what is exported; names travel as plain text within the protobuf messages.
        var received = new ConcurrentDictionary<string, string>(StringComparer.Ordinal);
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.ConfigureKestrel(kestrel => kestrel.Listen(IPAddress.Loopback, 0, listener => listener.Protocols = HttpProtocols.Http2));
        await using var collector = builder.Build();
        collector.MapPost("/{service}/Export", async (string service, HttpContext context) =>
        {
            using var body = new MemoryStream();
            await context.Request.Body.CopyToAsync(body);
            received.AddOrUpdate(service, _ => Encoding.Latin1.GetString(body.ToArray()), (_, before) => before + Encoding.Latin1.GetString(body.ToArray()));
            context.Response.ContentType = "application/grpc";
            context.Response.DeclareTrailer("grpc-status");
            await context.Response.Body.WriteAsync(new byte[5]);
            context.Response.AppendTrailer("grpc-status", "0");
        });
        await collector.StartAsync().WaitAsync(ProbeHost.Limit);

        var host = await ProbeHost.Start(ProbeHost.Options with { OtlpEndpoint = collector.Urls.Single() });
        using (var channel = host.Channel()) await new Probe.ProbeClient(channel).UnaryAsync(new ProbeRequest { Action = "ok" });
        await host.DisposeAsync();
        await collector.StopAsync().WaitAsync(ProbeHost.Limit);

        var traces = received["opentelemetry.proto.collector.trace.v1.TraceService"];
        var metrics = received["opentelemetry.proto.collector.metrics.v1.MetricsService"];
        Assert.Contains("rho-probe", traces, StringComparison.Ordinal);
        Assert.Contains("/rho.hosting.tests.Probe/Unary", traces, StringComparison.Ordinal);
        Assert.Contains("rho.rpc.duration", metrics, StringComparison.Ordinal);
    }
}
