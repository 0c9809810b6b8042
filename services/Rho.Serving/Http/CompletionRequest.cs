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

    public bool Stream { get; init; }

    public bool IncludeUsage { get; init; }

    public int Priority { get; init; }

    /// <summary>Reads the fields but "model", which was taken to find the model.</summary>
    public static CompletionRequest Read(JsonFields fields, ServedModel model)
    {
        fields.Refuse("suffix", "text before a suffix is not supported");
        fields.Text("user");
        var addSpecialTokens = fields.Flag("add_special_tokens") ?? true;
        var context = model.Engine.ContextLength;
        var stream = fields.Flag("stream") ?? false;
        var request = new CompletionRequest
        {
            Prompts = ReadPrompts(fields.Take("prompt") ?? throw new InvalidFieldException("prompt", "it is missing"), addSpecialTokens, context),
            Sampling = SamplingFields.Read(fields, fields.Whole("max_tokens") ?? DefaultMaxTokens, fields.Whole("logprobs"), model),
            Echo = fields.Flag("echo") ?? false,
            Stream = stream,
            IncludeUsage = ReadStreamOptions(fields, stream),
            Priority = fields.Whole("priority") ?? 0,
        };
        fields.End();
        return request;
    }

    public static bool ReadStreamOptions(JsonFields fields, bool stream)
    {
        if (fields.Object("stream_options") is not { } options) return false;
        if (!stream) throw new InvalidFieldException("stream_options", "it is for streams only: set stream to true, or leave it out");
        var usage = options.Flag("include_usage") ?? false;
        options.End();
        return usage;
    }

    private static List<Prompt> ReadPrompts(JsonElement value, bool addSpecialTokens, int context)
    {
        if (value.ValueKind == JsonValueKind.String) return [new Prompt(value.GetString(), null, addSpecialTokens)];
        if (value.ValueKind != JsonValueKind.Array || value.GetArrayLength() == 0)
            throw JsonFields.Wrong("prompt", "a text, a list of texts, a list of token ids or a list of such lists", value);
        if (value[0].ValueKind == JsonValueKind.Number) return [new Prompt(null, Ids(value, "prompt", context), addSpecialTokens)];
        if (value.GetArrayLength() > MostPrompts) throw new InvalidFieldException("prompt", $"{value.GetArrayLength()} prompts; {MostPrompts} is the most");
        return [.. value.EnumerateArray().Select((element, i) => element.ValueKind == JsonValueKind.Array
            ? new Prompt(null, Ids(element, $"prompt[{i}]", context), addSpecialTokens)
            : new Prompt(JsonFields.Text(element, $"prompt[{i}]"), null, addSpecialTokens))];
    }

    private static int[] Ids(JsonElement value, string path, int context)
    {
        var count = value.GetArrayLength();
        if (count > context) throw new ContextLengthException($"{path} has {count} tokens: beyond the context of {context} tokens");
        return [.. value.EnumerateArray().Select((id, i) => JsonFields.Whole(id, $"{path}[{i}]"))];
    }

    /// <summary>A prompt as text or as token ids.</summary>
    internal sealed record Prompt(string? Text, int[]? Ids, bool AddSpecialTokens);
}
