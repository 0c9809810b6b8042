using OpenTelemetry;
using OpenTelemetry.Exporter;
using OpenTelemetry.Metrics;
using OpenTelemetry.Resources;
using OpenTelemetry.Trace;

namespace Rho.Hosting;

/// <summary>
/// Traces and metrics over OTLP: of every ActivitySource and Meter whose name starts with "Rho", of the runtime, of the web server and of the
/// gRPC client. Of Redis the scorer's own spans, one an operation, which see timeouts and refusals too; the package's are one a command.
/// All settings of the exporter are OpenTelemetry's environment variables (OTEL_EXPORTER_OTLP_ENDPOINT, _PROTOCOL,
/// _HEADERS, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_METRIC_EXPORT_INTERVAL, ...).
/// </summary>
public static class Telemetry
{
    private static readonly string[] EndpointVariables = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"];

    /// <summary>Starts for a program that is no service, where the environment names an endpoint; null where nothing is to be sent. Disposing it sends what is left.</summary>
    /// <param name="service">Name of the program, where OTEL_SERVICE_NAME gives none.</param>
    public static IDisposable? Start(string service) =>
        IsWanted(endpoint: null) ? OpenTelemetrySdk.Create(builder => Configure(builder, service, endpoint: null)) : null;

    /// <summary>Whether an endpoint is given here or by the environment.</summary>
    internal static bool IsWanted(string? endpoint) =>
        endpoint is not null || EndpointVariables.Any(name => !string.IsNullOrEmpty(Environment.GetEnvironmentVariable(name)));

    /// <param name="service">Name of the service, where OTEL_SERVICE_NAME gives none.</param>
    /// <param name="endpoint">Such as http://collector:4317; null leaves it to the environment.</param>
    internal static void Configure(IOpenTelemetryBuilder builder, string service, string? endpoint)
    {
        var name = Environment.GetEnvironmentVariable("OTEL_SERVICE_NAME") is { Length: > 0 } given ? given : service;
        builder
            .ConfigureResource(resource => resource.AddService(name, serviceVersion: typeof(Telemetry).Assembly.GetName().Version?.ToString(3)))
            .WithTracing(traces => traces.AddSource("Rho*").AddAspNetCoreInstrumentation().AddGrpcClientInstrumentation().AddOtlpExporter(Configure))
            .WithMetrics(metrics => metrics.AddMeter("Rho*", "System.Runtime").AddAspNetCoreInstrumentation().AddOtlpExporter(Configure));

        void Configure(OtlpExporterOptions exporter)
        {
            if (endpoint is not null) exporter.Endpoint = new Uri(endpoint);
        }
    }
}
