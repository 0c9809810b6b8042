using System.Collections.Concurrent;
using System.IO.Compression;
using System.Net;
using Grpc.Core;
using Grpc.Core.Interceptors;
using Grpc.Net.Client;
using Grpc.Net.Compression;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Grpc.Compat.Tests;

/// <summary>The real server, on a port that the system chose, with compat.v1.Echo and an interceptor that writes down what it sees.</summary>
public sealed class EchoHost : IAsyncLifetime
{
    public static readonly TimeSpan Limit = TimeSpan.FromSeconds(30);

    private WebApplication? _app;

    public ConcurrentQueue<string> Seen { get; } = new();

    public string Address => _app!.Urls.Single();

    public static DateTime Deadline => DateTime.UtcNow + Limit;

    public async Task InitializeAsync()
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.Limits.MaxRequestBodySize = null;
            kestrel.Listen(IPAddress.Loopback, 0, listener => listener.Protocols = HttpProtocols.Http2);
        });
        builder.Services.AddSingleton(Seen);
        builder.Services.AddGrpc(options =>
        {
            options.MaxReceiveMessageSize = null;
            options.MaxSendMessageSize = null;
            options.ResponseCompressionAlgorithm = "gzip";
            options.ResponseCompressionLevel = CompressionLevel.Fastest;
            options.CompressionProviders = [new GzipCompressionProvider(CompressionLevel.Fastest), new DeflateCompressionProvider(CompressionLevel.Fastest)];
            options.Interceptors.Add<Recorder>();
        });
        _app = builder.Build();
        _app.MapGrpcService<EchoService>();
        await _app.StartAsync().WaitAsync(Limit);
    }

    public async Task DisposeAsync()
    {
        await _app!.StopAsync().WaitAsync(Limit);
        await _app.DisposeAsync();
    }

    public GrpcChannel Channel(Action<GrpcChannelOptions>? configure = null) => Channel(Address, configure);

    public static GrpcChannel Channel(string address, Action<GrpcChannelOptions>? configure = null)
    {
        var options = new GrpcChannelOptions { MaxReceiveMessageSize = null, MaxSendMessageSize = null };
        configure?.Invoke(options);
        return GrpcChannel.ForAddress(address, options);
    }

    /// <summary>Writes down each call's kind, method and encoding before it goes on.</summary>
    private sealed class Recorder(ConcurrentQueue<string> seen) : Interceptor
    {
        public override Task<TResponse> UnaryServerHandler<TRequest, TResponse>(TRequest request, ServerCallContext context, UnaryServerMethod<TRequest, TResponse> continuation)
        {
            Write("unary", context);
            return continuation(request, context);
        }

        public override Task<TResponse> ClientStreamingServerHandler<TRequest, TResponse>(IAsyncStreamReader<TRequest> requestStream, ServerCallContext context, ClientStreamingServerMethod<TRequest, TResponse> continuation)
        {
            Write("client", context);
            return continuation(requestStream, context);
        }

        public override Task ServerStreamingServerHandler<TRequest, TResponse>(TRequest request, IServerStreamWriter<TResponse> responseStream, ServerCallContext context, ServerStreamingServerMethod<TRequest, TResponse> continuation)
        {
            Write("server", context);
            return continuation(request, responseStream, context);
        }

        public override Task DuplexStreamingServerHandler<TRequest, TResponse>(IAsyncStreamReader<TRequest> requestStream, IServerStreamWriter<TResponse> responseStream, ServerCallContext context, DuplexStreamingServerMethod<TRequest, TResponse> continuation)
        {
            Write("duplex", context);
            return continuation(requestStream, responseStream, context);
        }

        private void Write(string kind, ServerCallContext context) =>
            seen.Enqueue($"{kind} {context.Method} id={context.RequestHeaders.GetValue("id")} encoding={context.GetHttpContext().Request.Headers["grpc-encoding"]} authorization={context.RequestHeaders.GetValue("authorization")}");
    }
}

/// <summary>compat.v1.Echo as echo.proto describes it.</summary>
internal sealed class EchoService(ConcurrentQueue<string> seen) : Echo.EchoBase
{
    public override async Task<EchoResponse> Unary(EchoRequest request, ServerCallContext context)
    {
        await Start(context);
        await Check(request, context);
        return new EchoResponse { Payload = request.Payload };
    }

    public override async Task Expand(EchoRequest request, IServerStreamWriter<EchoResponse> responseStream, ServerCallContext context)
    {
        await Start(context);
        for (var i = 0; i < request.Repeat; i++)
            await responseStream.WriteAsync(new EchoResponse { Payload = request.Payload, Index = i }, context.CancellationToken);
        await Check(request, context);
    }

    public override async Task<EchoResponse> Collect(IAsyncStreamReader<EchoRequest> requestStream, ServerCallContext context)
    {
        await Start(context);
        var payload = new MemoryStream();
        var count = 0;
        await foreach (var request in requestStream.ReadAllAsync(context.CancellationToken))
        {
            await Check(request, context);
            request.Payload.WriteTo(payload);
            count++;
        }

        return new EchoResponse { Payload = Google.Protobuf.ByteString.CopyFrom(payload.ToArray()), Index = count };
    }

    public override async Task Chat(IAsyncStreamReader<EchoRequest> requestStream, IServerStreamWriter<EchoResponse> responseStream, ServerCallContext context)
    {
        await Start(context);
        for (var i = 0; await requestStream.MoveNext(context.CancellationToken); i++)
        {
            await Check(requestStream.Current, context);
            await responseStream.WriteAsync(new EchoResponse { Payload = requestStream.Current.Payload, Index = i }, context.CancellationToken);
        }
    }

    private static Task Start(ServerCallContext context)
    {
        var name = context.RequestHeaders.GetValue("name") ?? "nobody";
        context.ResponseTrailers.Add("farewell", name);
        return context.WriteResponseHeadersAsync(new Metadata { { "greeting", name }, { "bytes-bin", context.RequestHeaders.GetValueBytes("bytes-bin") ?? [] } });
    }

    private async Task Check(EchoRequest request, ServerCallContext context)
    {
        try
        {
            await Task.Delay(request.DelayMs, context.CancellationToken);
        }
        catch (OperationCanceledException)
        {
            seen.Enqueue($"cancelled id={context.RequestHeaders.GetValue("id")} deadline={context.Deadline < DateTime.MaxValue}");
            throw;
        }

        if (request.FailCode != 0) throw new RpcException(new Status((StatusCode)request.FailCode, request.FailDetail), new Metadata { { "reason", "asked" } });
    }
}

/// <summary>Sees the encoding that a response was sent with, which the client keeps to itself.</summary>
internal sealed class EncodingHandler() : DelegatingHandler(new SocketsHttpHandler())
{
    public string? Encoding { get; private set; }

    protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
    {
        var response = await base.SendAsync(request, cancellationToken);
        Encoding = response.Headers.TryGetValues("grpc-encoding", out var values) ? values.Single() : null;
        return response;
    }
}
