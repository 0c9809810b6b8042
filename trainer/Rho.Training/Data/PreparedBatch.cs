using System.Runtime.InteropServices;
using Rho.Formats;
using Rho.Model;

namespace Rho.Training;

/// <summary>Where a sequence of a batch comes from: numbers into data.corpora, its shards, and their sequences.</summary>
[StructLayout(LayoutKind.Auto)]
public readonly record struct SequenceOrigin(int Corpus, int Shard, long Sequence);

/// <summary>A micro-batch with all that its step needs.</summary>
public sealed record PreparedBatch
{
    public required TokenBatch Tokens { get; init; }

    /// <summary>True at tokens whose loss does not count, by the corpus's loss_mask: no candidates, though they are context. Null where all count. [sequences * length]</summary>
    public bool[]? Masked { get; init; }

    /// <summary>One per sequence.</summary>
    public required SequenceOrigin[] Origins { get; init; }

    /// <summary>
    /// What the reference says of the tokens, [sequences * length]: losses, and what else the selector looks at. Null where the
    /// objective needs none, or where the policy let the batch go without.
    /// </summary>
    public TokenScores? Reference { get; init; }

    /// <summary>Losses of reference.history, [sequences * length]; null where the selector does not look at them.</summary>
    public float[]? History { get; init; }

    /// <summary>Whether the reference or the history was away and reference.when_unavailable let this batch train on all tokens.</summary>
    public bool WithoutReference { get; init; }

    /// <summary>Takes out the losses that do not count: they become NaN, as those of tokens without a target are. [sequences * length], changed</summary>
    internal float[] Mask(float[] losses)
    {
        for (var i = 0; i < Masked?.Length; i++)
            if (Masked[i]) losses[i] = float.NaN;
        return losses;
    }

    /// <summary>Sequences taken from each corpus once this batch, and those of other ranks beside it, are trained: the state of the data.</summary>
    public required long[] Consumed { get; init; }
}
