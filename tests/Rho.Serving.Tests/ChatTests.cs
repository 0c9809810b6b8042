using System.Text.Json.Nodes;

namespace Rho.Serving.Tests;

public sealed class ChatTests
{
    private static readonly object[] s_messages = [new { role = "user", content = "What is 7 * 6?" }];

    [Fact]
    public async Task Chat_EqualsTheCompletionOfItsTemplate_WholeAndStreamed()
    {
        await using var server = await TestServer.StartAsync();
        var body = new { messages = s_messages, max_completion_tokens = 20, temperature = 0, logprobs = true, top_logprobs = 2 };
        var whole = await server.PostAsync("/v1/chat/completions", body);
        Assert.Equal("chat.completion", (string?)whole["object"]);
        var message = whole["choices"]![0]!["message"]!;
        Assert.Equal("assistant", (string?)message["role"]);
        var text = (string)message["content"]!;

        var prompt = TestModels.Tokenizer.Encode("<|user|>What is 7 * 6?<|end|><|assistant|>");
        var completion = await server.PostAsync("/v1/completions", new { prompt, max_tokens = 20, temperature = 0, logprobs = 2 });
        Assert.Equal((string?)completion["choices"]![0]!["text"], text);
        Assert.Equal(prompt.Length, (int)whole["usage"]!["prompt_tokens"]!);
        var scores = whole["choices"]![0]!["logprobs"]!["content"]!.AsArray();
        Assert.Equal(completion["choices"]![0]!["logprobs"]!["token_logprobs"]!.AsArray().Select(x => (float)x!), scores.Select(x => (float)x!["logprob"]!));
        Assert.All(scores, score => Assert.Equal(2, score!["top_logprobs"]!.AsArray().Count));

        var events = await server.StreamAsync("/v1/chat/completions", new { messages = s_messages, max_tokens = 20, temperature = 0, stream = true, stream_options = new { include_usage = true } });
        Assert.Null(events[^1]);
        Assert.Equal("assistant", (string?)events[0]!["choices"]![0]!["delta"]!["role"]);
        Assert.Equal(text, string.Concat(events[..^2].Select(e => (string?)e!["choices"]![0]!["delta"]!["content"])));
        Assert.Equal("length", (string?)events[^3]!["choices"]![0]!["finish_reason"]);
        Assert.Equal(20, (int)events[^2]!["usage"]!["completion_tokens"]!);
    }

    [Fact]
    public async Task Chat_ContentAsParts_EqualsContentAsText()
    {
        await using var server = await TestServer.StartAsync();
        var text = await server.PostAsync("/v1/chat/completions", new { messages = s_messages, max_tokens = 8, temperature = 0 });
        var parts = await server.PostAsync("/v1/chat/completions", new
        {
            messages = new[] { new { role = "user", type = "text", content = new[] { new { type = "text", text = "What is " }, new { type = "text", text = "7 * 6?" } } } },
            max_tokens = 8,
            temperature = 0,
        });
        Assert.Equal((string?)text["choices"]![0]!["message"]!["content"], (string?)parts["choices"]![0]!["message"]!["content"]);
    }

    [Theory]
    [InlineData("""{"messages": []}""", "messages")]
    [InlineData("""{"messages": [{"role": "user"}]}""", "messages[0].content")]
    [InlineData("""{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}""", "messages[0].content[0].type")]
    [InlineData("""{"messages": [{"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "[1]"}}]}]}""", "messages[0].tool_calls[0].function.arguments")]
    [InlineData("""{"messages": [{"role": "banned", "content": "a"}]}""", "messages")]
    [InlineData("""{"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function", "function": {"name": "f"}}]}""", "tools")]
    [InlineData("""{"messages": [{"role": "user", "content": "a"}], "tool_choice": "required"}""", "tool_choice")]
    [InlineData("""{"messages": [{"role": "user", "content": "a"}], "continue_final_message": true, "add_generation_prompt": true}""", "continue_final_message")]
    [InlineData("""{"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2}""", "top_logprobs")]
    [InlineData("""{"messages": [{"role": "user", "content": "a"}], "max_tokens": 3, "max_completion_tokens": 4}""", "max_tokens")]
    [InlineData("""{"messages": [{"role": "user", "content": "a"}], "response_format": {"type": "xml"}}""", "response_format.type")]
    [InlineData("""{"messages": [{"role": "user", "content": "a"}], "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}}""", "response_format.json_schema.schema")]
    public async Task Chat_BadField_IsRefusedByName(string body, string field)
    {
        await using var server = await TestServer.StartAsync();
        var (status, error, _) = await server.RefusedAsync("/v1/chat/completions", body);
        Assert.Equal(400, status);
        Assert.Equal(field, (string?)error["param"]);
    }

    [Fact]
    public async Task Chat_WithSchema_AnswersJsonOfIt()
    {
        await using var server = await TestServer.StartAsync();
        var schema = JsonNode.Parse("""
            {"type": "object", "properties": {"name": {"type": "string", "maxLength": 10}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
             "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3}, "ok": {"type": "boolean"}}, "required": ["name", "age", "tags", "ok"]}
            """);
        for (var seed = 0; seed < 10; seed++)
        {
            var answer = await server.PostAsync("/v1/chat/completions", new
            {
                messages = s_messages,
                temperature = 1.2,
                seed,
                max_tokens = 400,
                response_format = new { type = "json_schema", json_schema = new { name = "person", strict = true, schema } },
            });
            var choice = answer["choices"]![0]!;
            Assert.Equal("stop", (string?)choice["finish_reason"]);
            var person = JsonNode.Parse((string)choice["message"]!["content"]!)!;
            Assert.InRange((int)person["age"]!, 0, 150);
            Assert.InRange(((string)person["name"]!).EnumerateRunes().Count(), 0, 10);
            Assert.InRange(person["tags"]!.AsArray().Count, 0, 3);
            Assert.IsType<bool>(person["ok"]!.GetValue<bool>());
        }
    }

    [Fact]
    public async Task Completion_WithRegexOrChoice_MatchesIt()
    {
        await using var server = await TestServer.StartAsync();
        var date = await server.PostAsync("/v1/completions", new { prompt = "On", temperature = 1.0, seed = 3, max_tokens = 60, guided_regex = @"[0-9]{4}-[01][0-9]: [a-zé]{3,5}!" });
        Assert.Matches(@"\A[0-9]{4}-[01][0-9]: [a-zé]{3,5}!\z", (string)date["choices"]![0]!["text"]!);
        var choice = await server.PostAsync("/v1/completions", new { prompt = "Is it?", n = 8, temperature = 2.0, seed = 3, max_tokens = 60, guided_choice = new[] { "yes", "no (*)", "maybe\\" } });
        Assert.All(choice["choices"]!.AsArray(), c => Assert.Contains((string)c!["text"]!, new[] { "yes", "no (*)", "maybe\\" }));
    }
}
