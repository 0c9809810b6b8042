using System.Text.Json.Nodes;

namespace Rho.Serving.Tests;

public sealed class ResponsesTests
{
    private const string Tools = """[{"type": "function", "name": "get_weather", "strict": true, "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": false}}]""";

    [Fact]
    public async Task Response_EqualsTheChatOfItsMessages()
    {
        await using var server = await TestServer.StartAsync();
        var chat = await server.PostAsync("/v1/chat/completions", JsonNode.Parse("""{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "What is 7 * 6?"}], "max_tokens": 12, "temperature": 0}""")!);
        foreach (var input in new[] { "\"What is 7 * 6?\"", """[{"role": "user", "content": [{"type": "input_text", "text": "What is "}, {"type": "input_text", "text": "7 * 6?"}]}]""" })
        {
            var response = await server.PostAsync("/v1/responses", JsonNode.Parse($$$"""{"input": {{{input}}}, "instructions": "S", "max_output_tokens": 12, "temperature": 0, "store": false, "metadata": {"a": "b"}}""")!);
            Assert.Equal("response", (string?)response["object"]);
            Assert.Equal("incomplete", (string?)response["status"]);
            Assert.Equal("max_output_tokens", (string?)response["incomplete_details"]!["reason"]);
            var message = Assert.Single(response["output"]!.AsArray())!;
            Assert.Equal((string?)chat["choices"]![0]!["message"]!["content"], (string?)message["content"]![0]!["text"]);
            Assert.Equal((int)chat["usage"]!["prompt_tokens"]!, (int)response["usage"]!["input_tokens"]!);
            Assert.Equal("b", (string?)response["metadata"]!["a"]);
        }
    }

    [Fact]
    public async Task Stream_HasTheEventsInOrder_AndTheWholeResponseAtItsEnd()
    {
        await using var server = await TestServer.StartAsync();
        var body = JsonNode.Parse("""{"input": "What is 7 * 6?", "max_output_tokens": 12, "temperature": 0, "stream": true, "stream_options": {"include_obfuscation": false}}""")!;
        var events = await EventsAsync(server, body);
        Assert.Equal(Enumerable.Range(0, events.Count), events.Select(e => (int)e["sequence_number"]!));
        var kinds = events.Select(e => (string)e["type"]!).Where((kind, i) => i == 0 || kind != (string?)events[i - 1]["type"]).ToArray();
        Assert.Equal(
            [
                "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added", "response.output_text.delta", "response.output_text.done",
                "response.content_part.done", "response.output_item.done", "response.incomplete",
            ],
            kinds);
        var text = string.Concat(events.Where(e => (string?)e["type"] == "response.output_text.delta").Select(e => (string?)e["delta"]));
        Assert.Equal(text, (string?)events[^1]["response"]!["output"]![0]!["content"]![0]!["text"]);
        body["stream"] = false;
        Assert.Equal(text, (string?)(await server.PostAsync("/v1/responses", body))["output"]![0]!["content"]![0]!["text"]);
    }

    [Fact]
    public async Task Tools_AreCalled_AndTheirOutputsGoBack()
    {
        await using var server = await TestServer.StartAsync(TestServer.Options(new ModelSource("scripted", ScriptedModel.Tagged)));
        var body = JsonNode.Parse($$"""{"input": [{"role": "user", "content": "How is Oslo?"}], "tools": {{Tools}}, "tool_choice": "auto"}""")!;
        var response = await server.PostAsync("/v1/responses", body);
        Assert.Equal("completed", (string?)response["status"]);
        var call = Assert.Single(response["output"]!.AsArray())!;
        Assert.Equal(("function_call", "get_weather", """{"city": "Oslo"}"""), ((string?)call["type"], (string?)call["name"], (string?)call["arguments"]));

        body["stream"] = true;
        var events = await EventsAsync(server, body);
        Assert.Equal("""{"city": "Oslo"}""", string.Concat(events.Where(e => (string?)e["type"] == "response.function_call_arguments.delta").Select(e => (string?)e["delta"])));
        Assert.Equal("""{"city": "Oslo"}""", (string?)events.Single(e => (string?)e["type"] == "response.function_call_arguments.done")["arguments"]);

        body["stream"] = false;
        body["input"]!.AsArray().Add(call.DeepClone());
        body["input"]!.AsArray().Add(new JsonObject { ["type"] = "function_call_output", ["call_id"] = (string?)call["call_id"], ["output"] = "sunny" });
        response = await server.PostAsync("/v1/responses", body);
        Assert.Equal(ScriptedModel.Says, (string?)response["output"]![0]!["content"]![0]!["text"]);
    }

    [Fact]
    public async Task TextFormat_IsOfItsSchema()
    {
        await using var server = await TestServer.StartAsync();
        var response = await server.PostAsync("/v1/responses", JsonNode.Parse("""
            {"input": "x", "max_output_tokens": 60, "text": {"format": {"type": "json_schema", "name": "n", "strict": true, "schema": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["n"]}}}}
            """)!);
        Assert.InRange((int)JsonNode.Parse((string)response["output"]![0]!["content"]![0]!["text"]!)!["n"]!, 1, 9);
    }

    [Theory]
    [InlineData("""{"input": "a", "store": true}""", "store")]
    [InlineData("""{"input": "a", "previous_response_id": "resp_1"}""", "previous_response_id")]
    [InlineData("""{"input": "a", "conversation": "conv_1"}""", "conversation")]
    [InlineData("""{"input": [{"type": "item_reference", "id": "msg_1"}]}""", "input[0].type")]
    [InlineData("""{"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}""", "input[0].content[0].type")]
    [InlineData("""{"input": "a", "tools": [{"type": "web_search"}]}""", "tools[0].type")]
    [InlineData("""{"input": []}""", "input")]
    [InlineData("""{}""", "input")]
    public async Task WhatIsNotThere_IsRefusedByName(string body, string field)
    {
        await using var server = await TestServer.StartAsync();
        var (status, error, _) = await server.RefusedAsync("/v1/responses", body);
        Assert.Equal((400, field), (status, (string?)error["param"]));
    }

    private static async Task<List<JsonNode>> EventsAsync(TestServer server, JsonNode body)
    {
        using var response = await server.BeginStreamAsync("/v1/responses", body);
        var events = new List<JsonNode>();
        foreach (var block in (await response.Content.ReadAsStringAsync()).Split("\n\n", StringSplitOptions.RemoveEmptyEntries))
        {
            var lines = block.Split('\n');
            var data = JsonNode.Parse(lines[1]["data: ".Length..])!;
            Assert.Equal($"event: {(string?)data["type"]}", lines[0]);
            events.Add(data);
        }

        return events;
    }
}
