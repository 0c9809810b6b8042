using System.Text.Json.Nodes;
using Rho.Protocol.Inference.V1;

namespace Rho.Serving.Tests;

/// <summary>The requests that EleutherAI's lm-evaluation-harness sends (data/lm_eval.json), answered as it reads the answers.</summary>
public sealed class EvaluationHarnessTests
{
    private static readonly JsonNode s_recorded = JsonNode.Parse(File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "data", "lm_eval.json")))!;

    [Fact]
    public async Task RemoteTokenizer_IsFoundAndWorks()
    {
        await using var server = await TestServer.StartAsync();
        var info = JsonNode.Parse(await server.Http.GetStringAsync(new Uri("/tokenizer_info", UriKind.Relative)))!.AsObject();
        Assert.True(info.ContainsKey("eos_token"));
        Assert.Equal(TestModels.ChatTemplate, (string?)info["chat_template"]);
        var tokens = (await server.PostAsync("/tokenize", s_recorded["remote_tokenizer"]![0]!["body"]!))["tokens"]!.AsArray();
        Assert.Equal(TestModels.Tokenizer.Encode("test"), tokens.Select(id => (int)id!));
        Assert.Equal("The lazy dog", (string?)(await server.PostAsync("/detokenize", WithIds(s_recorded["remote_tokenizer"]![1]!["body"]!)))["prompt"]);

        // The special tokens' ids are found by encoding their texts.
        var eos = await server.PostAsync("/tokenize", new { prompt = (string)info["eos_token"]!, add_special_tokens = false });
        Assert.Equal(TestModels.Tokenizer.EosId, (int)eos["tokens"]![0]!);
    }

    [Fact]
    public async Task Loglikelihood_EqualsScoring_WarmOrCold()
    {
        await using var server = await TestServer.StartAsync();
        foreach (var recorded in s_recorded["loglikelihood"]!.AsArray())
        {
            var body = WithIds(recorded!["body"]!);
            for (var round = 0; round < 2; round++)
            {
                var answer = await server.PostAsync("/v1/completions", body);
                var choices = answer["choices"]!.AsArray().OrderBy(choice => (int)choice!["index"]!).ToArray();
                Assert.Equal(recorded["contexts"]!.AsArray().Count, choices.Length);
                for (var i = 0; i < choices.Length; i++)
                {
                    var prompt = body["prompt"]![i]!.AsArray().Select(id => (int)id!).ToArray();
                    var contextLength = TestModels.Tokenizer.Encode((string)recorded["contexts"]![i]!).Length;
                    var (sum, greedy) = Parse(choices[i]!, contextLength);
                    var expected = await ScoreAsync(server, prompt);
                    Assert.Equal(expected.LogProbabilities.Skip(contextLength).Sum(x => (double)x), sum, 1e-4);
                    Assert.Equal(expected.Greedy.Skip(contextLength).All(x => x), greedy);
                }
            }
        }
    }

    [Fact]
    public async Task Loglikelihood_OfAGreedyContinuation_IsGreedy()
    {
        await using var server = await TestServer.StartAsync();
        var context = TestModels.Tokenizer.Encode("The quick");
        var continued = await GrpcTests.CollectAsync(server.Grpc.Generate(new GenerateRequest
        {
            Tokens = new TokenIds { Ids = { context } },
            Sampling = new SamplingParameters { MaxTokens = 10, Temperature = 0, IgnoreEos = true },
        }));
        int[] prompt = [.. context, .. continued.SelectMany(part => part.Tokens).Select(token => token.Id)];
        var answer = await server.PostAsync("/v1/completions", new { prompt = new[] { prompt }, model = "tiny", temperature = 0, max_tokens = 1, logprobs = 1, seed = 1234, echo = true });
        Assert.True(Parse(answer["choices"]![0]!, context.Length).Greedy);
        prompt[^2] = (prompt[^2] + 1) % TestModels.Tokenizer.VocabularySize;
        answer = await server.PostAsync("/v1/completions", new { prompt = new[] { prompt }, model = "tiny", temperature = 0, max_tokens = 1, logprobs = 1, seed = 1234, echo = true });
        Assert.False(Parse(answer["choices"]![0]!, context.Length).Greedy);
    }

    [Fact]
    public async Task GenerateUntil_AnswersEveryPrompt()
    {
        await using var server = await TestServer.StartAsync();
        foreach (var recorded in s_recorded["generate_until"]!.AsArray())
        {
            var body = WithIds(recorded!["body"]!);
            var answer = await server.PostAsync((string)recorded["path"]!, body);
            foreach (var choice in answer["choices"]!.AsArray())
            {
                var text = (string)(choice!["text"] ?? choice["message"]!["content"])!;
                foreach (var stop in body["stop"]!.AsArray()) Assert.DoesNotContain((string)stop!, text, StringComparison.Ordinal);
            }
        }
    }

    /// <summary>As LocalCompletionsAPI.parse_logprobs does: without the context, and without the one token that was generated.</summary>
    private static (double Sum, bool Greedy) Parse(JsonNode choice, int contextLength)
    {
        var scores = choice["logprobs"]!["token_logprobs"]!.AsArray();
        var top = choice["logprobs"]!["top_logprobs"]!.AsArray();
        double sum = 0;
        var greedy = true;
        for (var i = contextLength; i < scores.Count - 1; i++)
        {
            sum += (double)scores[i]!;
            greedy &= (double)scores[i]! == top[i]!.AsObject().Max(entry => (double)entry.Value!);
        }

        return (sum, greedy);
    }

    private static async Task<ScoreResponse> ScoreAsync(TestServer server, int[] tokens)
    {
        using var call = server.Grpc.Score(new ScoreRequest { Inputs = { new ScoreInput { Tokens = new TokenIds { Ids = { tokens } } } } }, deadline: DateTime.UtcNow + TestServer.Patience);
        Assert.True(await call.ResponseStream.MoveNext(CancellationToken.None));
        return call.ResponseStream.Current;
    }

    /// <summary>Replaces "@text" by the text's token ids.</summary>
    private static JsonNode WithIds(JsonNode node) => node switch
    {
        JsonObject o => new JsonObject(o.Select(entry => KeyValuePair.Create(entry.Key, entry.Value is null ? null : WithIds(entry.Value)))),
        JsonArray a => new JsonArray([.. a.Select(entry => WithIds(entry!))]),
        JsonValue value when value.TryGetValue<string>(out var text) && text.StartsWith('@') => new JsonArray([.. TestModels.Tokenizer.Encode(text[1..]).Select(id => (JsonNode)id)]),
        _ => node.DeepClone(),
    };
}
