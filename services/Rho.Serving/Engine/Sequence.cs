namespace Rho.Serving.Engine;

/// <summary>One continuation under way: its tokens, its cache blocks and how far it is computed. Owned by the engine's loop.</summary>
internal sealed class Sequence
{
    private readonly IReadOnlySet<int> _ends;
    private readonly TextStream _text;

    public Sequence(Generation generation, int choice, long arrival, ulong seed, int maxTokens, IReadOnlySet<int> ends, PlacedDecoder decoder)
    {
        Generation = generation;
        Choice = choice;
        Arrival = arrival;
        MaxTokens = maxTokens;
        var settings = generation.Request.Sampling;
        Tokens = [.. generation.Request.Prompt];
        PromptLength = Tokens.Count;
        Sampler = new Sampler(settings, generation.Request.Prompt, seed, choice);
        Matcher = settings.Constraint?.Start();
        _ends = settings.IgnoreEos ? new HashSet<int>(settings.StopTokens) : new HashSet<int>([.. ends, .. settings.StopTokens]);
        _text = new TextStream(decoder, settings.Stop);
    }

    public Generation Generation { get; }

    public int Choice { get; }

    /// <summary>Order of arrival at the engine.</summary>
    public long Arrival { get; }

    /// <summary>The sequence whose cached prompt this one waits for, being another continuation of the same prompt.</summary>
    public Sequence? Leader { get; init; }

    /// <summary>Prompt and continuation.</summary>
    public List<int> Tokens { get; }

    public int PromptLength { get; }

    public int MaxTokens { get; }

    public int Generated => Tokens.Count - PromptLength;

    /// <summary>Tokens whose keys and values are in the cache.</summary>
    public int Computed { get; set; }

    public int Remaining => Tokens.Count - Computed;

    public List<int> Blocks { get; } = [];

    /// <summary>Full blocks that the pool knows, and the chain that they make.</summary>
    public int FilledBlocks { get; set; }

    public long Chain { get; set; }

    /// <summary>Whether it was computed with the angles of long sequences (<see cref="Rho.Model.Inference.DecodingModel.RecomputeBeyond"/>).</summary>
    public bool IsStretched { get; set; }

    /// <summary>Prompt positions whose log-probabilities were sent; the whole prompt where none are wanted.</summary>
    public int PromptScored { get; set; }

    public bool WantsPromptScores => Choice == 0 && Generation.Request.PromptLogProbabilities is not null && PromptScored < PromptLength;

    public Sampler Sampler { get; }

    public Constraints.ConstraintMatcher? Matcher { get; }

    public bool Finished { get; private set; }

    public long? Started { get; set; }

    public long? LastToken { get; set; }

    /// <summary>Tokens that cannot come yet: those that would end the continuation before min_tokens.</summary>
    public IEnumerable<int> Banned => Generated < Generation.Request.Sampling.MinTokens ? _ends : [];

    /// <summary>Takes a drawn token and says what to send; sets <see cref="Finished"/> when it was the last.</summary>
    public GenerationChunk Append(ScoredToken token)
    {
        var settings = Generation.Request.Sampling;
        var early = Generated < settings.MinTokens;
        Tokens.Add(token.Token);
        if (_ends.Contains(token.Token) && !early)
            return End(_text.End(token), FinishReason.Stop, settings.StopTokens.Contains(token.Token) ? $"token:{token.Token}" : null);

        Matcher?.Advance(token.Token);
        var (text, tokens) = _text.Append(token, !early, out var stop);
        if (stop is not null) return End((text, tokens), FinishReason.Stop, stop);
        var fulfilled = Matcher is { IsComplete: true };
        if (!fulfilled && Generated < MaxTokens) return new GenerationChunk { Choice = Choice, Text = text, Tokens = tokens };

        var rest = _text.End(null);
        return End((text + rest.Text, [.. tokens, .. rest.Tokens]), fulfilled ? FinishReason.Stop : FinishReason.Length, null);
    }

    /// <summary>Ends a sequence that was only to be computed.</summary>
    public GenerationChunk EndAtPrompt() => End(("", []), FinishReason.Length, null);

    private GenerationChunk End((string Text, List<ScoredToken> Tokens) rest, FinishReason reason, string? stop)
    {
        Finished = true;
        return new GenerationChunk { Choice = Choice, Text = rest.Text, Tokens = rest.Tokens, Finish = reason, StopReason = stop };
    }
}
