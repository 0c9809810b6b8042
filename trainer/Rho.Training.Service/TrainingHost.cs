using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Rho.Hosting;

namespace Rho.Training.Service;

/// <summary>The training service of one machine.</summary>
public sealed class TrainingHost : IAsyncDisposable
{
    private readonly WebApplication _app;

    private TrainingHost(WebApplication app)
    {
        _app = app;
        Address = app.GetRhoAddresses().Grpc!;
        HttpAddress = app.GetRhoAddresses().Http;
    }

    /// <summary>Where gRPC is served, with the real port.</summary>
    public Uri Address { get; }

    /// <summary>Where health and metrics are served; null where no HTTP port was asked for.</summary>
    public Uri? HttpAddress { get; }

    /// <summary>Starts the service, which takes up the runs that were wanted when it last ended.</summary>
    /// <exception cref="RhoException">A setting is wrong, or a port is in use.</exception>
    public static async Task<TrainingHost> StartAsync(TrainingServiceOptions options, CancellationToken cancellation = default)
    {
        options.Validate();
        var builder = RhoHost.CreateBuilder(options.Host);
        builder.Services.AddSingleton(options);
        builder.Services.AddSingleton<RunManager>();
        var app = builder.Build();
        try
        {
            app.MapRhoDefaults();
            app.MapGrpcService<TrainingService>();
            var runs = app.Services.GetRequiredService<RunManager>();
            await app.StartRhoAsync(cancellation);
            runs.TakeUp();
            return new TrainingHost(app);
        }
        catch
        {
            await app.DisposeAsync();
            throw;
        }
    }

    /// <summary>
    /// The service of <c>rho trainer</c>: prints "listening on ADDRESS" once it serves, and runs until SIGTERM, SIGINT or
    /// <paramref name="cancellation"/>. Runs then write a checkpoint, and go on when the service is back.
    /// </summary>
    /// <exception cref="RhoException">A setting is wrong, or a port is in use.</exception>
    public static async Task RunAsync(TrainingServiceOptions options, CancellationToken cancellation)
    {
        await using var host = await StartAsync(options, cancellation);
        await Console.Out.WriteLineAsync($"listening on {host.Address.Authority}");
        await host._app.WaitForShutdownAsync(cancellation);
    }

    /// <summary>Ends the service and, with checkpoints, its runs.</summary>
    public async ValueTask DisposeAsync()
    {
        await _app.StopAsync();
        await _app.DisposeAsync();
    }
}
