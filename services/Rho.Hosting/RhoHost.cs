using System.Diagnostics.Metrics;
using System.Net.Sockets;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Console;

namespace Rho.Hosting;

/// <summary>Where a started service listens.</summary>
/// <param name="Grpc">The gRPC endpoint; null when the service has none.</param>
/// <param name="Http">The HTTP endpoint; null when the service has none.</param>
public sealed record RhoAddresses(Uri? Grpc, Uri? Http);

/// <summary>
/// What both services start with:
/// <code>
/// var builder = RhoHost.CreateBuilder(new RhoHostOptions { Service = "rho-scorer", GrpcPort = 50051, HttpPort = 9090 });
/// builder.Services.AddSingleton&lt;Scorer&gt;();
/// await using var app = builder.Build();
/// app.MapRhoDefaults();
/// app.MapGrpcService&lt;ScoringService&gt;();
/// await app.RunRhoAsync(cancellation);
/// </code>
/// </summary>
public static partial class RhoHost
{
    /// <summary>
    /// A builder with <see cref="AddRhoDefaults"/>. It reads no appsettings.json and no ASPNETCORE_ variables: a service does what its
    /// options say, wherever it is started. Throws <see cref="RhoException"/> for options that cannot work.
    /// </summary>
    public static WebApplicationBuilder CreateBuilder(RhoHostOptions options)
    {
        var builder = WebApplication.CreateSlimBuilder(new WebApplicationOptions { ContentRootPath = AppContext.BaseDirectory, EnvironmentName = Environments.Production });
        builder.Configuration.Sources.Clear();
        return builder.AddRhoDefaults(options);
    }

    /// <summary>
    /// Adds health, reflection, metrics, telemetry, logs, TLS, API keys, error statuses and the orderly end, and binds the ports.
    /// Registers <see cref="ServiceHealth"/> and <see cref="RhoHostOptions"/>. Throws <see cref="RhoException"/> for options that cannot work.
    /// </summary>
    public static WebApplicationBuilder AddRhoDefaults(this WebApplicationBuilder builder, RhoHostOptions options)
    {
        options.Validate();
        var listeners = new Listeners();
        var tls = options.UsesTls ? new Tls(options, TimeProvider.System) : null;
        builder.WebHost.ConfigureKestrel(kestrel => Listen(kestrel, options, tls, listeners));
        AddLogs(builder.Logging, options);

        var services = builder.Services;
        services.AddSingleton(options);
        services.AddSingleton(listeners);
        services.AddSingleton(ApiKeys.Load(options.ApiKeysFile, Environment.GetEnvironmentVariable(RhoHostOptions.ApiKeysVariable)));
        services.TryAddSingleton(TimeProvider.System);
        services.AddSingleton(provider => new ServiceHealth(provider.GetRequiredService<TimeProvider>(), options.StallTimeout));
        services.AddSingleton<MappedServices>();
        services.AddSingleton<RunningCalls>();
        services.AddMetrics();
        services.AddSingleton<PrometheusMetrics>();
        services.AddSingleton<ErrorInterceptor>();
        services.AddGrpc(grpc =>
        {
            grpc.MaxReceiveMessageSize = options.MaxMessageBytes;
            grpc.MaxSendMessageSize = null;
            grpc.Interceptors.Add<ErrorInterceptor>();
        });
        services.AddGrpcReflection();
        services.AddHostedService<Drain>();
        services.Configure<HostOptions>(host => host.ShutdownTimeout = options.DrainDelay + options.DrainTimeout);
        if (Telemetry.IsWanted(options.OtlpEndpoint)) Telemetry.Configure(services.AddOpenTelemetry(), options.Service, options.OtlpEndpoint);
        return builder;
    }

