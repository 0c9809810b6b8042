using System.Text.Json;
using System.Text.Json.Nodes;
using Rho.Serving.Models;
using Rho.Serving.Tools;

namespace Rho.Serving.Tests;

public sealed class ToolTests
{
    private const string Tools = """
        [{"type": "function", "function": {"name": "get_weather", "description": "The weather of a city", "strict": true,
          "parameters": {"type": "object", "properties": {"city": {"type": "string", "enum": ["Oslo", "Bergen"]}}, "required": ["city"], "additionalProperties": false}}},
         {"type": "function", "function": {"name": "now"}}]
        """;

    private static readonly ToolFunction[] s_functions = [new("f", null, null), new("g", null, null)];

    public static TheoryData<string> Folders => [ScriptedModel.Tagged, ScriptedModel.Bare];

    [Theory, MemberData(nameof(Folders))]
    public async Task Auto_CallsAreParsed_WholeAndStreamed_AndTheirResultsGoBack(string folder)
    {
        await using var server = await TestServer.StartAsync(TestServer.Options(new ModelSource("scripted", folder)));
        var body = JsonNode.Parse($$"""{"messages": [{"role": "user", "content": "How is Oslo?"}], "tools": {{Tools}}, "logprobs": true}""")!;
        var answer = await server.PostAsync("/v1/chat/completions", body);
        var choice = answer["choices"]![0]!;
        Assert.Equal("tool_calls", (string?)choice["finish_reason"]);
        Assert.Null(choice["message"]!["content"]);
        var call = Assert.Single(choice["message"]!["tool_calls"]!.AsArray())!;
        Assert.Equal("get_weather", (string?)call["function"]!["name"]);
        Assert.Equal("""{"city": "Oslo"}""", (string?)call["function"]!["arguments"]);
        Assert.StartsWith("call_", (string?)call["id"], StringComparison.Ordinal);
        Assert.Equal((int)answer["usage"]!["completion_tokens"]!, choice["logprobs"]!["content"]!.AsArray().Count);

        body["stream"] = true;
        var events = await server.StreamAsync("/v1/chat/completions", body);
        var deltas = events[..^1].Select(e => e!["choices"]![0]!).ToList();
        Assert.Equal("tool_calls", (string?)deltas[^1]["finish_reason"]);
        var parts = deltas.SelectMany(delta => delta["delta"]!["tool_calls"]?.AsArray() ?? []).ToList();
        Assert.Equal("get_weather", (string?)parts[0]!["function"]!["name"]);
        Assert.All(parts, part => Assert.Equal(0, (int)part!["index"]!));
        Assert.Equal("""{"city": "Oslo"}""", string.Concat(parts.Select(part => (string?)part!["function"]!["arguments"])));
        Assert.Equal("", string.Concat(deltas.Select(delta => (string?)delta["delta"]!["content"])));
        Assert.Equal(choice["logprobs"]!["content"]!.AsArray().Count, deltas.Sum(delta => delta["logprobs"]?["content"]?.AsArray().Count ?? 0));

        body["stream"] = false;
        body["messages"]!.AsArray().Add(choice["message"]!.DeepClone());
        body["messages"]!.AsArray().Add(new JsonObject { ["role"] = "tool", ["tool_call_id"] = (string?)call["id"], ["content"] = "sunny" });
        answer = await server.PostAsync("/v1/chat/completions", body);
        Assert.Equal(ScriptedModel.Says, (string?)answer["choices"]![0]!["message"]!["content"]);
        Assert.Equal("stop", (string?)answer["choices"]![0]!["finish_reason"]);

        // Definitions reach the template; with none, they do not.
        var shown = await server.PostAsync("/tokenize", JsonNode.Parse($$"""{"messages": [{"role": "user", "content": "x"}], "tools": {{Tools}}}""")!);
        Assert.Contains("The weather of a city", (string?)(await server.PostAsync("/detokenize", new { tokens = shown["tokens"] }))["prompt"], StringComparison.Ordinal);
        body["tool_choice"] = "none";
        var without = await server.PostAsync("/v1/chat/completions", body);
        Assert.True((int)without["usage"]!["prompt_tokens"]! < (int)answer["usage"]!["prompt_tokens"]!);
    }

