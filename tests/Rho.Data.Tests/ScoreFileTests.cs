namespace Rho.Data.Tests;

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
        using (var writer = ScoreFile.Create(_folder.File("s"), "ref", "abc", encoding, 2, 4, new Dictionary<string, string> { ["more"] = "yes" }))
        {
            writer.Write(1, losses.AsSpan(4));
            writer.Write(0, losses.AsSpan(0, 4));
            writer.Complete();
        }

        using var file = ScoreFile.Open(_folder.File("s"));
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
            using var writer = SafetensorsWriter.Create(_folder.File("s"), [("loss", type, [1, 2])], metadata);
            writer.Write("loss", 0, new byte[2 * type.Size()]);
            writer.Complete();
        }

        Write(ElementType.F32, []);
        Assert.Contains("\"encoding\"", Assert.Throws<RhoException>(() => ScoreFile.Open(_folder.File("s"))).Message, StringComparison.Ordinal);
        Write(ElementType.F32, new() { ["encoding"] = "log8" });
        Assert.Contains("is to be U8", Assert.Throws<RhoException>(() => ScoreFile.Open(_folder.File("s"))).Message, StringComparison.Ordinal);
        Write(ElementType.F32, new() { ["encoding"] = "f32", ["reference"] = "r" });
        Assert.Contains("\"shard_sha256\"", Assert.Throws<RhoException>(() => ScoreFile.Open(_folder.File("s"))).Message, StringComparison.Ordinal);
    }
}
