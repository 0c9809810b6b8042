using System.Security.Cryptography;
using System.Text;
using Rho.Formats;

namespace Rho.Scoring;

/// <summary>
/// How a shard is cut for scoring and caching. The grid depends on the shard's shape alone, and a chunk is always scored as
/// one batch, so its losses do not depend on the range asked for, on what else is scored or on interruptions.
/// </summary>
public readonly record struct ChunkGrid(long Sequences, int Length)
{
    /// <summary>Tokens a chunk aims at: enough to fill a batch, little enough that a chunk lost costs little.</summary>
    public const int ChunkTokens = 16_384;

    /// <summary>Chunks that are leased together: replicas may share a shard by such segments.</summary>
    public const int SegmentChunks = 32;

    public int ChunkSequences => Math.Max(1, ChunkTokens / Length);

    public int Chunks => checked((int)((Sequences + ChunkSequences - 1) / ChunkSequences));

    public int ChunkOf(long sequence) => checked((int)(sequence / ChunkSequences));

    public int Segments => (Chunks + SegmentChunks - 1) / SegmentChunks;

    public static int SegmentOf(int chunk) => chunk / SegmentChunks;

    public long FirstSequence(int chunk) => (long)chunk * ChunkSequences;

    public long FirstToken(int chunk) => FirstSequence(chunk) * Length;

    public int SequencesIn(int chunk) => (int)Math.Min(ChunkSequences, Sequences - FirstSequence(chunk));

    public int TokensIn(int chunk) => SequencesIn(chunk) * Length;

    public long Tokens => Sequences * Length;
}

/// <summary>The address of a shard's scores: who scores, what is scored, how it is written.</summary>
/// <param name="Reference">Fingerprint of the reference, lower-case hex.</param>
/// <param name="Shard">SHA-256 of the shard's tokens, lower-case hex.</param>
/// <param name="Layout">SHA-256 of the shard's layout bytes, or empty for one piece per sequence without padding.</param>
public sealed record ScoreKey(string Reference, string Shard, string Layout, ScoreFormat Format, ChunkGrid Grid)
{
    public int PayloadBytes(int chunk) => Grid.TokensIn(chunk) * Format.BytesPerToken;

    /// <summary>The key without its reference, short enough for a file name: the shard's hash, 16 digits of the layout's, the format.</summary>
    public string Name => $"{Shard}-{(Layout.Length == 0 ? "plain" : Layout[..16])}-{Format}";

    /// <summary>
    /// Checksum of a chunk's payload: the first 8 bytes of a SHA-256 over the whole address, the chunk's number and the
    /// payload. A damaged, truncated or misplaced value does not have it.
    /// </summary>
    public ulong Checksum(int chunk, ReadOnlySpan<byte> payload)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(Encoding.UTF8.GetBytes($"{Reference}:{Shard}:{Layout}:{Format}:{Grid.Sequences}x{Grid.Length}:{chunk}:"));
        hash.AppendData(payload);
        Span<byte> digest = stackalloc byte[SHA256.HashSizeInBytes];
        hash.GetHashAndReset(digest);
        return System.Buffers.Binary.BinaryPrimitives.ReadUInt64LittleEndian(digest);
    }
}
