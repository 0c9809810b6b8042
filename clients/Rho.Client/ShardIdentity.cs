using System.Buffers;
using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using Rho.Formats;
using Rho.Protocol.Scoring.V1;

namespace Rho.Client;

/// <summary>A shard as the scorer knows it: by its hash, and by the hash of its layout where it has one.</summary>
internal sealed class ShardIdentity
{
    private const byte GoesOn = 0, BeginsDocument = 1, Padding = 2;
    private const int TokensAtOnce = 1 << 16;
    private static readonly ConditionalWeakTable<TokenShard, ShardIdentity>[] Known = [[], []];

    private readonly bool _documentsSeeEachOther;

    private ShardIdentity(TokenShard shard, bool documentsSeeEachOther)
    {
        _documentsSeeEachOther = documentsSeeEachOther;
        var layout = LayoutSha256(shard);
        HasLayout = layout.Length > 0;
        Message = new Shard
        {
            Sha256 = shard.Sha256,
            TokenType = shard.TokenType == ElementType.U16 ? TokenType.U16 : TokenType.U32,
            Sequences = shard.Sequences,
            Length = shard.Length,
            LayoutSha256 = layout,
        };
    }

    public Shard Message { get; }

    public bool HasLayout { get; }

    /// <summary>The identity of a shard; the layout's hash is computed once per open shard.</summary>
    public static ShardIdentity Of(TokenShard shard, bool documentsSeeEachOther) =>
        Known[documentsSeeEachOther ? 1 : 0].GetValue(shard, s => new ShardIdentity(s, documentsSeeEachOther));

    /// <summary>Layout bytes as scoring.proto defines them, of whole sequences.</summary>
    public void ReadLayout(TokenShard shard, long firstSequence, Span<byte> layout)
    {
        var documents = ArrayPool<int>.Shared.Rent(layout.Length);
        try
        {
            var numbers = documents.AsSpan(0, layout.Length);
            shard.ReadDocuments(firstSequence, numbers);
            for (var start = 0; start < layout.Length; start += shard.Length)
                ToLayout(numbers.Slice(start, shard.Length), _documentsSeeEachOther, layout.Slice(start, shard.Length));
        }
        finally
        {
            ArrayPool<int>.Shared.Return(documents);
        }
    }

    /// <summary>The layout bytes of one sequence from the numbers of its tokens' documents.</summary>
    public static void ToLayout(ReadOnlySpan<int> documents, bool documentsSeeEachOther, Span<byte> layout)
    {
        var last = -1;
        for (var t = 0; t < documents.Length; t++)
        {
            var document = documents[t];
            layout[t] = document < 0 ? Padding : last >= 0 && document != last && !documentsSeeEachOther ? BeginsDocument : GoesOn;
            if (document >= 0) last = document;
        }
    }

    private string LayoutSha256(TokenShard shard)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var any = false;
        var sequences = Math.Max(1, TokensAtOnce / shard.Length);
        var layout = new byte[sequences * shard.Length];
        for (long first = 0; first < shard.Sequences; first += sequences)
        {
            var part = layout.AsSpan(0, (int)Math.Min(sequences, shard.Sequences - first) * shard.Length);
            ReadLayout(shard, first, part);
            any |= part.IndexOfAnyExcept(GoesOn) >= 0;
            hash.AppendData(part);
        }

        return any ? Convert.ToHexStringLower(hash.GetHashAndReset()) : "";
    }
}
