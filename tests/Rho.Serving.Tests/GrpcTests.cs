using Grpc.Core;
using Rho.Protocol.Inference.V1;

namespace Rho.Serving.Tests;

public sealed class GrpcTests
{
    [Fact]
    public async Task Generate_GreedyAndSampled_EqualTheHttpFace()
    {
        await using var server = await TestServer.StartAsync();
        foreach (var temperature in new[] { 0f, 0.8f })
        {
            var responses = await CollectAsync(server.Grpc.Generate(new GenerateRequest
            {
                Model = "tiny",
                Text = "The quick",
                Sampling = new SamplingParameters { MaxTokens = 20, Temperature = temperature, Seed = 11, LogProbabilities = 2 },
            }));
            var http = await server.PostAsync("/v1/completions", new { prompt = "The quick", max_tokens = 20, temperature, seed = 11 });
            Assert.Equal((string?)http["choices"]![0]!["text"], string.Concat(responses.Select(response => response.Text)));
            Assert.Equal(FinishReason.Length, responses[^1].FinishReason);
            Assert.Equal(20u, responses[^1].Usage.CompletionTokens);
            Assert.Equal(20, responses.Sum(response => response.Tokens.Count));
            Assert.All(responses.SelectMany(response => response.Tokens), token =>
            {
                Assert.Equal(2, token.Top.Count);
                Assert.True(token.LogProbability <= token.Top[0].LogProbability);
            });
        }
    }

    [Fact]
    public async Task Score_TextsAndIds_EqualEchoedCompletions()
    {
        await using var server = await TestServer.StartAsync();
        var ids = TestModels.Tokenizer.Encode("What is 7 * 6?", addSpecialTokens: true);
        var request = new ScoreRequest { Top = 3 };
        for (var i = 0; i < 100; i++)
            request.Inputs.Add(i % 2 == 0 ? new ScoreInput { Tokens = new TokenIds { Ids = { ids } } } : new ScoreInput { Text = "The dog sleeps" });
        var scores = new List<ScoreResponse>();
        using var call = server.Grpc.Score(request, deadline: DateTime.UtcNow + TestServer.Patience);
        await foreach (var response in call.ResponseStream.ReadAllAsync()) scores.Add(response);
        Assert.Equal(Enumerable.Range(0, 100).Select(i => (uint)i), scores.Select(score => score.Index));
        Assert.Equal(ids, scores[0].Tokens);

        var echo = await server.PostAsync("/v1/completions", new { prompt = ids, max_tokens = 0, logprobs = 3, echo = true });
        Assert.True(float.IsNaN(scores[0].LogProbabilities[0]));
        for (var i = 1; i < ids.Length; i++)
        {
            Assert.Equal((float)echo["choices"]![0]!["logprobs"]!["token_logprobs"]![i]!, scores[0].LogProbabilities[i]);
            Assert.Equal(3, scores[0].Top[i].Tokens.Count);
            Assert.Equal(scores[0].Greedy[i], scores[0].Top[i].Tokens[0].Token == ids[i]);
        }

        Assert.Equal(scores[0].LogProbabilities.Skip(1), scores[98].LogProbabilities.Skip(1));
    }

    [Fact]
    public async Task Calls_WithBadValues_GetPreciseStatuses()
    {
        await using var server = await TestServer.StartAsync();
        await RefusedAsync(server.Grpc.Generate(new GenerateRequest { Model = "none", Text = "a" }), StatusCode.NotFound, "served: tiny");
        await RefusedAsync(server.Grpc.Generate(new GenerateRequest { Sampling = new SamplingParameters { MaxTokens = 3 } }), StatusCode.InvalidArgument, "prompt");
        await RefusedAsync(server.Grpc.Generate(new GenerateRequest { Text = "a", Sampling = new SamplingParameters { TopP = 2 } }), StatusCode.InvalidArgument, "top_p");
        await RefusedAsync(server.Grpc.Generate(new GenerateRequest { Tokens = new TokenIds { Ids = { -3 } } }), StatusCode.InvalidArgument, "token -3");
        var error = await Assert.ThrowsAsync<RpcException>(async () => await server.Grpc.LoadModelAsync(new LoadModelRequest { Path = "/tmp" }));
        Assert.Equal(StatusCode.PermissionDenied, error.StatusCode);
    }

    [Fact]
    public async Task Tokenize_ThereAndBack()
    {
        await using var server = await TestServer.StartAsync();
        var tokens = await server.Grpc.TokenizeAsync(new TokenizeRequest { Text = "Grüße 😀", AddSpecialTokens = false });
        Assert.Equal(TestModels.Tokenizer.Encode("Grüße 😀"), tokens.Tokens);
        Assert.Equal(512u, tokens.ContextLength);
        Assert.Equal("Grüße 😀", (await server.Grpc.DetokenizeAsync(new DetokenizeRequest { Tokens = { tokens.Tokens } })).Text);
        var models = await server.Grpc.ListModelsAsync(new ListModelsRequest());
        Assert.Equal("tiny", Assert.Single(models.Models).Name);
    }

    internal static async Task<List<GenerateResponse>> CollectAsync(AsyncServerStreamingCall<GenerateResponse> call)
    {
        using (call)
        {
            using var patience = new CancellationTokenSource(TestServer.Patience);
            var responses = new List<GenerateResponse>();
            await foreach (var response in call.ResponseStream.ReadAllAsync(patience.Token)) responses.Add(response);
            return responses;
        }
    }

    private static async Task RefusedAsync(AsyncServerStreamingCall<GenerateResponse> call, StatusCode code, string message)
    {
        var error = await Assert.ThrowsAsync<RpcException>(() => CollectAsync(call));
        Assert.Equal(code, error.StatusCode);
        Assert.Contains(message, error.Status.Detail, StringComparison.Ordinal);
    }
}
