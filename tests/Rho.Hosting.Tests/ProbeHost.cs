using Grpc.Core;
using Grpc.Net.Client;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;

namespace Rho.Hosting.Tests;

/// <summary>A service in this process, on ports that the system chose, with everything that Rho.Hosting adds.</summary>
internal sealed class ProbeHost : IAsyncDisposable
{
    public static readonly TimeSpan Limit = TimeSpan.FromSeconds(30);

    private ProbeHost(WebApplication app) => App = app;

    public WebApplication App { get; }

    public ServiceHealth Health => App.Services.GetRequiredService<ServiceHealth>();

    public RhoAddresses Addresses => App.GetRhoAddresses();

    public static RhoHostOptions Options => new()
    {
        Service = "rho-probe",
        GrpcPort = 0,
        HttpPort = 0,
        LogLevel = Microsoft.Extensions.Logging.LogLevel.Critical,
        DrainTimeout = TimeSpan.FromSeconds(10),
    };

    public static WebApplication Build(RhoHostOptions options, Action<WebApplicationBuilder>? configure = null)
    {
        var builder = RhoHost.CreateBuilder(options);
        configure?.Invoke(builder);
        var app = builder.Build();
        app.MapRhoDefaults();
        app.MapGrpcService<ProbeService>();
        app.MapGet("/probe/{action}", async (string action, ServiceHealth health, HttpContext context) =>
        {
            await ProbeService.Act(action, health, context.RequestAborted);
            return "done";
        });
        return app;
    }

    public static async Task<ProbeHost> Start(RhoHostOptions? options = null, Action<WebApplicationBuilder>? configure = null)
    {
        var app = Build(options ?? Options, configure);
        await app.StartRhoAsync().WaitAsync(Limit);
        return new ProbeHost(app);
    }

    public GrpcChannel Channel() => GrpcChannel.ForAddress(Addresses.Grpc!, new GrpcChannelOptions { MaxReceiveMessageSize = null, MaxSendMessageSize = null });

    public HttpClient Http() => new() { BaseAddress = Addresses.Http, Timeout = Limit };

    public async ValueTask DisposeAsync()
    {
        await App.StopAsync().WaitAsync(Limit);
        await App.DisposeAsync();
    }
}

internal sealed class ProbeService(ServiceHealth health) : Probe.ProbeBase
{
    public static async Task Act(string action, ServiceHealth health, CancellationToken cancellation)
    {
        switch (action)
        {
            case "ok": return;
            case "wait":
                using (var linked = CancellationTokenSource.CreateLinkedTokenSource(cancellation, health.Draining))
                    await Task.Delay(Timeout.Infinite, linked.Token);
                return;
            case "sleep": await Task.Delay(TimeSpan.FromSeconds(1), CancellationToken.None); return;
            case "hang": await Task.Delay(Timeout.Infinite, cancellation); return;
            case "user": throw new RhoException("the value is 7; 1 to 5 is right");
            case "field": throw new InvalidFieldException("top_p", "2 is more than 1");
            case "long": throw new ContextLengthException("the prompt has 9 tokens: beyond the context of 8 tokens");
            case "missing": throw new NotFoundException("no model 'a'; there is 'b'");
            case "mismatch": throw new MismatchException("tokenizers differ: 1 and 2");
            case "corrupt": throw new CorruptDataException("the shard's checksum is 1 and was announced as 2");
            case "overloaded": throw new OverloadedException("the queue is full", TimeSpan.FromSeconds(1.5));
            case "unavailable": throw new UnavailableException("the model still loads");
            case "key": throw new UnauthenticatedException("no key");
            case "rpc": throw new RpcException(new Status(StatusCode.AlreadyExists, "as it is"));
            case "cancelled": throw new OperationCanceledException();
            default: throw new InvalidOperationException("secret detail");
        }
    }

    public override async Task<ProbeResponse> Unary(ProbeRequest request, ServerCallContext context)
    {
        await Act(request.Action, health, context.CancellationToken);
        return new ProbeResponse { Bytes = request.Payload.Length };
    }

    public override async Task ServerStream(ProbeRequest request, IServerStreamWriter<ProbeResponse> responseStream, ServerCallContext context)
    {
        await responseStream.WriteAsync(new ProbeResponse());
        await Act(request.Action, health, context.CancellationToken);
    }

    public override async Task<ProbeResponse> ClientStream(IAsyncStreamReader<ProbeRequest> requestStream, ServerCallContext context)
    {
        await foreach (var request in requestStream.ReadAllAsync()) await Act(request.Action, health, context.CancellationToken);
        return new ProbeResponse();
    }

    public override async Task Duplex(IAsyncStreamReader<ProbeRequest> requestStream, IServerStreamWriter<ProbeResponse> responseStream, ServerCallContext context)
    {
        await foreach (var request in requestStream.ReadAllAsync())
        {
            await Act(request.Action, health, context.CancellationToken);
            await responseStream.WriteAsync(new ProbeResponse { Bytes = request.Payload.Length });
        }
    }
}
