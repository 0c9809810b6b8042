using Rho.Client;
using Rho.Formats;

namespace Rho.Training;

/// <summary>What a reference says of itself. Tokenizer fingerprint, vocabulary and context are null where the source cannot know them.</summary>
internal sealed record ReferenceIdentity(string Fingerprint, string? TokenizerFingerprint, int? VocabularySize, int? ContextLength, string Description);

/// <summary>Where reference losses come from.</summary>
internal interface IReferenceSource : IAsyncDisposable
{
    /// <summary>Whether blocks have entropies.</summary>
    bool GivesEntropies => false;

    /// <summary>How many of the most likely tokens blocks have; 0 for none.</summary>
    int TopK => 0;

    /// <exception cref="RhoException">The source cannot be reached or is no reference.</exception>
    Task<ReferenceIdentity> IdentifyAsync(CancellationToken cancellation);

    /// <summary>Losses of a shard in the order of its sequences, from <paramref name="firstSequence"/> to its end.</summary>
    IAsyncEnumerable<LossBlock> ReadAsync(TokenShard shard, bool documentsSeeEachOther, long firstSequence, CancellationToken cancellation);
}
