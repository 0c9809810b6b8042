using System.Runtime.InteropServices;
using Rho.Formats;

namespace Rho.Scoring.Shards;

/// <summary>A client's wish for the losses of a shard.</summary>
public sealed record ShardRequest
{
    /// <summary>Who asks; the queue is fair between clients.</summary>
    public required string Client { get; init; }

    /// <summary>SHA-256 of the shard's tokens, see Rho.Formats.TokenShard.Sha256.</summary>
    public required string Sha256 { get; init; }

    /// <summary>SHA-256 of the shard's layout bytes; empty where all of them are 0.</summary>
    public required string LayoutSha256 { get; init; }

    /// <summary>2 or 4.</summary>
    public required int BytesPerId { get; init; }

    public required ChunkGrid Grid { get; init; }

    /// <summary>The first sequence wanted.</summary>
    public long FirstSequence { get; init; }

    /// <summary>The first sequence not wanted any more.</summary>
    public required long EndSequence { get; init; }

    public required ScoreFormat Format { get; init; }

    /// <summary>Whether the client can be asked for ranges of tokens, and more than once.</summary>
    public bool TakesRanges { get; init; }

    internal ShardContent Content => new(Sha256, LayoutSha256, BytesPerId, Grid);

    /// <exception cref="RhoException">The request can never be met; the message names the value.</exception>
    public void Validate(int maxSequenceLength, long maxShardTokens)
    {
        if (!IsHash(Sha256)) throw new RhoException($"shard.sha256 '{Sha256}' is not 64 lower-case hexadecimal digits");
        if (LayoutSha256.Length > 0 && !IsHash(LayoutSha256)) throw new RhoException($"shard.layout_sha256 '{LayoutSha256}' is not 64 lower-case hexadecimal digits");
        if (Grid.Length < 1) throw new RhoException($"shard.length is {Grid.Length}; expected at least 1");
        if (Grid.Length > maxSequenceLength) throw new RhoException($"shard.length is {Grid.Length} tokens; this scorer takes sequences of at most {maxSequenceLength}");
        if (Grid.Sequences < 0) throw new RhoException($"shard.sequences is {Grid.Sequences}; expected at least 0");
        if (Grid.Sequences > maxShardTokens / Grid.Length)
            throw new RhoException($"the shard has {Grid.Sequences} sequences of {Grid.Length} tokens; this scorer takes shards of at most {maxShardTokens} tokens");
        if (FirstSequence < 0 || FirstSequence > Grid.Sequences) throw new RhoException($"first_sequence is {FirstSequence}; the shard has {Grid.Sequences} sequences");
        if (EndSequence < FirstSequence || EndSequence > Grid.Sequences)
            throw new RhoException($"end_sequence is {EndSequence}; expected {FirstSequence} (first_sequence) to {Grid.Sequences} (the shard's sequences)");
    }

    private static bool IsHash(string text) => text.Length == 64 && !text.AsSpan().ContainsAnyExcept("0123456789abcdef");
}

/// <summary>What a shard's stream has for its client: scores in order, or the wish for the shard's tokens.</summary>
/// <param name="Wanted">
/// Losses are not cached and this stream is to score them: the tokens of these ranges, please, or where there are none all of the
/// shard's. Null in an event that has scores. Comes at most once where the client does not take ranges.
/// </param>
/// <param name="FirstToken">Where the scores begin in the shard.</param>
[StructLayout(LayoutKind.Auto)]
public readonly record struct ShardEvent(IReadOnlyList<SequenceRange>? Wanted, long FirstToken, EncodedScores Scores, bool FromCache)
{
    public bool NeedsTokens => Wanted is not null;

    public static ShardEvent TokensPlease(IReadOnlyList<SequenceRange> wanted) => new(wanted, 0, default, FromCache: false);
}

/// <summary>Consecutive sequences of a shard.</summary>
/// <param name="End">The first that is not in the range.</param>
[StructLayout(LayoutKind.Auto)]
public readonly record struct SequenceRange(long First, long End);

/// <summary>The client's tokens once they were asked for; null where the client ended its stream.</summary>
public delegate Task<TokenBlock?> TokenSource(CancellationToken cancellation);
