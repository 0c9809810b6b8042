using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;
using Grpc.Core;
using Rho.Protocol.Inference.V1;
using Rho.Serving.Engine;

namespace Rho.Serving.Tests;

public sealed class LifeTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("rho-life-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task LoadModel_UnderANameInUse_SwapsWithoutFailingARequest()
    {
        await using var server = await TestServer.StartAsync(TestServer.Options() with { AllowModelChanges = true });
        var old = (string)(await server.PostAsync("/v1/completions", new { prompt = "The", max_tokens = 10, temperature = 0 }))["choices"]![0]!["text"]!;
        using var stop = new CancellationTokenSource();
        var answers = new List<string>();
        var traffic = Enumerable.Range(0, 4).Select(_ => Task.Run(async () =>
        {
            while (!stop.IsCancellationRequested)
            {
                var answer = await server.PostAsync("/v1/completions", new { model = "tiny", prompt = "The", max_tokens = 10, temperature = 0 });
                lock (answers) answers.Add((string)answer["choices"]![0]!["text"]!);
            }
        })).ToArray();

        await TestServer.UntilAsync(() =>
        {
            lock (answers) return answers.Count > 0;
        });
        var response = await server.Grpc.LoadModelAsync(new LoadModelRequest { Name = "tiny", Path = TestModels.Folder(seed: 2) }, deadline: DateTime.UtcNow + TestServer.Patience);
        Assert.True(response.Swapped);
        var now = (string)(await server.PostAsync("/v1/completions", new { prompt = "The", max_tokens = 10, temperature = 0 }))["choices"]![0]!["text"]!;
        Assert.NotEqual(old, now);
        await stop.CancelAsync();
        await Task.WhenAll(traffic).WaitAsync(TestServer.Patience);
        Assert.All(answers, answer => Assert.True(answer == old || answer == now));
        Assert.Contains(old, answers);
    }

    [Fact]
    public async Task LoadModel_BrokenFolder_LeavesWhatIsServed()
    {
        await using var server = await TestServer.StartAsync(TestServer.Options() with { AllowModelChanges = true });
        TestModels.Save(Path.Combine(_folder, "broken"), 3);
        var weights = Path.Combine(_folder, "broken", "model.safetensors");
        using (var file = File.OpenWrite(weights)) file.SetLength(file.Length / 2);
        var error = await Assert.ThrowsAsync<RpcException>(async () => await server.Grpc.LoadModelAsync(new LoadModelRequest { Name = "tiny", Path = Path.Combine(_folder, "broken") }));
        Assert.Equal(StatusCode.InvalidArgument, error.StatusCode);
        error = await Assert.ThrowsAsync<RpcException>(async () => await server.Grpc.LoadModelAsync(new LoadModelRequest { Path = Path.Combine(_folder, "nowhere") }));
        Assert.Equal(StatusCode.NotFound, error.StatusCode);
        await server.PostAsync("/v1/completions", new { model = "tiny", prompt = "The", max_tokens = 2 });

        // A second model beside the first: now the name is needed.
        await server.Grpc.LoadModelAsync(new LoadModelRequest { Name = "org/other", Path = TestModels.Folder(seed: 2), ComputeType = "int8" });
        var (status, refusal, _) = await server.RefusedAsync("/v1/completions", """{"prompt": "a"}""");
        Assert.Equal((400, "model"), (status, (string?)refusal["param"]));
        await server.PostAsync("/v1/completions", new { model = "org/other", prompt = "The", max_tokens = 2 });
        foreach (var path in new[] { "org/other", "org%2Fother" })
            Assert.Equal("org/other", (string?)JsonNode.Parse(await server.Http.GetStringAsync(new Uri("/v1/models/" + path, UriKind.Relative)))!["id"]);
        await server.Grpc.UnloadModelAsync(new UnloadModelRequest { Name = "org/other" });
        Assert.Equal(404, (await server.RefusedAsync("/v1/completions", """{"model": "org/other", "prompt": "a"}""")).Status);
    }

    [Fact]
    public async Task WatchedFolder_ModelsComeChangeAndGo()
    {
        await using var server = await TestServer.StartAsync(TestServer.Options() with { Models = [], WatchFolder = _folder, WatchInterval = TimeSpan.FromMilliseconds(50) });
        Assert.Equal(HttpStatusCode.ServiceUnavailable, (await server.Http.GetAsync(new Uri("/healthz", UriKind.Relative))).StatusCode);
        Assert.Equal(503, (await server.RefusedAsync("/v1/completions", """{"prompt": "a"}""")).Status);

        // As the trainer does: written elsewhere, then renamed into place.
        var staged = Path.Combine(_folder, ".staged");
        TestModels.Save(staged, 5);
        Directory.Move(staged, Path.Combine(_folder, "run1"));
        await TestServer.UntilAsync(() => server.Registry.Models.Count == 1);
        Assert.Equal("run1", server.Registry.Models[0].Name);
        var first = server.Registry.Models[0].Version;
        await server.PostAsync("/v1/completions", new { model = "run1", prompt = "The", max_tokens = 2 });
        Assert.Equal(HttpStatusCode.OK, (await server.Http.GetAsync(new Uri("/healthz", UriKind.Relative))).StatusCode);

        TestModels.Save(staged, 6);
        Directory.Move(Path.Combine(_folder, "run1"), Path.Combine(_folder, ".old"));
        Directory.Move(staged, Path.Combine(_folder, "run1"));
        await TestServer.UntilAsync(() => server.Registry.Models is [var model] && model.Version != first);
        Directory.Delete(Path.Combine(_folder, "run1"), recursive: true);
        await TestServer.UntilAsync(() => server.Registry.Models.Count == 0);
    }

    [Fact]
    public async Task Stop_LetsRunningRequestsFinish()
    {
        await using var server = await TestServer.StartAsync();
        server.Gate.Hold(readings: 20);
        var streaming = server.StreamAsync("/v1/completions", new { prompt = "The", max_tokens = 300, stream = true, ignore_eos = true });
        await TestServer.UntilAsync(() => server.Engine.Unfinished == 1);
        var stopping = server.StopAsync();
        server.Gate.Open();
        var events = await streaming.WaitAsync(TestServer.Patience);
        Assert.Null(events[^1]);
        Assert.Equal("length", (string?)events[^2]!["choices"]![0]!["finish_reason"]);
        await stopping.WaitAsync(TestServer.Patience);
    }

    [Fact]
    public async Task Unload_WhileStreaming_FinishesTheStream_AndDisposeMidStream_IsNoWholeAnswer()
    {
        var server = await TestServer.StartAsync(TestServer.Options() with { AllowModelChanges = true });
        server.Gate.Hold(readings: 20);
        var finished = server.StreamAsync("/v1/completions", new { prompt = "The", max_tokens = 100, stream = true, ignore_eos = true });
        await TestServer.UntilAsync(() => server.Engine.Unfinished == 1);
        var unloading = server.Grpc.UnloadModelAsync(new UnloadModelRequest { Name = "tiny" });
        await TestServer.UntilAsync(() => server.Registry.Models.Count == 0);
        server.Gate.Open();
        await unloading;
        Assert.Null((await finished)[^1]);

        await server.Grpc.LoadModelAsync(new LoadModelRequest { Name = "tiny", Path = TestModels.Folder() });
        server.Gate.Hold(readings: 20);
        var broken = await server.BeginStreamAsync("/v1/completions", new { prompt = "The", max_tokens = 500, stream = true, ignore_eos = true });
        var disposing = server.Engine.DisposeAsync();
        server.Gate.Open();
        await disposing;
        var (events, failure) = await TestServer.ReadEventsAsync(broken);
        Assert.NotNull(failure);
        Assert.NotNull(events[^1]);
        Assert.NotNull(events[^1]!["error"]);
        Assert.DoesNotContain(events[..^1], e => (string?)e!["choices"]![0]!["finish_reason"] is not null);
        await server.DisposeAsync();
    }

    [Fact]
    public async Task Disconnect_FreesTheRequestAtOnce()
    {
        await using var server = await TestServer.StartAsync(TestServer.Options(new ModelSource("tiny", TestModels.Folder(context: 4096))));
        using var leave = new CancellationTokenSource();
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/completions") { Content = new StringContent("""{"prompt": "The", "max_tokens": 4000, "stream": true, "ignore_eos": true}""") };
        server.Gate.Hold(readings: 60);
        using var response = await server.Http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, leave.Token);
        Assert.Equal(1, server.Engine.Unfinished);
        response.Dispose();
        await server.IdleSlowlyAsync();
        Assert.Contains("rho_serving_requests_dropped_total{model=\"tiny\",outcome=\"cancelled\"} 1", await server.MetricsAsync(), StringComparison.Ordinal);

        // A call that waits for its whole answer is freed as well, and a gRPC stream.
        server.Gate.Hold(readings: 60);
        var waiting = server.Http.PostAsync(new Uri("/v1/completions", UriKind.Relative), new StringContent("""{"prompt": "The", "max_tokens": 4000, "ignore_eos": true}"""), leave.Token);
        await TestServer.UntilAsync(() => server.Engine.Unfinished == 1);
        await leave.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => waiting);
        await server.IdleSlowlyAsync();
        using (var call = server.Grpc.Generate(new GenerateRequest { Text = "The", Sampling = new SamplingParameters { MaxTokens = 4000, IgnoreEos = true } }))
        {
            Assert.True(await call.ResponseStream.MoveNext(CancellationToken.None));
        }

        await server.IdleSlowlyAsync();

        // A deadline ends a call while the engine is at it.
        server.Gate.Hold(readings: 60);
        var late = server.Grpc.Generate(new GenerateRequest { Text = "The", Sampling = new SamplingParameters { MaxTokens = 4000, IgnoreEos = true, N = 8 } }, deadline: DateTime.UtcNow.AddMilliseconds(100));
        var error = await Assert.ThrowsAsync<RpcException>(() => GrpcTests.CollectAsync(late));
        Assert.Equal(StatusCode.DeadlineExceeded, error.StatusCode);
        server.Gate.Open();
        await server.IdleAsync();
    }

    [Fact]
    public async Task Overload_Is429WithRetryAfter_AndPerClientLimitsHold()
    {
        var options = TestServer.Options();
        await using var server = await TestServer.StartAsync(options with { Engine = options.Engine with { MaxSequences = 1, MaxWaitingRequests = 1 } });
        server.Gate.Hold(readings: 20);
        var busy = server.PostAsync("/v1/completions", new { prompt = "The", max_tokens = 400, ignore_eos = true });
        await TestServer.UntilAsync(() => server.Engine.State.Running == 1);
        var next = server.PostAsync("/v1/completions", new { prompt = "The", max_tokens = 1 });
        await TestServer.UntilAsync(() => server.Engine.Unfinished == 2);
        var (status, error, response) = await server.RefusedAsync("/v1/completions", """{"prompt": "a"}""");
        Assert.Equal(429, status);
        Assert.Equal(("rate_limit_error", "queue_full"), ((string?)error["type"], (string?)error["code"]));
        Assert.True(response.Headers.RetryAfter!.Delta >= TimeSpan.FromSeconds(1));
        var refused = await Assert.ThrowsAsync<RpcException>(() => GrpcTests.CollectAsync(server.Grpc.Generate(new GenerateRequest { Text = "a" })));
        Assert.Equal(StatusCode.ResourceExhausted, refused.StatusCode);
        Assert.NotNull(refused.Trailers.GetValue("retry-after"));
        server.Gate.Open();
        await Task.WhenAll(busy, next);

        await using var limited = await TestServer.StartAsync(options with { Engine = options.Engine with { MaxRequestsPerClient = 1 } });
        limited.Gate.Hold();
        var mine = limited.PostAsync("/v1/completions", new { prompt = "The", max_tokens = 400, ignore_eos = true });
        await TestServer.UntilAsync(() => limited.Engine.Unfinished == 1);
        Assert.Equal(429, (await limited.RefusedAsync("/v1/completions", """{"prompt": "a"}""")).Status);
        using var other = new HttpRequestMessage(HttpMethod.Post, "/v1/completions") { Content = new StringContent("""{"prompt": "a", "max_tokens": 1}""") };
        other.Headers.Add("Authorization", "Bearer someone-else");
        var others = limited.Http.SendAsync(other);
        await TestServer.UntilAsync(() => limited.Engine.Unfinished == 2);
        limited.Gate.Open();
        Assert.Equal(HttpStatusCode.OK, (await others).StatusCode);
        await mine;
    }

    [Fact]
    public async Task Score_OfMoreInputsThanAClientMayHave_WaitsForItsOwn()
    {
        var options = TestServer.Options();
        await using var server = await TestServer.StartAsync(options with { Engine = options.Engine with { MaxRequestsPerClient = 3 } });
        var request = new ScoreRequest();
        for (var i = 0; i < 20; i++) request.Inputs.Add(new ScoreInput { Text = $"The {i}" });
        using var call = server.Grpc.Score(request, deadline: DateTime.UtcNow + TestServer.Patience);
        var indices = new List<uint>();
        await foreach (var response in call.ResponseStream.ReadAllAsync()) indices.Add(response.Index);
        Assert.Equal(Enumerable.Range(0, 20).Select(i => (uint)i), indices);
    }

    [Fact]
    public async Task ClientThatStopsReading_IsCutOff_AndOthersAreAnswered()
    {
        var options = TestServer.Options(new ModelSource("tiny", TestModels.Folder(context: 4096))) with { CacheBytes = 64 << 20, ReaderTimeout = TimeSpan.FromMilliseconds(300) };
        await using var server = await TestServer.StartAsync(options);
        using var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { ReceiveBufferSize = 4096 };
        await socket.ConnectAsync(server.Addresses.Http!.Host, server.Addresses.Http.Port);

        // An answer of some 30 MB: more than the connection's buffers hold.
        const string Body = """{"prompt": "The", "max_tokens": 4000, "n": 8, "stream": true, "ignore_eos": true, "logprobs": 20}""";
        await socket.SendAsync(Encoding.ASCII.GetBytes($"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {Body.Length}\r\n\r\n{Body}"));
        await TestServer.UntilAsync(() => server.Engine.Unfinished == 1);
        await server.PostAsync("/v1/completions", new { prompt = "The", max_tokens = 5 });
        await server.IdleAsync();
        Assert.Contains("rho_serving_requests_dropped_total{model=\"tiny\",outcome=\"cancelled\"} 1", await server.MetricsAsync(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task ApiKeys_AreNeededOnBothFaces_AndNotForThePage()
    {
        var keys = Path.Combine(_folder, "keys");
        await File.WriteAllTextAsync(keys, "right\n");
        var options = TestServer.Options();
        await using var server = await TestServer.StartAsync(options with { Host = options.Host with { ApiKeysFile = keys } });
        var (status, error, _) = await server.RefusedAsync("/v1/completions", """{"prompt": "a"}""");
        Assert.Equal((401, "authentication_error"), (status, (string?)error["type"]));
        var refused = await Assert.ThrowsAsync<RpcException>(async () => await server.Grpc.ListModelsAsync(new ListModelsRequest()));
        Assert.Equal(StatusCode.Unauthenticated, refused.StatusCode);
        Assert.Contains("<title>Rho", await server.Http.GetStringAsync(new Uri("/", UriKind.Relative)), StringComparison.Ordinal);

        server.Http.DefaultRequestHeaders.Add("Authorization", "Bearer right");
        await server.PostAsync("/v1/completions", new { prompt = "a", max_tokens = 1 });
        var headers = new Metadata { { "authorization", "Bearer right" } };
        Assert.Single((await server.Grpc.ListModelsAsync(new ListModelsRequest(), headers)).Models);
    }

    [Fact]
    public async Task Metrics_HaveRhoNames_AndVllmNamesOnWish()
    {
        await using var server = await TestServer.StartAsync(TestServer.Options() with { VllmMetrics = true });
        await server.PostAsync("/v1/completions", new { prompt = "The quick brown fox jumps over the lazy dog", max_tokens = 5, ignore_eos = true });
        var text = await server.MetricsAsync();
        foreach (var name in s_vllmNames) Assert.Contains($"\n{name}{{", text, StringComparison.Ordinal);
        foreach (var line in new[]
        {
            "vllm:iteration_tokens_total_count{model_name=\"tiny\"} 5", "vllm:request_params_max_tokens_sum{model_name=\"tiny\"} 5", "vllm:request_generation_tokens_sum{model_name=\"tiny\"} 5",
            "vllm:cache_config_info{block_size=\"16\",model_name=\"tiny\",num_gpu_blocks=\"", "vllm:request_decode_time_seconds_count{model_name=\"tiny\"} 1",
            "rho_serving_sequences_running{model=\"tiny\"} ", "rho_serving_sequences_waiting{model=\"tiny\"} 0", "rho_serving_cache_usage{model=\"tiny\"} ",
            "rho_serving_time_to_first_token_seconds_bucket{model=\"tiny\",le=\"0.001\"} ", "rho_serving_generated_tokens_total{model=\"tiny\"} 5",
            "rho_serving_choices_finished_total{finished_reason=\"length\",model=\"tiny\"} 1", "rho_serving_time_between_tokens_seconds_count{model=\"tiny\"} 4",
            "vllm:num_requests_running{model_name=\"tiny\"} ", "vllm:num_requests_waiting{model_name=\"tiny\"} 0", "vllm:kv_cache_usage_perc{model_name=\"tiny\"} ",
            "vllm:prefix_cache_queries_total{model_name=\"tiny\"} ", "vllm:prefix_cache_hits_total{model_name=\"tiny\"} ", "vllm:time_to_first_token_seconds_count{model_name=\"tiny\"} 1",
            "vllm:inter_token_latency_seconds_sum{model_name=\"tiny\"} ", "vllm:e2e_request_latency_seconds_count{model_name=\"tiny\"} 1",
            "vllm:request_success_total{finished_reason=\"length\",model_name=\"tiny\"} 1", "vllm:generation_tokens_total{model_name=\"tiny\"} 5",
        })
        {
            Assert.Contains(line, text, StringComparison.Ordinal);
        }
    }

    // What vLLM's own test of its metrics looks for, without those that it hides by default.
    private static readonly string[] s_vllmNames =
    [
        "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total",
        "vllm:num_preemptions_total", "vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:cache_config_info", "vllm:request_success_total",
        .. new[]
        {
            "iteration_tokens_total", "request_prompt_tokens", "request_generation_tokens", "request_params_n", "request_params_max_tokens", "time_to_first_token_seconds",
            "inter_token_latency_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds", "request_inference_time_seconds",
            "request_prefill_time_seconds", "request_decode_time_seconds",
        }.SelectMany(name => new[] { $"vllm:{name}_sum", $"vllm:{name}_bucket", $"vllm:{name}_count" }),
    ];

    [Fact]
    public async Task Http_RequestIdsCorsAndPages()
    {
        await using var server = await TestServer.StartAsync(TestServer.Options() with { CorsOrigins = ["https://app.example"] });
        using var request = new HttpRequestMessage(HttpMethod.Get, "/v1/models");
        request.Headers.Add("X-Request-Id", "abc-123");
        request.Headers.Add("Origin", "https://app.example");
        using var response = await server.Http.SendAsync(request);
        Assert.Equal("abc-123", Assert.Single(response.Headers.GetValues("X-Request-Id")));
        Assert.Equal("https://app.example", Assert.Single(response.Headers.GetValues("Access-Control-Allow-Origin")));

        using var preflight = new HttpRequestMessage(HttpMethod.Options, "/v1/completions");
        preflight.Headers.Add("Origin", "https://app.example");
        preflight.Headers.Add("Access-Control-Request-Method", "POST");
        preflight.Headers.Add("Access-Control-Request-Headers", "authorization, content-type");
        using var allowed = await server.Http.SendAsync(preflight);
        Assert.Equal(HttpStatusCode.NoContent, allowed.StatusCode);
        Assert.Equal("authorization,content-type", Assert.Single(allowed.Headers.GetValues("Access-Control-Allow-Headers")));
        Assert.Equal("600", Assert.Single(allowed.Headers.GetValues("Access-Control-Max-Age")));
        using var strange = new HttpRequestMessage(HttpMethod.Get, "/v1/models");
        strange.Headers.Add("Origin", "https://evil.example");
        using var refused = await server.Http.SendAsync(strange);
        Assert.False(refused.Headers.Contains("Access-Control-Allow-Origin"));

        using var page = await server.Http.GetAsync(new Uri("/", UriKind.Relative));
        Assert.Contains("<title>Rho", await page.Content.ReadAsStringAsync(), StringComparison.Ordinal);
        Assert.Equal(("text/html", "no-cache"), (page.Content.Headers.ContentType!.MediaType, page.Headers.CacheControl!.ToString()));
        Assert.Contains("default-src 'none'", Assert.Single(page.Headers.GetValues("Content-Security-Policy")), StringComparison.Ordinal);
        var document = JsonNode.Parse(await server.Http.GetStringAsync(new Uri("/openapi.json", UriKind.Relative)))!;
        foreach (var path in new[] { "/v1/completions", "/v1/chat/completions", "/v1/models", "/tokenize", "/detokenize", "/tokenizer_info" }) Assert.NotNull(document["paths"]![path]);
    }
}