    [Theory, MemberData(nameof(Folders))]
    public async Task Required_RandomModel_CallsUnderTheSchema(string scripted)
    {
        // A random model under the scripted one's template: nothing but the constraint makes these calls.
        var folder = Path.Combine(Directory.CreateTempSubdirectory("rho-tools-").FullName, "m");
        TestModels.Save(folder, 5, context: 2048);
        File.Copy(Path.Combine(scripted, "chat_template.jinja"), Path.Combine(folder, "chat_template.jinja"), overwrite: true);
        await using var server = await TestServer.StartAsync(TestServer.Options(new ModelSource("random", folder)));
        for (var seed = 0; seed < 6; seed++)
        {
            var body = JsonNode.Parse($$"""{"messages": [{"role": "user", "content": "How is Oslo?"}], "tools": {{Tools}}, "tool_choice": "required", "parallel_tool_calls": false, "seed": {{seed}}, "max_tokens": 400}""")!;
            if (seed % 2 == 0) body["tool_choice"] = JsonNode.Parse("""{"type": "function", "function": {"name": "get_weather"}}""");
            var choice = (await server.PostAsync("/v1/chat/completions", body))["choices"]![0]!;
            if ((string?)choice["finish_reason"] == "length") continue;
            Assert.Equal("tool_calls", (string?)choice["finish_reason"]);
            var function = Assert.Single(choice["message"]!["tool_calls"]!.AsArray())!["function"]!;
            if (seed % 2 == 0) Assert.Equal("get_weather", (string?)function["name"]);
            var arguments = JsonNode.Parse((string)function["arguments"]!)!.AsObject();
            if ((string?)function["name"] == "get_weather") Assert.Contains((string?)arguments["city"], new[] { "Oslo", "Bergen" });
        }
    }

    [Theory]
    [InlineData("""I look.<tool_call>{"name": "f", "arguments": {"a": "}</tool_call>"}}</tool_call>""", "I look.", """f{"a": "}</tool_call>"}""")]
    [InlineData("<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {\"x\": [1, {}]}}\n</tool_call>\n", "", """f{};g{"x": [1, {}]}""")]
    [InlineData("""<tool_call>{"arguments": {"a": 1}, "name": "g"}</tool_call> done""", " done", """g{"a": 1}""")]
    [InlineData("""<tool_call>{"name": "f", "arguments": "{\"a\": 1}"}</tool_call>""", "", """f{"a": 1}""")]
    [InlineData("""<tool_call>{"name": "unknown", "arguments": {}}</tool_call>""", """<tool_call>{"name": "unknown", "arguments": {}}</tool_call>""", "")]
    [InlineData("a <tool and <b", "a <tool and <b", "")]
    [InlineData("""<tool_call>{"name": """, """<tool_call>{"name": """, "")]
    [InlineData("no call \n", "no call \n", "")]
    public void Tagged_AnySplitOfTheText_GivesTheSame(string text, string content, string calls) => Check(ToolCallForm.Tagged, text, content, calls);

    [Theory]
    [InlineData("""{"name": "f", "parameters": {"a": "}"}}""", "", """f{"a": "}"}""")]
    [InlineData(""" {"type": "function", "name": "f", "parameters": {}}; {"name": "g", "parameters": {"x": 1}}""", "", """f{};g{"x": 1}""")]
    [InlineData("""{"parameters": {"a": 1}, "name": "g"}""", "", """g{"a": 1}""")]
    [InlineData("""{"name": "Ada", "age": 36}""", """{"name": "Ada", "age": 36}""", "")]
    [InlineData("Hello {you}", "Hello {you}", "")]
    [InlineData("  plain", "  plain", "")]
    public void Bare_AnySplitOfTheText_GivesTheSame(string text, string content, string calls) => Check(ToolCallForm.Bare, text, content, calls);

    [Fact]
    public void NotParallel_FurtherCallsAreLeftOut()
    {
        var parser = new ToolCallParser(new ToolSet(ToolCallForm.Bare, s_functions, Required: false, Only: null, Parallel: false));
        Assert.Equal("f{}", Read([.. parser.Append("""{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}"""), .. parser.End()]).Calls);
    }

    private static void Check(ToolCallForm form, string text, string content, string calls)
    {
        var random = new Random(3);
        for (var round = 0; round < 200; round++)
        {
            var parser = new ToolCallParser(new ToolSet(form, s_functions, Required: false, Only: null, Parallel: true));
            var pieces = new List<AnswerPiece>();
            for (var i = 0; i < text.Length;)
            {
                var length = round == 0 ? text.Length : Math.Min(random.Next(1, 6), text.Length - i);
                pieces.AddRange(parser.Append(text.Substring(i, length)));
                i += length;
            }

            pieces.AddRange(parser.End());
            Assert.Equal((content, calls), Read(pieces));
        }
    }

    private static (string Content, string Calls) Read(List<AnswerPiece> pieces) => (
        string.Concat(pieces.Where(piece => piece.Call < 0).Select(piece => piece.Text)),
        string.Join(';', pieces.Where(piece => piece.Call >= 0).GroupBy(piece => piece.Call).Select(call => string.Concat(call.Select(piece => piece.Name + piece.Text)))));
}
