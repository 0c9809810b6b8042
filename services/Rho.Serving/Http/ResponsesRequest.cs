using System.Text.Json;
using Rho.Serving.Engine;
using Rho.Serving.Models;

namespace Rho.Serving.Http;

/// <summary>Reads a body of /v1/responses as the chat that it is. Nothing is stored, so what refers to stored responses is refused.</summary>
internal static class ResponsesRequest
{
    private const string Stateless = "responses are not stored here: send the whole conversation as input";

    /// <summary>Reads the fields but "model", which was taken to find the model.</summary>
    public static ChatRequest Read(JsonFields fields, ServedModel model)
    {
        foreach (var name in new[] { "previous_response_id", "conversation" }) fields.Refuse(name, Stateless);
        fields.Skip([.. NeutralFields.Shared, .. NeutralFields.Response]);
        var tools = ToolFields.Read(fields, model, nested: false);
        var defaults = new SamplingSettings();
        var sampling = new SamplingSettings
        {
            MaxTokens = fields.Whole("max_output_tokens"),
            Temperature = fields.Number("temperature") ?? defaults.Temperature,
            TopP = fields.Number("top_p") ?? defaults.TopP,
        };
        if (fields.Object("text") is { } text)
        {
            if (text.Object("format") is { } format) sampling = sampling with { Constraint = SamplingFields.Format(format, model, "text.format", nested: false) };
            text.Skip(NeutralFields.TextOptions);
            text.End();
        }

        if (fields.Object("stream_options") is { } options)
        {
            options.Skip(NeutralFields.StreamOptions);
            options.End();
        }

        var messages = new List<Dictionary<string, object>>();
        if (fields.Text("instructions") is { Length: > 0 } instructions) messages.Add(Message("system", instructions));
        ReadInput(fields.Take("input") ?? throw new InvalidFieldException("input", "it is missing"), messages);
        var request = new ChatRequest
        {
            Prompt = new ChatPrompt
            {
                Messages = JsonSerializer.SerializeToElement(messages),
                Variables = tools is null ? [] : new Dictionary<string, JsonElement>(StringComparer.Ordinal) { ["tools"] = tools.ToTemplate() },
            },
            Tools = tools,
            Sampling = ChatRequest.WithTools(sampling, tools, model, "text.format"),
            Options = new AnswerOptions { Stream = fields.Flag("stream") ?? false },
        };
        fields.End();
        return request;
    }

    private static void ReadInput(JsonElement input, List<Dictionary<string, object>> messages)
    {
        if (input.ValueKind == JsonValueKind.String)
        {
            messages.Add(Message("user", input.GetString()!));
            return;
        }

        if (input.ValueKind != JsonValueKind.Array || input.GetArrayLength() == 0) throw JsonFields.Wrong("input", "a text or a list of at least one item", input);
        for (var i = 0; i < input.GetArrayLength(); i++) ReadItem(input[i], $"input[{i}].", messages);
    }

    private static void ReadItem(JsonElement element, string path, List<Dictionary<string, object>> messages)
    {
        var fields = new JsonFields(element, path);
        switch (fields.Text("type") ?? "message")
        {
            case "message":
                var role = Needed("role");
                var content = fields.Take("content") ?? throw new InvalidFieldException(path + "content", "it is missing");
                messages.Add(Message(role == "developer" ? "system" : role, ChatMessages.ReadContent(content, path + "content", "input_text", "output_text", "text", "refusal")));
                break;
            case "function_call":
                // Calls that follow one another, or a text, are one message's.
                if (messages.Count == 0 || (string)messages[^1]["role"] != "assistant") messages.Add(Message("assistant", ""));
                if (!messages[^1].TryGetValue("tool_calls", out var calls)) messages[^1]["tool_calls"] = calls = new List<Dictionary<string, object>>();
                ((List<Dictionary<string, object>>)calls).Add(ChatMessages.Call(Needed("call_id"), Needed("name"), fields.Text("arguments"), path + "arguments"));
                break;
            case "function_call_output":
                var output = Message("tool", ChatMessages.ReadContent(fields.Take("output") ?? throw new InvalidFieldException(path + "output", "it is missing"), path + "output", "input_text", "output_text"));
                output["tool_call_id"] = Needed("call_id");
                messages.Add(output);
                break;
            case "item_reference":
                throw new InvalidFieldException(path + "type", Stateless);
            case var type:
                throw new InvalidFieldException(path + "type", $"'{type}' is not supported; message, function_call and function_call_output are");
        }

        fields.Skip(NeutralFields.InputItem);
        fields.End();

        string Needed(string name) => fields.Text(name) ?? throw new InvalidFieldException(path + name, "it is missing");
    }

    private static Dictionary<string, object> Message(string role, string content) => new(StringComparer.Ordinal) { ["role"] = role, ["content"] = content };
}
