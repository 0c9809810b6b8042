using System.ClientModel;
using System.ClientModel.Primitives;
using System.Text.Json;
using Microsoft.Extensions.AI;
using OpenAI;
using OpenAI.Chat;
using OpenAI.Responses;

namespace Rho.Serving.Tests;

/// <summary>The published .NET clients, as their own programs would use them.</summary>
public sealed class DotNetClientTests
{
    [Fact]
    public async Task OpenAI_ChatsWholeStreamedAndUnderASchema()
    {
        await using var server = await TestServer.StartAsync();
        var client = Client(server).GetChatClient("tiny");
        OpenAI.Chat.ChatMessage[] messages = [new SystemChatMessage("Be brief."), new UserChatMessage("What is 7 * 6?")];
        var options = new ChatCompletionOptions { MaxOutputTokenCount = 12, Temperature = 0, IncludeLogProbabilities = true, TopLogProbabilityCount = 2, StoredOutputEnabled = false, EndUserId = "u" };
        options.Metadata["a"] = "b";
        ChatCompletion whole = await client.CompleteChatAsync(messages, options);
        Assert.Equal(OpenAI.Chat.ChatFinishReason.Length, whole.FinishReason);
        Assert.Equal(12, whole.ContentTokenLogProbabilities.Count);
        var text = "";
        await foreach (var update in client.CompleteChatStreamingAsync(messages, options)) text += string.Concat(update.ContentUpdate.Select(part => part.Text));
        Assert.Equal(whole.Content[0].Text, text);

        ChatCompletion structured = await client.CompleteChatAsync(messages, new ChatCompletionOptions
        {
            MaxOutputTokenCount = 60,
            ResponseFormat = OpenAI.Chat.ChatResponseFormat.CreateJsonSchemaFormat("n", BinaryData.FromString("""{"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["n"], "additionalProperties": false}"""), jsonSchemaIsStrict: true),
        });
        Assert.InRange(JsonDocument.Parse(structured.Content[0].Text).RootElement.GetProperty("n").GetInt32(), 1, 9);
    }

    [Fact]
    public async Task OpenAI_StreamThatFails_Raises()
    {
        await using var server = await TestServer.StartAsync();
        server.Gate.Hold();
        var client = Client(server).GetChatClient("tiny");
        var updates = client.CompleteChatStreamingAsync([new UserChatMessage("The")], new ChatCompletionOptions { MaxOutputTokenCount = 400, Temperature = 0 });
        var reading = Assert.ThrowsAnyAsync<Exception>(async () =>
        {
            await foreach (var _ in updates) { }
        });
        await server.BreakAsync(1);
        Assert.IsNotType<OperationCanceledException>(await reading.WaitAsync(TestServer.Patience));
    }

#pragma warning disable OPENAI001 // The package marks responses as subject to change.
    [Fact]
    public async Task OpenAI_Responds()
    {
        await using var server = await TestServer.StartAsync(TestServer.Options(new ModelSource("scripted", ScriptedModel.Tagged)));
        var client = Client(server).GetResponsesClient();
        var options = new CreateResponseOptions("scripted", [ResponseItem.CreateUserMessageItem("How is Oslo?")]) { Instructions = "Be brief." };
        ResponseResult response = await client.CreateResponseAsync(options);
        Assert.Equal(ScriptedModel.Says, response.GetOutputText());
        options.StreamingEnabled = true;
        var text = "";
        await foreach (var update in await client.CreateResponseStreamingAsync(options)) text += (update as StreamingResponseOutputTextDeltaUpdate)?.Delta;
        Assert.Equal(ScriptedModel.Says, text);
    }

    [Fact]
    public async Task ExtensionsAI_RunsAToolLoop_OverChatAndResponses()
    {
        await using var server = await TestServer.StartAsync(TestServer.Options(new ModelSource("scripted", ScriptedModel.Tagged)));
        // Microsoft.Extensions.AI.OpenAI 10.11.0 calls a method for streamed responses that OpenAI 2.15.0 no longer has.
        foreach (var (inner, ways) in new[] { (Client(server).GetChatClient("scripted").AsIChatClient(), new[] { false, true }), (Client(server).GetResponsesClient().AsIChatClient("scripted"), [false]) })
        {
            foreach (var streamed in ways)
            {
                var asked = new List<string>();
                using var client = new ChatClientBuilder(inner).UseFunctionInvocation().Build();
                var options = new ChatOptions { Tools = [AIFunctionFactory.Create(GetWeather, "get_weather")], Temperature = 0 };
                var text = streamed
                    ? string.Concat(await client.GetStreamingResponseAsync("How is Oslo?", options).Select(update => update.Text).ToListAsync())
                    : (await client.GetResponseAsync("How is Oslo?", options)).Text;
                Assert.Equal(ScriptedModel.Says, text);
                Assert.Equal(["Oslo"], asked);

                string GetWeather(string city)
                {
                    asked.Add(city);
                    return "sunny";
                }
            }
        }
    }
#pragma warning restore OPENAI001

    private static OpenAIClient Client(TestServer server) => new(
        new ApiKeyCredential("none"), new OpenAIClientOptions { Endpoint = new Uri(server.Addresses.Http!, "v1"), RetryPolicy = new ClientRetryPolicy(0), NetworkTimeout = TestServer.Patience });
}
