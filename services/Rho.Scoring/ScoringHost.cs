using System.Diagnostics.Metrics;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Rho.Hosting;
using Rho.Model;
using Rho.Scoring.Caching;
using Rho.Scoring.Service;
using Rho.Scoring.Work;
using Rho.Torch;

namespace Rho.Scoring;

/// <summary>
/// The scorer as a process: references loaded and warmed up, the cache reached, then the server opened.
/// </summary>
public sealed class ScoringHost : IAsyncDisposable
{
    private readonly WebApplication _app;
    private readonly ILossStore _store;
    private readonly IReadOnlyList<ServedReference> _references;
    private readonly IDisposable _cacheHealth;
    private int _disposed;

    private ScoringHost(WebApplication app, ILossStore store, IReadOnlyList<ServedReference> references, IDisposable cacheHealth)
    {
        _app = app;
        _store = store;
        _references = references;
        _cacheHealth = cacheHealth;
        Address = app.GetRhoAddresses().Grpc!;
        HttpAddress = app.GetRhoAddresses().Http;
    }

    /// <summary>Where gRPC is served, with the real port.</summary>
    public Uri Address { get; }

    /// <summary>Where health and metrics are served; null where no HTTP port was asked for.</summary>
    public Uri? HttpAddress { get; }

    /// <summary>Fingerprints of the references, the default first.</summary>
    public IReadOnlyList<string> References => [.. _references.Select(reference => reference.Fingerprint)];

    /// <summary>Opens a scorer that serves models of the caller's; it disposes them.</summary>
    /// <exception cref="RhoException">A setting is wrong, a port is in use, the cache cannot be reached.</exception>
    public static async Task<ScoringHost> StartAsync(ScoringOptions options, IReadOnlyList<IReferenceModel> models, CancellationToken cancellation = default)
    {
        options.Validate();
        if (models.Count == 0) throw new RhoException("scorer settings: no reference is given");
        var builder = RhoHost.CreateBuilder(options.Host);
        var references = new List<ServedReference>();
        ILossStore? store = null;
        WebApplication? app = null;
        try
        {
            builder.Services.AddSingleton(provider => new ScoringMetrics(provider.GetRequiredService<IMeterFactory>()));
            builder.Services.AddSingleton(provider => new Scorer(
                references, store!, options, provider.GetRequiredService<ScoringMetrics>(), provider.GetRequiredService<ILogger<Scorer>>(), provider.GetRequiredService<ServiceHealth>().Draining));
            app = builder.Build();
            var metrics = app.Services.GetRequiredService<ScoringMetrics>();
            var health = app.Services.GetRequiredService<ServiceHealth>();
            store = await OpenStoreAsync(options, metrics, app.Services.GetRequiredService<ILoggerFactory>(), cancellation);
            foreach (var model in models)
            {
                var reference = await ServedReference.StartAsync(model, options, metrics, new HealthWatch(health.Watch($"reference {model.Fingerprint}")), cancellation);
                references.Add(reference);
                await reference.AgreeWithAsync(store, cancellation);
            }

            Observe(metrics, references, store);
            app.MapRhoDefaults();
            app.MapGrpcService<ReferenceScorerService>();
            await app.StartRhoAsync(cancellation);
            return new ScoringHost(app, store, references, WatchCache(store, health));
        }
        catch
        {
            if (app is not null) await app.DisposeAsync();
            foreach (var reference in references) reference.Dispose();
            foreach (var model in models.Skip(references.Count)) model.Dispose();
            if (store is not null) await store.DisposeAsync();
            throw;
        }
    }

    /// <summary>
    /// The scorer of <c>rho scorer</c>: loads the references, prints "listening on ADDRESS" once it serves, and runs until SIGTERM, SIGINT
    /// or <paramref name="cancellation"/>. Open streams then end with UNAVAILABLE, and clients go on elsewhere.
    /// </summary>
    /// <exception cref="RhoException">A checkpoint, setting, port or cache is wrong; one line says which.</exception>
    public static async Task RunAsync(ScoringOptions options, CancellationToken cancellation)
    {
        options.Validate();
        if (options.References.Count == 0) throw new RhoException("scorer settings: no reference is given");
        var models = new List<IReferenceModel>();
        try
        {
            foreach (var folder in options.References) models.Add(LoadModel(folder, options));
        }
        catch
        {
            models.ForEach(model => model.Dispose());
            throw;
        }

        await using var host = await StartAsync(options, models, cancellation);
        await Console.Out.WriteLineAsync($"listening on {host.Address.Authority}");
        await host._app.WaitForShutdownAsync(cancellation);
    }

    /// <summary>Ends open streams, lets calls finish, and frees models and cache.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0) return;
        await _app.StopAsync();
        await _app.DisposeAsync();
        _cacheHealth.Dispose();
        foreach (var reference in _references) reference.Dispose();
        await _store.DisposeAsync();
    }

    private static ReferenceModel LoadModel(string folder, ScoringOptions options)
    {
        if (!Enum.TryParse<ComputeType>(options.Compute, ignoreCase: true, out var compute) || !Enum.IsDefined(compute))
            throw new RhoException($"compute '{options.Compute}' is not known; expected auto, float32 or bfloat16");
        return ReferenceModel.Load(folder, Devices.Resolve(options.Device), compute);
    }

    private static async Task<ILossStore> OpenStoreAsync(ScoringOptions options, ScoringMetrics metrics, ILoggerFactory loggers, CancellationToken cancellation)
    {
        if (options.CacheDirectory is not null) return new FolderLossStore(options.CacheDirectory, metrics, loggers.CreateLogger<FolderLossStore>());
        if (options.Redis is null) return new NoLossStore();
        var redis = new RedisOptions
        {
            Configuration = options.Redis,
            TimeToLive = options.CacheTimeToLive,
            LeaseTime = options.LeaseTime,
            Optional = options.RedisOptional,
        };
        return await RedisLossStore.ConnectAsync(redis, metrics, loggers.CreateLogger<RedisLossStore>(), cancellation);
    }

    private static void Observe(ScoringMetrics metrics, List<ServedReference> references, ILossStore store)
    {
        metrics.Observe("rho.scoring.queue_tokens", "{token}", "Tokens of accepted work that is not scored yet", () => references.Sum(reference => reference.Admission.QueuedTokens));
        metrics.Observe("rho.scoring.tokens_per_second", "{token}/s", "Speed of the model while it works", () => references.Max(reference => reference.Loop.State.TokensPerSecond));
        metrics.Observe("rho.scoring.expected_wait", "s", "Until all accepted work is scored", () => references.Max(reference => reference.Admission.ExpectedWait.TotalSeconds));
        metrics.Observe("rho.scoring.cache_available", unit: null, "1 while cached scores are read", () => store.Available ? 1 : 0);
        metrics.Observe("rho.scoring.cache_impaired", unit: null, "1 while the cache is away, full, or lacks something that it needs; health says what", () => store.Trouble is null ? 0 : 1);
    }

    private static Timer WatchCache(ILossStore store, ServiceHealth health)
    {
        string? said = null;
        return new Timer(
            _ =>
            {
                var trouble = store.Trouble;
                if (trouble == said) return;
                said = trouble;
                if (trouble is null) health.Restored("cache");
                else health.Degraded("cache", trouble);
            },
            state: null, TimeSpan.Zero, TimeSpan.FromMilliseconds(250));
    }

    private sealed class HealthWatch(ServiceHealth.Worker worker) : IWorkWatch
    {
        public void Added() => worker.Added();

        public void Completed() => worker.Completed();

        public void Dropped() => worker.Dropped();
    }
}
