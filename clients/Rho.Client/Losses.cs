using Rho.Formats;

namespace Rho.Client;

/// <summary>The reference behind a scorer.</summary>
/// <param name="Fingerprint">SHA-256 over all that changes a loss.</param>
/// <param name="ContextLength">Tokens.</param>
/// <param name="Description">For people: family, size, dtype and device.</param>
/// <param name="ProbeLosses">Losses of the probe batch, nats: what two scorers of one fingerprint have to agree on.</param>
/// <param name="ChunkTokens">Shards are scored in chunks of max(1, this / length) sequences.</param>
/// <param name="LeaseChunks">And leased to one scorer in segments of so many chunks.</param>
/// <param name="MaxTopK">The largest <see cref="ScorerClientOptions.TopK"/>; 0: neither top-k nor entropies are offered.</param>
public sealed record ReferenceDescription(
    string Fingerprint, string TokenizerFingerprint, int VocabularySize, int ContextLength, string Description,
    IReadOnlyList<LossEncoding> Encodings, IReadOnlyList<float> ProbeLosses, int ChunkTokens, int LeaseChunks, int MaxTopK)
{
    /// <summary>Sequences of a segment: scorers share a shard by such parts.</summary>
    public long SegmentSequences(int length) => Math.Max(1L, ChunkTokens / length) * Math.Max(1, LeaseChunks);
}

/// <summary>Losses of consecutive sequences of a shard.</summary>
/// <param name="Scores">[Sequences * Length] with what <see cref="ScorerClientOptions"/> ask for beside losses.</param>
public sealed record LossBlock(long FirstSequence, int Sequences, int Length, TokenScores Scores)
{
    /// <summary>[Sequences * Length] nats, -ln p(token | earlier ones of its sequence); NaN where there is no loss.</summary>
    public float[] Losses => Scores.Losses;
}

/// <summary>Losses of consecutive sequences of a shard as they were sent and are stored.</summary>
/// <param name="Scores">[Sequences * Length] in the client's encoding, with what else was asked for.</param>
/// <param name="FromCache">Whether the scorer had them in its cache.</param>
public sealed record EncodedLossBlock(long FirstSequence, int Sequences, EncodedScores Scores, bool FromCache);

/// <summary>A sequence to be scored on the fly.</summary>
/// <param name="Id">Comes back with the losses; unique among the sequences that wait for theirs.</param>
/// <param name="Documents">Per token the number of its document in the sequence, not seen by other documents, and -1 for padding; null: one document, no padding.</param>
public sealed record SequenceTokens(ulong Id, int[] Tokens, int[]? Documents = null);

/// <param name="Scores">[length] with what <see cref="ScorerClientOptions"/> ask for beside losses.</param>
public sealed record SequenceLosses(ulong Id, TokenScores Scores)
{
    /// <summary>[length] nats; NaN where there is no loss.</summary>
    public float[] Losses => Scores.Losses;
}

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
