using Microsoft.Extensions.Hosting;

namespace Rho.Hosting;

/// <summary>Traces and metrics over OTLP for the life of a service, where its options or the environment ask for them.</summary>
internal sealed class Telemetry(RhoHostOptions options) : IHostedService, IDisposable
{
    private OtlpExport? _export;

    public Task StartAsync(CancellationToken cancellationToken)
    {
        _export = OtlpExport.Start(options.Service, options.OtlpEndpoint);
        return Task.CompletedTask;
    }

    public Task StopAsync(CancellationToken cancellationToken)
    {
        Dispose();
        return Task.CompletedTask;
    }

    public void Dispose()
    {
        _export?.Dispose();
        _export = null;
    }
}
