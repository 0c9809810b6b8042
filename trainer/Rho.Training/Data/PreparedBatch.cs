using System.Runtime.InteropServices;
using Rho.Model;

namespace Rho.Training;

/// <summary>Where a sequence of a batch comes from: numbers into data.corpora, its shards, and their sequences.</summary>
[StructLayout(LayoutKind.Auto)]
public readonly record struct SequenceOrigin(int Corpus, int Shard, long Sequence);

/// <summary>The tokens that a reference finds most likely at each position, the likeliest first.</summary>
/// <param name="K">tokens at each position</param>
/// <param name="Ids">[positions, K]</param>
/// <param name="LogProbabilities">ln p of them in nats, NaN where there is no loss. [positions, K]</param>
public sealed record LikelyTokens(int K, int[] Ids, float[] LogProbabilities)
{
    /// <summary>Room for a number of positions.</summary>
    internal static LikelyTokens Empty(int positions, int k) => new(k, new int[positions * k], new float[positions * k]);

    internal LikelyTokens From(int position) => new(K, Ids[(position * K)..], LogProbabilities[(position * K)..]);

    internal void CopyTo(int position, int count, LikelyTokens target, int targetPosition)
    {
        Ids.AsSpan(position * K, count * K).CopyTo(target.Ids.AsSpan(targetPosition * K));
        LogProbabilities.AsSpan(position * K, count * K).CopyTo(target.LogProbabilities.AsSpan(targetPosition * K));
    }
}

/// <summary>A micro-batch with all that its step needs.</summary>
public sealed record PreparedBatch
{
    public required TokenBatch Tokens { get; init; }

    /// <summary>One per sequence.</summary>
    public required SequenceOrigin[] Origins { get; init; }

    /// <summary>[sequences * length] in nats; null where the objective needs none, or where the policy let the batch go without.</summary>
    public float[]? Reference { get; init; }

    /// <summary>[sequences * length] entropies of the reference in nats; null unless the selector looks at them.</summary>
    public float[]? ReferenceEntropy { get; init; }

    /// <summary>[sequences * length] most likely tokens of the reference; null unless the selector looks at them.</summary>
    public LikelyTokens? ReferenceLikely { get; init; }

    /// <summary>Whether the reference was away and reference.when_unavailable let this batch train on all tokens.</summary>
    public bool WithoutReference { get; init; }

    /// <summary>Sequences taken from each corpus once this batch, and those of other ranks beside it, are trained: the state of the data.</summary>
    public required long[] Consumed { get; init; }
}
