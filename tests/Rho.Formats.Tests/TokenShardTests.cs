using System.Security.Cryptography;
using System.Text;
using Rho.TestSupport;

namespace Rho.Formats.Tests;

public sealed class TokenShardTests : IDisposable
{
    private static readonly int[] Tokens = [.. Enumerable.Range(0, 4 * 10)];
    private static readonly Piece[] Pieces = [new(0, 0, 4, 7), new(0, 4, 6, 8), new(1, 0, 10, 8), new(2, 0, 2, 8), new(2, 2, 1, 9), new(2, 3, 7, 10), new(3, 0, 5, 11)];

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(40, ElementType.U16)]
    [InlineData(65536, ElementType.U16)]
    [InlineData(65537, ElementType.U32)]
    public void Open_WhatWriteWrote_ReadsSameTokensAndPieces(int vocabulary, ElementType type)
    {
        TokenShard.Write(_folder["s"], Tokens, 10, vocabulary, Pieces);
        using var shard = TokenShard.Open(_folder["s"]);
        Assert.Equal((type, 4L, 10), (shard.TokenType, shard.Sequences, shard.Length));
        var tokens = new int[20];
        shard.Read(1, tokens);
        Assert.Equal(Tokens[10..30], tokens);
        Assert.Equal(Pieces, shard.Pieces(0, 4));
        Assert.Equal(Pieces[2..6], shard.Pieces(1, 2));
        Assert.Empty(shard.Pieces(4, 0));
        Assert.Equal(35, shard.CoveredTokens());
        Assert.Equal(39, shard.LargestToken());
    }

    [Fact]
    public void ReadDocuments_NumbersDocumentsPerSequence_MinusOneForPadding()
    {
        TokenShard.Write(_folder["s"], Tokens, 10, 100, Pieces);
        using var shard = TokenShard.Open(_folder["s"]);
        var documents = new int[20];
        shard.ReadDocuments(2, documents);
        Assert.Equal([0, 0, 1, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, -1, -1, -1, -1, -1], documents);
        shard.ReadDocuments(0, documents);
        Assert.Equal([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], documents);
    }

    [Fact]
    public void Sha256_IsOfTypeShapeAndBytes()
    {
        TokenShard.Write(_folder["s"], Tokens, 10, 100, Pieces);
        using var shard = TokenShard.Open(_folder["s"]);
        var bytes = Encoding.ASCII.GetBytes("U16 4 10\n").Concat(Tokens.SelectMany(t => BitConverter.GetBytes((ushort)t))).ToArray();
        Assert.Equal(Convert.ToHexStringLower(SHA256.HashData(bytes)), shard.Sha256);
    }

    [Fact]
    public void DocumentsSha256_DependsOnBordersAndNotOnWhereTheCorpusBegan()
    {
        string Hash(Piece[] pieces)
        {
            var path = _folder[Guid.NewGuid().ToString("N")];
            TokenShard.Write(path, Tokens, 10, 100, pieces);
            using var shard = TokenShard.Open(path);
            return shard.DocumentsSha256;
        }

        Assert.Equal(Hash(Pieces), Hash([.. Pieces.Select(p => p with { Document = p.Document + 1000 })]));
        Assert.NotEqual(Hash(Pieces), Hash([.. Pieces.Select((p, i) => i == 6 ? p with { Length = 6 } : p)]));
    }

    [Fact]
    public void Open_WithoutDocuments_OneDocumentPerSequence()
    {
        using (var writer = SafetensorsWriter.Create(_folder["s"], [("tokens", ElementType.U32, [2, 3])]))
        {
            writer.Write("tokens", 0, new byte[24]);
            writer.Complete();
        }

        using var shard = TokenShard.Open(_folder["s"]);
        Assert.Equal([new Piece(0, 0, 3, 0), new Piece(1, 0, 3, 1)], shard.Pieces(0, 2));
        var documents = new int[6];
        shard.ReadDocuments(0, documents);
        Assert.All(documents, d => Assert.Equal(0, d));
    }

    [Theory]
    [InlineData(ElementType.U8)]
    [InlineData(ElementType.Bool)]
    public void ReadLossMask_ReadsSequences(ElementType type)
    {
        WriteMasked(type, [2, 3]);
        using var shard = TokenShard.Open(_folder["s"]);
        Assert.True(shard.HasLossMask);
        Assert.Equal([0, 1, 1], shard.ReadLossMask(1, 1).ToArray());
        Assert.Equal([1, 0, 1, 0, 1, 1], shard.ReadLossMask(0, 2).ToArray());
    }

    [Theory]
    [InlineData(ElementType.I8, 2, 3)]
    [InlineData(ElementType.U8, 3, 2)]
    [InlineData(ElementType.U8, 6, 1)]
    public void Open_LossMaskOfAnotherTypeOrShape_SaysSo(ElementType type, long rows, long columns)
    {
        WriteMasked(type, [rows, columns]);
        Assert.Contains("loss_mask", Assert.Throws<RhoException>(() => TokenShard.Open(_folder["s"])).Message, StringComparison.Ordinal);
    }

    private void WriteMasked(ElementType type, long[] shape)
    {
        using var writer = SafetensorsWriter.Create(_folder["s"], [("tokens", ElementType.U16, [2, 3]), ("loss_mask", type, shape)]);
        writer.Write("tokens", 0, new byte[12]);
        writer.Write("loss_mask", 0, [1, 0, 1, 0, 1, 1]);
        writer.Complete();
    }

    [Theory]
    [InlineData(0L, 0L, 11L, 0L)]
    [InlineData(0L, -1L, 2L, 0L)]
    [InlineData(0L, 9L, 2L, 0L)]
    [InlineData(0L, 1L, 0L, 0L)]
    [InlineData(4L, 0L, 1L, 0L)]
    [InlineData(0L, long.MaxValue, 1L, 0L)]
    [InlineData(0L, 0L, 1L, -1L)]
    public void Open_PieceOutsideItsSequence_SaysWhichRow(long sequence, long start, long length, long document)
    {
        WriteRaw([[0, 0, 0, 0], [sequence, start, length, document]], firstIsGood: true);
        Assert.Contains($"row 1 of documents, ({sequence}, {start}, {length}, {document})", Assert.Throws<RhoException>(() => TokenShard.Open(_folder["s"])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Open_PiecesOverlapOrOutOfOrder_SaysWhichRow()
    {
        WriteRaw([[1, 0, 5, 0], [1, 4, 2, 1]], firstIsGood: false);
        Assert.Contains("row 1", Assert.Throws<RhoException>(() => TokenShard.Open(_folder["s"])).Message, StringComparison.Ordinal);
        WriteRaw([[1, 0, 5, 0], [0, 4, 2, 1]], firstIsGood: false);
        Assert.Contains("out of order", Assert.Throws<RhoException>(() => TokenShard.Open(_folder["s"])).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(ElementType.I32, 2)]
    [InlineData(ElementType.U16, 1)]
    public void Open_TokensOfAnotherTypeOrShape_SaysSo(ElementType type, int dimensions)
    {
        long[] shape = dimensions == 1 ? [4] : [2, 2];
        using (var writer = SafetensorsWriter.Create(_folder["s"], [("tokens", type, shape)]))
        {
            writer.Write("tokens", 0, new byte[4 * type.Size()]);
            writer.Complete();
        }

        Assert.Contains("U16 or U32 [sequences, length]", Assert.Throws<RhoException>(() => TokenShard.Open(_folder["s"])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Write_TokenOutsideVocabulary_SaysWhich()
        => Assert.Contains("token 39 is not in the vocabulary of 39", Assert.Throws<RhoException>(() => TokenShard.Write(_folder["s"], Tokens, 10, 39, Pieces)).Message, StringComparison.Ordinal);

    [Fact]
    public void CorpusOpenShard_DamagedOrForeignShard_SaysWhatDiffers()
    {
        TokenShard.Write(_folder["a.safetensors"], Tokens, 10, 100, Pieces);
        string sha;
        using (var shard = TokenShard.Open(_folder["a.safetensors"])) sha = shard.Sha256;
        var description = new CorpusDescription
        {
            TokenizerFingerprint = "t",
            VocabularySize = 100,
            SequenceLength = 10,
            DocumentsSeeEachOther = true,
            Sequences = 4,
            Tokens = 35,
            Shards = [new("a.safetensors", 4, sha)],
        };
        Corpus.Save(_folder.Path, description);
        var corpus = Corpus.Open(_folder.Path);
        Assert.Equal(description.Shards, corpus.Shards);
        using (var shard = corpus.OpenShard(0)) Assert.Equal(4, shard.Sequences);

        var bytes = File.ReadAllBytes(_folder["a.safetensors"]);
        bytes[^1] ^= 1;
        File.WriteAllBytes(_folder["a.safetensors"], bytes);
        Assert.Throws<CorruptDataException>(() => corpus.OpenShard(0));

        File.Delete(_folder["a.safetensors"]);
        Assert.Throws<NotFoundException>(() => corpus.OpenShard(0));

        TokenShard.Write(_folder["a.safetensors"], Tokens, 10, 100, Pieces);
        Corpus.Save(_folder.Path, description with { VocabularySize = 30 });
        Assert.Contains("token 39 is not in the vocabulary of 30", Assert.Throws<RhoException>(() => Corpus.Open(_folder.Path).OpenShard(0)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{", "not a valid corpus description")]
    [InlineData("null", "it is null")]
    [InlineData("{}", "tokenizer_fingerprint")]
    [InlineData("""{"format":"other","tokenizer_fingerprint":"t","vocabulary_size":1,"sequence_length":1,"documents_see_each_other":true,"sequences":0,"tokens":0,"shards":[]}""", "format")]
    [InlineData("""{"format":"rho.corpus.v1","tokenizer_fingerprint":"t","vocabulary_size":1,"sequence_length":0,"documents_see_each_other":true,"sequences":0,"tokens":0,"shards":[]}""", "sequence_length is 0")]
    [InlineData("""{"format":"rho.corpus.v1","tokenizer_fingerprint":"t","vocabulary_size":1,"sequence_length":4,"documents_see_each_other":true,"sequences":1,"tokens":0,"shards":[]}""", "sequences is 1")]
    [InlineData("""{"format":"rho.corpus.v1","tokenizer_fingerprint":"t","vocabulary_size":1,"sequence_length":4,"documents_see_each_other":true,"sequences":1,"tokens":0,"shards":[{"file":"../x","sequences":1,"sha256":""}]}""", "without folders")]
    [InlineData("""{"format":"rho.corpus.v1","tokenizer_fingerprint":"t","vocabulary_size":"many","sequence_length":4,"documents_see_each_other":true,"sequences":1,"tokens":0,"shards":[]}""", "vocabulary_size")]
    public void CorpusOpen_BrokenDescription_NamesField(string json, string expected)
    {
        _folder.Write("corpus.json", json);
        Assert.Contains(expected, Assert.Throws<RhoException>(() => Corpus.Open(_folder.Path)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void CorpusOpen_NoCorpus_IsNotFound()
    {
        Assert.Throws<NotFoundException>(() => Corpus.Open(_folder.Path));
        Assert.Throws<NotFoundException>(() => Corpus.Open(_folder["no"]));
    }

    private void WriteRaw(long[][] rows, bool firstIsGood)
    {
        if (firstIsGood) rows[0] = [0, 0, 1, 0];
        using var writer = SafetensorsWriter.Create(_folder["s"], [("tokens", ElementType.U16, [4, 10]), ("documents", ElementType.I64, [rows.Length, 4])]);
        writer.Write("tokens", 0, new byte[80]);
        writer.Write("documents", 0, System.Runtime.InteropServices.MemoryMarshal.AsBytes(rows.SelectMany(r => r).ToArray().AsSpan()));
        writer.Complete();
    }
}
