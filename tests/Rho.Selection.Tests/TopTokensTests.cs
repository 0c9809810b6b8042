namespace Rho.Selection.Tests;

public class TopTokensTests
{
    private static readonly TopTokens ByExcess = new(new ExcessLoss());

    /// <summary>The obvious way: sort by descending excess, then position, and take the first ceil(ratio * candidates).</summary>
    private static float[] BySort(Batch batch)
    {
        var weights = new float[batch.Current.Length];
        var candidates = Enumerable.Range(0, weights.Length).Where(i => !float.IsNaN(batch.Current[i] - batch.Reference[i])).ToList();
        var count = TopK.Count(batch.Ratio, candidates.Count);
        foreach (var i in candidates.OrderByDescending(i => batch.Current[i] - batch.Reference[i]).ThenBy(i => i).Take(count)) weights[i] = 1;
        return weights;
    }

    [Fact]
    public void Select_AnyBatch_EqualsSorting() => Batches.Hold(batch => batch.Select(ByExcess).SequenceEqual(BySort(batch)));

    [Fact]
    public void Select_AnyBatch_KeepsCeilOfRatioTimesCandidates() => Batches.Hold(batch =>
    {
        var candidates = batch.Current.Count(loss => !float.IsNaN(loss));
        var expected = candidates == 0 ? 0 : Math.Max(1, (int)Math.Ceiling((decimal)batch.Ratio * candidates));
        return batch.Select(ByExcess).Sum() == expected;
    });

    [Fact]
    public void Select_AnyBatch_NeverTakesWhatIsNoTarget() => Batches.Hold(batch =>
        batch.Select(ByExcess).Zip(batch.Current).All(pair => pair.First == 0 || !float.IsNaN(pair.Second)));

    [Fact]
    public void Select_AnyBatch_LossDoesNotDependOnTheOrderOfTies() => Batches.Hold(batch =>
    {
        // Reversing the batch reverses who wins among equals; the sum of selected excess losses stays.
        var mirrored = batch with { Current = [.. batch.Current.Reverse()], Reference = [.. batch.Reference.Reverse()] };
        return Math.Abs(ExcessSum(batch) - ExcessSum(mirrored)) < 1e-3;
    });

    private static double ExcessSum(Batch batch) =>
        batch.Select(ByExcess).Select((weight, i) => weight == 0 ? 0 : (double)batch.Current[i] - batch.Reference[i]).Sum();

    [Fact]
    public void Select_DistinctScores_PermutingSequencesPermutesTheSelection() => Batches.Hold(batch =>
    {
        var distinct = batch with { Current = [.. batch.Current.Select((loss, i) => loss + i * 1e-4f)] };
        var permuted = distinct with { Current = Swap(distinct.Current, batch.Length), Reference = Swap(batch.Reference, batch.Length) };
        return Swap(distinct.Select(ByExcess), batch.Length).SequenceEqual(permuted.Select(ByExcess));
    });

    /// <summary>The last sequence to the front.</summary>
    private static float[] Swap(float[] values, int length) => [.. values[^length..], .. values[..^length]];

    [Fact]
    public void Select_SequenceScope_EqualsEachSequenceAlone() => Batches.Hold(batch =>
    {
        var selector = new TopTokens(new ExcessLoss(), SelectionScope.Sequence);
        var whole = batch.Select(selector);
        return Enumerable.Range(0, batch.Sequences).All(sequence =>
        {
            var range = (sequence * batch.Length)..((sequence + 1) * batch.Length);
            var alone = batch with { Current = batch.Current[range], Reference = batch.Reference[range] };
            return whole[range].SequenceEqual(alone.Select(ByExcess));
        });
    });

    [Fact]
    public void Select_RatioOne_EqualsAllTokens() => Batches.Hold(batch =>
        (batch with { Ratio = 1 }).Select(ByExcess).SequenceEqual(batch.Select(new AllTokens())));

    [Fact]
    public void Select_ReferenceEqualsModel_TakesTheFirstPositions()
    {
        var losses = new float[] { float.NaN, 3, 1, 4, 1, 5 };
        var batch = new Batch(losses, losses, 6, 0.6);
        Assert.Equal([0, 1, 1, 1, 0, 0], batch.Select(ByExcess));
    }

    [Fact]
    public void Select_ExcessIsSigned_NotAbsolute()
    {
        var batch = new Batch([float.NaN, 1, 1, 1], [float.NaN, 9, 0.5f, 1], 4, 0.3);
        Assert.Equal([0, 0, 1, 0], batch.Select(ByExcess));
    }

    [Fact]
    public void Select_FewPositiveExcesses_StillKeepsTheRatio()
    {
        var batch = new Batch([float.NaN, 1, 1, 1, 1], [float.NaN, 2, 3, 4, 0], 5, 0.5);
        Assert.Equal([0, 1, 0, 0, 1], batch.Select(ByExcess));
    }

    [Fact]
    public void Select_NoCandidates_KeepsNothing()
    {
        var batch = new Batch([float.NaN, float.NaN], [float.NaN, 1], 2, 0.5);
        Assert.Equal([0, 0], batch.Select(ByExcess));
    }

    [Theory]
    [InlineData(0.07, 100, 7)]
    [InlineData(0.6, 5, 3)]
    [InlineData(0.6, 2047, 1229)]
    [InlineData(0.001, 10, 1)]
    [InlineData(1.0, 10, 10)]
    [InlineData(0.5, 0, 0)]
    public void Count_IsTheCeilingInDecimal(double ratio, int candidates, int expected) => Assert.Equal(expected, TopK.Count(ratio, candidates));

    [Fact]
    public void Mark_ExtremeScores_AreOrdered()
    {
        float[] scores = [float.NegativeInfinity, -0f, 0f, float.Epsilon, float.MaxValue, float.PositiveInfinity, float.NaN, float.MinValue];
        for (var count = 1; count <= 7; count++)
        {
            var weights = new float[scores.Length];
            TopK.Mark(scores, count, weights);
            int[] order = [5, 4, 3, 1, 2, 7, 0];
            Assert.Equal(order[..count].Order(), Enumerable.Range(0, 8).Where(i => weights[i] == 1));
        }

        Assert.Equal(float.MinValue, TopK.Value(scores, 6));
        Assert.Throws<ArgumentOutOfRangeException>(() => TopK.Value(scores, 8));
    }
}
