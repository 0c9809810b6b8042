namespace Rho.Selection;

/// <summary>Excess loss, current minus reference, signed: the score of Rho-1 (equation 3). High where the model lags behind the reference.</summary>
public sealed class ExcessLoss : ITokenScore
{
    public LossKinds Needs => LossKinds.Reference;

    public void Score(in TokenLosses batch, Span<float> scores)
    {
        for (var i = 0; i < scores.Length; i++) scores[i] = batch.Current[i] - batch.Reference[i];
    }
}

/// <summary>Whose losses a difference is taken of.</summary>
public enum LossSet
{
    /// <summary>The model in training.</summary>
    Current,
    /// <summary>The reference.</summary>
    Reference,
    /// <summary>A third model, such as an earlier checkpoint.</summary>
    History,
}

/// <summary>
/// One model's losses minus another's. <see cref="ExcessLoss"/> is that of the current ones and the reference's; the history's minus the
/// current ones is what was learnt since, and with the base's losses as the history its minus the reference's needs no model in training.
/// </summary>
public sealed class LossDifference(LossSet first, LossSet second) : ITokenScore
{
    public LossKinds Needs => Kind(first) | Kind(second);

    public void Score(in TokenLosses batch, Span<float> scores)
    {
        var minuend = Of(batch, first);
        var subtrahend = Of(batch, second);
        for (var i = 0; i < scores.Length; i++) scores[i] = minuend[i] - subtrahend[i];
    }

    private static LossKinds Kind(LossSet set) => set switch
    {
        LossSet.Reference => LossKinds.Reference,
        LossSet.History => LossKinds.History,
        _ => LossKinds.None,
    };

    private static ReadOnlySpan<float> Of(in TokenLosses batch, LossSet set) => set switch
    {
        LossSet.Reference => batch.Reference,
        LossSet.History => batch.History,
        _ => batch.Current,
    };
}

/// <summary>The reference's loss alone; what it finds unlikely goes first (Rho-1, section 3.4, self-reference with L_RM).</summary>
public sealed class ReferenceLoss : ITokenScore
{
    public LossKinds Needs => LossKinds.Reference;

    public void Score(in TokenLosses batch, Span<float> scores)
    {
        for (var i = 0; i < scores.Length; i++) scores[i] = -batch.Reference[i];
    }
}

/// <summary>The reference's entropy; where it is uncertain, tokens go first (Rho-1, section 3.4, H_RM).</summary>
public sealed class ReferenceEntropy : ITokenScore
{
    public LossKinds Needs => LossKinds.ReferenceEntropy;

    public void Score(in TokenLosses batch, Span<float> scores)
    {
        for (var i = 0; i < scores.Length; i++) scores[i] = -batch.ReferenceEntropy[i];
    }
}

/// <summary>The model's own loss: keeps what it finds hardest, noise included. A control that needs no reference.</summary>
public sealed class CurrentLoss : ITokenScore
{
    public LossKinds Needs => LossKinds.None;

    public void Score(in TokenLosses batch, Span<float> scores) => batch.Current.CopyTo(scores);
}

/// <summary>The divergence of the model from the reference (<see cref="TopDivergence"/>): keeps the tokens at which the two disagree most.</summary>
public sealed class ReferenceDivergence : ITokenScore
{
    public LossKinds Needs => LossKinds.Divergence;

    public void Score(in TokenLosses batch, Span<float> scores) => batch.Divergence.CopyTo(scores);
}

/// <summary>Uniform noise from the batch's seed: the control that every criterion has to beat at equal ratio.</summary>
public sealed class RandomScore : ITokenScore
{
    public LossKinds Needs => LossKinds.None;

    public void Score(in TokenLosses batch, Span<float> scores)
    {
        for (var i = 0; i < scores.Length; i++) scores[i] = (Mix(batch.Seed + (ulong)i * 0x9E3779B97F4A7C15) >> 40) * (1f / (1 << 24));
    }

    /// <summary>The finalizer of SplitMix64 (Steele, Lea, Flood 2014): equal on every machine and runtime.</summary>
    internal static ulong Mix(ulong z)
    {
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }
}
