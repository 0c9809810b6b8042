namespace Rho.Model;

/// <summary>A model that says how likely each token was. Not thread-safe: one loop owns it.</summary>
public interface IReferenceModel : IDisposable
{
    /// <summary>SHA-256 over all that changes a loss: config, weights, tokenizer, compute type, kernel epoch. "sha256:" and 64 hex digits.</summary>
    string Fingerprint { get; }

    string TokenizerFingerprint { get; }
    int VocabularySize { get; }

    /// <summary>Longest sequence in tokens.</summary>
    int ContextLength { get; }

    /// <summary>For people: architecture, parameters, compute type, device.</summary>
    string Description { get; }

    /// <summary>
    /// Losses of sequences of any lengths that lie one after another, none padded: for the token at position t of a sequence
    /// -ln p(token | earlier tokens of the sequence), in nats; NaN at t = 0, at padding, and at the first token of a document where
    /// documents do not see each other. The same batch gives the same bytes; in another batch a sequence's losses may be rounded otherwise.
    /// </summary>
    /// <param name="tokens">[tokens]</param>
    /// <param name="lengths">tokens of each sequence; they add up to all. [sequences]</param>
    /// <param name="documents">Empty where documents see each other and nothing is padded; else per token the number of its document within
    /// its sequence, -1 for padding. [tokens]</param>
    /// <param name="losses">[tokens], written</param>
    void Score(ReadOnlySpan<int> tokens, ReadOnlySpan<int> lengths, ReadOnlySpan<int> documents, Span<float> losses, CancellationToken cancellation);
}

public static class ReferenceModels
{
    /// <summary>Losses of sequences of one length; as in <see cref="IReferenceModel"/>, tokens, documents and losses [sequences, length].</summary>
    public static void Score(
        this IReferenceModel model, ReadOnlySpan<int> tokens, int sequences, int length, ReadOnlySpan<int> documents, Span<float> losses, CancellationToken cancellation) =>
        model.Score(tokens, Lengths(sequences, length), documents, losses, cancellation);

    /// <summary>Losses and more of sequences of one length; as in <see cref="IDistributionModel"/>.</summary>
    public static void Score(
        this IDistributionModel model, ReadOnlySpan<int> tokens, int sequences, int length, ReadOnlySpan<int> documents, Span<float> losses,
        Span<float> entropies, int topK, Span<int> topIds, Span<float> topLogProbabilities, CancellationToken cancellation) =>
        model.Score(tokens, Lengths(sequences, length), documents, losses, entropies, topK, topIds, topLogProbabilities, cancellation);

    private static int[] Lengths(int sequences, int length)
    {
        var lengths = new int[sequences];
        Array.Fill(lengths, length);
        return lengths;
    }
}
