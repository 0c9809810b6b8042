using Rho.Formats;

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

    /// <summary>The largest number of most likely tokens that can be asked for; 0: neither these nor entropies are given.</summary>
    int MaxTopK { get; }

    /// <summary>
    /// Losses of sequences of any lengths that lie one after another, none padded: for the token at position t of a sequence
    /// -ln p(token | earlier tokens of the sequence), in nats; NaN at t = 0, at padding, and at the first token of a document where
    /// documents do not see each other. The same batch gives the same bytes; in another batch a sequence's losses may be rounded otherwise.
    /// </summary>
    /// <param name="tokens">[tokens]</param>
    /// <param name="lengths">tokens of each sequence; they add up to all. [sequences]</param>
    /// <param name="documents">Empty where documents see each other and nothing is padded; else per token the number of its document within
    /// its sequence, -1 for padding. [tokens]</param>
    /// <param name="scores">[tokens], written: the losses and, of the distributions that they are taken from, what there is room for</param>
    void Score(ReadOnlySpan<int> tokens, ReadOnlySpan<int> lengths, ReadOnlySpan<int> documents, TokenScores scores, CancellationToken cancellation);
}

public static class ReferenceModels
{
    /// <summary>Scores of sequences of one length; as in <see cref="IReferenceModel"/>, tokens, documents and scores [sequences, length].</summary>
    public static void Score(
        this IReferenceModel model, ReadOnlySpan<int> tokens, int sequences, int length, ReadOnlySpan<int> documents, TokenScores scores, CancellationToken cancellation)
    {
        var lengths = new int[sequences];
        Array.Fill(lengths, length);
        model.Score(tokens, lengths, documents, scores, cancellation);
    }

    /// <summary>Losses alone, of sequences of one length.</summary>
    /// <param name="losses">[sequences, length], written</param>
    public static void Score(
        this IReferenceModel model, ReadOnlySpan<int> tokens, int sequences, int length, ReadOnlySpan<int> documents, Span<float> losses, CancellationToken cancellation)
    {
        var scores = TokenScores.Room(losses.Length);
        model.Score(tokens, sequences, length, documents, scores, cancellation);
        scores.Losses.CopyTo(losses);
    }
}
