namespace Rho.Selection;

/// <summary>What a criterion looks at; a trainer provides what its selector <see cref="ITokenSelector.Needs"/>.</summary>
[Flags]
public enum LossKinds
{
    None = 0,
    /// <summary>The reference model's loss of each token.</summary>
    Reference = 1,
    /// <summary>The entropy of the reference model's prediction of each token.</summary>
    ReferenceEntropy = 2,
    /// <summary>The divergence of the model in training from the reference at each token.</summary>
    Divergence = 4,
    /// <summary>Which tokens make up a word.</summary>
    Words = 8,
    /// <summary>Losses of a third model, such as an earlier checkpoint.</summary>
    History = 16,
}

/// <summary>
/// The candidates of one selection: sequences of equal length, one after another, token t of sequence i at i * Length + t.
/// All values belong to the token that is predicted, so nothing is shifted here. Losses are in nats.
/// </summary>
public readonly ref struct TokenLosses
{
    /// <summary>Losses of the model in training. NaN where a token is no target (first tokens, padding): it is never selected.</summary>
    public required ReadOnlySpan<float> Current { get; init; }

    /// <summary>Losses of the reference; empty if not needed. NaN means no candidate for criteria that look at it.</summary>
    public ReadOnlySpan<float> Reference { get; init; }

    /// <summary>Losses of a third model, such as an earlier checkpoint; empty if not needed.</summary>
    public ReadOnlySpan<float> History { get; init; }

    /// <summary>Entropies of the reference's predictions in nats; empty if not needed.</summary>
    public ReadOnlySpan<float> ReferenceEntropy { get; init; }

    /// <summary>Divergences from the reference in nats, such as <see cref="TopDivergence"/> gives; empty if not needed.</summary>
    public ReadOnlySpan<float> Divergence { get; init; }

    /// <summary>Number of the word that each token belongs to: equal for neighbours of one word, different for two neighbouring words.</summary>
    public ReadOnlySpan<int> Words { get; init; }

    /// <summary>Tokens per sequence.</summary>
    public required int Length { get; init; }

    /// <summary>Where random criteria draw from: the same seed and positions give the same selection.</summary>
    public ulong Seed { get; init; }

    public int Sequences => Current.Length / Length;

    /// <summary>One sequence of the batch. Random criteria draw differently for each.</summary>
    public TokenLosses Sequence(int index) => new()
    {
        Current = Slice(Current, index),
        Reference = Slice(Reference, index),
        History = Slice(History, index),
        ReferenceEntropy = Slice(ReferenceEntropy, index),
        Divergence = Slice(Divergence, index),
        Words = Words.IsEmpty ? Words : Words.Slice(index * Length, Length),
        Length = Length,
        Seed = RandomScore.Mix(Seed + (ulong)index + 1),
    };

    private ReadOnlySpan<float> Slice(ReadOnlySpan<float> values, int index) => values.IsEmpty ? values : values.Slice(index * Length, Length);
}

/// <summary>What is ranked together.</summary>
public enum SelectionScope
{
    /// <summary>All tokens of the batch given.</summary>
    Batch,
    /// <summary>Each sequence by itself.</summary>
    Sequence,
}

/// <summary>Decides how much each token counts in the loss.</summary>
public interface ITokenSelector
{
    LossKinds Needs { get; }

    /// <summary>
    /// Fills <paramref name="weights"/>, one per token: 0 is dropped, 1 selected, soft selectors give values between and above.
    /// The loss is the weighted sum over the step's tokens divided by the step's sum of weights.
    /// </summary>
    /// <param name="ratio">Share of the candidates to keep, in (0, 1].</param>
    void Select(in TokenLosses batch, double ratio, Span<float> weights);
}

/// <summary>A criterion that tokens are ranked by: higher is kept first.</summary>
public interface ITokenScore
{
    LossKinds Needs { get; }

    /// <summary>One score per token; NaN where the token is no candidate. What <see cref="TokenLosses.Current"/> excludes, selectors exclude themselves.</summary>
    void Score(in TokenLosses batch, Span<float> scores);
}
