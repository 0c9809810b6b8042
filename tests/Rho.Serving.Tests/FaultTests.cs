using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;
using Grpc.Core;
using Rho.Protocol.Inference.V1;
using static TorchSharp.torch;

namespace Rho.Serving.Tests;

/// <summary>An hour's faults in a minute: whatever clients do, the server answers the others, and is afterwards as it was before.</summary>
[Collection(nameof(Alone))]
public sealed class FaultTests
{
    /// <summary>Memory is compared: nothing else may run in this process meanwhile.</summary>
    [CollectionDefinition(nameof(Alone), DisableParallelization = true)]
    public sealed class Alone;

    private static readonly TimeSpan s_patience = TimeSpan.FromMinutes(4);

    [Fact]
    public Task MixedRequests_AreAnsweredOrRefusedPrecisely_AndLeaveNothing() => MixedAsync(90);

    [Fact, Trait("Category", "Slow")]
    public Task FiveHundredMixedRequests_AreAnsweredOrRefusedPrecisely_AndLeaveNothing() => MixedAsync(500);

    private static async Task MixedAsync(int count)
    {
        var options = TestServer.Options() with { AllowModelChanges = true, CacheBytes = 1 << 20, ReaderTimeout = TimeSpan.FromSeconds(2) };
        await using var server = await TestServer.StartAsync(options with { Engine = options.Engine with { MaxSequences = 16, MaxWaitingRequests = 200 } });
        // The same once before, so that connections, pools and buffers are there already: what grows then, grows with requests.
        await MixAsync(server, seed: 1, count, () => { });
        await server.IdleAsync();
        var second = TestModels.Folder(seed: 2);
        var before = Memory();
        var tensors = Tensor.TotalCount;

        var half = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var mix = MixAsync(server, seed: 2, count, half.SetResult);
        await half.Task.WaitAsync(s_patience);
        var swapped = await server.Grpc.LoadModelAsync(new LoadModelRequest { Name = "tiny", Path = second });
        Assert.True(swapped.Swapped);
        var outcomes = await mix.WaitAsync(s_patience);
        await server.IdleAsync();

        // Every kind took place and none had an outcome that its kind does not have.
        foreach (var (kind, seen) in outcomes) Assert.True(seen.Count >= count / 9, $"{kind}: {seen.Count}");
        Assert.All(outcomes["whole"], outcome => Assert.Equal("200", outcome));
        Assert.All(outcomes["stream"], outcome => Assert.Equal("done", outcome));
        Assert.All(outcomes["grpc"], outcome => Assert.Equal("OK", outcome));
        Assert.All(outcomes["not json"], outcome => Assert.StartsWith("400 the body is no JSON", outcome, StringComparison.Ordinal));
        Assert.All(outcomes["wrong type"], outcome => Assert.StartsWith("400 temperature", outcome, StringComparison.Ordinal));
        Assert.All(outcomes["unknown model"], outcome => Assert.StartsWith("404 model 'nobody'", outcome, StringComparison.Ordinal));
        Assert.All(outcomes["too long"], outcome => Assert.StartsWith("400 the prompt has", outcome, StringComparison.Ordinal));
        Assert.Contains(Gauge(await server.MetricsAsync(), "rho_serving_requests_dropped_total{model=\"tiny\",outcome=\"cancelled\"}"), x => x > 0);
        Assert.DoesNotContain("outcome=\"failed\"", await server.MetricsAsync(), StringComparison.Ordinal);

        // No leak: tensors, live objects and resident memory are where they were (the second model replaced the first).
        await TestServer.UntilAsync(() => Memory().Managed > 0 && Tensor.TotalCount <= tensors, () => $"{Tensor.TotalCount} tensors, {tensors} before");
        var after = Memory();
        Assert.True(after.Managed - before.Managed < 8 << 20, $"managed memory grew from {before.Managed:N0} to {after.Managed:N0} bytes");
        Assert.True(after.Resident - before.Resident < 120 << 20, $"resident memory grew from {before.Resident:N0} to {after.Resident:N0} bytes");
    }

