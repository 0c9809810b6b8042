using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Rho.Hosting;

/// <summary>
/// The orderly end, on SIGTERM or when the application stops: (1) readiness goes, so that balancers look elsewhere; (2) after the
/// drain delay long streams are asked to end; (3) running calls finish, within the host's shutdown timeout; (4) the server closes its
/// connections; (5) what the service hosts stops.
/// </summary>
internal sealed partial class Drain(ServiceHealth health, RunningCalls calls, RhoHostOptions options, TimeProvider time, ILogger<Drain> logger) : IHostedLifecycleService
{
    /// <summary>Between the end of the last call and that of its connection: a server that closes at once may lose the call's status on its way out.</summary>
    private static readonly TimeSpan Linger = TimeSpan.FromMilliseconds(100);

    public async Task StoppingAsync(CancellationToken cancellation)
    {
        Stopping(options.Service, options.DrainTimeout.TotalSeconds);
        health.Stop();
        await Task.Delay(options.DrainDelay, time, cancellation).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        health.EndStreams();
        var ended = calls.Ended();
        if (ended.IsCompleted) return;
        await ended.WaitAsync(cancellation).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await Task.Delay(Linger, cancellation).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    public Task StoppedAsync(CancellationToken cancellation)
    {
        if (cancellation.IsCancellationRequested) Cut(options.Service, options.DrainTimeout.TotalSeconds);
        else Stopped(options.Service);
        return Task.CompletedTask;
    }

    public Task StartingAsync(CancellationToken cancellation) => Task.CompletedTask;

    public Task StartAsync(CancellationToken cancellation) => Task.CompletedTask;

    public Task StartedAsync(CancellationToken cancellation) => Task.CompletedTask;

    public Task StopAsync(CancellationToken cancellation) => Task.CompletedTask;

    [LoggerMessage(LogLevel.Information, "{Service} stops; running calls have {Seconds} s to finish")]
    private partial void Stopping(string service, double seconds);

    [LoggerMessage(LogLevel.Information, "{Service} stopped")]
    private partial void Stopped(string service);

    [LoggerMessage(LogLevel.Warning, "{Service} stopped; calls that still ran after {Seconds} s were cut")]
    private partial void Cut(string service, double seconds);
}
