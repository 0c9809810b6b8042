using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Text;
using Google.Protobuf;
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
        // A collector that keeps the messages it is sent, without gRPC's five bytes before each.
        var received = new ConcurrentQueue<(string Service, byte[] Message)>();
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.ConfigureKestrel(kestrel => kestrel.Listen(IPAddress.Loopback, 0, listener => listener.Protocols = HttpProtocols.Http2));
        await using var collector = builder.Build();
        collector.MapPost("/{service}/Export", async (string service, HttpContext context) =>
        {
            using var body = new MemoryStream();
            await context.Request.Body.CopyToAsync(body);
            received.Enqueue((service, body.ToArray()[5..]));
            context.Response.ContentType = "application/grpc";
            context.Response.DeclareTrailer("grpc-status");
            await context.Response.Body.WriteAsync(new byte[5]);
            context.Response.AppendTrailer("grpc-status", "0");
        });
        await collector.StartAsync().WaitAsync(ProbeHost.Limit);

        var host = await ProbeHost.Start(ProbeHost.Options with { OtlpEndpoint = collector.Urls.Single() });
        using var source = new ActivitySource("Rho.Hosting.Tests");
        var caller = source.StartActivity("caller")!;
        using (var channel = host.Channel()) await new Probe.ProbeClient(channel).UnaryAsync(new ProbeRequest { Action = "ok" });
        caller.Stop();
        await host.DisposeAsync();
        await collector.StopAsync().WaitAsync(ProbeHost.Limit);

        // Names travel as plain text within the messages.
        var traces = Messages("opentelemetry.proto.collector.trace.v1.TraceService");
        var metrics = string.Concat(Messages("opentelemetry.proto.collector.metrics.v1.MetricsService").Select(Encoding.Latin1.GetString));
        Assert.All(traces, message => Assert.Contains("rho-probe", Encoding.Latin1.GetString(message), StringComparison.Ordinal));
        Assert.Contains("rho.rpc.duration", metrics, StringComparison.Ordinal);
        Assert.Contains("http.server.request.duration", metrics, StringComparison.Ordinal);

        var spans = traces.SelectMany(Spans).Where(span => span.Trace == caller.TraceId.ToString()).ToDictionary(span => span.Id, StringComparer.Ordinal);
        var served = Assert.Single(spans.Values, span => span is { Kind: 2 });
        Assert.Equal("POST /rho.hosting.tests.Probe/Unary", served.Name);
        var path = new List<string>();
        for (var span = served; span is not null; span = spans.GetValueOrDefault(span.Parent)) path.Insert(0, span.Name);
        Assert.Equal(["caller", "rho.hosting.tests.Probe/Unary", "POST /rho.hosting.tests.Probe/Unary"], path);

        byte[][] Messages(string service) => [.. received.Where(entry => entry.Service == service).Select(entry => entry.Message)];
    }

    /// <summary>Spans of an ExportTraceServiceRequest { resource_spans = 1 { scope_spans = 2 { spans = 2 } } }.</summary>
    private static IEnumerable<Span> Spans(byte[] request) =>
        Fields(request, 1).SelectMany(resource => Fields(resource, 2)).SelectMany(scope => Fields(scope, 2)).Select(span => new Span(
            Convert.ToHexStringLower(Fields(span, 1).Single()),
            Convert.ToHexStringLower(Fields(span, 2).Single()),
            Convert.ToHexStringLower(Fields(span, 4).SingleOrDefault([])),
            Encoding.UTF8.GetString(Fields(span, 5).Single()),
            Kind: Fields(span, 6).Single()[0]));

    /// <summary>The values of one field of a message; a number's are its first byte.</summary>
    private static List<byte[]> Fields(byte[] message, int number)
    {
        var values = new List<byte[]>();
        var input = new CodedInputStream(message);
        while (input.ReadTag() is not 0 and var tag)
        {
            byte[]? value = null;
            if (WireFormat.GetTagWireType(tag) == WireFormat.WireType.LengthDelimited) value = input.ReadBytes().ToByteArray();
            else if (WireFormat.GetTagWireType(tag) == WireFormat.WireType.Varint) value = [(byte)input.ReadUInt64()];
            else input.SkipLastField();
            if (value is not null && WireFormat.GetTagFieldNumber(tag) == number) values.Add(value);
        }

        return values;
    }

    private sealed record Span(string Trace, string Id, string Parent, string Name, int Kind);
}
