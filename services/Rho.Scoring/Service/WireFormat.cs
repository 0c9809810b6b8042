using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Google.Protobuf;
using Rho.Formats;
using Rho.Scoring.Sequences;
using Rho.Scoring.Shards;
using Wire = Rho.Protocol.Scoring.V1;

namespace Rho.Scoring.Service;

/// <summary>Between the messages of scoring.proto and the service's own types; every value from the wire is checked here or in the domain.</summary>
internal static class WireFormat
{
    /// <summary>Payload bytes of a message: under 85,000 with all around it, so that none lands on the large-object heap.</summary>
    public const int MessageBytes = 80_000;

    public static ShardRequest ToDomain(this Wire.Shard? shard, string client, long firstSequence, long endSequence, ScoreFormat format)
    {
        if (shard is null) throw new RhoException("the shard's identity is missing: field `shard`");
        return new ShardRequest
        {
            Client = client,
            Sha256 = shard.Sha256,
            LayoutSha256 = shard.LayoutSha256,
            BytesPerId = shard.TokenType switch
            {
                Wire.TokenType.U16 => sizeof(ushort),
                Wire.TokenType.U32 => sizeof(uint),
                var other => throw new RhoException($"shard.token_type {(int)other} is not known; known are U16 (1), U32 (2)"),
            },
            Grid = new ChunkGrid(shard.Sequences, shard.Length),
            FirstSequence = firstSequence,
            EndSequence = endSequence == 0 ? shard.Sequences : endSequence,
            Format = format,
        };
    }

    public static Wire.SendTokens ToMessage(this IReadOnlyList<SequenceRange> wanted) =>
        new() { Ranges = { wanted.Select(range => new Wire.SequenceRange { FirstSequence = range.First, EndSequence = range.End }) } };

    public static TokenBlock ToDomain(this Wire.TokenBlock block) => new(block.FirstToken, block.Tokens.Memory, block.Layout.Memory);

    public static SequenceRequest ToDomain(this Wire.Sequence sequence, Wire.TokenType type)
    {
        var bytes = sequence.Tokens.Span;
        var width = type == Wire.TokenType.U16 ? sizeof(ushort) : sizeof(uint);
        if (bytes.Length % width != 0) throw new RhoException($"sequence {sequence.Id} has {bytes.Length} token bytes; expected a multiple of {width}");
        var tokens = new int[bytes.Length / width];
        if (width == sizeof(uint)) MemoryMarshal.Cast<byte, int>(bytes).CopyTo(tokens);
        else
            for (var i = 0; i < tokens.Length; i++)
                tokens[i] = BinaryPrimitives.ReadUInt16LittleEndian(bytes[(i * width)..]);
        return new SequenceRequest(sequence.Id, tokens, sequence.Layout.Memory);
    }

    /// <summary>
    /// Parts of some scores that fit a message each, with their first token and their number of tokens: whole sequences, or a part of one where it alone is
    /// too large.
    /// </summary>
    /// <param name="length">Tokens of a sequence; the scores begin with one.</param>
    public static IEnumerable<(int First, int Count, Wire.Scores Message)> ToMessages(this EncodedScores scores, int length)
    {
        var most = Math.Max(1, MessageBytes / scores.Format.BytesPerToken);
        for (int first = 0, count; first < scores.Tokens; first += count)
        {
            var left = length - first % length;
            count = Math.Min(scores.Tokens - first, left <= most ? left + (most - left) / length * length : most);
            var part = scores.Slice(first, count);
            var message = new Wire.Scores
            {
                Losses = Wrap(part.Losses),
                Entropies = Wrap(part.Entropies),
                TopIds = Wrap(part.TopIds),
                TopLogProbabilities = Wrap(part.TopLogProbabilities),
            };
            yield return (first, count, message);
        }
    }

    // Payloads are written once and never changed: the message may point to them.
    private static ByteString Wrap(ReadOnlyMemory<byte> bytes) => UnsafeByteOperations.UnsafeWrap(bytes);
}
