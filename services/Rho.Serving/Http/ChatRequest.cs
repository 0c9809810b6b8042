using System.Text.Json;
using Rho.Serving.Engine;
using Rho.Serving.Models;

namespace Rho.Serving.Http;

/// <summary>A body of /v1/chat/completions.</summary>
internal sealed record ChatRequest
{
    /// <summary>The conversation as the model's template takes it: objects with role and content.</summary>
    public required JsonElement Messages { get; init; }

    /// <summary>Further variables of the template.</summary>
    public required IReadOnlyDictionary<string, JsonElement> TemplateVariables { get; init; }

    public required SamplingSettings Sampling { get; init; }

    public bool AddGenerationPrompt { get; init; }

    public bool Stream { get; init; }

    public bool IncludeUsage { get; init; }

    public int Priority { get; init; }

    /// <summary>Reads the fields but "model", which was taken to find the model.</summary>
    public static ChatRequest Read(JsonFields fields, ServedModel model)
    {
        foreach (var name in new[] { "tools", "tool_choice", "functions", "function_call", "parallel_tool_calls" }) fields.Refuse(name, "calling tools is not supported");
        fields.Refuse("audio", "only text is supported");
        fields.Text("user");
        if (fields.Many("modalities", JsonFields.Text) is { } modalities && modalities is not ["text"]) throw new InvalidFieldException("modalities", "only text is supported");
        var maxTokens = fields.Whole("max_completion_tokens");
        if (fields.Whole("max_tokens") is { } older)
            maxTokens = maxTokens is null || maxTokens == older ? older : throw new InvalidFieldException("max_tokens", "max_completion_tokens says otherwise; give one of the two");

        var wanted = fields.Flag("logprobs") ?? false;
        var top = fields.Whole("top_logprobs");
        if (top is not null && !wanted) throw new InvalidFieldException("top_logprobs", "it needs logprobs set to true");
        if (top is < 0 or > SamplingSettings.MostAlternatives) throw new InvalidFieldException("top_logprobs", $"{top} is not from 0 to {SamplingSettings.MostAlternatives}");

        var stream = fields.Flag("stream") ?? false;
        var variables = fields.Take("chat_template_kwargs") is not { } given ? []
            : given.ValueKind == JsonValueKind.Object ? given.EnumerateObject().ToDictionary(variable => variable.Name, variable => variable.Value, StringComparer.Ordinal)
            : throw JsonFields.Wrong("chat_template_kwargs", "an object", given);
        var request = new ChatRequest
        {
            Messages = ReadMessages(fields.Take("messages") ?? throw new InvalidFieldException("messages", "it is missing")),
            TemplateVariables = variables,
            AddGenerationPrompt = fields.Flag("add_generation_prompt") ?? true,
            Sampling = SamplingFields.Read(fields, maxTokens, wanted ? top ?? 0 : null, model),
            Stream = stream,
            IncludeUsage = CompletionRequest.ReadStreamOptions(fields, stream),
            Priority = fields.Whole("priority") ?? 0,
        };
        fields.End();
        return request;
    }

    /// <summary>Checks the messages and brings their contents, which may be lists of text parts, into one text each.</summary>
    private static JsonElement ReadMessages(JsonElement messages)
    {
        if (messages.ValueKind != JsonValueKind.Array || messages.GetArrayLength() == 0) throw JsonFields.Wrong("messages", "a list of at least one message", messages);
        var plain = messages.EnumerateArray().Select((element, i) =>
        {
            var path = $"messages[{i}].";
            var fields = new JsonFields(element, path);
            var message = new Dictionary<string, string>(StringComparer.Ordinal)
            {
                ["role"] = fields.Text("role") ?? throw new InvalidFieldException(path + "role", "it is missing"),
                ["content"] = ReadContent(fields.Take("content") ?? throw new InvalidFieldException(path + "content", "it is missing"), path + "content"),
            };
            if (fields.Text("name") is { } name) message["name"] = name;
            // Evaluation harnesses mark each message as text.
            if (fields.Text("type") is { } type && type != "text") throw new InvalidFieldException(path + "type", $"'{type}' is not supported; only text is");
            fields.End();
            return message;
        });
        return JsonSerializer.SerializeToElement(plain);
    }

    private static string ReadContent(JsonElement content, string path)
    {
        if (content.ValueKind != JsonValueKind.Array) return JsonFields.Text(content, path);
        return string.Concat(content.EnumerateArray().Select((part, i) =>
        {
            var fields = new JsonFields(part, $"{path}[{i}].");
            var type = fields.Text("type");
            if (type != "text") throw new InvalidFieldException($"{path}[{i}].type", $"'{type}' is not supported; only text is");
            var text = fields.Text("text") ?? throw new InvalidFieldException($"{path}[{i}].text", "it is missing");
            fields.End();
            return text;
        }));
    }
}
