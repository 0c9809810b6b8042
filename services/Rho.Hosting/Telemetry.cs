using Microsoft.Extensions.Hosting;
using OpenTelemetry;
using OpenTelemetry.Exporter;
using OpenTelemetry.Metrics;
using OpenTelemetry.Resources;
using OpenTelemetry.Trace;

namespace Rho.Hosting;

/// <summary>
/// Sends traces and metrics over OTLP: of every ActivitySource and Meter whose name starts with "Rho", and of the web server.
/// The exporter's other settings are OpenTelemetry's environment variables (OTEL_EXPORTER_OTLP_HEADERS, _PROTOCOL, OTEL_TRACES_SAMPLER, ...).
/// </summary>
internal sealed class Telemetry(RhoHostOptions options) : IHostedService, IDisposable
{
    public const string EndpointVariable = "OTEL_EXPORTER_OTLP_ENDPOINT";
    private TracerProvider? _traces;
    private MeterProvider? _metrics;

    public static bool IsWanted(RhoHostOptions options) => options.OtlpEndpoint is not null || !string.IsNullOrEmpty(Environment.GetEnvironmentVariable(EndpointVariable));

    public Task StartAsync(CancellationToken cancellationToken)
    {
        var resource = ResourceBuilder.CreateDefault().AddService(options.Service, serviceVersion: typeof(Telemetry).Assembly.GetName().Version?.ToString(3));
        _traces = Sdk.CreateTracerProviderBuilder().SetResourceBuilder(resource).AddSource("Rho*", "Microsoft.AspNetCore").AddOtlpExporter(Configure).Build();
        _metrics = Sdk.CreateMeterProviderBuilder().SetResourceBuilder(resource).AddMeter("Rho*", "System.Runtime", "Microsoft.AspNetCore.*").AddOtlpExporter(Configure).Build();
        return Task.CompletedTask;
    }

    public Task StopAsync(CancellationToken cancellationToken)
    {
        Dispose();
        return Task.CompletedTask;
    }

    /// <summary>Sends what is left.</summary>
    public void Dispose()
    {
        _traces?.Dispose();
        _metrics?.Dispose();
    }

    private void Configure(OtlpExporterOptions exporter)
    {
        if (options.OtlpEndpoint is not null) exporter.Endpoint = new Uri(options.OtlpEndpoint);
    }
}
