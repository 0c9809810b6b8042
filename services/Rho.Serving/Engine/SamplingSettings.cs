using Rho.Serving.Constraints;

namespace Rho.Serving.Engine;

/// <summary>How a continuation is drawn and when it ends. Defaults are OpenAI's; ranges are checked by <see cref="Validate"/>.</summary>
public sealed record SamplingSettings
{
    public const int MostAlternatives = 20;
    public const int MostStops = 16;
    public const int MostChoices = 64;

    /// <summary>New tokens at most; null is as many as the context has room for; 0 computes the prompt alone.</summary>
    public int? MaxTokens { get; init; }

    /// <summary>No end of sequence and no stop before so many new tokens.</summary>
    public int MinTokens { get; init; }

    /// <summary>Logits are divided by it; 0 takes the most likely token.</summary>
    public float Temperature { get; init; } = 1;

    /// <summary>Keeps the most likely tokens whose probabilities sum to it, (0, 1].</summary>
    public float TopP { get; init; } = 1;

    /// <summary>Keeps so many most likely tokens; 0 keeps all.</summary>
    public int TopK { get; init; }

    /// <summary>Keeps tokens at least this times as likely as the most likely one, [0, 1].</summary>
    public float MinP { get; init; }

    /// <summary>Same seed and prompt, same text, whatever else the server does; null draws one per request.</summary>
    public ulong? Seed { get; init; }

    /// <summary>Taken off the logits of tokens that the continuation has, [-2, 2].</summary>
    public float PresencePenalty { get; init; }

    /// <summary>Taken off a token's logit for every time the continuation has it, [-2, 2].</summary>
    public float FrequencyPenalty { get; init; }

    /// <summary>Divides positive and multiplies negative logits of tokens of prompt and continuation, above 0.</summary>
    public float RepetitionPenalty { get; init; } = 1;

    /// <summary>Added to logits by token id, [-100, 100].</summary>
    public IReadOnlyDictionary<int, float> LogitBias { get; init; } = new Dictionary<int, float>();

    /// <summary>Texts that end the continuation and are not part of it.</summary>
    public IReadOnlyList<string> Stop { get; init; } = [];

    public IReadOnlyList<int> StopTokens { get; init; } = [];

    /// <summary>Goes on past the model's end-of-sequence tokens.</summary>
    public bool IgnoreEos { get; init; }

    /// <summary>Continuations of the one prompt.</summary>
    public int Choices { get; init; } = 1;

    /// <summary>Log-probabilities of the chosen and of so many most likely tokens; null for none.</summary>
    public int? LogProbabilities { get; init; }

    /// <summary>What the continuation has to conform to; null for anything.</summary>
    public TextConstraint? Constraint { get; init; }

    /// <summary>Throws <see cref="InvalidFieldException"/> for the first value out of range.</summary>
    public void Validate(int vocabularySize)
    {
        Check(MaxTokens is null or >= 0, "max_tokens", $"{MaxTokens} is negative; 0 or more is right");
        Check(MinTokens >= 0 && (MaxTokens is null || MinTokens <= MaxTokens), "min_tokens", $"{MinTokens} is not from 0 to max_tokens");
        Check(Temperature is >= 0 and <= 100, "temperature", $"{Temperature} is not from 0 to 100");
        Check(TopP is > 0 and <= 1, "top_p", $"{TopP} is not above 0 and at most 1");
        Check(TopK >= 0, "top_k", $"{TopK} is negative; 0 keeps all tokens");
        Check(MinP is >= 0 and <= 1, "min_p", $"{MinP} is not from 0 to 1");
        Check(PresencePenalty is >= -2 and <= 2, "presence_penalty", $"{PresencePenalty} is not from -2 to 2");
        Check(FrequencyPenalty is >= -2 and <= 2, "frequency_penalty", $"{FrequencyPenalty} is not from -2 to 2");
        Check(RepetitionPenalty is > 0 and <= 100, "repetition_penalty", $"{RepetitionPenalty} is not above 0 and at most 100");
        Check(Choices is >= 1 and <= MostChoices, "n", $"{Choices} is not from 1 to {MostChoices}");
        Check(LogProbabilities is null or (>= 0 and <= MostAlternatives), "logprobs", $"{LogProbabilities} is not from 0 to {MostAlternatives}");
        Check(Stop.Count <= MostStops, "stop", $"{Stop.Count} stop texts; {MostStops} is the most");
        Check(Stop.All(text => text.Length > 0), "stop", "an empty stop text would end every continuation at once");
        foreach (var (token, bias) in LogitBias)
        {
            Check(token >= 0 && token < vocabularySize, "logit_bias", $"token {token} is not in the vocabulary (0 to {vocabularySize - 1})");
            Check(bias is >= -100 and <= 100, "logit_bias", $"{bias} for token {token} is not from -100 to 100");
        }

        foreach (var token in StopTokens) Check(token >= 0 && token < vocabularySize, "stop_token_ids", $"token {token} is not in the vocabulary (0 to {vocabularySize - 1})");
    }

    private static void Check(bool right, string field, string problem)
    {
        if (!right) throw new InvalidFieldException(field, problem);
    }
}
