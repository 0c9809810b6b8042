namespace Rho.Serving.Engine;

/// <summary>One prompt to continue, or to score.</summary>
public sealed record GenerationRequest
{
    /// <summary>Token ids; at least one.</summary>
    public required IReadOnlyList<int> Prompt { get; init; }

    public SamplingSettings Sampling { get; init; } = new();

    /// <summary>
    /// Whether the continuation goes on within the prompt's text, so that a blank at its beginning is part of it; else it is a text of
    /// its own, such as a chat's answer, of which SentencePiece's first blank is no part.
    /// </summary>
    public bool ContinuesText { get; init; }

    /// <summary>Log-probabilities of the prompt's tokens, with so many most likely ones beside each; null for none.</summary>
    public int? PromptLogProbabilities { get; init; }

    /// <summary>Higher runs first.</summary>
    public int Priority { get; init; }

    /// <summary>Who asks: requests of one client share its turns, so that no client starves another.</summary>
    public string Client { get; init; } = "";

    /// <summary>What it counts for in the queue: its prompt once per continuation.</summary>
    internal long QueueTokens => (long)Prompt.Count * Sampling.Choices;
}

public enum FinishReason
{
    /// <summary>A stop text, a stop token, the end of sequence, or a constraint that is fulfilled.</summary>
    Stop,

    /// <summary>max_tokens, or the end of the context.</summary>
    Length,
}

/// <summary>A token that could have come, with ln p in nats.</summary>
public readonly record struct TokenAlternative(int Token, float LogProbability);

/// <summary>A token of the prompt or of a continuation.</summary>
/// <param name="LogProbability">ln p(token | tokens before it), in nats and before temperature; NaN where not asked for, and at a prompt's first token.</param>
/// <param name="Top">The most likely tokens, most likely first; null where not asked for, and at a prompt's first token.</param>
/// <param name="Rank">1 when no token is likelier, 2 when one is, and so on; 0 where log-probabilities were not asked for.</param>
public readonly record struct ScoredToken(int Token, float LogProbability, TokenAlternative[]? Top, int Rank)
{
    /// <summary>A token that nobody asked a log-probability of.</summary>
    public static ScoredToken Unscored(int token) => new(token, float.NaN, null, 0);

    public bool IsMostLikely => Rank == 1;

    /// <summary>In a continuation: characters (code points) of its text before this token, or before the character that the token is a part of.</summary>
    public int TextOffset { get; init; }
}

/// <summary>A piece of an answer, in order per choice.</summary>
public sealed record GenerationChunk
{
    public int Choice { get; init; }

    /// <summary>These tokens are the prompt's; they come once, before any of a continuation's.</summary>
    public bool IsPrompt { get; init; }

    /// <summary>New text: whole characters, never part of a stop text.</summary>
    public string Text { get; init; } = "";

    /// <summary>The tokens that <see cref="Text"/> completes.</summary>
    public IReadOnlyList<ScoredToken> Tokens { get; init; } = [];

    /// <summary>In a choice's last chunk: why it ended.</summary>
    public FinishReason? Finish { get; init; }

    /// <summary>The stop text or "token:ID" that ended the choice, where one did.</summary>
    public string? StopReason { get; init; }
}

/// <summary>What a request took.</summary>
/// <param name="CachedPromptTokens">Of the prompt's tokens, those reused from earlier requests.</param>
public readonly record struct GenerationUsage(int PromptTokens, int CompletionTokens, int CachedPromptTokens);
