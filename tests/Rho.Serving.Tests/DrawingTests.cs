using Rho.Serving.Constraints;
using Rho.Serving.Engine;

namespace Rho.Serving.Tests;

public sealed class DrawingTests
{
    private static readonly float[] s_logits = [1, 3, 2, -1];

    [Fact]
    public void Draw_Greedy_TakesTheLargestLogitAfterBiasAndBan()
    {
        Assert.Equal(1, Draw(new SamplingSettings { Temperature = 0 }));
        Assert.Equal(3, Draw(new SamplingSettings { Temperature = 0, LogitBias = new Dictionary<int, float> { [3] = 5 } }));
        Assert.Equal(2, Draw(new SamplingSettings { Temperature = 0 }, banned: [1]));
    }

    [Fact]
    public void Draw_Penalties_CountWhatCameBefore()
    {
        // Presence takes 1.5 off once: token 1 has 1.5 after the first draw, less than token 2, which has 0.5 after the second.
        Assert.Equal([1, 2, 1], Drawn(new SamplingSettings { Temperature = 0, PresencePenalty = 1.5f }, 3));
        // Frequency takes 0.6 off each time: token 1 has 3, 2.4 and 1.8, and then token 2 has more.
        Assert.Equal([1, 1, 2], Drawn(new SamplingSettings { Temperature = 0, FrequencyPenalty = 0.6f }, 3));
        // Repetition divides positive logits of the prompt's tokens too: token 1 has 3 / 2.
        var sampler = new Sampler(new SamplingSettings { Temperature = 0, RepetitionPenalty = 2 }, [1], 7, 0);
        Assert.Equal(2, sampler.Draw([.. s_logits], [], []).Token);
    }

    [Theory]
    [InlineData(2, 1, 0, new[] { 1, 2 })]
    [InlineData(0, 0.6f, 0, new[] { 1 })]
    [InlineData(0, 0.7f, 0, new[] { 1, 2 })]
    [InlineData(0, 1, 0.3f, new[] { 1, 2 })]
    [InlineData(0, 1, 0.1f, new[] { 0, 1, 2 })]
    [InlineData(0, 1, 0, new[] { 0, 1, 2, 3 })]
    public void Draw_Cuts_KeepTheLikeliest_InTheirProportions(int topK, float topP, float minP, int[] kept)
    {
        // softmax of 1, 3, 2, -1: 0.089, 0.657, 0.242, 0.012.
        const int Draws = 4000;
        var settings = new SamplingSettings { TopK = topK, TopP = topP, MinP = minP };
        var sampler = new Sampler(settings, [], 11, 0);
        var counts = new int[s_logits.Length];
        for (var i = 0; i < Draws; i++) counts[sampler.Draw([.. s_logits], [], []).Token]++;
        var total = kept.Sum(token => Math.Exp(s_logits[token]));
        for (var token = 0; token < counts.Length; token++)
        {
            var p = kept.Contains(token) ? Math.Exp(s_logits[token]) / total : 0;
            var deviation = 5 * Math.Sqrt(Draws * p * (1 - p));
            Assert.InRange(counts[token], (Draws * p) - deviation, (Draws * p) + deviation);
        }
    }

    [Fact]
    public void Draw_IsAFunctionOfSeedAndChoice()
    {
        int[] Text(ulong seed, int choice)
        {
            var sampler = new Sampler(new SamplingSettings(), [], seed, choice);
            return [.. Enumerable.Range(0, 40).Select(_ => sampler.Draw([.. s_logits], [], []).Token)];
        }

        Assert.Equal(Text(5, 0), Text(5, 0));
        Assert.NotEqual(Text(5, 0), Text(6, 0));
        Assert.NotEqual(Text(5, 0), Text(5, 1));
    }

    [Fact]
    public void Draw_LogProbabilities_AreOfTheLogitsBeforeTemperatureAndBan()
    {
        var settings = new SamplingSettings { Temperature = 0, LogProbabilities = 2 };
        var scored = new Sampler(settings, [], 1, 0).Draw([.. s_logits], [1], []);
        var logSumExp = Math.Log(s_logits.Sum(logit => Math.Exp(logit)));
        Assert.Equal((2, false), (scored.Token, scored.IsMostLikely));
        Assert.Equal(2 - logSumExp, scored.LogProbability, 1e-5);
        Assert.Equal([1, 2], scored.Top!.Select(top => top.Token));
        Assert.Equal(3 - logSumExp, scored.Top![0].LogProbability, 1e-5);
    }

    [Fact]
    public void MostLikely_EqualLogits_LowerTokenFirst_AndBothAreMostLikely()
    {
        var scored = LogProbabilities.Of([2, 5, 1, 5], token: 3, count: 3);
        Assert.Equal([1, 3, 0], scored.Top!.Select(top => top.Token));
        Assert.True(scored.IsMostLikely);
        Assert.True(LogProbabilities.Of([2, 5, 1, 5], token: 1, count: 0).IsMostLikely);
        Assert.False(LogProbabilities.Of([2, 5, 1, 5], token: 0, count: 0).IsMostLikely);
    }

    [Fact]
    public void Next_Constraint_DrawsOnlyWhatItAllows()
    {
        Assert.Equal(2, Next(allowed: [0, 2], banned: []));
        Assert.Equal(0, Next(allowed: [0, 2], banned: [2]));
        Assert.Equal(1, ConstrainedDraw.Next(Greedy(), null, [], [.. s_logits]).Token);
        Assert.Equal(2, ConstrainedDraw.Next(Greedy(), null, [1], [.. s_logits]).Token);
    }

    [Fact]
    public void Next_ConstraintLeavesOnlyABannedEnd_TheTextEnds() => Assert.Equal(3, Next(allowed: [3], banned: [3, 1]));

    [Fact]
    public void Next_ConstraintAllowsNothing_Fails() =>
        Assert.Contains("cannot spell", Assert.Throws<RhoException>(() => Next(allowed: [], banned: [])).Message, StringComparison.Ordinal);

    private static int Next(int[] allowed, int[] banned) => ConstrainedDraw.Next(Greedy(), new Only(allowed), banned, [.. s_logits]).Token;

    private static Sampler Greedy() => new(new SamplingSettings { Temperature = 0 }, [], 1, 0);

    private static int Draw(SamplingSettings settings, int[]? banned = null) => new Sampler(settings, [], 1, 0).Draw([.. s_logits], banned ?? [], []).Token;

    private static int[] Drawn(SamplingSettings settings, int count)
    {
        var sampler = new Sampler(settings, [], 1, 0);
        return [.. Enumerable.Range(0, count).Select(_ => sampler.Draw([.. s_logits], [], []).Token)];
    }

    /// <summary>Always the same tokens.</summary>
    private sealed class Only(int[] allowed) : ConstraintMatcher
    {
        public override bool IsComplete => false;

        public override bool Allow(Span<ulong> tokens)
        {
            foreach (var token in allowed) tokens[token >> 6] |= 1UL << (token & 63);
            return allowed.Length > 0;
        }

        public override void Advance(int token)
        {
        }
    }
}
