using System.Text.Json.Nodes;

namespace Rho.Serving.Tests;

public sealed class CompletionTests
{
    [Fact]
    public async Task Completion_Greedy_StreamsWhatItReturnsWhole()
    {
        await using var server = await TestServer.StartAsync();
        var whole = await server.PostAsync("/v1/completions", new { model = "tiny", prompt = "The quick", max_tokens = 24, temperature = 0 });
        Assert.Equal("text_completion", (string?)whole["object"]);
        Assert.Equal(24, (int)whole["usage"]!["completion_tokens"]!);
        var choice = whole["choices"]![0]!;
        Assert.Equal("length", (string?)choice["finish_reason"]);
        var text = (string)choice["text"]!;
        Assert.NotEmpty(text);

        var events = await server.StreamAsync("/v1/completions", new { model = "tiny", prompt = "The quick", max_tokens = 24, temperature = 0, stream = true, stream_options = new { include_usage = true } });
        Assert.Null(events[^1]);
        var usage = events[^2]!;
        Assert.Equal(24, (int)usage["usage"]!["completion_tokens"]!);
        Assert.Empty(usage["choices"]!.AsArray());
        Assert.Equal(text, string.Concat(events[..^2].Select(e => (string?)e!["choices"]![0]!["text"])));
        Assert.Equal("length", (string?)events[^3]!["choices"]![0]!["finish_reason"]);
        Assert.All(events[..^3], e => Assert.Null(e!["choices"]![0]!["finish_reason"]));
    }

    [Fact]
    public async Task Completion_ManyPromptsAndChoices_AreNumberedAndEqualThoseAlone()
    {
        await using var server = await TestServer.StartAsync();
        string[] prompts = ["The dog", "What is 7 * 6?", "Grüße aus"];
        var together = await server.PostAsync("/v1/completions", new { prompt = prompts, n = 2, max_tokens = 12, seed = 5, temperature = 0.9 });
        var choices = together["choices"]!.AsArray();
        Assert.Equal(6, choices.Count);
        for (var i = 0; i < prompts.Length; i++)
        {
            var alone = await server.PostAsync("/v1/completions", new { prompt = prompts[i], n = 2, max_tokens = 12, seed = 5, temperature = 0.9 });
            for (var c = 0; c < 2; c++)
            {
                Assert.Equal((i * 2) + c, (int)choices[(i * 2) + c]!["index"]!);
                Assert.Equal((string?)alone["choices"]![c]!["text"], (string?)choices[(i * 2) + c]!["text"]);
            }

            Assert.NotEqual((string?)alone["choices"]![0]!["text"], (string?)alone["choices"]![1]!["text"]);
        }
    }

    [Fact]
    public async Task Completion_PromptAsIds_EqualsPromptAsText()
    {
        await using var server = await TestServer.StartAsync();
        var ids = TestModels.Tokenizer.Encode("The lazy dog", addSpecialTokens: true);
        var fromText = await server.PostAsync("/v1/completions", new { prompt = "The lazy dog", temperature = 0 });
        var fromIds = await server.PostAsync("/v1/completions", new { prompt = ids, temperature = 0 });
        var fromList = await server.PostAsync("/v1/completions", new { prompt = new[] { ids, ids }, temperature = 0 });
        Assert.Equal((string?)fromText["choices"]![0]!["text"], (string?)fromIds["choices"]![0]!["text"]);
        Assert.Equal((string?)fromText["choices"]![0]!["text"], (string?)fromList["choices"]![1]!["text"]);
        Assert.Equal(16, (int)fromText["usage"]!["completion_tokens"]!);
    }

