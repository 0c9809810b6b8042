namespace Rho.Formats.Tests;

public sealed class TokenScoresTests
{
    private static readonly TokenScores Scores = new([float.NaN, 0.5f, 1, 2])
    {
        Entropies = [float.NaN, 1.5f, 0.25f, 3],
        TopIds = [0, 0, 7, 9, 70_000, 1, 2, 3],
        TopLogProbabilities = [float.NaN, float.NaN, -0.5f, -1, -0.25f, -3, -0.125f, -2],
    };

    [Theory]
    [InlineData(LossEncoding.F16)]
    [InlineData(LossEncoding.F32)]
    public void Encode_Decode_GivesTheSameScores(LossEncoding encoding)
    {
        var format = new ScoreFormat(encoding, Entropy: true, TopK: 2);
        var payload = Scores.Encode(format, 0, 4);
        Assert.Equal(4 * format.BytesPerToken, payload.Length);
        Equal(Scores, new EncodedScores(format, payload).Decode());
        // A part is encoded as what it would be alone.
        Assert.Equal(Scores.Slice(1, 2).Encode(format, 0, 2), Scores.Encode(format, 1, 2));
    }

    [Fact]
    public void Encoded_CutAndJoined_IsTheSame()
    {
        var format = new ScoreFormat(LossEncoding.F16, Entropy: true, TopK: 2);
        var whole = new EncodedScores(format, Scores.Encode(format, 0, 4));
        Equal(Scores.Slice(1, 3), whole.Slice(1, 3).Decode());
        Equal(Scores, whole.Slice(0, 1).With(whole.Slice(1, 3)).Decode());
    }

    [Fact]
    public void Encoded_OfNoWholeNumberOfTokens_IsRefused()
    {
        var format = new ScoreFormat(LossEncoding.F16, Entropy: true);
        Assert.Throws<ArgumentException>(() => new EncodedScores(format, new byte[6]));
        Assert.Throws<ArgumentException>(() => new EncodedScores(format, new byte[4], new byte[2], default, default));
        Assert.Throws<ArgumentException>(() => new EncodedScores(format, new byte[4], new byte[4], new byte[4], default));
    }

    [Fact]
    public void CopyTo_RoomForLess_TakesTheLikeliest()
    {
        var room = TokenScores.Room(3, topK: 1);
        Scores.CopyTo(2, 2, room, 1);
        Assert.Equal([0, 1, 2], room.Losses);
        Assert.Equal([0, 70_000, 2], room.TopIds);
        Assert.Equal([0, -0.25f, -0.125f], room.TopLogProbabilities);
    }

    private static void Equal(TokenScores expected, TokenScores actual)
    {
        Assert.Equal(expected.Losses, actual.Losses);
        Assert.Equal(expected.Entropies, actual.Entropies);
        Assert.Equal(expected.TopIds, actual.TopIds);
        Assert.Equal(expected.TopLogProbabilities, actual.TopLogProbabilities);
    }
}
