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
    /// losses[i * length + t] = -ln p(tokens[i * length + t] | earlier tokens of sequence i), in nats; NaN at t = 0, at padding, and
    /// at the first token of a document where documents do not see each other.
    /// </summary>
    /// <param name="tokens">[sequences, length]</param>
    /// <param name="documents">Empty where documents see each other and nothing is padded; else per token the number of its document within
    /// its sequence, -1 for padding. [sequences, length]</param>
    /// <param name="losses">[sequences, length], written</param>
    void Score(ReadOnlySpan<int> tokens, int sequences, int length, ReadOnlySpan<int> documents, Span<float> losses, CancellationToken cancellation);
}
