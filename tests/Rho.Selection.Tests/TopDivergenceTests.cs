namespace Rho.Selection.Tests;

public class TopDivergenceTests
{
    private const int Vocabulary = 50;

    private static double[] Distribution(Random random, double sharpness)
    {
        var values = Enumerable.Range(0, Vocabulary).Select(_ => Math.Exp(sharpness * random.NextDouble())).ToArray();
        var sum = values.Sum();
        return [.. values.Select(value => value / sum)];
    }

    private static float Divergence(double[] p, double[] q, int k, Func<int, float>? model = null)
    {
        var ids = Enumerable.Range(0, Vocabulary).OrderByDescending(id => p[id]).Take(k).ToArray();
        var result = new float[1];
        TopDivergence.Measure([.. ids.Select(id => (float)Math.Log(p[id]))], [.. ids.Select(id => model?.Invoke(id) ?? (float)Math.Log(q[id]))], k, result);
        return result[0];
    }

    [Fact]
    public void Measure_AnyDistributions_IsALowerBoundThatGrowsWithK()
    {
        var random = new Random(4);
        for (var trial = 0; trial < 200; trial++)
        {
            var (p, q) = (Distribution(random, 6), Distribution(random, 6));
            var whole = p.Zip(q, (a, b) => a * Math.Log(a / b)).Sum();
            var values = new[] { 1, 2, 8, 20, 49, 50 }.Select(k => Divergence(p, q, k)).ToArray();
            Assert.All(values.Zip(values.Skip(1)), pair => Assert.True(pair.First <= pair.Second + 1e-5));
            Assert.True(values[0] >= 0);
            Assert.Equal(whole, values[^1], 1e-5);
        }
    }

    [Fact]
    public void Measure_ByHand_IsTheFormula()
    {
        float[] p = [MathF.Log(0.5f), MathF.Log(0.25f)], q = [MathF.Log(0.25f), MathF.Log(0.5f)];
        var result = new float[1];
        TopDivergence.Measure(p, q, 2, result);
        Assert.Equal(0.5 * Math.Log(2) + 0.25 * Math.Log(0.5), result[0], 1e-6);
        TopDivergence.Measure([MathF.Log(0.5f), MathF.Log(0.25f)], [MathF.Log(0.5f), MathF.Log(0.49f)], 2, result);
        Assert.Equal(0.25 * Math.Log(0.25 / 0.49) + 0.25 * Math.Log(0.25 / 0.01), result[0], 1e-4);
    }

    [Fact]
    public void Measure_EqualDistributions_IsZero()
    {
        var p = Distribution(new Random(1), 30);
        Assert.All([1, 5, 50], k => Assert.Equal(0, Divergence(p, p, k), 1e-6));
    }

    [Fact]
    public void Measure_SureModelThatIsWrong_IsLargeAndFinite()
    {
        var result = new float[1];
        TopDivergence.Measure([0f, float.NegativeInfinity], [-90f, 0f], 2, result);
        Assert.Equal(90, result[0], 1e-3);
        TopDivergence.Measure([-30f], [0f], 1, result); // All of the reference's mass lies elsewhere, where the model has none.
        Assert.InRange(result[0], 13, 15);
    }

    [Fact]
    public void Measure_TokenThatTheModelLacks_CountsAmongTheOthers()
    {
        var random = new Random(9);
        var (p, q) = (Distribution(random, 4), Distribution(random, 4));
        var ids = Enumerable.Range(0, Vocabulary).OrderByDescending(id => p[id]).ToArray();
        // The third token is unknown to the model: the same as looking at the others alone.
        var without = Divergence(p, q, 3, id => id == ids[2] ? float.NaN : (float)Math.Log(q[id]));
        Assert.Equal(Divergence(p, q, 2), without, 1e-6);
    }

    [Fact]
    public void Measure_NoLoss_IsNoCandidate()
    {
        var result = new float[2];
        TopDivergence.Measure([float.NaN, float.NaN, -1, -2], [float.NaN, float.NaN, -1, -2], 2, result);
        Assert.True(float.IsNaN(result[0]));
        Assert.Equal(0, result[1], 1e-6);
    }
}