    /// <summary>
    /// Maps grpc.health.v1, reflection v1 and v1alpha, /healthz (with /live and /ready) and /metrics, and puts access control and
    /// the error table before all endpoints, also those mapped later.
    /// </summary>
    public static WebApplication MapRhoDefaults(this WebApplication app)
    {
        var health = app.Services.GetRequiredService<ServiceHealth>();
        var metrics = app.Services.GetRequiredService<PrometheusMetrics>();
        MeasureHealth(app.Services.GetRequiredService<IMeterFactory>(), health);
        var calls = app.Services.GetRequiredService<RunningCalls>();
        app.Use((context, next) =>
        {
            calls.Add(context.Response);
            return next(context);
        });
        app.UseMiddleware<HttpErrors>();
        app.UseMiddleware<Access>();
        app.MapGrpcService<HealthService>();
        app.MapGrpcReflectionService();
        HealthEndpoints.Map(app, health);
        app.MapGet("/metrics", () => Results.Text(metrics.Scrape(), PrometheusMetrics.ContentType));
        return app;
    }

    /// <summary>Starts a service. Throws <see cref="RhoException"/> when a port is in use or cannot be bound.</summary>
    public static async Task StartRhoAsync(this WebApplication app, CancellationToken cancellation = default)
    {
        var options = app.Services.GetRequiredService<RhoHostOptions>();
        try
        {
            await app.StartAsync(cancellation);
        }
        catch (Exception exception) when (exception is SocketException or IOException { InnerException: AddressInUseException or SocketException })
        {
            throw CannotListen(exception, options);
        }

        var addresses = app.GetRhoAddresses();
        var log = app.Services.GetRequiredService<ILoggerFactory>().CreateLogger(typeof(RhoHost));
        if (addresses.Grpc is { } grpc) Listening(log, options.Service, "gRPC", grpc);
        if (addresses.Http is { } http) Listening(log, options.Service, "HTTP", http);
    }

    /// <summary>
    /// Starts a service and runs it until SIGTERM, SIGINT or the token stops it, with an orderly end. Throws what
    /// <see cref="StartRhoAsync"/> throws, and what broke a background service, if that was the end.
    /// </summary>
    public static async Task RunRhoAsync(this WebApplication app, CancellationToken cancellation = default)
    {
        try
        {
            await app.StartRhoAsync(cancellation);
            await app.WaitForShutdownAsync(cancellation);
        }
        catch (OperationCanceledException) when (BrokenServices(app).Any())
        {
            // It broke while the rest still started, and the host gave the start up.
        }

        foreach (var broken in BrokenServices(app)) await broken;
    }

    /// <summary>Where a started service listens, with the ports that the system chose.</summary>
    public static RhoAddresses GetRhoAddresses(this WebApplication app)
    {
        var options = app.Services.GetRequiredService<RhoHostOptions>();
        var listeners = app.Services.GetRequiredService<Listeners>();
        return new RhoAddresses(Address(listeners.Grpc), Address(listeners.Http));

        Uri? Address(ListenOptions? listener) => listener is null ? null
            : new UriBuilder(options.UsesTls ? "https" : "http", options.Bind == "*" ? "localhost" : options.Bind, listener.IPEndPoint!.Port).Uri;
    }

    private static IEnumerable<Task> BrokenServices(WebApplication app) =>
        app.Services.GetServices<IHostedService>().OfType<BackgroundService>().Select(service => service.ExecuteTask).OfType<Task>().Where(task => task.IsFaulted);

    private static void Listen(KestrelServerOptions kestrel, RhoHostOptions options, Tls? tls, Listeners listeners)
    {
        kestrel.AddServerHeader = false;
        kestrel.Limits.MaxRequestBodySize = options.MaxMessageBytes + 1024L;
        // A trainer that computes for minutes before it reads on is no broken client: pings find those.
        kestrel.Limits.MinResponseDataRate = null;
        kestrel.Limits.Http2.KeepAlivePingDelay = TimeSpan.FromSeconds(30);
        kestrel.Limits.Http2.KeepAlivePingTimeout = TimeSpan.FromSeconds(20);
        kestrel.Limits.Http2.MaxStreamsPerConnection = 1000;
        // Windows of a few chunks keep a stream flowing over a network's round trip, and bound what waits unread per stream.
        kestrel.Limits.Http2.InitialStreamWindowSize = 4 << 20;
        kestrel.Limits.Http2.InitialConnectionWindowSize = 16 << 20;

        // In clear text a port speaks one version: HTTP/2 for gRPC, HTTP/1.1 for all else. TLS negotiates.
        if (options.GrpcPort is { } grpc) Bind(grpc, HttpProtocols.Http2, listener => listeners.Grpc = listener);
        if (options.HttpPort is { } http) Bind(http, HttpProtocols.Http1, listener => listeners.Http = listener);

        void Bind(int port, HttpProtocols clearText, Action<ListenOptions> keep)
        {
            if (options.Bind == "*") kestrel.ListenAnyIP(port, Configure);
            else kestrel.Listen(options.Address!, port, Configure);

            void Configure(ListenOptions listener)
            {
                listener.Protocols = tls is null ? clearText : HttpProtocols.Http1AndHttp2;
                if (tls is not null) listener.UseHttps(tls.Handshake());
                keep(listener);
            }
        }
    }

