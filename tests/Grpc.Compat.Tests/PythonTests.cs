using System.Diagnostics;
using Google.Protobuf;
using Grpc.Core;

namespace Grpc.Compat.Tests;

/// <summary>Interoperability with an independent implementation, gRPC's C core under Python, in both directions.</summary>
public sealed class PythonTests(EchoHost host) : IClassFixture<EchoHost>
{
    [Fact]
    public async Task PythonClient_AgainstOurServer_AllKinds()
    {
        using var python = Start("echo_client.py", new Uri(host.Address).Authority);
        var errors = python.StandardError.ReadToEndAsync();
        var output = await python.StandardOutput.ReadToEndAsync().WaitAsync(TimeSpan.FromMinutes(2));
        Assert.True(output.Trim() == "ok", await errors);
    }

    [Fact]
    public async Task OurClient_AgainstPythonServer_AllKinds()
    {
        using var python = Start("echo_server.py");
        try
        {
            var line = await python.StandardOutput.ReadLineAsync().WaitAsync(EchoHost.Limit);
            Assert.True(int.TryParse(line, out var port), line is null ? await python.StandardError.ReadToEndAsync() : line);
            var answered = new EncodingHandler();
            using var channel = EchoHost.Channel($"http://127.0.0.1:{port}", options => options.HttpHandler = answered);
            await CallAll(new Echo.EchoClient(channel));
            Assert.Equal("gzip", answered.Encoding);
        }
        finally
        {
            python.Kill();
            await python.WaitForExitAsync().WaitAsync(EchoHost.Limit);
        }
    }

    private static async Task CallAll(Echo.EchoClient client)
    {
        using (var call = client.UnaryAsync(new EchoRequest { Payload = ByteString.CopyFromUtf8("abc") }, new Metadata { { "name", "dotnet" }, { "bytes-bin", [0, 255] } }, EchoHost.Deadline))
        {
            Assert.Equal("abc", (await call).Payload.ToStringUtf8());
            var headers = await call.ResponseHeadersAsync;
            Assert.Equal("dotnet", headers.GetValue("greeting"));
            Assert.Equal([0, 255], headers.GetValueBytes("bytes-bin")!);
            Assert.Equal("dotnet", call.GetTrailers().GetValue("farewell"));
        }

        using (var call = client.Expand(new EchoRequest { Payload = ByteString.CopyFrom(new byte[1000]), Repeat = 500 }, deadline: EchoHost.Deadline))
        {
            var next = 0;
            await foreach (var response in call.ResponseStream.ReadAllAsync()) Assert.Equal(next++, response.Index);
            Assert.Equal(500, next);
        }

        using (var call = client.Collect(deadline: EchoHost.Deadline))
        {
            for (var i = 0; i < 200; i++) await call.RequestStream.WriteAsync(new EchoRequest { Payload = ByteString.CopyFrom([(byte)i]) });
            await call.RequestStream.CompleteAsync();
            Assert.Equal(Enumerable.Range(0, 200).Select(i => (byte)i), (await call).Payload);
        }

        using (var call = client.Chat(deadline: EchoHost.Deadline))
        {
            for (var i = 0; i < 100; i++)
            {
                await call.RequestStream.WriteAsync(new EchoRequest { Payload = ByteString.CopyFrom(new byte[i]) });
                Assert.True(await call.ResponseStream.MoveNext());
                Assert.Equal(i, call.ResponseStream.Current.Payload.Length);
            }

            await call.RequestStream.CompleteAsync();
            Assert.False(await call.ResponseStream.MoveNext());
        }

        var failed = await Assert.ThrowsAsync<RpcException>(() => client.UnaryAsync(new EchoRequest { FailCode = (int)StatusCode.DataLoss, FailDetail = "naïve: 100 %" }, deadline: EchoHost.Deadline).ResponseAsync);
        Assert.Equal((StatusCode.DataLoss, "naïve: 100 %", "asked"), (failed.StatusCode, failed.Status.Detail, failed.Trailers.GetValue("reason")));
        var late = await Assert.ThrowsAsync<RpcException>(() => client.UnaryAsync(new EchoRequest { DelayMs = 3000 }, deadline: DateTime.UtcNow.AddMilliseconds(200)).ResponseAsync);
        Assert.Equal(StatusCode.DeadlineExceeded, late.StatusCode);

        var big = new byte[64 << 20];
        new Random(2).NextBytes(big.AsSpan(0, 1 << 20));
        var echoed = await client.UnaryAsync(new EchoRequest { Payload = UnsafeByteOperations.UnsafeWrap(big) }, deadline: DateTime.UtcNow.AddMinutes(2));
        Assert.True(echoed.Payload.Span.SequenceEqual(big));
    }

    private static Process Start(string script, params string[] arguments) => Process.Start(new ProcessStartInfo("/usr/bin/python3", [Path.Combine(AppContext.BaseDirectory, script), AppContext.BaseDirectory, .. arguments])
    {
        UseShellExecute = false,
        RedirectStandardInput = true,
        RedirectStandardOutput = true,
        RedirectStandardError = true,
    })!;
}
