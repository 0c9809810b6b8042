using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Rho.Serving.Http;

namespace Rho.Serving.Tests;

/// <summary>What clients send by habit, from the tables that the server reads by.</summary>
public sealed class RequestFieldTests
{
    private const string Completion = """{"prompt": "The dog", "max_tokens": 4, "temperature": 0}""";
    private const string Chat = """{"messages": [{"role": "user", "content": "The dog"}, {"role": "assistant", "content": "runs"}, {"role": "user", "content": [{"type": "text", "text": "on"}]}], "max_tokens": 4, "temperature": 0}""";

    [Fact]
    public async Task NeutralFields_ChangeNoAnswer_AndOtherValuesAreRefusedByName()
    {
        await using var server = await TestServer.StartAsync();
        (string Path, string Body, string At, IEnumerable<NeutralField> Fields)[] tables =
        [
            ("/v1/completions", Completion, "", [.. NeutralFields.Shared, .. NeutralFields.Sampling, .. NeutralFields.Completion]),
            ("/v1/chat/completions", Chat, "", [.. NeutralFields.Shared, .. NeutralFields.Sampling, .. NeutralFields.Chat]),
            ("/v1/chat/completions", Chat, "messages[1]", NeutralFields.Message),
            ("/v1/chat/completions", Chat, "messages[2].content[0]", NeutralFields.ContentPart),
        ];
        foreach (var (path, body, at, fields) in tables)
        {
            var expected = TextOf(await server.PostAsync(path, JsonNode.Parse(body)!));
            foreach (var field in fields)
            {
                foreach (var value in field.Values.Append(Example(field)).Append("null").OfType<string>())
                    Assert.Equal(expected, TextOf(await server.PostAsync(path, With(body, at, field.Name, value))));
                var (status, error, _) = await server.RefusedAsync(path, With(body, at, field.Name, """["anything else"]""").ToJsonString());
                Assert.Equal((400, at.Length == 0 ? field.Name : $"{at}.{field.Name}"), (status, (string?)error["param"]));
            }
        }
    }

    [Theory]
    [InlineData("tools", "[]")]
    [InlineData("tool_choice", "\"none\"")]
    [InlineData("tool_choice", "\"auto\"")]
    [InlineData("parallel_tool_calls", "false")]
    [InlineData("logit_bias", "{}")]
    [InlineData("stop", "[]")]
    [InlineData("stream_options", "{}")]
    [InlineData("stream_options", """{"include_usage": false, "include_obfuscation": false}""")]
    [InlineData("continue_final_message", "false")]
    [InlineData("documents", "[]")]
    [InlineData("chat_template_kwargs", "{}")]
    [InlineData("response_format", """{"type": "text"}""")]
    [InlineData("structured_outputs", "{}")]
    [InlineData("logprobs", "false")]
    [InlineData("n", "1")]
    [InlineData("top_k", "-1")]
    public async Task FieldsThatSayNothing_ChangeNoAnswer(string field, string value)
    {
        await using var server = await TestServer.StartAsync();
        Assert.Equal(TextOf(await server.PostAsync("/v1/chat/completions", JsonNode.Parse(Chat)!)), TextOf(await server.PostAsync("/v1/chat/completions", With(Chat, "", field, value))));
    }

    [Fact]
    public async Task Messages_OfAllRoles_WithTheNullsThatClientsSend_AreTaken()
    {
        await using var server = await TestServer.StartAsync();
        var plain = await server.PostAsync("/v1/chat/completions", JsonNode.Parse("""{"messages": [{"role": "system", "content": "S"}, {"role": "assistant", "content": ""}, {"role": "user", "content": "U"}], "max_tokens": 4, "temperature": 0}""")!);
        var written = await server.PostAsync("/v1/chat/completions", JsonNode.Parse("""
            {"messages": [{"role": "developer", "content": [{"type": "text", "text": "S"}]}, {"role": "assistant", "content": null, "refusal": null, "annotations": [], "audio": null, "tool_calls": [], "function_call": null},
             {"role": "user", "content": "U", "name": null}], "max_tokens": 4, "temperature": 0}
            """)!);
        Assert.Equal(TextOf(plain), TextOf(written));
        Assert.Equal((int)plain["usage"]!["prompt_tokens"]!, (int)written["usage"]!["prompt_tokens"]!);
    }

