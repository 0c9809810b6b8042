using System.Diagnostics;
using System.IO.Compression;
using Google.Protobuf;
using Grpc.Core;
using Grpc.Core.Interceptors;
using Grpc.Net.Client;
using Grpc.Net.Compression;

namespace Grpc.Compat.Tests;

/// <summary>The real client against the real server, over the stand-ins.</summary>
public sealed class CallTests(EchoHost host) : IClassFixture<EchoHost>, IDisposable
{
    private readonly GrpcChannel _channel = host.Channel();

    private Echo.EchoClient Client => new(_channel);

    public void Dispose() => _channel.Dispose();

    [Fact]
    public async Task Unary_CarriesHeadersAndTrailers_TextAndBinary()
    {
        var headers = new Metadata { { "name", "dotnet" }, { "Bytes-Bin", [0, 255, 7] } };
        using var call = Client.UnaryAsync(new EchoRequest { Payload = ByteString.CopyFromUtf8("abc") }, headers, EchoHost.Deadline);

        Assert.Equal("dotnet", (await call.ResponseHeadersAsync).GetValue("greeting"));
        Assert.Equal([0, 255, 7], (await call.ResponseHeadersAsync).GetValueBytes("bytes-bin")!);
        Assert.Equal("abc", (await call).Payload.ToStringUtf8());
        Assert.Equal(StatusCode.OK, call.GetStatus().StatusCode);
        Assert.Equal("dotnet", call.GetTrailers().GetValue("farewell"));
    }

    [Fact]
    public void BlockingUnary_Answers() =>
        Assert.Equal("abc", Client.Unary(new EchoRequest { Payload = ByteString.CopyFromUtf8("abc") }, deadline: EchoHost.Deadline).Payload.ToStringUtf8());

    [Fact]
    public async Task Expand_StreamsInOrder()
    {
        using var call = Client.Expand(new EchoRequest { Payload = ByteString.CopyFrom(new byte[1000]), Repeat = 2000 }, deadline: EchoHost.Deadline);
        var next = 0;
        await foreach (var response in call.ResponseStream.ReadAllAsync()) Assert.Equal(next++, response.Index);
        Assert.Equal(2000, next);
        Assert.Equal("nobody", call.GetTrailers().GetValue("farewell"));
    }

    [Fact]
    public async Task Collect_TakesAStream()
    {
        using var call = Client.Collect(deadline: EchoHost.Deadline);
        for (var i = 0; i < 200; i++) await call.RequestStream.WriteAsync(new EchoRequest { Payload = ByteString.CopyFrom([(byte)i]) });
        await call.RequestStream.CompleteAsync();
        var response = await call;
        Assert.Equal(200, response.Index);
        Assert.Equal(Enumerable.Range(0, 200).Select(i => (byte)i), response.Payload);
    }

    [Fact]
    public async Task Chat_BothWaysAtOnce()
    {
        using var call = Client.Chat(deadline: EchoHost.Deadline);
        var payload = ByteString.CopyFrom(new byte[16 << 10]);
        var writer = Task.Run(async () =>
        {
            for (var i = 0; i < 2000; i++) await call.RequestStream.WriteAsync(new EchoRequest { Payload = payload });
            await call.RequestStream.CompleteAsync();
        });
        var next = 0;
        await foreach (var response in call.ResponseStream.ReadAllAsync())
        {
            Assert.Equal(next++, response.Index);
            Assert.Equal(payload.Length, response.Payload.Length);
        }

        await writer.WaitAsync(EchoHost.Limit);
        Assert.Equal(2000, next);
    }

    [Theory]
    [InlineData(StatusCode.InvalidArgument, "plain")]
    [InlineData(StatusCode.FailedPrecondition, "naïve: 100 %, 中")]
    [InlineData(StatusCode.Unauthenticated, "")]
    public async Task Failure_CarriesCodeDetailAndTrailers(StatusCode code, string detail)
    {
        var request = new EchoRequest { FailCode = (int)code, FailDetail = detail };
        var unary = await Assert.ThrowsAsync<RpcException>(() => Client.UnaryAsync(request, deadline: EchoHost.Deadline).ResponseAsync);
        Assert.Equal((code, detail, "asked"), (unary.StatusCode, unary.Status.Detail, unary.Trailers.GetValue("reason")));

        using var call = Client.Expand(request, deadline: EchoHost.Deadline);
        var stream = await Assert.ThrowsAsync<RpcException>(() => call.ResponseStream.MoveNext());
        Assert.Equal((code, detail, "asked"), (stream.StatusCode, stream.Status.Detail, stream.Trailers.GetValue("reason")));
        Assert.Equal(code, call.GetStatus().StatusCode);
    }

