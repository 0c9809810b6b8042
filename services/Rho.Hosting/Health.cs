using Grpc.Core;
using Grpc.Health.V1;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Status = Grpc.Health.V1.HealthCheckResponse.Types.ServingStatus;

namespace Rho.Hosting;

/// <summary>
/// The probes over HTTP. Each answers 200 or 503 with the whole report as JSON: /healthz/live (restart me when it fails: live and
/// progressing), /healthz/ready (send me calls: live, ready and progressing), /healthz (the same as ready).
/// </summary>
internal static class HealthEndpoints
{
    public static void Map(IEndpointRouteBuilder routes, ServiceHealth health)
    {
        routes.MapGet("/healthz/live", () => Answer(health.Report(), report => report.Live && report.Progressing));
        routes.MapGet("/healthz/ready", () => Answer(health.Report(), report => report.Serving));
        routes.MapGet("/healthz", () => Answer(health.Report(), report => report.Serving));
    }

    private static IResult Answer(HealthReport report, Func<HealthReport, bool> healthy)
    {
        var ok = healthy(report);
        var body = new { Status = ok ? "ok" : "unhealthy", report.Live, report.Ready, report.Progressing, report.Reasons };
        return Results.Json(body, statusCode: ok ? StatusCodes.Status200OK : StatusCodes.Status503ServiceUnavailable);
    }
}

/// <summary>grpc.health.v1: the empty name is the service as a whole, and each mapped gRPC service has its health.</summary>
internal sealed class HealthService(ServiceHealth health, MappedServices services, TimeProvider time) : Grpc.Health.V1.Health.HealthBase
{
    private static readonly TimeSpan LookAgain = TimeSpan.FromSeconds(1);

    public override Task<HealthCheckResponse> Check(HealthCheckRequest request, ServerCallContext context)
    {
        var status = StatusOf(request.Service);
        return status == Status.ServiceUnknown
            ? throw new NotFoundException($"no service '{request.Service}' here; there are {string.Join(", ", services.Names)}")
            : Task.FromResult(new HealthCheckResponse { Status = status });
    }

    public override async Task Watch(HealthCheckRequest request, IServerStreamWriter<HealthCheckResponse> responseStream, ServerCallContext context)
    {
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(context.CancellationToken, health.Draining);
        Status? sent = null;
        while (true)
        {
            var changed = health.NextChange();
            var status = StatusOf(request.Service);
            if (status != sent) await responseStream.WriteAsync(new HealthCheckResponse { Status = status }, context.CancellationToken);
            sent = status;
            if (health.Draining.IsCancellationRequested) return;
            await Task.WhenAny(changed, Task.Delay(LookAgain, time, linked.Token));
            context.CancellationToken.ThrowIfCancellationRequested();
        }
    }

    private Status StatusOf(string service)
    {
        if (service.Length > 0 && !services.Names.Contains(service)) return Status.ServiceUnknown;
        return health.Report().Serving ? Status.Serving : Status.NotServing;
    }
}