    [Theory]
    [InlineData("""{"prompt": "a", "n": 0}""", "n", "from 1 to 64")]
    [InlineData("""{"prompt": "a", "top_p": 0}""", "top_p", "not above 0")]
    [InlineData("""{"prompt": "a", "temperature": "hot"}""", "temperature", "a number is needed")]
    [InlineData("""{"prompt": "a", "max_tokens": 1.5}""", "max_tokens", "whole number")]
    [InlineData("""{"prompt": "a", "suffix": "b"}""", "suffix", "where it has no effect")]
    [InlineData("""{"prompt": "a", "best_of": 3}""", "best_of", "not supported")]
    [InlineData("""{"prompt": "a", "beam_width": 3}""", "beam_width", "not supported")]
    [InlineData("""{"prompt": "a", "stop": [1]}""", "stop[0]", "a string is needed")]
    [InlineData("""{"prompt": "a", "stream_options": {"include_usage": true}}""", "stream_options", "streams only")]
    [InlineData("""{"prompt": "a", "stream": true, "stream_options": {"chunk": 1}}""", "stream_options.chunk", "not supported")]
    [InlineData("""{"prompt": "a", "logit_bias": {"x": 1}}""", "logit_bias", "not a token id")]
    [InlineData("""{"prompt": "a", "logit_bias": {"99999": 1}}""", "logit_bias", "not in the vocabulary")]
    [InlineData("""{"prompt": [[1, 2], "a", 3]}""", "prompt[2]", "a string is needed")]
    [InlineData("""{"prompt": [1, 99999]}""", "prompt", "token 99999 is not in the vocabulary")]
    [InlineData("""{"prompt": []}""", "prompt", "needed")]
    [InlineData("""{"prompt": {"a": 1}}""", "prompt", "needed")]
    [InlineData("""{"max_tokens": 3}""", "prompt", "missing")]
    [InlineData("""{"prompt": "a", "logprobs": 50}""", "logprobs", "from 0 to 20")]
    public async Task Completion_BadField_IsRefusedByName(string body, string field, string message)
    {
        await using var server = await TestServer.StartAsync();
        var (status, error, _) = await server.RefusedAsync("/v1/completions", body);
        Assert.Equal(400, status);
        Assert.Equal(field, (string?)error["param"]);
        Assert.Contains(message, (string)error["message"]!, StringComparison.Ordinal);
        Assert.Equal("invalid_request_error", (string?)error["type"]);
    }