    [Fact, Trait("Category", "Slow")]
    public async Task Sigterm_UnderTraffic_FinishesWhatWasAccepted()
    {
        using var process = Process.Start(new ProcessStartInfo(Environment.ProcessPath!, ["serve", TestModels.Folder()]) { RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false })!;
        try
        {
            var line = await process.StandardOutput.ReadLineAsync().WaitAsync(s_patience);
            Assert.NotNull(line);
            Assert.StartsWith("listening on ", line, StringComparison.Ordinal);
            var address = new Uri(line.Split(' ').First(word => word.StartsWith("http", StringComparison.Ordinal) && line.IndexOf("(HTTP)", StringComparison.Ordinal) - line.IndexOf(word, StringComparison.Ordinal) - word.Length == 1));
            using var http = new HttpClient { BaseAddress = address, Timeout = s_patience };
            var streams = Enumerable.Range(0, 8).Select(async i =>
            {
                using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/completions") { Content = new StringContent($$"""{"prompt": "The {{i}}", "max_tokens": 400, "stream": true, "ignore_eos": true}""") };
                var response = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
                Assert.Equal(HttpStatusCode.OK, response.StatusCode);
                return response;
            }).ToArray();
            var accepted = await Task.WhenAll(streams).WaitAsync(s_patience);
            using (var kill = Process.Start("kill", ["-TERM", process.Id.ToString(CultureInfo.InvariantCulture)])) await kill.WaitForExitAsync();
            foreach (var response in accepted)
            {
                Assert.EndsWith("data: [DONE]\n\n", await response.Content.ReadAsStringAsync().WaitAsync(s_patience), StringComparison.Ordinal);
                response.Dispose();
            }

            await process.WaitForExitAsync().WaitAsync(s_patience);
            Assert.Equal(0, process.ExitCode);
        }
        finally
        {
            if (!process.HasExited) process.Kill(entireProcessTree: true);
        }
    }

    private static async Task<Dictionary<string, List<string>>> MixAsync(TestServer server, int seed, int count, Action atHalf)
    {
        (string Name, Func<Random, Task<string>> Run)[] kinds =
        [
            ("whole", random => PostAsync(server, $$"""{"prompt": "The {{random.Next(20)}}", "max_tokens": {{random.Next(1, 30)}}, "temperature": 0.9}""")),
            ("stream", random => StreamAsync(server, random)),
            ("grpc", random => GrpcAsync(server, random)),
            ("cancelled", random => CancelAsync(server, random)),
            ("not json", _ => PostAsync(server, "{\"prompt\": \"a\", ")),
            ("wrong type", _ => PostAsync(server, """{"prompt": "a", "temperature": "hot"}""")),
            ("unknown model", _ => PostAsync(server, """{"model": "nobody", "prompt": "a"}""")),
            ("too long", random => PostAsync(server, $$"""{"prompt": "{{string.Concat(Enumerable.Repeat("word ", random.Next(2_000, 50_000)))}}"}""")),
            ("stops reading", random => StopReadingAsync(server, random)),
        ];
        var outcomes = kinds.ToDictionary(kind => kind.Name, _ => new List<string>(), StringComparer.Ordinal);
        var next = 0;
        await Task.WhenAll(Enumerable.Range(0, 24).Select(async worker =>
        {
            var random = new Random((seed * 1000) + worker);
            for (var i = Interlocked.Increment(ref next); i <= count; i = Interlocked.Increment(ref next))
            {
                if (i == count / 2) atHalf();
                var (name, run) = kinds[i % kinds.Length];
                var outcome = await run(random).WaitAsync(s_patience);
                lock (outcomes) outcomes[name].Add(outcome);
            }
        }));
        return outcomes;
    }

    private static async Task<string> PostAsync(TestServer server, string body)
    {
        using var response = await server.Http.PostAsync(new Uri("/v1/completions", UriKind.Relative), new StringContent(body));
        var text = await response.Content.ReadAsStringAsync();
        return response.IsSuccessStatusCode ? "200" : $"{(int)response.StatusCode} {(string?)JsonNode.Parse(text)!["error"]!["message"]}";
    }

    private static async Task<string> StreamAsync(TestServer server, Random random)
    {
        using var response = await server.Http.PostAsync(new Uri("/v1/chat/completions", UriKind.Relative), new StringContent(
            $$"""{"messages": [{"role": "user", "content": "What is {{random.Next(50)}} + 1?"}], "max_tokens": {{random.Next(1, 40)}}, "stream": true}"""));
        return (await response.Content.ReadAsStringAsync()).EndsWith("data: [DONE]\n\n", StringComparison.Ordinal) ? "done" : "broken";
    }

    private static async Task<string> GrpcAsync(TestServer server, Random random)
    {
        try
        {
            var parts = await GrpcTests.CollectAsync(server.Grpc.Generate(new GenerateRequest { Text = $"The {random.Next(20)}", Sampling = new SamplingParameters { MaxTokens = (uint)random.Next(1, 30), N = (uint)random.Next(1, 4) } }));
            return parts.Count(part => part.FinishReason != FinishReason.Unspecified) > 0 ? "OK" : "no end";
        }
        catch (RpcException exception)
        {
            return exception.Status.ToString();
        }
    }

    private static async Task<string> CancelAsync(TestServer server, Random random)
    {
        using var leave = new CancellationTokenSource();
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/completions") { Content = new StringContent("""{"prompt": "The", "max_tokens": 450, "stream": true, "ignore_eos": true}""") };
        // At any time: before it is accepted, while it waits, or while it runs.
        if (random.Next(2) == 0) leave.CancelAfter(random.Next(1, 60));
        try
        {
            using var response = await server.Http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, leave.Token);
            await leave.CancelAsync();
            await response.Content.ReadAsStringAsync(leave.Token);
            return "finished";
        }
        catch (OperationCanceledException)
        {
            return "left";
        }
    }

    /// <summary>Asks for a stream of some megabytes with log-probabilities, and reads none of it.</summary>
    private static async Task<string> StopReadingAsync(TestServer server, Random random)
    {
        using var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { ReceiveBufferSize = 4096 };
        await socket.ConnectAsync(server.Addresses.Http!.Host, server.Addresses.Http.Port);
        var body = $$"""{"prompt": "The {{random.Next(9)}}", "max_tokens": 450, "n": 4, "stream": true, "ignore_eos": true, "logprobs": 20}""";
        await socket.SendAsync(Encoding.ASCII.GetBytes($"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {body.Length}\r\n\r\n{body}"));
        await Task.Delay(random.Next(50, 500));
        return "left";
    }

    private static IEnumerable<double> Gauge(string metrics, string name) => metrics.Split('\n')
        .Where(line => line.StartsWith(name + " ", StringComparison.Ordinal))
        .Select(line => double.Parse(line[(name.Length + 1)..], CultureInfo.InvariantCulture));

    private static (long Managed, long Resident) Memory()
    {
        for (var i = 0; i < 3; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }

        using var self = Process.GetCurrentProcess();
        return (GC.GetTotalMemory(forceFullCollection: true), self.WorkingSet64);
    }
}