    [Fact]
    public async Task UnknownMethod_IsUnimplemented()
    {
        var method = new Method<string, string>(MethodType.Unary, "compat.v1.Echo", "NoSuch", Marshallers.StringMarshaller, Marshallers.StringMarshaller);
        using var call = _channel.CreateCallInvoker().AsyncUnaryCall(method, null, new CallOptions(deadline: EchoHost.Deadline), "");
        Assert.Equal(StatusCode.Unimplemented, (await Assert.ThrowsAsync<RpcException>(() => call.ResponseAsync)).StatusCode);
    }

    [Fact]
    public async Task RawBytes_PassThroughAMarshallerOfArrays()
    {
        var bytes = Marshallers.Create(static value => value, static value => value);
        var method = new Method<byte[], byte[]>(MethodType.Unary, "compat.v1.Echo", "Unary", bytes, bytes);
        using var call = _channel.CreateCallInvoker().AsyncUnaryCall(method, null, new CallOptions(deadline: EchoHost.Deadline), new EchoRequest { Payload = ByteString.CopyFromUtf8("raw") }.ToByteArray());
        Assert.Equal("raw", EchoResponse.Parser.ParseFrom(await call).Payload.ToStringUtf8());
    }

    [Fact]
    public async Task Deadline_EndsTheCallOnBothSides()
    {
        var clock = Stopwatch.StartNew();
        var call = Client.UnaryAsync(new EchoRequest { DelayMs = 60_000 }, new Metadata { { "id", "deadline" } }, DateTime.UtcNow.AddMilliseconds(300));
        var error = await Assert.ThrowsAsync<RpcException>(() => call.ResponseAsync.WaitAsync(EchoHost.Limit));
        Assert.Equal(StatusCode.DeadlineExceeded, error.StatusCode);
        Assert.True(clock.Elapsed < TimeSpan.FromSeconds(20));
        await Seen("cancelled id=deadline deadline=True");
    }

    [Fact]
    public async Task Cancellation_ByToken_ReachesTheServer()
    {
        using var cancel = new CancellationTokenSource();
        using var call = Client.Expand(new EchoRequest { Repeat = 1, DelayMs = 60_000 }, new Metadata { { "id", "token" } }, cancellationToken: cancel.Token);
        Assert.True(await call.ResponseStream.MoveNext(CancellationToken.None).WaitAsync(EchoHost.Limit));
        await cancel.CancelAsync();
        var error = await Assert.ThrowsAsync<RpcException>(() => call.ResponseStream.MoveNext(CancellationToken.None).WaitAsync(EchoHost.Limit));
        Assert.Equal(StatusCode.Cancelled, error.StatusCode);
        await Seen("cancelled id=token deadline=False");
    }

    [Fact]
    public async Task Cancellation_ByDispose_ReachesTheServer()
    {
        var call = Client.Chat(new Metadata { { "id", "dispose" } });
        await call.RequestStream.WriteAsync(new EchoRequest { DelayMs = 60_000 });
        await Seen("duplex /compat.v1.Echo/Chat id=dispose");
        call.Dispose();
        await Seen("cancelled id=dispose deadline=False");
    }

    [Fact]
    public async Task CancelledWrite_ThrowsAndEndsTheCall()
    {
        using var call = Client.Chat(deadline: EchoHost.Deadline);
        using var cancelled = new CancellationTokenSource();
        await cancelled.CancelAsync();
        await Assert.ThrowsAnyAsync<Exception>(() => call.RequestStream.WriteAsync(new EchoRequest(), cancelled.Token));
    }

