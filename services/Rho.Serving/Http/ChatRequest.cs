using System.Text.Json;
using Rho.Serving.Engine;
using Rho.Serving.Models;
using Rho.Serving.Tools;

namespace Rho.Serving.Http;

/// <summary>A conversation to be answered: a body of /v1/chat/completions, or what another route makes into one.</summary>
internal sealed record ChatRequest
{
    public required ChatPrompt Prompt { get; init; }

    public required SamplingSettings Sampling { get; init; }

    public required AnswerOptions Options { get; init; }

    /// <summary>The functions that may be called; null for none.</summary>
    public ToolSet? Tools { get; init; }

    /// <summary>Reads the fields but "model", which was taken to find the model.</summary>
    public static ChatRequest Read(JsonFields fields, ServedModel model)
    {
        fields.Refuse("audio", "only text is supported");
        fields.Skip([.. NeutralFields.Shared, .. NeutralFields.Sampling, .. NeutralFields.Chat]);
        var maxTokens = fields.Whole("max_completion_tokens");
        if (fields.Whole("max_tokens") is { } older)
            maxTokens = maxTokens is null || maxTokens == older ? older : throw new InvalidFieldException("max_tokens", "max_completion_tokens says otherwise; give one of the two");

        var wanted = fields.Flag("logprobs") ?? false;
        var top = fields.Whole("top_logprobs");
        if (top is > 0 && !wanted) throw new InvalidFieldException("top_logprobs", "it needs logprobs set to true");
        if (top is < 0 or > SamplingSettings.MostAlternatives) throw new InvalidFieldException("top_logprobs", $"{top} is not from 0 to {SamplingSettings.MostAlternatives}");

        var tools = ToolFields.Read(fields, model, nested: true);
        var request = new ChatRequest
        {
            Prompt = ChatPrompt.Read(fields, tools),
            Tools = tools,
            Sampling = WithTools(SamplingFields.Read(fields, maxTokens, wanted ? top ?? 0 : null, model), tools, model, "response_format"),
            Options = AnswerOptions.Read(fields),
        };
        fields.End();
        return request;
    }

    /// <summary>The settings with what required calls ask for.</summary>
    /// <param name="format">The field of a constraint that is given already.</param>
    public static SamplingSettings WithTools(SamplingSettings sampling, ToolSet? tools, ServedModel model, string format)
    {
        if (tools is null) return sampling;
        if (sampling.Constraint is not null) throw new InvalidFieldException(format, "a constraint together with tools is not supported: set tool_choice to none, or leave one of the two out");
        return sampling with { Constraint = tools.Constraint(model) };
    }

    /// <summary>Submits the request to the model's engine.</summary>
    public Generation Submit(ServedModel model, string client)
    {
        Sampling.Validate(model.Config.VocabularySize);
        var last = Prompts.Limit(model, Options.TruncatePrompt, Sampling.MaxTokens);
        return model.Engine.Submit(new GenerationRequest
        {
            Prompt = Prompts.Encode(model, Prompt.Render(model), Prompt.AddSpecialTokens, client, last),
            Sampling = Sampling,
            PromptLogProbabilities = Options.PromptLogProbabilities,
            Priority = -Options.Priority,
            Client = client,
        });
    }
}

/// <summary>A conversation and how its template is to write it.</summary>
internal sealed record ChatPrompt
{
    /// <summary>The conversation as the model's template takes it: objects with role and content.</summary>
    public required JsonElement Messages { get; init; }

    /// <summary>Further variables of the template.</summary>
    public required IReadOnlyDictionary<string, JsonElement> Variables { get; init; }

    public bool AddGenerationPrompt { get; init; } = true;

    /// <summary>The answer goes on with the last message instead of being one of its own.</summary>
    public bool ContinueFinalMessage { get; init; }

    /// <summary>Whether the tokenizer adds what begins a text; templates write it themselves.</summary>
    public bool AddSpecialTokens { get; init; }

    public static ChatPrompt Read(JsonFields fields, ToolSet? tools)
    {
        var variables = fields.Take("chat_template_kwargs") is not { } given ? new Dictionary<string, JsonElement>(StringComparer.Ordinal)
            : given.ValueKind == JsonValueKind.Object ? given.EnumerateObject().ToDictionary(variable => variable.Name, variable => variable.Value, StringComparer.Ordinal)
            : throw JsonFields.Wrong("chat_template_kwargs", "an object", given);
        if (tools is not null) variables["tools"] = tools.ToTemplate();
        if (fields.Many("documents", (document, path) => document.ValueKind == JsonValueKind.Object ? document : throw JsonFields.Wrong(path, "an object", document)) is { Count: > 0 } documents)
            variables["documents"] = JsonSerializer.SerializeToElement(documents);
        var continues = fields.Flag("continue_final_message") ?? false;
        var begins = fields.Flag("add_generation_prompt");
        if (continues && begins == true) throw new InvalidFieldException("continue_final_message", "add_generation_prompt begins another message; set it to false");
        return new ChatPrompt
        {
            Messages = ChatMessages.Read(fields.Take("messages") ?? throw new InvalidFieldException("messages", "it is missing")),
            Variables = variables,
            AddGenerationPrompt = begins ?? !continues,
            ContinueFinalMessage = continues,
            AddSpecialTokens = fields.Flag("add_special_tokens") ?? false,
        };
    }

    /// <summary>The text that the model is to continue.</summary>
    /// <exception cref="InvalidFieldException">The model has no chat template, or the template refuses the conversation.</exception>
    public string Render(ServedModel model)
    {
        var text = Prompts.Render(model, template => template.Render(Messages, AddGenerationPrompt, Variables));
        return ContinueFinalMessage ? WithoutEnd(text) : text;
    }

    /// <summary>The text up to the end of the last message's content, with the blanks there where the template keeps them.</summary>
    private string WithoutEnd(string text)
    {
        var content = Messages[Messages.GetArrayLength() - 1].GetProperty("content").GetString()!.TrimStart();
        if (content.Length == 0) throw new InvalidFieldException("continue_final_message", "the last message has no content to go on with");
        var at = text.LastIndexOf(content.TrimEnd(), StringComparison.Ordinal);
        if (at < 0) throw new InvalidFieldException("continue_final_message", "the model's chat template does not write the last message as it is");
        return text[..(at + (text.AsSpan(at).StartsWith(content, StringComparison.Ordinal) ? content : content.TrimEnd()).Length)];
    }
}
