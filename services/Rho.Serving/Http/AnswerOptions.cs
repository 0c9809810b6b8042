using Rho.Serving.Engine;

namespace Rho.Serving.Http;

/// <summary>What completions and chat completions share beside sampling: how the answer comes, and what comes with it.</summary>
internal sealed record AnswerOptions
{
    public bool Stream { get; init; }

    public bool IncludeUsage { get; init; }

    /// <summary>Usage so far in every piece of a stream.</summary>
    public bool ContinuousUsage { get; init; }

    /// <summary>Lower runs first, as vLLM has it.</summary>
    public int Priority { get; init; }

    /// <summary>The ids of prompt and answer beside their texts.</summary>
    public bool ReturnTokenIds { get; init; }

    /// <summary>Tokens are named "token_id:N" in log-probabilities, which no two share.</summary>
    public bool TokensAsIds { get; init; }

    /// <summary>Log-probabilities of the prompt's tokens, with so many most likely ones; null for none.</summary>
    public int? PromptLogProbabilities { get; init; }

    /// <summary>Only so many of the prompt's last tokens count; -1 is as many as the context has room for; null counts all.</summary>
    public int? TruncatePrompt { get; init; }

    public static AnswerOptions Read(JsonFields fields)
    {
        var stream = fields.Flag("stream") ?? false;
        var (usage, continuous) = ReadStreamOptions(fields, stream);
        var prompt = fields.Whole("prompt_logprobs");
        if (prompt is < 0 or > SamplingSettings.MostAlternatives) throw new InvalidFieldException("prompt_logprobs", $"{prompt} is not from 0 to {SamplingSettings.MostAlternatives}");
        if (prompt is not null && stream) throw new InvalidFieldException("prompt_logprobs", "it is for whole answers only: set stream to false, or leave it out");
        var truncate = fields.Whole("truncate_prompt_tokens");
        if (truncate is < -1 or 0) throw new InvalidFieldException("truncate_prompt_tokens", $"{truncate} is neither at least 1 nor -1");
        return new AnswerOptions
        {
            Stream = stream,
            IncludeUsage = usage,
            ContinuousUsage = usage && continuous,
            Priority = fields.Whole("priority") ?? 0,
            ReturnTokenIds = fields.Flag("return_token_ids") ?? false,
            TokensAsIds = fields.Flag("return_tokens_as_token_ids") ?? false,
            PromptLogProbabilities = prompt,
            TruncatePrompt = truncate,
        };
    }

    private static (bool Usage, bool Continuous) ReadStreamOptions(JsonFields fields, bool stream)
    {
        if (fields.Object("stream_options") is not { } options) return (false, false);
        var usage = options.Flag("include_usage") ?? false;
        var continuous = options.Flag("continuous_usage_stats") ?? false;
        options.Skip(NeutralFields.StreamOptions);
        options.End();
        if (!stream && (usage || continuous)) throw new InvalidFieldException("stream_options", "it is for streams only: set stream to true, or leave it out");
        return (usage, continuous);
    }
}
