using Rho.TestSupport;

namespace Rho.Formats.Tests;

public sealed class ScoreFileTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(LossEncoding.F16)]
    [InlineData(LossEncoding.F32)]
    [InlineData(LossEncoding.Log8)]
    public void Open_WhatWasWrittenOutOfOrder_ReadsTheSame(LossEncoding encoding)
    {
        float[] losses = [float.NaN, 0, 1, 2, float.NaN, 0.5f, 3, float.NaN];
        using (var writer = ScoreFile.Create(_folder["s"], "ref", "abc", encoding, 2, 4, new Dictionary<string, string> { ["more"] = "yes" }))
        {
            writer.Write(1, losses.AsSpan(4));
            writer.Write(0, losses.AsSpan(0, 4));
            writer.Complete();
        }

        using var file = ScoreFile.Open(_folder["s"]);
        Assert.Equal(("ref", "abc", encoding, 2L, 4), (file.ReferenceFingerprint, file.ShardSha256, file.Encoding, file.Sequences, file.Length));
        Assert.Equal("yes", file.Metadata["more"]);
        var read = new float[8];
        file.Read(0, read);
        var expected = new float[8];
        var bytes = new byte[8 * LossCodec.BytesPerLoss(encoding)];
        LossCodec.Encode(losses, encoding, bytes);
        LossCodec.Decode(bytes, encoding, expected);
        Assert.Equal(expected, read);
        Assert.True(float.IsNaN(read[0]) && float.IsNaN(read[7]));
        Assert.Equal(bytes[(bytes.Length / 2)..], file.Bytes(1, 1).ToArray());
        Assert.Throws<ArgumentOutOfRangeException>(() => file.Read(1, new float[8]));
    }

    [Fact]
    public void Open_ScoresWithoutMetadataOrOfOtherType_SaysWhatIsMissing()
    {
        void Write(ElementType type, Dictionary<string, string> metadata)
        {
            using var writer = SafetensorsWriter.Create(_folder["s"], [("loss", type, [1, 2])], metadata);
            writer.Write("loss", 0, new byte[2 * type.Size()]);
            writer.Complete();
        }

        Write(ElementType.F32, []);
        Assert.Contains("\"encoding\"", Assert.Throws<RhoException>(() => ScoreFile.Open(_folder["s"])).Message, StringComparison.Ordinal);
        Write(ElementType.F32, new() { ["encoding"] = "log8" });
        Assert.Contains("is to be U8", Assert.Throws<RhoException>(() => ScoreFile.Open(_folder["s"])).Message, StringComparison.Ordinal);
        Write(ElementType.F32, new() { ["encoding"] = "f32", ["reference"] = "r" });
        Assert.Contains("\"shard_sha256\"", Assert.Throws<RhoException>(() => ScoreFile.Open(_folder["s"])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Open_FileThatSaysMoreThanLosses_ReadsIt()
    {
        float[] entropies = [float.NaN, 0.5f, 1.25f, 2], probabilities = [float.NaN, float.NaN, -0.5f, -1, -0.25f, -3, -0.125f, -2];
        int[] ids = [0, 0, 7, 9, 70_000, 1, 2, 3];
        var scores = new TokenScores([float.NaN, 0.5f, 1, 2]) { Entropies = entropies, TopIds = ids, TopLogProbabilities = probabilities };
        using (var writer = ScoreFile.Create(_folder["s"], "ref", "abc", LossEncoding.F16, 2, 2, entropies: true, topK: 2))
        {
            writer.Write(1, scores.Slice(2, 2));
            writer.Write(0, scores.Slice(0, 2));
            writer.Complete();
        }

        using var file = ScoreFile.Open(_folder["s"]);
        Assert.Equal((true, 2), (file.HasEntropies, file.TopK));
        var read = file.Read(0, 2, entropies: true, topK: 2);
        Assert.Equal(scores.Losses, read.Losses);
        Assert.Equal(entropies, read.Entropies);
        Assert.Equal(ids, read.TopIds);
        Assert.Equal(probabilities, read.TopLogProbabilities);
        var fewer = file.Read(1, 1, entropies: false, topK: 1);
        Assert.Equal([1f, 2], fewer.Losses);
        Assert.Empty(fewer.Entropies);
        Assert.Equal([70_000, 2], fewer.TopIds);
        Assert.Equal([-0.25f, -0.125f], fewer.TopLogProbabilities);
    }

    [Fact]
    public void Open_TensorsBesideTheLossOfAnotherShape_AreRefused()
    {
        void Write(params (string Name, ElementType Type, long[] Shape)[] extras)
        {
            using var writer = SafetensorsWriter.Create(
                _folder["s"], [("loss", ElementType.F32, [1, 2]), .. extras], new Dictionary<string, string> { ["encoding"] = "f32", ["reference"] = "r", ["shard_sha256"] = "s" });
            writer.Write("loss", 0, new byte[8]);
            foreach (var (name, type, shape) in extras) writer.Write(name, 0, new byte[shape.Aggregate(1L, (a, b) => a * b) * type.Size()]);
            writer.Complete();
        }

        string Error() => Assert.Throws<RhoException>(() => ScoreFile.Open(_folder["s"])).Message;
        Write(("entropy", ElementType.F32, [1, 2]));
        Assert.Contains("is to be F16 of the shape of", Error(), StringComparison.Ordinal);
        Write(("entropy", ElementType.F16, [2, 1]));
        Assert.Contains("is to be F16 of the shape of", Error(), StringComparison.Ordinal);
        Write(("top_ids", ElementType.U32, [1, 2, 3]), ("top_log_probabilities", ElementType.F16, [1, 2, 2]));
        Assert.Contains("[sequences, length, k]", Error(), StringComparison.Ordinal);
        Write(("top_ids", ElementType.U32, [1, 2, 3]));
        Assert.Contains("top_log_probabilities", Assert.ThrowsAny<RhoException>(() => ScoreFile.Open(_folder["s"])).Message, StringComparison.Ordinal);
    }
}
