using Rho.Data;

namespace Rho.Client;

/// <summary>The reference behind a scorer.</summary>
/// <param name="Fingerprint">SHA-256 over all that changes a loss.</param>
/// <param name="ContextLength">Tokens.</param>
/// <param name="Description">For people: family, size, dtype and device.</param>
/// <param name="ProbeLosses">Losses of the probe batch, nats: what two scorers of one fingerprint have to agree on.</param>
public sealed record ReferenceDescription(
    string Fingerprint, string TokenizerFingerprint, int VocabularySize, int ContextLength, string Description,
    IReadOnlyList<LossEncoding> Encodings, IReadOnlyList<float> ProbeLosses);

/// <summary>Losses of consecutive sequences of a shard.</summary>
/// <param name="Losses">[Sequences * Length] nats, -ln p(token | earlier ones of its sequence); NaN where there is no loss.</param>
public sealed record LossBlock(long FirstSequence, int Sequences, int Length, float[] Losses);

/// <summary>Losses as they were sent and are stored.</summary>
/// <param name="Losses">[Sequences * Length] in the client's encoding.</param>
/// <param name="FromCache">Whether the scorer had them in its cache.</param>
public sealed record EncodedLossBlock(long FirstSequence, int Sequences, ReadOnlyMemory<byte> Losses, bool FromCache);

/// <summary>A sequence to be scored on the fly.</summary>
/// <param name="Id">Comes back with the losses; unique among the sequences that wait for theirs.</param>
/// <param name="Documents">Per token the number of its document in the sequence, not seen by other documents, and -1 for padding; null: one document, no padding.</param>
public sealed record SequenceTokens(ulong Id, int[] Tokens, int[]? Documents = null);

/// <param name="Losses">[length] nats; NaN where there is no loss.</param>
public sealed record SequenceLosses(ulong Id, float[] Losses);

/// <summary>A scorer's limits and load at a moment.</summary>
public sealed record ScorerInfo(
    string Address, string Version, long QueuedTokens, int Streams, double TokensPerSecond, TimeSpan ExpectedWait,
    int MaxSequenceLength, long MaxShardTokens, long MaxQueuedTokens, int MaxStreams, string Cache, bool CacheAvailable, bool Draining);

public enum ShardState
{
    Cached,
    InWork,
    Missing,
}

/// <summary>How much of a shard the scorers have cached.</summary>
public sealed record ShardCoverage(ShardState State, long CachedSequences, long Sequences, TimeSpan TimeLeft);
