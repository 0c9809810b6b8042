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

    /// <summary>One per sequence.</summary>
    public required SequenceOrigin[] Origins { get; init; }

    /// <summary>
    /// What the reference says of the tokens, [sequences * length]: losses, and what else the selector looks at. Null where the
    /// objective needs none, or where the policy let the batch go without.
    /// </summary>
    public TokenScores? Reference { get; init; }

    /// <summary>Whether the reference was away and reference.when_unavailable let this batch train on all tokens.</summary>
    public bool WithoutReference { get; init; }

    /// <summary>Sequences taken from each corpus once this batch, and those of other ranks beside it, are trained: the state of the data.</summary>
    public required long[] Consumed { get; init; }
}