    private static void AddLogs(ILoggingBuilder logging, RhoHostOptions options)
    {
        logging.ClearProviders();
        logging.SetMinimumLevel(options.LogLevel);
        if (options.LogLevel >= LogLevel.Information)
        {
            foreach (var framework in new[] { "Microsoft", "System", "Grpc" }) logging.AddFilter(framework, level => level >= LogLevel.Warning && level >= options.LogLevel);
        }

        // A failed start and a broken background service are thrown; logged as well they would be told twice.
        logging.AddFilter("Microsoft.Extensions.Hosting.Internal.Host", LogLevel.Critical);
        // Stdout belongs to what a command prints.
        logging.Services.Configure<ConsoleLoggerOptions>(console => console.LogToStandardErrorThreshold = LogLevel.Trace);
        if (options.JsonLogs)
        {
            logging.AddJsonConsole(json => (json.UseUtcTimestamp, json.TimestampFormat, json.IncludeScopes) = (true, "yyyy-MM-dd'T'HH:mm:ss.fff'Z'", true));
        }
        else
        {
            logging.AddSimpleConsole(line => (line.SingleLine, line.UseUtcTimestamp, line.TimestampFormat) = (true, true, "yyyy-MM-dd'T'HH:mm:ss.fff'Z' "));
        }
    }

    private static void MeasureHealth(IMeterFactory meters, ServiceHealth health)
    {
        var meter = meters.Create("Rho.Hosting");
        meter.CreateObservableGauge("rho.health.live", () => health.Report().Live ? 1 : 0, description: "1 unless something broke that only a restart mends.");
        meter.CreateObservableGauge("rho.health.ready", () => health.Report().Ready ? 1 : 0, description: "1 while the service takes calls.");
        meter.CreateObservableGauge("rho.health.progressing", () => health.Report().Progressing ? 1 : 0, description: "0 while work waits and none was completed for the stall timeout.");
        meter.CreateObservableGauge("rho.health.waiting", () => health.Waiting, description: "Items of work that wait or run.");
    }

    private static RhoException CannotListen(Exception exception, RhoHostOptions options)
    {
        var isHttp = options.GrpcPort is null || (options.HttpPort is { } http && exception.Message.Contains($":{http}", StringComparison.Ordinal));
        var (setting, port) = isHttp
            ? (nameof(RhoHostOptions.HttpPort), options.HttpPort)
            : (nameof(RhoHostOptions.GrpcPort), options.GrpcPort);
        var socket = exception as SocketException ?? exception.InnerException as SocketException;
        return exception.InnerException is AddressInUseException || socket?.SocketErrorCode == SocketError.AddressAlreadyInUse
            ? new RhoException($"{setting}: port {port} on {options.Bind} is in use; choose another one, or 0 to let the system choose", exception)
            : socket?.SocketErrorCode == SocketError.AddressNotAvailable
                ? new RhoException($"{nameof(RhoHostOptions.Bind)}: {options.Bind} is no address of this machine; use one that is, or * for all", exception)
                : new RhoException($"{setting}: cannot listen on port {port} of {options.Bind}: {exception.Message}", exception);
    }

    [LoggerMessage(LogLevel.Information, "{Service} listens for {Kind} on {Address}")]
    private static partial void Listening(ILogger logger, string service, string kind, Uri address);

    /// <summary>What the server binds; after the start each knows its port.</summary>
    private sealed class Listeners
    {
        public ListenOptions? Grpc { get; set; }

        public ListenOptions? Http { get; set; }
    }
}