    [Fact]
    public async Task ContinueFinalMessage_GoesOnWithinTheLastMessage()
    {
        await using var server = await TestServer.StartAsync();
        var messages = new[] { new { role = "user", content = "Hi" }, new { role = "assistant", content = "The quick " } };
        var tokens = await server.PostAsync("/tokenize", new { messages, continue_final_message = true, add_generation_prompt = false });
        Assert.Equal(TestModels.Tokenizer.Encode("<|user|>Hi<|end|><|assistant|>The quick "), tokens["tokens"]!.AsArray().Select(id => (int)id!));
        var answer = await server.PostAsync("/v1/chat/completions", new { messages, continue_final_message = true, add_generation_prompt = false, max_tokens = 2, return_token_ids = true });
        Assert.Equal(tokens["tokens"]!.ToJsonString(), answer["prompt_token_ids"]!.ToJsonString());
    }

    [Fact]
    public async Task TruncatePromptTokens_KeepsTheLastTokens()
    {
        await using var server = await TestServer.StartAsync();
        var ids = TestModels.Tokenizer.Encode("The quick brown fox jumps over the lazy dog", addSpecialTokens: true);
        var answer = await server.PostAsync("/v1/completions", new { prompt = "The quick brown fox jumps over the lazy dog", truncate_prompt_tokens = 3, max_tokens = 2, echo = true, return_token_ids = true });
        Assert.Equal(ids[^3..], Ids(answer["choices"]![0]!["prompt_token_ids"]!));
        Assert.StartsWith(TestModels.Tokenizer.Decode(ids[^3..]), (string)answer["choices"]![0]!["text"]!, StringComparison.Ordinal);
        var given = await server.PostAsync("/v1/completions", new { prompt = ids, truncate_prompt_tokens = 3, max_tokens = 2, return_token_ids = true });
        Assert.Equal(ids[^3..], Ids(given["choices"]![0]!["prompt_token_ids"]!));

        // -1 makes any text fit.
        var endless = await server.PostAsync("/v1/completions", new { prompt = string.Concat(Enumerable.Repeat("The lazy dog ", 2000)), truncate_prompt_tokens = -1, max_tokens = 12 });
        Assert.Equal(500, (int)endless["usage"]!["prompt_tokens"]!);
    }

    [Fact]
    public async Task PromptLogProbabilities_AreThoseOfEcho_WithRanks()
    {
        await using var server = await TestServer.StartAsync();
        var completion = await server.PostAsync("/v1/completions", new { prompt = "The lazy dog", max_tokens = 2, echo = true, logprobs = 1, prompt_logprobs = 3, return_token_ids = true, return_tokens_as_token_ids = true });
        var choice = completion["choices"]![0]!;
        var prompt = Ids(choice["prompt_token_ids"]!);
        var scores = choice["prompt_logprobs"]!.AsArray();
        Assert.Equal(prompt.Length, scores.Count);
        Assert.Null(scores[0]);
        for (var i = 1; i < prompt.Length; i++)
        {
            var own = scores[i]![$"{prompt[i]}"]!;
            Assert.Equal((float)choice["logprobs"]!["token_logprobs"]![i]!, (float)own["logprob"]!);
            Assert.Equal($"token_id:{prompt[i]}", (string?)choice["logprobs"]!["tokens"]![i]);
            Assert.InRange(choice["logprobs"]!["top_logprobs"]![i]!.AsObject().Count, 1, 2);
            Assert.InRange(scores[i]!.AsObject().Count, 3, 4);
            var likelier = scores[i]!.AsObject().Count(entry => (float)entry.Value!["logprob"]! > (float)own["logprob"]!);
            Assert.True((int)own["rank"]! == likelier + 1 || likelier == 3);
        }

        var chat = await server.PostAsync("/v1/chat/completions", new { messages = new[] { new { role = "user", content = "The lazy dog" } }, max_tokens = 2, prompt_logprobs = 0, return_token_ids = true });
        Assert.Equal(Ids(chat["prompt_token_ids"]!).Length, chat["prompt_logprobs"]!.AsArray().Count);
        Assert.Equal(2, Ids(chat["choices"]![0]!["token_ids"]!).Length);
    }

