namespace Rho.Model;

/// <summary>A reference model that says more of its next-token distributions than how likely each token was.</summary>
public interface IDistributionModel : IReferenceModel
{
    /// <summary>The largest number of most likely tokens that can be asked for.</summary>
    int MaxTopK { get; }

    /// <summary>As <see cref="IReferenceModel.Score"/>, and of the distribution that each loss is taken from:</summary>
    /// <param name="entropies">-sum_v p_v ln p_v in nats, NaN where there is no loss; [tokens], or empty: not wanted</param>
    /// <param name="topK">how many most likely tokens are wanted; 0: none</param>
    /// <param name="topIds">the most likely tokens, the likeliest first, of equal ones the lower id; 0 where there is no loss; [tokens, topK]</param>
    /// <param name="topLogProbabilities">ln p of them; NaN where there is no loss; [tokens, topK]</param>
    void Score(
        ReadOnlySpan<int> tokens, ReadOnlySpan<int> lengths, ReadOnlySpan<int> documents, Span<float> losses,
        Span<float> entropies, int topK, Span<int> topIds, Span<float> topLogProbabilities, CancellationToken cancellation);
}
