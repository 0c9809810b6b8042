namespace Rho.Selection.Tests;

public class RestFloorTests
{
    private const float None = float.NaN;
    private static readonly float[] s_losses = [None, 1, 2, 3, 4, None, 6];

    private static float[] Add(double weight, double share, ulong seed, params float[] selection)
    {
        float[] weights = [.. selection];
        new RestFloor(weight, share).Add(s_losses, seed, weights);
        return weights;
    }

    /// <summary>Hard and soft weights, a weight above 1 among them. A mean of n draws is off by less than 5 of its standard deviations.</summary>
    [Theory]
    [InlineData(0.15, 0.15)]
    [InlineData(0.3, 0.1)]
    [InlineData(0.2, 0.7)]
    [InlineData(0.4, 1)]
    public void Add_OverSeeds_ExpectsTheSelectionPlusWeightTimesTheRest(double weight, double share)
    {
        float[] selection = [0, 0, 1, 0, 0.25f, 0, 1.5f];
        double[] rest = [0, 1, 0, 1, 0.75, 0, 0];
        const int draws = 20_000;
        var sums = new double[selection.Length];
        for (var seed = 0; seed < draws; seed++)
        {
            var weights = Add(weight, share, (ulong)seed * 7919, selection);
            for (var i = 0; i < sums.Length; i++) sums[i] += weights[i];
        }

        for (var i = 0; i < sums.Length; i++)
        {
            var deviation = weight * rest[i] * Math.Sqrt((1 - share) / share / draws);
            Assert.InRange(sums[i] / draws - (selection[i] + weight * rest[i]), -5 * deviation - 1e-6, 5 * deviation + 1e-6);
        }
    }

    [Fact]
    public void Add_DrawnToken_CountsWeightOverShare()
    {
        var drawn = Enumerable.Range(0, 200).SelectMany(seed => Add(0.15, 0.3, (ulong)seed, 0, 0, 0, 0, 0, 0, 0)).Where(weight => weight > 0).ToList();
        Assert.InRange(drawn.Count, 200 * 5 * 0.2, 200 * 5 * 0.4);
        Assert.All(drawn, weight => Assert.Equal(0.5f, weight));
    }

    [Fact]
    public void Add_SameSeed_DrawsTheSame_OtherSeedOthers()
    {
        float[] nothing = [0, 0, 0, 0, 0, 0, 0];
        Assert.Equal(Add(0.5, 0.5, 3, nothing), Add(0.5, 0.5, 3, nothing));
        Assert.True(Enumerable.Range(0, 20).Select(seed => string.Join(' ', Add(0.5, 0.5, (ulong)seed, nothing))).Distinct().Count() > 10);
    }
}
