using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Rho.Hosting;

/// <summary>
/// The orderly end, on SIGTERM or when the application stops: (1) readiness goes, so that balancers look elsewhere; (2) after the
/// drain delay long streams are asked to end; (3) the server takes no more connections and running calls finish, within the host's
/// shutdown timeout; (4) what the service hosts stops.
/// </summary>
internal sealed partial class Drain(ServiceHealth health, RhoHostOptions options, TimeProvider time, ILogger<Drain> logger) : IHostedLifecycleService
{
    public async Task StoppingAsync(CancellationToken cancellationToken)
    {
        Stopping(options.Service, options.DrainTimeout.TotalSeconds);
        health.Stop();
        await Task.Delay(options.DrainDelay, time, cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        health.EndStreams();
    }

    public Task StoppedAsync(CancellationToken cancellationToken)
    {
        if (cancellationToken.IsCancellationRequested) Cut(options.Service, options.DrainTimeout.TotalSeconds);
        else Stopped(options.Service);
        return Task.CompletedTask;
    }

    public Task StartingAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    [LoggerMessage(LogLevel.Information, "{Service} stops; running calls have {Seconds} s to finish")]
    private partial void Stopping(string service, double seconds);

    [LoggerMessage(LogLevel.Information, "{Service} stopped")]
    private partial void Stopped(string service);

    [LoggerMessage(LogLevel.Warning, "{Service} stopped; calls that still ran after {Seconds} s were cut")]
    private partial void Cut(string service, double seconds);
}
