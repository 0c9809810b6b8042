namespace Rho.Model;

/// <summary>A micro-batch of token sequences of one length.</summary>
/// <param name="Tokens">[Sequences, Length]</param>
/// <param name="Documents">Null where documents see each other and nothing is padded; else per token the number of its document within its
/// sequence, -1 for padding. [Sequences, Length]</param>
public sealed record TokenBatch(int[] Tokens, int Sequences, int Length, int[]? Documents);

/// <summary>
/// Decides what each token's loss counts. Called once per micro-batch with the current losses, NaN where a position has no target;
/// fills the weights: 0 drops a token, 1 selects it, values between weigh it. Both [sequences, length].
/// </summary>
public delegate void TokenWeighting(ReadOnlySpan<float> losses, Span<float> weights);

/// <summary>Tokens whose log-probabilities a forward pass is to gather beside the losses, while its logits are there.</summary>
/// <param name="K">how many at each position</param>
/// <param name="Ids">tokens that might stand at the position, in place of the one that does. [sequences, length, K]</param>
public sealed record TokenProbe(int K, int[] Ids)
{
    /// <summary>ln p of them, given what is before the position; NaN where there is no target or the vocabulary has no such token. [sequences, length, K]</summary>
    public float[] LogProbabilities { get; } = Enumerable.Repeat(float.NaN, Ids.Length).ToArray();
}

/// <summary>Sums over one micro-batch; a step divides the sums of all of its micro-batches by their total weight.</summary>
/// <param name="WeightedLossSum">sum of weight * loss, in nats</param>
/// <param name="RouterBalance">load-balancing loss of all tokens that are no padding, without its weight; null where it is no part of the loss</param>
/// <param name="BusiestExpertShare">share of a layer's choices of experts that one expert has, the largest; null with it</param>
public readonly record struct MicroBatchResult(double WeightedLossSum, double WeightSum, double? RouterBalance = null, double? BusiestExpertShare = null);