    [Fact]
    public async Task Completion_BadRequests_SayWhatIsWrong()
    {
        await using var server = await TestServer.StartAsync();
        var (status, error, _) = await server.RefusedAsync("/v1/completions", "{\"prompt\": ");
        Assert.Equal(400, status);
        Assert.Contains("no JSON", (string)error["message"]!, StringComparison.Ordinal);

        (status, error, _) = await server.RefusedAsync("/v1/completions", """{"model": "gpt-9", "prompt": "a"}""");
        Assert.Equal(404, status);
        Assert.Equal("model_not_found", (string?)error["code"]);
        Assert.Contains("served: tiny", (string)error["message"]!, StringComparison.Ordinal);

        (status, error, _) = await server.RefusedAsync("/v1/completions", """{"prompt": "a", "max_tokens": 600}""");
        Assert.Equal(400, status);
        Assert.Equal("context_length_exceeded", (string?)error["code"]);

        (status, error, _) = await server.RefusedAsync("/v1/completions", $$"""{"prompt": "{{new string('x', 200_000)}}"}""");
        Assert.Equal(400, status);
        Assert.Equal("context_length_exceeded", (string?)error["code"]);
        Assert.Contains("200000 bytes", (string)error["message"]!, StringComparison.Ordinal);

        (status, error, _) = await server.RefusedAsync("/v1/completions", $$"""{"prompt": [[1], [{{string.Join(',', Enumerable.Repeat("1", 513))}}]]}""");
        Assert.Equal((400, "context_length_exceeded"), (status, (string?)error["code"]));
        Assert.Contains("prompt[1] has 513 tokens", (string)error["message"]!, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("/v1/embeddings", "POST")]
    [InlineData("/v1/completions", "GET")]
    [InlineData("/nothing", "GET")]
    public async Task UnknownRoute_IsAnErrorObjectToo(string path, string method)
    {
        await using var server = await TestServer.StartAsync();
        using var request = new HttpRequestMessage(new HttpMethod(method), path) { Content = method == "POST" ? new StringContent("{}") : null };
        using var response = await server.Http.SendAsync(request);
        Assert.InRange((int)response.StatusCode, 404, 405);
        var error = JsonNode.Parse(await response.Content.ReadAsStringAsync())!["error"]!;
        Assert.Equal("unknown_url", (string?)error["code"]);
        Assert.Contains($"no {method} {path} here", (string)error["message"]!, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("/v1/completions", "CompletionRequest", """{"prompt": "a"}""")]
    [InlineData("/v1/chat/completions", "ChatRequest", """{"messages": [{"role": "user", "content": "a"}]}""")]
    [InlineData("/v1/responses", "ResponseRequest", """{"input": "a"}""")]
    public async Task EveryFieldOfTheDocument_IsRead(string path, string schema, string least)
    {
        await using var server = await TestServer.StartAsync();
        var document = JsonNode.Parse(await server.Http.GetStringAsync(new Uri("/openapi.json", UriKind.Relative)))!;
        var fields = document["components"]!["schemas"]![schema]!["properties"]!.AsObject().Select(property => property.Key).ToArray();
        Assert.True(fields.Length > 20);
        foreach (var field in fields)
        {
            // A value that is right for no field: its refusal says what is wrong with the value, not that there is no such field.
            var body = JsonNode.Parse(least)!;
            body[field] = new JsonArray(new JsonArray(true));
            var (status, error, _) = await server.RefusedAsync(path, body.ToJsonString());
            Assert.Equal(400, status);
            Assert.StartsWith(field, (string)error["param"]!, StringComparison.Ordinal);
            Assert.DoesNotContain("is not supported", (string)error["message"]!, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task Completion_EchoWithLogProbabilities_ReadsAsEvaluationHarnessesDo()
    {
        await using var server = await TestServer.StartAsync();
        var context = TestModels.Tokenizer.Encode("The quick brown", addSpecialTokens: true);
        var continuation = TestModels.Tokenizer.Encode(" fox jumps over");
        int[] prompt = [.. context, .. continuation];
        var other = TestModels.Tokenizer.Encode("What is 12 + 30?", addSpecialTokens: true);

        // Twice: the second time the cache holds both prompts.
        JsonNode? first = null;
        for (var round = 0; round < 2; round++)
        {
            var answer = await server.PostAsync("/v1/completions", new { prompt = new[] { prompt, other }, max_tokens = 1, logprobs = 1, seed = 1234, echo = true, temperature = 0 });
            var scores = answer["choices"]![0]!["logprobs"]!;
            Assert.Equal(prompt.Length + 1, scores["tokens"]!.AsArray().Count);
            Assert.Equal(prompt.Length + 1, scores["token_logprobs"]!.AsArray().Count);
            Assert.Null(scores["token_logprobs"]![0]);
            Assert.Null(scores["top_logprobs"]![0]);
            for (var i = 1; i < prompt.Length; i++)
            {
                var score = (float)scores["token_logprobs"]![i]!;
                var top = scores["top_logprobs"]![i]!.AsObject();
                Assert.True(score <= 0);
                Assert.InRange(top.Count, 1, 2);
                Assert.True(score <= top.Max(entry => (float)entry.Value!));
            }

            var last = scores["top_logprobs"]![prompt.Length]!.AsObject();
            Assert.Equal((float)scores["token_logprobs"]![prompt.Length]!, last.Max(entry => (float)entry.Value!));
            Assert.StartsWith("<|begin_of_text|>The quick brown fox jumps over", (string)answer["choices"]![0]!["text"]!, StringComparison.Ordinal);
            Assert.Equal(first?["choices"]!.ToJsonString() ?? answer["choices"]!.ToJsonString(), answer["choices"]!.ToJsonString());
            first = answer;
        }

        // Without a token of continuation.
        var scored = await server.PostAsync("/v1/completions", new { prompt = new[] { prompt }, max_tokens = 0, logprobs = 1, echo = true });
        Assert.Equal(prompt.Length, scored["choices"]![0]!["logprobs"]!["tokens"]!.AsArray().Count);
        Assert.Equal("length", (string?)scored["choices"]![0]!["finish_reason"]);
        for (var i = 1; i < prompt.Length; i++)
            Assert.Equal((float)first!["choices"]![0]!["logprobs"]!["token_logprobs"]![i]!, (float)scored["choices"]![0]!["logprobs"]!["token_logprobs"]![i]!);
    }

    public static TheoryData<string> Vocabularies => ["byte-level", "SentencePiece"];

    [Theory, MemberData(nameof(Vocabularies))]
    public async Task TextOffsets_PointIntoTheText_InCharacters(string vocabulary)
    {
        var tokenizer = vocabulary == "byte-level" ? TestModels.Tokenizer : Rho.Tokenization.Tokenizer.Load(Path.Combine(AppContext.BaseDirectory, "data", "llama2"));
        var folder = Path.Combine(Directory.CreateTempSubdirectory("rho-offsets-").FullName, "m");
        TestModels.Save(folder, tokenizer, 7);
        await using var server = await TestServer.StartAsync(TestServer.Options(new ModelSource("m", folder)));
        var ids = tokenizer.Encode("Ünï日本😀 x", addSpecialTokens: true);
        foreach (object prompt in new object[] { "Ünï日本😀 x", "Hello world", " two  blanks", ids, ids[1..^2] })
        {
            foreach (var stream in new[] { false, true })
            {
                var body = new { prompt, max_tokens = 40, temperature = 1.0, seed = 2, echo = true, logprobs = 2, stream, ignore_eos = true };
                var choices = stream ? [.. (await server.StreamAsync("/v1/completions", body))[..^1].Select(e => e!["choices"]![0]!)] : new[] { (await server.PostAsync("/v1/completions", body))["choices"]![0]! };
                var text = string.Concat(choices.Select(choice => (string?)choice["text"])).EnumerateRunes().ToArray();
                var tokens = choices.SelectMany(choice => choice["logprobs"]!["tokens"]!.AsArray()).Select(token => (string)token!).ToArray();
                var offsets = choices.SelectMany(choice => choice["logprobs"]!["text_offset"]!.AsArray()).Select(offset => (int)offset!).ToArray();
                Assert.Equal(tokens.Length, offsets.Length);
                Assert.Equal(offsets.Order(), offsets);
                for (var i = 0; i < tokens.Length; i++)
                {
                    // Special tokens that the tokenizer or the model adds are not in the text, and parts of characters only together.
                    if (tokens[i].StartsWith("bytes:", StringComparison.Ordinal) || tokenizer.TokenToId(tokens[i]) is { } id && tokenizer.IsSpecial(id) && (prompt is not int[] listed || i >= listed.Length)) continue;
                    var rest = string.Concat(text[offsets[i]..]);
                    // A run of SentencePiece's byte tokens that is not UTF-8 throughout is replaced byte by byte.
                    if (vocabulary != "byte-level" && tokens[i].Length == 1 && rest.StartsWith('\uFFFD')) continue;
                    // The blank that SentencePiece puts before a text is no part of it.
                    Assert.True(rest.StartsWith(tokens[i], StringComparison.Ordinal) || (rest.StartsWith(tokens[i].TrimStart(), StringComparison.Ordinal) && offsets[i] == 0),
                        $"token {i} '{tokens[i]}' ({string.Join(' ', tokens[i].Select(c => ((int)c).ToString("x4")))}) at {offsets[i]} of '{string.Concat(text)}': '{rest}'");
                }
            }
        }

        // A continuation begins with its first token's blank; a chat's answer does not begin with the one that SentencePiece puts there.
        var first = vocabulary == "byte-level" ? tokenizer.Encode(" ")[0] : tokenizer.TokenToId("▁and")!.Value;
        var forced = new Dictionary<string, int> { [$"{first}"] = 100 };
        var continued = (string)(await server.PostAsync("/v1/completions", new { prompt = "Hello", max_tokens = 1, logit_bias = forced }))["choices"]![0]!["text"]!;
        Assert.Equal(tokenizer.Decode([.. tokenizer.Encode("Hello"), first]), "Hello" + continued);
        Assert.StartsWith(" ", continued, StringComparison.Ordinal);
        var answered = await server.PostAsync("/v1/chat/completions", new { messages = new[] { new { role = "user", content = "Hello" } }, max_tokens = 1, logit_bias = forced });
        Assert.Equal(vocabulary == "byte-level" ? " " : "and", (string?)answered["choices"]![0]!["message"]!["content"]);

        // Ids of special tokens are spelt out, as the log-probabilities list them.
        var echoed = await server.PostAsync("/v1/completions", new { prompt = ids, max_tokens = 0, echo = true, logprobs = 0 });
        Assert.StartsWith(tokenizer.IdToToken(ids[0]), (string)echoed["choices"]![0]!["text"]!, StringComparison.Ordinal);
    }

    [Fact]
    public async Task TopLogProbabilities_OfPartsOfCharacters_HaveDistinctKeys()
    {
        await using var server = await TestServer.StartAsync();
        // All bytes that go on with a character, equally likely: each is a token of its own.
        var parts = Enumerable.Range(0, TestModels.Tokenizer.VocabularySize).Where(id => TestModels.Tokenizer.TokenBytes(id).Span is [>= 0x80 and < 0x98]).ToDictionary(id => $"{id}", _ => 100);
        var answer = await server.PostAsync("/v1/completions", new { prompt = "a", max_tokens = 3, logprobs = 20, logit_bias = parts });
        foreach (var top in answer["choices"]![0]!["logprobs"]!["top_logprobs"]!.AsArray()) Assert.InRange(top!.AsObject().Count, 20, 21);
        foreach (var token in answer["choices"]![0]!["logprobs"]!["tokens"]!.AsArray()) Assert.Matches(@"\Abytes:\\x[89][0-9a-f]\z", (string)token!);
    }

    [Fact]
    public async Task Completion_StopText_EndsBeforeItAndIsNeverSent()
    {
        await using var server = await TestServer.StartAsync();
        var body = new { prompt = "The", max_tokens = 60, seed = 3, temperature = 1.0 };
        var free = (string)(await server.PostAsync("/v1/completions", body))["choices"]![0]!["text"]!;
        var stop = free.Substring(free.Length / 2, 4);
        var expected = free[..free.IndexOf(stop, StringComparison.Ordinal)];

        var whole = await server.PostAsync("/v1/completions", new { prompt = "The", max_tokens = 60, seed = 3, temperature = 1.0, stop = new[] { stop, "never there" } });
        Assert.Equal(expected, (string?)whole["choices"]![0]!["text"]);
        Assert.Equal("stop", (string?)whole["choices"]![0]!["finish_reason"]);
        Assert.Equal(stop, (string?)whole["choices"]![0]!["stop_reason"]);

        var events = await server.StreamAsync("/v1/completions", new { prompt = "The", max_tokens = 60, seed = 3, temperature = 1.0, stop, stream = true });
        Assert.Equal(expected, string.Concat(events[..^1].Select(e => (string?)e!["choices"]![0]!["text"])));
    }

    [Fact]
    public async Task Models_And_Tokens_AreTold()
    {
        await using var server = await TestServer.StartAsync();
        var models = JsonNode.Parse(await server.Http.GetStringAsync(new Uri("/v1/models", UriKind.Relative)))!;
        Assert.Equal("tiny", (string?)models["data"]![0]!["id"]);
        Assert.Equal(512, (int)models["data"]![0]!["max_model_len"]!);

        var tokens = await server.PostAsync("/tokenize", new { model = "tiny", prompt = "The dog 😀", return_token_strs = true });
        Assert.Equal(tokens["tokens"]!.AsArray().Select(id => TestModels.Tokenizer.IdToToken((int)id!)), tokens["token_strs"]!.AsArray().Select(text => (string)text!));
        Assert.Contains("Ġdog", tokens["token_strs"]!.AsArray().Select(text => (string)text!));
        var chat = await server.PostAsync("/tokenize", new { messages = new[] { new { role = "user", content = "The dog" } } });
        Assert.Equal(TestModels.Tokenizer.Encode("<|user|>The dog<|end|><|assistant|>"), chat["tokens"]!.AsArray().Select(id => (int)id!));
        Assert.Equal(TestModels.Tokenizer.Encode("The dog 😀", addSpecialTokens: true), tokens["tokens"]!.AsArray().Select(id => (int)id!));
        var text = await server.PostAsync("/detokenize", new { tokens = TestModels.Tokenizer.Encode("The dog 😀") });
        Assert.Equal("The dog 😀", (string?)text["prompt"]);
        var info = JsonNode.Parse(await server.Http.GetStringAsync(new Uri("/tokenizer_info", UriKind.Relative)))!;
        Assert.Equal("<|end_of_text|>", (string?)info["eos_token"]);
    }
}
