using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Rho.Hosting;
using Rho.Serving.Engine;
using Rho.Serving.Http;
using Rho.Serving.Models;
using Rho.Serving.Rpc;

namespace Rho.Serving;

/// <summary>The inference endpoint as a program.</summary>
public static class ServingHost
{
    /// <summary>
    /// Loads the models and serves them until the token or SIGTERM stops it; requests under way then have the drain timeout to finish.
    /// Prints one line with its addresses when it is ready.
    /// </summary>
    /// <exception cref="RhoException">A setting, a model or a port cannot be used.</exception>
    public static async Task RunAsync(ServingOptions options, CancellationToken cancellation)
    {
        await using var app = Build(options);
        await LoadAsync(app, options, cancellation);
        await app.StartRhoAsync(cancellation);
        var addresses = app.GetRhoAddresses();
        Console.Out.WriteLine($"listening on {string.Join(" and ", new[] { (Kind: "gRPC", Address: addresses.Grpc), (Kind: "HTTP", Address: addresses.Http) }
            .Where(face => face.Address is not null).Select(face => $"{face.Address} ({face.Kind})"))}");
        await app.WaitForShutdownAsync(cancellation);
    }

    /// <summary>Builds the application without starting it.</summary>
    /// <param name="time">The clock; the system's where null.</param>
    public static WebApplication Build(ServingOptions options, TimeProvider? time = null)
    {
        options.Validate();
        var builder = RhoHost.CreateBuilder(options.Host);
        if (time is not null) builder.Services.AddSingleton(time);
        builder.Services.AddSingleton(options);
        builder.Services.AddSingleton(provider => new EngineMetrics(provider.GetRequiredService<System.Diagnostics.Metrics.IMeterFactory>(), options.VllmMetrics));
        builder.Services.AddSingleton<ModelRegistry>();
        builder.Services.AddHostedService<FolderWatcher>();
        HttpFace.AddServices(builder.Services);

        var app = builder.Build();
        HttpFace.UseBefore(app, options);
        app.MapRhoDefaults();
        app.MapGrpcService<InferenceService>();
        HttpFace.Map(app);
        return app;
    }

    /// <summary>Loads the models that the options name.</summary>
    public static async Task LoadAsync(WebApplication app, ServingOptions options, CancellationToken cancellation)
    {
        var registry = app.Services.GetRequiredService<ModelRegistry>();
        if (options.Models.Count == 0) app.Services.GetRequiredService<ServiceHealth>().NotReady("model", "none is loaded");
        foreach (var source in options.Models) await registry.LoadAsync(source, cancellation);
    }
}
