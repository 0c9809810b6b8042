using System.Net;
using System.Net.Http.Headers;
using System.Text.Json;
using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using Google.Rpc;
using Grpc.Core;
using Grpc.Net.Client;

namespace Rho.Hosting.Tests;

public class ErrorTests
{
    public static TheoryData<string, StatusCode, string> GrpcErrors => new()
    {
        { "user", StatusCode.InvalidArgument, "the value is 7; 1 to 5 is right" },
        { "missing", StatusCode.NotFound, "no model 'a'; there is 'b'" },
        { "mismatch", StatusCode.FailedPrecondition, "tokenizers differ: 1 and 2" },
        { "corrupt", StatusCode.DataLoss, "the shard's checksum is 1 and was announced as 2" },
        { "overloaded", StatusCode.ResourceExhausted, "the queue is full" },
        { "unavailable", StatusCode.Unavailable, "the model still loads" },
        { "key", StatusCode.Unauthenticated, "no key" },
        { "rpc", StatusCode.AlreadyExists, "as it is" },
        { "cancelled", StatusCode.Cancelled, "the call was cancelled" },
        { "bug", StatusCode.Internal, "internal error; the server's log has the details" },
    };

    [Theory]
    [MemberData(nameof(GrpcErrors))]
    public async Task Grpc_Exception_HasItsStatusInAllFourKinds(string action, StatusCode code, string detail)
    {
        await using var host = await ProbeHost.Start();
        using var channel = host.Channel();
        var client = new Probe.ProbeClient(channel);
        var request = new ProbeRequest { Action = action };
        var deadline = DateTime.UtcNow + ProbeHost.Limit;

        Same(await Assert.ThrowsAsync<RpcException>(() => client.UnaryAsync(request, deadline: deadline).ResponseAsync));

        using var server = client.ServerStream(request, deadline: deadline);
        Assert.True(await server.ResponseStream.MoveNext());
        Same(await Assert.ThrowsAsync<RpcException>(() => server.ResponseStream.MoveNext()));

        using var collect = client.ClientStream(deadline: deadline);
        await collect.RequestStream.WriteAsync(request);
        Same(await Assert.ThrowsAsync<RpcException>(() => collect.ResponseAsync));

        using var duplex = client.Duplex(deadline: deadline);
        await duplex.RequestStream.WriteAsync(request);
        Same(await Assert.ThrowsAsync<RpcException>(() => duplex.ResponseStream.MoveNext()));

        void Same(RpcException error) => Assert.Equal((code, detail), (error.StatusCode, error.Status.Detail));
    }

    [Fact]
    public async Task Grpc_Overloaded_SaysWhenToTryAgain()
    {
        await using var host = await ProbeHost.Start();
        using var channel = host.Channel();
        var error = await Assert.ThrowsAsync<RpcException>(() => new Probe.ProbeClient(channel).UnaryAsync(new ProbeRequest { Action = "overloaded" }).ResponseAsync);
        Assert.Equal(Duration.FromTimeSpan(TimeSpan.FromSeconds(1.5)), error.GetRpcStatus()!.GetDetail<RetryInfo>()!.RetryDelay);
        Assert.Equal("2", error.Trailers.GetValue("retry-after"));
        Assert.Equal("1500", error.Trailers.GetValue("grpc-retry-pushback-ms"));
    }

    [Fact]
    public async Task Grpc_WhatTheCallerCanPutRight_IsInTheDetails()
    {
        await using var host = await ProbeHost.Start();
        using var channel = host.Channel();
        var violation = Assert.Single((await Details("field")).GetDetail<BadRequest>()!.FieldViolations);
        Assert.Equal(("top_p", "top_p: 2 is more than 1"), (violation.Field, violation.Description));
        Assert.Equal("CONTEXT_LENGTH_EXCEEDED", (await Details("long")).GetDetail<ErrorInfo>()!.Reason);

        async Task<Google.Rpc.Status> Details(string action)
        {
            var error = await Assert.ThrowsAsync<RpcException>(() => new Probe.ProbeClient(channel).UnaryAsync(new ProbeRequest { Action = action }).ResponseAsync);
            var status = error.GetRpcStatus()!;
            Assert.Equal((StatusCode.InvalidArgument, (int)StatusCode.InvalidArgument, error.Status.Detail), (error.StatusCode, status.Code, status.Message));
            return status;
        }
    }

    [Fact]
    public async Task Grpc_DeadlinePassed_IsDeadlineExceeded()
    {
        await using var host = await ProbeHost.Start();
        using var channel = host.Channel();
        var error = await Assert.ThrowsAsync<RpcException>(() => new Probe.ProbeClient(channel).UnaryAsync(new ProbeRequest { Action = "hang" }, deadline: DateTime.UtcNow.AddMilliseconds(200)).ResponseAsync);
        Assert.Equal(StatusCode.DeadlineExceeded, error.StatusCode);
    }

