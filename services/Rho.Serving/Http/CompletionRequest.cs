using System.Text.Json;
using Rho.Serving.Engine;
using Rho.Serving.Models;

namespace Rho.Serving.Http;

/// <summary>A body of /v1/completions.</summary>
internal sealed record CompletionRequest
{
    private const int MostPrompts = 2048;

    /// <summary>Tokens of completions that ask for no number, as with OpenAI.</summary>
    private const int DefaultMaxTokens = 16;

    public required IReadOnlyList<Prompt> Prompts { get; init; }

    public required SamplingSettings Sampling { get; init; }

    public bool Echo { get; init; }

    public required AnswerOptions Options { get; init; }

    /// <summary>Reads the fields but "model", which was taken to find the model.</summary>
    public static CompletionRequest Read(JsonFields fields, ServedModel model)
    {
        fields.Skip([.. NeutralFields.Shared, .. NeutralFields.Sampling, .. NeutralFields.Completion]);
        var addSpecialTokens = fields.Flag("add_special_tokens") ?? true;
        var options = AnswerOptions.Read(fields);
        var sampling = SamplingFields.Read(fields, fields.Whole("max_tokens") ?? DefaultMaxTokens, fields.Whole("logprobs"), model);
        var last = Models.Prompts.Limit(model, options.TruncatePrompt, sampling.MaxTokens);
        var request = new CompletionRequest
        {
            Prompts = ReadPrompts(fields.Take("prompt") ?? throw new InvalidFieldException("prompt", "it is missing"), addSpecialTokens, last, model.Engine.ContextLength),
            Sampling = sampling,
            Options = options,
            Echo = fields.Flag("echo") ?? false,
        };
        fields.End();
        return request;
    }

    /// <summary>Log-probabilities of the prompts' tokens that the answer shows, with so many most likely ones; null for none.</summary>
    public int? PromptLogProbabilities => Echo && Sampling.LogProbabilities is { } echoed ? Math.Max(echoed, Options.PromptLogProbabilities ?? 0) : Options.PromptLogProbabilities;

    private static List<Prompt> ReadPrompts(JsonElement value, bool addSpecialTokens, int? last, int context)
    {
        if (value.ValueKind == JsonValueKind.String) return [new Prompt(value.GetString(), null, addSpecialTokens, last)];
        if (value.ValueKind != JsonValueKind.Array || value.GetArrayLength() == 0)
            throw JsonFields.Wrong("prompt", "a text, a list of texts, a list of token ids or a list of such lists", value);
        if (value[0].ValueKind == JsonValueKind.Number) return [Ids(value, "prompt")];
        if (value.GetArrayLength() > MostPrompts) throw new InvalidFieldException("prompt", $"{value.GetArrayLength()} prompts; {MostPrompts} is the most");
        return [.. value.EnumerateArray().Select((element, i) => element.ValueKind == JsonValueKind.Array
            ? Ids(element, $"prompt[{i}]")
            : new Prompt(JsonFields.Text(element, $"prompt[{i}]"), null, addSpecialTokens, last))];

        Prompt Ids(JsonElement ids, string path)
        {
            var count = ids.GetArrayLength();
            if (last is null && count > context) throw new ContextLengthException($"{path} has {count} tokens: beyond the context of {context} tokens");
            return new Prompt(null, Models.Prompts.Last([.. ids.EnumerateArray().Select((id, i) => JsonFields.Whole(id, $"{path}[{i}]"))], last), addSpecialTokens, null);
        }
    }

    /// <summary>A prompt as text or as token ids.</summary>
    /// <param name="Last">Only so many last tokens count; null counts all.</param>
    internal sealed record Prompt(string? Text, int[]? Ids, bool AddSpecialTokens, int? Last);
}