    [Theory]
    [InlineData("gzip")]
    [InlineData("deflate")]
    public async Task Compression_BothWays(string encoding)
    {
        var id = $"compressed-{encoding}";
        var answered = new EncodingHandler();
        using var channel = host.Channel(options =>
        {
            options.CompressionProviders = [new GzipCompressionProvider(CompressionLevel.Optimal), new DeflateCompressionProvider(CompressionLevel.Optimal)];
            options.HttpHandler = answered;
        });
        var payload = ByteString.CopyFromUtf8(string.Concat(Enumerable.Repeat("compress me ", 100_000)));
        using var call = new Echo.EchoClient(channel).UnaryAsync(new EchoRequest { Payload = payload }, new Metadata { { "grpc-internal-encoding-request", encoding }, { "id", id } }, EchoHost.Deadline);
        Assert.Equal(payload, (await call).Payload);
        Assert.Equal("gzip", answered.Encoding);
        await Seen($"unary /compat.v1.Echo/Unary id={id} encoding={encoding}");
    }

    [Fact]
    public async Task NoCompress_IsHonoured()
    {
        using var call = Client.Chat(deadline: EchoHost.Deadline);
        call.RequestStream.WriteOptions = new WriteOptions(WriteFlags.NoCompress | WriteFlags.BufferHint);
        await call.RequestStream.WriteAsync(new EchoRequest { Payload = ByteString.CopyFromUtf8("a") });
        await call.RequestStream.CompleteAsync();
        Assert.True(await call.ResponseStream.MoveNext());
        Assert.Equal("a", call.ResponseStream.Current.Payload.ToStringUtf8());
    }

    [Fact]
    public async Task Message_Of64MiB_ComesBack()
    {
        var bytes = new byte[64 << 20];
        new Random(1).NextBytes(bytes);
        var response = await Client.UnaryAsync(new EchoRequest { Payload = UnsafeByteOperations.UnsafeWrap(bytes) }, deadline: DateTime.UtcNow.AddMinutes(2));
        Assert.True(response.Payload.Span.SequenceEqual(bytes));
    }

    [Fact]
    public async Task Interceptors_OfTheClient_SeeAllKindsInOrder()
    {
        var log = new List<string>();
        var client = new Echo.EchoClient(_channel.Intercept(new Logger("outer", log), new Logger("inner", log)).Intercept(headers =>
        {
            headers.Add("name", "intercepted");
            return headers;
        }));

        using var unary = client.UnaryAsync(new EchoRequest(), deadline: EchoHost.Deadline);
        Assert.Equal("intercepted", (await unary.ResponseHeadersAsync).GetValue("greeting"));
        client.Unary(new EchoRequest(), deadline: EchoHost.Deadline);
        using var expand = client.Expand(new EchoRequest(), deadline: EchoHost.Deadline);
        Assert.False(await expand.ResponseStream.MoveNext());
        using var collect = client.Collect(deadline: EchoHost.Deadline);
        await collect.RequestStream.CompleteAsync();
        await collect;
        using var chat = client.Chat(deadline: EchoHost.Deadline);
        await chat.RequestStream.CompleteAsync();
        Assert.False(await chat.ResponseStream.MoveNext());
        Assert.Equal("intercepted", (await chat.ResponseHeadersAsync).GetValue("greeting"));

        string[] kinds = ["unary", "blocking", "server", "client", "duplex"];
        Assert.Equal(kinds.SelectMany(kind => new[] { $"outer {kind}", $"inner {kind}" }), log);
    }

    [Fact]
    public async Task Interceptors_OfTheServer_SeeAllKinds()
    {
        var headers = new Metadata { { "id", "kinds" } };
        await Client.UnaryAsync(new EchoRequest(), headers, EchoHost.Deadline);
        using var expand = Client.Expand(new EchoRequest(), headers, EchoHost.Deadline);
        Assert.False(await expand.ResponseStream.MoveNext());
        using var collect = Client.Collect(headers, EchoHost.Deadline);
        await collect.RequestStream.CompleteAsync();
        await collect;
        using var chat = Client.Chat(headers, EchoHost.Deadline);
        await chat.RequestStream.CompleteAsync();
        Assert.False(await chat.ResponseStream.MoveNext());
        Assert.Equal(["unary", "server", "client", "duplex"], host.Seen.Where(line => line.Contains("id=kinds", StringComparison.Ordinal)).Select(line => line.Split(' ')[0]));
    }

