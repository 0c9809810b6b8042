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

    private TestServer(WebApplication app)
    {
        _app = app;
        Addresses = app.GetRhoAddresses();
        Http = new HttpClient { BaseAddress = Addresses.Http, Timeout = Patience };
        _channel = GrpcChannel.ForAddress(Addresses.Grpc!);
        Grpc = new Inference.InferenceClient(_channel);
    }

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
        var app = ServingHost.Build(options);
        await ServingHost.LoadAsync(app, options, CancellationToken.None);
        await app.StartRhoAsync();
        return new TestServer(app);
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
    public async Task<List<JsonNode?>> StreamAsync(string path, object body)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, path) { Content = JsonContent.Create(body) };
        using var response = await Http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
        Assert.True(response.IsSuccessStatusCode, response.StatusCode.ToString());
        Assert.Equal("text/event-stream", response.Content.Headers.ContentType!.MediaType);
        var events = new List<JsonNode?>();
        foreach (var line in (await response.Content.ReadAsStringAsync()).Split("\n\n", StringSplitOptions.RemoveEmptyEntries))
        {
            Assert.StartsWith("data: ", line, StringComparison.Ordinal);
            events.Add(line[6..] == "[DONE]" ? null : JsonNode.Parse(line[6..]));
        }

        return events;
    }

    public Task<string> MetricsAsync() => Http.GetStringAsync(new Uri("/metrics", UriKind.Relative));

    /// <summary>Waits until nothing runs and no block is held.</summary>
    public async Task IdleAsync()
    {
        for (var i = 0; Engine.Unfinished > 0 || Engine.State.BlocksHeld > 0; i++)
        {
            Assert.True(i < 1000, $"the engine does not come to rest: {Engine.State}");
            await Task.Delay(10);
        }
    }

    public async Task StopAsync() => await _app.StopAsync();

    public async ValueTask DisposeAsync()
    {
        Http.Dispose();
        _channel.Dispose();
        await _app.StopAsync();
        await _app.DisposeAsync();
    }
}