    [Theory]
    [InlineData("/v1/completions", Completion)]
    [InlineData("/v1/chat/completions", Chat)]
    public async Task Stream_WithUsageAndIds_SaysThemInEveryPiece(string path, string body)
    {
        await using var server = await TestServer.StartAsync();
        var request = JsonNode.Parse(body)!;
        request["return_token_ids"] = true;
        var whole = await server.PostAsync(path, request);
        request["stream"] = true;
        request["stream_options"] = JsonNode.Parse("""{"include_usage": true, "continuous_usage_stats": true}""");
        var events = await server.StreamAsync(path, request);
        var pieces = events[..^2];
        Assert.All(events[..^1], e => Assert.Equal((string?)whole["system_fingerprint"], (string?)e!["system_fingerprint"]));
        Assert.NotNull((string?)whole["system_fingerprint"]);
        var completed = pieces.Select(e => (int)e!["usage"]!["completion_tokens"]!).ToArray();
        Assert.Equal(completed.Order(), completed);
        Assert.Equal(4, completed[^1]);
        Assert.All(pieces, e => Assert.Equal((int)whole["usage"]!["prompt_tokens"]!, (int)e!["usage"]!["prompt_tokens"]!));
        Assert.Equal(Ids(whole["choices"]![0]!["token_ids"]!), pieces.SelectMany(e => Ids(e!["choices"]![0]!["token_ids"]!)));
        var promptIds = path.Contains("chat", StringComparison.Ordinal) ? pieces[0]!["prompt_token_ids"] : pieces[0]!["choices"]![0]!["prompt_token_ids"];
        Assert.Equal((int)whole["usage"]!["prompt_tokens"]!, Ids(promptIds!).Length);

        request["stream_options"] = JsonNode.Parse("""{"include_usage": true}""");
        events = await server.StreamAsync(path, request);
        Assert.All(events[..^2], e => Assert.True(e!.AsObject().TryGetPropertyValue("usage", out var usage) && usage is null));
    }

    [Theory]
    [InlineData("""{"json": {"type": "integer", "minimum": 7, "maximum": 7}}""", "7")]
    [InlineData("""{"regex": "[0-9]{3}x"}""", "[0-9]{3}x")]
    [InlineData("""{"choice": ["yes", "no"]}""", "yes|no")]
    [InlineData("""{"json_object": true, "disable_any_whitespace": false}""", "\\{.*")]
    public async Task StructuredOutputs_AreGuided(string value, string pattern)
    {
        await using var server = await TestServer.StartAsync();
        Assert.Matches($@"\A(?s:{pattern})\z", TextOf(await server.PostAsync("/v1/completions", With(Completion, "", "structured_outputs", value))));
        var (status, error, _) = await server.RefusedAsync("/v1/completions", With(Completion, "", "structured_outputs", """{"grammar": "root ::= 'a'"}""").ToJsonString());
        Assert.Equal((400, "structured_outputs.grammar"), (status, (string?)error["param"]));
    }

    [Fact]
    public async Task HealthPingAndVersion_AnswerAsVllmDoes()
    {
        await using var server = await TestServer.StartAsync();
        foreach (var path in new[] { "/health", "/ping" }) Assert.Equal("", await server.Http.GetStringAsync(new Uri(path, UriKind.Relative)));
        Assert.NotNull((string?)JsonNode.Parse(await server.Http.GetStringAsync(new Uri("/version", UriKind.Relative)))!["version"]);
        using var ping = await server.Http.PostAsync(new Uri("/ping", UriKind.Relative), null);
        Assert.True(ping.IsSuccessStatusCode);
    }