    [Fact]
    public async Task CallCredentials_ComposedWithTheChannel_AreSent()
    {
        var first = CallCredentials.FromInterceptor((context, metadata) =>
        {
            metadata.Add("authorization", $"Bearer {context.MethodName}");
            return Task.CompletedTask;
        });
        var second = CallCredentials.FromInterceptor((_, metadata) =>
        {
            metadata.Add("id", "credentials");
            return Task.CompletedTask;
        });
        using var channel = host.Channel(options =>
        {
            options.Credentials = ChannelCredentials.Create(ChannelCredentials.Insecure, CallCredentials.Compose(first, second));
            options.UnsafeUseInsecureChannelCallCredentials = true;
        });
        await new Echo.EchoClient(channel).UnaryAsync(new EchoRequest(), deadline: EchoHost.Deadline);
        await Seen("id=credentials encoding= authorization=Bearer Unary");
    }

    [Fact]
    public async Task WithHost_KeepsTheClientWorking() =>
        Assert.Equal(0, (await Client.WithHost("elsewhere").UnaryAsync(new EchoRequest(), deadline: EchoHost.Deadline)).Payload.Length);

    [Fact]
    public async Task Unreachable_IsUnavailable()
    {
        using var channel = EchoHost.Channel("http://127.0.0.1:1");
        var error = await Assert.ThrowsAsync<RpcException>(() => new Echo.EchoClient(channel).UnaryAsync(new EchoRequest(), deadline: EchoHost.Deadline).ResponseAsync);
        Assert.Equal(StatusCode.Unavailable, error.StatusCode);
        Assert.NotNull(error.Status.DebugException);
    }

    [Fact]
    public async Task MockClient_NeedsNoChannel()
    {
        var client = new FakeClient();
        Assert.Equal(7, (await client.UnaryAsync(new EchoRequest())).Index);
    }

    private async Task Seen(string text)
    {
        for (var clock = Stopwatch.StartNew(); !host.Seen.Any(line => line.Contains(text, StringComparison.Ordinal)); await Task.Delay(20))
            Assert.True(clock.Elapsed < EchoHost.Limit, $"the server did not see '{text}' but:\n{string.Join('\n', host.Seen)}");
    }

    private sealed class FakeClient : Echo.EchoClient
    {
        public override AsyncUnaryCall<EchoResponse> UnaryAsync(EchoRequest request, Metadata? headers = null, DateTime? deadline = null, CancellationToken cancellationToken = default) =>
            new(Task.FromResult(new EchoResponse { Index = 7 }), Task.FromResult(Metadata.Empty), () => Status.DefaultSuccess, () => Metadata.Empty, () => { });
    }

    private sealed class Logger(string name, List<string> log) : Interceptor
    {
        public override TResponse BlockingUnaryCall<TRequest, TResponse>(TRequest request, ClientInterceptorContext<TRequest, TResponse> context, BlockingUnaryCallContinuation<TRequest, TResponse> continuation)
        {
            log.Add($"{name} blocking");
            return continuation(request, context);
        }

        public override AsyncUnaryCall<TResponse> AsyncUnaryCall<TRequest, TResponse>(TRequest request, ClientInterceptorContext<TRequest, TResponse> context, AsyncUnaryCallContinuation<TRequest, TResponse> continuation)
        {
            log.Add($"{name} unary");
            return continuation(request, context);
        }

        public override AsyncServerStreamingCall<TResponse> AsyncServerStreamingCall<TRequest, TResponse>(TRequest request, ClientInterceptorContext<TRequest, TResponse> context, AsyncServerStreamingCallContinuation<TRequest, TResponse> continuation)
        {
            log.Add($"{name} server");
            return continuation(request, context);
        }

        public override AsyncClientStreamingCall<TRequest, TResponse> AsyncClientStreamingCall<TRequest, TResponse>(ClientInterceptorContext<TRequest, TResponse> context, AsyncClientStreamingCallContinuation<TRequest, TResponse> continuation)
        {
            log.Add($"{name} client");
            return continuation(context);
        }

        public override AsyncDuplexStreamingCall<TRequest, TResponse> AsyncDuplexStreamingCall<TRequest, TResponse>(ClientInterceptorContext<TRequest, TResponse> context, AsyncDuplexStreamingCallContinuation<TRequest, TResponse> continuation)
        {
            log.Add($"{name} duplex");
            return continuation(context);
        }
    }
}