    [Fact]
    public async Task Grpc_MalformedMessage_IsRefusedAndHurtsNobodyElse()
    {
        await using var host = await ProbeHost.Start();
        using var channel = host.Channel();
        var raw = Marshallers.Create(static bytes => bytes, static bytes => bytes);
        byte[] malformed = [0x0a, 0xff, 0xff];

        var method = new Method<byte[], byte[]>(MethodType.Unary, "rho.hosting.tests.Probe", "Unary", raw, raw);
        using var unary = channel.CreateCallInvoker().AsyncUnaryCall(method, null, default, malformed);
        var error = await Assert.ThrowsAsync<RpcException>(() => unary.ResponseAsync);
        Assert.Equal(StatusCode.InvalidArgument, error.StatusCode);

        var duplexMethod = new Method<byte[], byte[]>(MethodType.DuplexStreaming, "rho.hosting.tests.Probe", "Duplex", raw, raw);
        using var duplex = channel.CreateCallInvoker().AsyncDuplexStreamingCall(duplexMethod, null, default);
        await duplex.RequestStream.WriteAsync(malformed);
        error = await Assert.ThrowsAsync<RpcException>(() => duplex.ResponseStream.MoveNext());
        Assert.Equal(StatusCode.InvalidArgument, error.StatusCode);

        Assert.Equal(3, (await new Probe.ProbeClient(channel).UnaryAsync(new ProbeRequest { Action = "ok", Payload = ByteString.CopyFrom(1, 2, 3) })).Bytes);
    }

    [Fact]
    public async Task Grpc_MessageOverTheLimit_IsResourceExhausted()
    {
        await using var host = await ProbeHost.Start(ProbeHost.Options with { MaxMessageBytes = 1 << 20 });
        using var channel = host.Channel();
        var client = new Probe.ProbeClient(channel);
        var error = await Assert.ThrowsAsync<RpcException>(() => client.UnaryAsync(new ProbeRequest { Action = "ok", Payload = ByteString.CopyFrom(new byte[(1 << 20) + 1]) }).ResponseAsync);
        Assert.Equal(StatusCode.ResourceExhausted, error.StatusCode);

        // A stream as a whole may be larger than any message.
        using var call = client.Duplex();
        for (var i = 0; i < 5; i++)
        {
            await call.RequestStream.WriteAsync(new ProbeRequest { Action = "ok", Payload = ByteString.CopyFrom(new byte[1_000_000]) });
            Assert.True(await call.ResponseStream.MoveNext());
        }
    }

    [Fact]
    public async Task Grpc_Message64MiB_IsAcceptedByDefault()
    {
        await using var host = await ProbeHost.Start();
        using var channel = host.Channel();
        var payload = UnsafeByteOperations.UnsafeWrap(new byte[64 << 20]);
        Assert.Equal(64 << 20, (await new Probe.ProbeClient(channel).UnaryAsync(new ProbeRequest { Action = "ok", Payload = payload }, deadline: DateTime.UtcNow.AddMinutes(1))).Bytes);
    }

    [Theory]
    [InlineData("user", HttpStatusCode.BadRequest, "invalid_request_error", "the value is 7; 1 to 5 is right")]
    [InlineData("missing", HttpStatusCode.NotFound, "invalid_request_error", "no model 'a'; there is 'b'")]
    [InlineData("mismatch", HttpStatusCode.Conflict, "invalid_request_error", "tokenizers differ: 1 and 2")]
    [InlineData("overloaded", HttpStatusCode.TooManyRequests, "rate_limit_error", "the queue is full")]
    [InlineData("unavailable", HttpStatusCode.ServiceUnavailable, "server_error", "the model still loads")]
    [InlineData("bug", HttpStatusCode.InternalServerError, "server_error", "internal error; the server's log has the details")]
    public async Task Http_Exception_HasItsStatusAndAJsonBody(string action, HttpStatusCode status, string type, string message)
    {
        await using var host = await ProbeHost.Start();
        using var http = host.Http();
        using var response = await http.GetAsync($"/probe/{action}");
        using var body = JsonDocument.Parse(await response.Content.ReadAsStringAsync());
        var error = body.RootElement.GetProperty("error");
        Assert.Equal((status, type, message), (response.StatusCode, error.GetProperty("type").GetString(), error.GetProperty("message").GetString()));
        if (action == "overloaded") Assert.Equal(new RetryConditionHeaderValue(TimeSpan.FromSeconds(2)), response.Headers.RetryAfter);
    }
}
