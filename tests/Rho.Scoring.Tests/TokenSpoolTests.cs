using System.Runtime.InteropServices;
using Rho.Formats;
using Rho.Scoring.Shards;
using Rho.TestSupport;

namespace Rho.Scoring.Tests;

public sealed class TokenSpoolTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Read_AfterAllBlocks_GivesTokensAndDocuments()
    {
        using var shard = TestScoring.Shard(_folder["s"], 20, 1000, withDocuments: true);
        var request = Requests.Of(shard, documentsSeeEachOther: false);
        using var spool = new TokenSpool(_folder.Path, request, 1000);
        foreach (var block in Requests.Blocks(shard, documentsSeeEachOther: false, tokensAtOnce: 777)) spool.Append(block);
        spool.Verify();

        var expected = new int[20_000];
        var tokens = new int[16_000];
        shard.Read(0, expected);
        var documents = new int[16_000];
        spool.Read(0, tokens, documents);
        Assert.Equal(expected[..16_000], tokens);
        shard.ReadDocuments(0, expected.AsSpan(0, 16_000));
        Assert.Equal(expected[..16_000], documents);
        Assert.Empty(Directory.GetFiles(_folder.Path, "rho-tokens*"));
    }

    [Fact]
    public void Verify_ChangedToken_IsDataLoss()
    {
        using var shard = TestScoring.Shard(_folder["s"], 4, 100);
        using var spool = new TokenSpool(_folder.Path, Requests.Of(shard), 1000);
        foreach (var block in Requests.Blocks(shard))
        {
            var bytes = block.Tokens.ToArray();
            bytes[0] ^= 1;
            spool.Append(block with { Tokens = bytes });
        }

        var error = Assert.Throws<CorruptDataException>(spool.Verify);
        Assert.Contains(shard.Sha256, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Verify_OtherLayout_IsDataLoss()
    {
        using var shard = TestScoring.Shard(_folder["s"], 4, 100, withDocuments: true);
        using var spool = new TokenSpool(_folder.Path, Requests.Of(shard, documentsSeeEachOther: false), 1000);
        foreach (var block in Requests.Blocks(shard, documentsSeeEachOther: true)) spool.Append(block);
        Assert.Throws<CorruptDataException>(spool.Verify);
    }

    [Theory]
    [InlineData(2, 1000)]
    [InlineData(4, 70_000)]
    public void Append_IdOutsideTheVocabulary_NamesSequenceAndPosition(int width, int id)
    {
        var request = new ShardRequest { Client = "", Sha256 = new string('0', 64), LayoutSha256 = "", BytesPerId = width, Grid = new ChunkGrid(10, 50), EndSequence = 10, Format = new ScoreFormat(LossEncoding.F16) };
        using var spool = new TokenSpool(_folder.Path, request, 1000);
        spool.Append(new TokenBlock(0, new byte[100 * width], default));
        var bytes = new byte[100 * width];
        MemoryMarshal.Write(bytes.AsSpan(57 * width), width == 2 ? (ushort)id : id);

        var error = Assert.Throws<RhoException>(() => spool.Append(new TokenBlock(100, bytes, default)));
        Assert.Contains($"token id {id} in sequence 3 at position 7", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Append_BlocksThatDoNotFit_AreRefused()
    {
        var request = new ShardRequest { Client = "", Sha256 = new string('0', 64), LayoutSha256 = "", BytesPerId = 2, Grid = new ChunkGrid(2, 10), EndSequence = 2, Format = new ScoreFormat(LossEncoding.F16) };
        using var spool = new TokenSpool(_folder.Path, request, 1000);
        void Refused(long first, int bytes, byte[]? layout, string reason) =>
            Assert.Contains(reason, Assert.Throws<RhoException>(() => spool.Append(new TokenBlock(first, new byte[bytes], layout))).Message, StringComparison.Ordinal);
        Refused(1, 2, null, "expected 0");
        Refused(0, 3, null, "multiple of 2");
        Refused(0, 0, null, "multiple of 2");
        Refused(0, 42, null, "past the shard's end");
        Refused(0, 4, [0], "layout bytes");
        Refused(0, 4, [0, 3], "in sequence 0 at position 1");
        Refused(0, 4, [1, 0], "in sequence 0 at position 0");
        spool.Append(new TokenBlock(0, new byte[16], default));
        Refused(8, 8, [0, 0, 1, 0], "in sequence 1 at position 0");
    }
}

internal static class Requests
{
    public static ShardRequest Of(TokenShard shard, bool documentsSeeEachOther = true, long first = 0, long end = -1, string client = "test", LossEncoding encoding = LossEncoding.F16) => new()
    {
        Client = client,
        Sha256 = shard.Sha256,
        LayoutSha256 = LayoutSha(shard, documentsSeeEachOther),
        BytesPerId = shard.TokenType == ElementType.U16 ? 2 : 4,
        Grid = new ChunkGrid(shard.Sequences, shard.Length),
        FirstSequence = first,
        EndSequence = end < 0 ? shard.Sequences : end,
        Format = new ScoreFormat(encoding),
    };

    public static IEnumerable<TokenBlock> Blocks(TokenShard shard, bool documentsSeeEachOther = true, int tokensAtOnce = 5000)
    {
        var tokens = shard.TokenBytes(0, (int)shard.Sequences).ToArray();
        var layout = Layout(shard, documentsSeeEachOther);
        var width = shard.TokenType == ElementType.U16 ? 2 : 4;
        for (var first = 0; first < layout.Length; first += tokensAtOnce)
        {
            var count = Math.Min(tokensAtOnce, layout.Length - first);
            var part = layout.AsSpan(first, count).ToArray();
            yield return new TokenBlock(first, tokens.AsMemory(first * width, count * width), Array.TrueForAll(part, b => b == 0) ? default : part);
        }
    }

    public static TokenSource Source(TokenShard shard, bool documentsSeeEachOther = true)
    {
        var blocks = Blocks(shard, documentsSeeEachOther).GetEnumerator();
        return _ => Task.FromResult<TokenBlock?>(blocks.MoveNext() ? blocks.Current : null);
    }

    private static byte[] Layout(TokenShard shard, bool documentsSeeEachOther)
    {
        var documents = new int[shard.Sequences * shard.Length];
        shard.ReadDocuments(0, documents);
        var layout = new byte[documents.Length];
        for (var i = 0; i < layout.Length; i++)
        {
            layout[i] = documents[i] < 0 ? TokenLayout.Padding
                : !documentsSeeEachOther && i % shard.Length > 0 && documents[i] != documents[i - 1] ? TokenLayout.BeginsDocument
                : TokenLayout.GoesOn;
        }

        return layout;
    }

    private static string LayoutSha(TokenShard shard, bool documentsSeeEachOther)
    {
        var layout = Layout(shard, documentsSeeEachOther);
        return Array.TrueForAll(layout, b => b == 0) ? "" : Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(layout));
    }
}
