using OpenTelemetry;
using OpenTelemetry.Exporter;
using OpenTelemetry.Metrics;
using OpenTelemetry.Resources;
using OpenTelemetry.Trace;

namespace Rho.Hosting;

/// <summary>
/// Sends traces and metrics over OTLP while it lives: of every ActivitySource and Meter whose name starts with "Rho", of the runtime, of
/// the web server and of the gRPC client, whose spans lie between a caller's and a service's. All settings of the exporter are OpenTelemetry's environment variables (OTEL_EXPORTER_OTLP_ENDPOINT, _PROTOCOL,
/// _HEADERS, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_METRIC_EXPORT_INTERVAL, ...).
/// </summary>
public sealed class OtlpExport : IDisposable
{
    private static readonly string[] EndpointVariables = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"];
    private readonly TracerProvider _traces;
    private readonly MeterProvider _metrics;

    private OtlpExport(string service, string? endpoint)
    {
        void Configure(OtlpExporterOptions exporter)
        {
            if (endpoint is not null) exporter.Endpoint = new Uri(endpoint);
        }

        var name = Environment.GetEnvironmentVariable("OTEL_SERVICE_NAME") is { Length: > 0 } given ? given : service;
        var resource = ResourceBuilder.CreateDefault().AddService(name, serviceVersion: typeof(OtlpExport).Assembly.GetName().Version?.ToString(3));
        _traces = Sdk.CreateTracerProviderBuilder().SetResourceBuilder(resource).AddSource("Rho*", "Microsoft.AspNetCore", "Grpc.Net.Client", "System.Net.Http").AddOtlpExporter(Configure).Build();
        _metrics = Sdk.CreateMeterProviderBuilder().SetResourceBuilder(resource).AddMeter("Rho*", "System.Runtime", "Microsoft.AspNetCore.*").AddOtlpExporter(Configure).Build();
    }

    /// <summary>Starts where an endpoint is given or the environment names one; null where nothing is to be sent.</summary>
    /// <param name="service">Name of the service, where OTEL_SERVICE_NAME gives none.</param>
    /// <param name="endpoint">Such as http://collector:4317; null leaves it to the environment.</param>
    public static OtlpExport? Start(string service, string? endpoint = null) =>
        endpoint is not null || EndpointVariables.Any(name => !string.IsNullOrEmpty(Environment.GetEnvironmentVariable(name))) ? new OtlpExport(service, endpoint) : null;

    /// <summary>Sends what is left.</summary>
    public void Dispose()
    {
        _traces.Dispose();
        _metrics.Dispose();
    }
}
