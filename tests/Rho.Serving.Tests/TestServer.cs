using System.Net.Http.Json;
using System.Text.Json;
using System.Text.Json.Nodes;
using Grpc.Net.Client;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Rho.Hosting;
using Rho.Model;
using Rho.Protocol.Inference.V1;
using Rho.Serving.Engine;
using Rho.Serving.Models;

namespace Rho.Serving.Tests;

/// <summary>A real server on ports that the system chose, with clients for both faces.</summary>
internal sealed class TestServer : IAsyncDisposable
{
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private readonly WebApplication _app;
    private readonly GrpcChannel _channel;

    private TestServer(WebApplication app, EngineGate gate)
    {
        _app = app;
        Gate = gate;
        Addresses = app.GetRhoAddresses();
        Http = new HttpClient { BaseAddress = Addresses.Http, Timeout = Patience };
        _channel = GrpcChannel.ForAddress(Addresses.Grpc!);
        Grpc = new Inference.InferenceClient(_channel);
    }

    /// <summary>Holds the engines while a test needs requests to be under way.</summary>
    public EngineGate Gate { get; }

    public RhoAddresses Addresses { get; }

    public HttpClient Http { get; }

    public Inference.InferenceClient Grpc { get; }

    public ModelRegistry Registry => _app.Services.GetRequiredService<ModelRegistry>();

    public InferenceEngine Engine => Registry.Models[0].Engine;

    public static ServingOptions Options(params ModelSource[] models) => new()
    {
        Host = new RhoHostOptions { Service = "rho-serving", GrpcPort = 0, HttpPort = 0, LogLevel = LogLevel.Warning, DrainTimeout = TimeSpan.FromSeconds(20) },
        Models = models.Length > 0 ? models : [new ModelSource("tiny", TestModels.Folder())],
        Compute = ComputeType.Float32,
        CacheBytes = 8 << 20,
        Threads = 2,
        Device = "cpu",
    };

    public static async Task<TestServer> StartAsync(ServingOptions? options = null)
    {
        options ??= Options();
        var gate = new EngineGate();
        var app = ServingHost.Build(options, gate);
        await ServingHost.LoadAsync(app, options, CancellationToken.None);
        await app.StartRhoAsync();
        return new TestServer(app, gate);
    }

    public async Task<JsonNode> PostAsync(string path, object body)
    {
        using var response = await Http.PostAsJsonAsync(path, body);
        var text = await response.Content.ReadAsStringAsync();
        Assert.True(response.IsSuccessStatusCode, text);
        return JsonNode.Parse(text)!;
    }

    /// <summary>A refused call: its status and error object.</summary>
    public async Task<(int Status, JsonNode Error, HttpResponseMessage Response)> RefusedAsync(string path, string body)
    {
        var response = await Http.PostAsync(path, new StringContent(body, System.Text.Encoding.UTF8, "application/json"));
        var text = await response.Content.ReadAsStringAsync();
        Assert.False(response.IsSuccessStatusCode, text);
        return ((int)response.StatusCode, JsonNode.Parse(text)!["error"]!, response);
    }

    /// <summary>The events of a stream, [DONE] among them as null.</summary>
    public async Task<List<JsonNode?>> StreamAsync(string path, object body) => await EventsAsync(await BeginStreamAsync(path, body));

    /// <summary>A stream that has begun.</summary>
    public async Task<HttpResponseMessage> BeginStreamAsync(string path, object body)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, path) { Content = JsonContent.Create(body) };
        var response = await Http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
        Assert.True(response.IsSuccessStatusCode, response.StatusCode.ToString());
        Assert.Equal("text/event-stream", response.Content.Headers.ContentType!.MediaType);
        return response;
    }

    /// <summary>The events of a stream that ends as it should.</summary>
    public static async Task<List<JsonNode?>> EventsAsync(HttpResponseMessage response)
    {
        var (events, failure) = await ReadEventsAsync(response);
        Assert.Null(failure);
        return events;
    }

    /// <summary>The events of a stream, and what broke it off.</summary>
    public static async Task<(List<JsonNode?> Events, IOException? Failure)> ReadEventsAsync(HttpResponseMessage response)
    {
        using var disposed = response;
        var events = new List<JsonNode?>();
        using var reader = new StreamReader(await response.Content.ReadAsStreamAsync());
        try
        {
            while (await reader.ReadLineAsync() is { } line)
            {
                if (line.Length == 0) continue;
                Assert.StartsWith("data: ", line, StringComparison.Ordinal);
                events.Add(line[6..] == "[DONE]" ? null : JsonNode.Parse(line[6..]));
            }

            return (events, null);
        }
        catch (IOException exception)
        {
            return (events, exception);
        }
    }

    public Task<string> MetricsAsync() => Http.GetStringAsync(new Uri("/metrics", UriKind.Relative));

    /// <summary>Waits until nothing runs and no block is held.</summary>
    public async Task IdleAsync()
    {
        await UntilAsync(() => Engine.Unfinished == 0 && Engine.State.BlocksHeld == 0, () => $"the engine does not come to rest: {Engine.State}");
    }

    /// <summary>As <see cref="IdleAsync"/>, a step or so at a time: what is cancelled meanwhile has no time to come to its end first.</summary>
    public async Task IdleSlowlyAsync()
    {
        await UntilAsync(() =>
        {
            Gate.Hold(readings: 4);
            return Engine.Unfinished == 0 && Engine.State.BlocksHeld == 0;
        });
        Gate.Open();
    }

    /// <summary>Waits until so many requests, which must be long ones, are under way and have tokens, and then takes the model from under them.</summary>
    public async Task BreakAsync(int requests)
    {
        Gate.Hold();
        await UntilAsync(() => Engine.Unfinished == requests);
        var steps = Engine.Steps;
        await UntilAsync(() =>
        {
            Gate.Hold(readings: 8);
            return Engine.Steps >= steps + 3;
        });
        var disposing = Engine.DisposeAsync();
        Gate.Open();
        await disposing;
    }

    public static async Task UntilAsync(Func<bool> condition, Func<string>? otherwise = null)
    {
        for (var waited = System.Diagnostics.Stopwatch.StartNew(); !condition();)
        {
            Assert.True(waited.Elapsed < Patience, otherwise?.Invoke() ?? "what was waited for did not happen");
            await Task.Delay(5);
        }
    }

    public async Task StopAsync() => await _app.StopAsync();

    public async ValueTask DisposeAsync()
    {
        Gate.Open();
        Http.Dispose();
        _channel.Dispose();
        await _app.StopAsync();
        await _app.DisposeAsync();
    }
}