    [Fact]
    public async Task InvalidUnicode_InAnyField_IsTheReplacementCharacterOrRefused()
    {
        await using var server = await TestServer.StartAsync();
        var expected = TextOf(await server.PostAsync("/v1/completions", new { prompt = "a \uFFFD b", max_tokens = 3, temperature = 0 }));
        Assert.Equal(expected, TextOf(await PostBytesAsync(server, "/v1/completions", """{"prompt": "a \ud83d b", "max_tokens": 3, "temperature": 0}"""u8.ToArray())));
        Assert.Equal(expected, TextOf(await PostBytesAsync(server, "/v1/completions", [.. """{"prompt": "a """u8, 0xE9, .. """ b", "max_tokens": 3, "temperature": 0}"""u8])));
        var pair = await PostBytesAsync(server, "/v1/completions", """{"prompt": "\\ud83d \ud83d\ude00 \uDE00", "max_tokens": 0, "echo": true}"""u8.ToArray());
        Assert.Equal("\\ud83d 😀 \uFFFD", TextOf(pair));

        foreach (var path in new[] { "/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize" })
        {
            foreach (var body in new[]
            {
                """{"prompt": "\udc00", "\ud83d": 1}""", """{"prompt": "a", "stop": ["\ud83d"], "max_tokens": 2}""", """{"model": "\ud83d", "prompt": "a"}""", """{"prompt": "a", "user": "\ud83d"}""",
                """{"messages": [{"role": "\ud83d", "content": "\ude00"}], "max_tokens": 2}""", """{"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": {"\ud83d": "\ud83d"}, "max_tokens": 2}""",
                """{"prompt": "a", "max_tokens": "012345678901234567890123456789012345678😀😀"}""", """{"tokens": ["\ud83d"]}""", """{"prompt": "a", "guided_regex": "\ud83d", "max_tokens": 9}""",
                """{"prompt": "a", "guided_json": {"enum": ["\ud83d"]}, "max_tokens": 9}""",
            })
            {
                using var response = await server.Http.PostAsync(new Uri(path, UriKind.Relative), new ByteArrayContent(Encoding.UTF8.GetBytes(body)));
                Assert.True((int)response.StatusCode is 200 or 400 or 404, $"{path} {body}: {await response.Content.ReadAsStringAsync()}");
                JsonDocument.Parse(await response.Content.ReadAsByteArrayAsync()).Dispose();
            }
        }
    }

    [Fact]
    public async Task CallsThatCanNeverBeAccepted_Are400()
    {
        var options = TestServer.Options();
        await using var server = await TestServer.StartAsync(options with { Engine = options.Engine with { MaxWaitingRequests = 4, MaxWaitingTokens = 40, MaxRequestsPerClient = 3 } });
        foreach (var (count, words, n, message) in new[] { (4, 1, 1, "a client may have 3 under way"), (2, 4, 8, "40 may wait") })
        {
            var body = JsonSerializer.Serialize(new { prompt = Enumerable.Repeat(string.Concat(Enumerable.Repeat(" dog", words)), count), n, max_tokens = 1 });
            var (status, error, _) = await server.RefusedAsync("/v1/completions", body);
            Assert.Equal((400, "prompt"), (status, (string?)error["param"]));
            Assert.Contains(message, (string)error["message"]!, StringComparison.Ordinal);
        }
    }

    private static async Task<JsonNode> PostBytesAsync(TestServer server, string path, byte[] body)
    {
        using var response = await server.Http.PostAsync(new Uri(path, UriKind.Relative), new ByteArrayContent(body));
        var text = await response.Content.ReadAsStringAsync();
        Assert.True(response.IsSuccessStatusCode, text);
        return JsonNode.Parse(text)!;
    }

    private static string TextOf(JsonNode answer) => (string)(answer["choices"]![0]!["text"] ?? answer["choices"]![0]!["message"]!["content"])!;

    private static int[] Ids(JsonNode ids) => [.. ids.AsArray().Select(id => (int)id!)];

    private static string? Example(NeutralField field) => field.Kind switch
    {
        JsonValueKind.String => "\"anything\"",
        JsonValueKind.Object => """{"any": "thing"}""",
        _ => null,
    };

    private static JsonNode With(string body, string at, string field, string value)
    {
        var node = JsonNode.Parse(body)!;
        var target = at switch
        {
            "" => node,
            "messages[1]" => node["messages"]![1]!,
            _ => node["messages"]![2]!["content"]![0]!,
        };
        target[field] = JsonNode.Parse(value);
        return node;
    }
}
