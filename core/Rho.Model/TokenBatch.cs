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

/// <summary>Sums over one micro-batch; a step divides the sums of all of its micro-batches by their total weight.</summary>
/// <param name="WeightedLossSum">sum of weight * loss, in nats</param>
public readonly record struct MicroBatchResult(double WeightedLossSum, double WeightSum);
