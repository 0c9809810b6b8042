namespace Rho.Selection.Tests;

public class VariantTests
{
    private static readonly float None = float.NaN;

    [Fact]
    public void ReferenceLoss_KeepsWhatTheReferenceFindsLikely()
    {
        var batch = new Batch([None, 9, 9, 9], [None, 3, 1, 2], 4, 0.3);
        Assert.Equal([0, 0, 1, 0], batch.Select(new TopTokens(new ReferenceLoss())));
    }

    [Fact]
    public void CurrentLoss_KeepsWhatTheModelFindsHard()
    {
        var batch = new Batch([None, 1, 7, 3], [], 4, 0.6);
        Assert.Equal([0, 0, 1, 1], batch.Select(new TopTokens(new CurrentLoss())));
    }

    [Fact]
    public void ReferenceEntropy_KeepsWhereTheReferenceIsCertain()
    {
        var weights = new float[4];
        new TopTokens(new ReferenceEntropy()).Select(new TokenLosses { Current = [None, 1, 1, 1], ReferenceEntropy = [0, 2, 0.5f, 1], Length = 4 }, 0.6, weights);
        Assert.Equal([0, 0, 1, 1], weights);
    }

    [Fact]
    public void Divergence_KeepsWhereTheModelsDisagree()
    {
        var weights = new float[4];
        new TopTokens(new ReferenceDivergence()).Select(new TokenLosses { Current = [None, 1, 1, 1], Divergence = [9, 0.1f, 2, 0.5f], Length = 4 }, 0.3, weights);
        Assert.Equal([0, 0, 1, 0], weights);
    }

    [Fact]
    public void Random_SameSeed_SameSelection_AndEvenOverPositions()
    {
        var selector = new TopTokens(new RandomScore());
        var current = new float[4096];
        var kept = new int[8];
        for (ulong seed = 0; seed < 100; seed++)
        {
            var losses = new TokenLosses { Current = current, Length = 64, Seed = seed };
            var (first, second) = (new float[4096], new float[4096]);
            selector.Select(losses, 0.25, first);
            selector.Select(losses, 0.25, second);
            Assert.Equal(first, second);
            for (var i = 0; i < first.Length; i++) kept[i * 8 / first.Length] += (int)first[i];
        }

        // 12,800 expected in each eighth; the standard deviation is below 100.
        Assert.All(kept, count => Assert.InRange(count, 12_300, 13_300));
    }

    [Fact]
    public void Random_SequenceScope_DrawsDifferentlyPerSequence()
    {
        var weights = new float[128];
        new TopTokens(new RandomScore(), SelectionScope.Sequence).Select(new TokenLosses { Current = new float[128], Length = 64, Seed = 1 }, 0.5, weights);
        Assert.NotEqual(weights[..64], weights[64..]);
    }

    [Fact]
    public void Soft_WeightsHaveMeanOneAndFollowTheSoftmax() => Batches.Hold(batch =>
    {
        var weights = batch.Select(new SoftTokens(new ExcessLoss(), 0.5));
        var candidates = Enumerable.Range(0, weights.Length).Where(i => !float.IsNaN(batch.Current[i])).ToList();
        if (candidates.Count == 0) return weights.All(weight => weight == 0);
        var total = candidates.Sum(i => Math.Exp((batch.Current[i] - batch.Reference[i]) / 0.5));
        return candidates.All(i => Math.Abs(weights[i] - candidates.Count * Math.Exp((batch.Current[i] - batch.Reference[i]) / 0.5) / total) < 1e-3)
            && Math.Abs(weights.Sum() - candidates.Count) < 1e-3 * candidates.Count;
    });

    [Fact]
    public void Soft_LowTemperature_ApproachesTheTop()
    {
        var weights = new Batch([None, 1, 5, 2], [None, 0, 0, 0], 4, 1).Select(new SoftTokens(new ExcessLoss(), 0.01));
        Assert.Equal([0, 0, 3, 0], weights.Select(weight => (float)Math.Round(weight, 4)));
    }

    [Fact]
    public void Sequences_KeepsWholeSequencesByMeanExcess()
    {
        var batch = new Batch([None, 1, 1, None, 9, 0, None, 3, 3], [None, 0, 0, None, 1, 1, None, 0, None], 3, 0.6);
        Assert.Equal([0, 0, 0, 0, 1, 1, 0, 1, 0], batch.Select(new TopSequences(new ExcessLoss())));
    }

    [Fact]
    public void Union_And_Intersection_FollowTheirParts() => Batches.Hold(batch =>
    {
        SelectorPart a = new(new TopTokens(new ExcessLoss()), 0.7), b = new(new TopTokens(new ReferenceLoss()));
        var first = (batch with { Ratio = 0.7 }).Select(a.Selector);
        var second = batch.Select(b.Selector);
        return batch.Select(new UnionOf(a, b)).SequenceEqual(first.Zip(second, Math.Max))
            && batch.Select(new IntersectionOf(a, b)).SequenceEqual(first.Zip(second, Math.Min));
    });

    [Fact]
    public void Words_AreKeptOrDroppedTogether()
    {
        var losses = new TokenLosses
        {
            Current = [None, 1, 5, 2, 2, 0],
            Reference = [None, 0, 0, 0, 0, 0],
            Words = [0, 1, 1, 2, 3, 3],
            Length = 6,
        };
        var weights = new float[6];
        new TopWords(new ExcessLoss()).Select(losses, 0.2, weights);
        Assert.Equal([0, 1, 1, 0, 0, 0], weights);
        new TopWords(new ExcessLoss()).Select(losses, 0.6, weights);
        Assert.Equal([0, 1, 1, 1, 0, 0], weights);
        new TopWords(new ExcessLoss(), WordScore.Max).Select(losses, 0.8, weights);
        Assert.Equal([0, 1, 1, 1, 1, 1], weights);
    }

    [Fact]
    public void Words_AnyBatch_ReachTheCountAndPassItByLessThanAWord() => Batches.Hold(batch =>
    {
        var words = batch.Current.Select((_, i) => i / 3).ToArray();
        var weights = new float[words.Length];
        new TopWords(new ExcessLoss()).Select(new TokenLosses { Current = batch.Current, Reference = batch.Reference, Words = words, Length = batch.Length }, batch.Ratio, weights);
        var count = TopK.Count(batch.Ratio, batch.Current.Count(loss => !float.IsNaN(loss)));
        return weights.Sum() >= count && weights.Sum() < count + 3 && weights.Zip(batch.Current).All(pair => pair.First == 0 || !float.IsNaN(pair.Second));
    });

    [Fact]
    public void Statistics_CountAndSum()
    {
        var statistics = SelectionStatistics.Measure([None, 1, 2, 4], [None, 2, 1, 1], [0, 0, 1, 1]);
        Assert.Equal(3, statistics.Candidates);
        Assert.Equal(2, statistics.Selected);
        Assert.Equal(7.0 / 3, statistics.MeanLoss, 12);
        Assert.Equal(3, statistics.MeanSelectedLoss, 12);
        Assert.Equal(1, statistics.MeanUnselectedLoss, 12);
        Assert.Equal(1f, statistics.Threshold);
        Assert.Equal(1.0 / 3, statistics.NegativeExcessShare, 12);
        Assert.Equal([-1f, 1f, 3f], statistics.ExcessQuantiles);
        var doubled = statistics.Add(statistics);
        Assert.Equal(6, doubled.Candidates);
        Assert.Equal([-1f, 1f, 3f], doubled.ExcessQuantiles);
    }
}

public class RatioScheduleTests
{
    [Fact]
    public void Constant_Linear_Cosine_FollowTheirCurves()
    {
        Assert.Equal(0.6, new ConstantRatio(0.6).At(1000));
        Assert.Equal(0.75, new LinearRatio(1, 0.5, 100).At(50), 12);
        Assert.Equal(0.5, new LinearRatio(1, 0.5, 100).At(1000), 12);
        Assert.Equal(0.75, new CosineRatio(1, 0.5, 100).At(50), 12);
        Assert.Equal(1, new CosineRatio(1, 0.5, 100).At(0), 12);
        Assert.Equal(0.5, new CosineRatio(1, 0.5, 100).At(100), 12);
    }

    [Fact]
    public void Adaptive_FollowsTheLearnableShareWithinBounds_AndResumes()
    {
        var schedule = new AdaptiveRatio(1, 0.2, 0.8, smoothing: 0.5);
        Assert.Equal(0.8, schedule.At(0));
        for (var i = 0; i < 3; i++) schedule.Observe(0.4);
        var resumed = new AdaptiveRatio(1, 0.2, 0.8, smoothing: 0.5) { State = schedule.State };
        Assert.Equal(schedule.At(3), resumed.At(3));
        for (var i = 0; i < 20; i++) schedule.Observe(0);
        Assert.Equal(0.2, schedule.At(23));
        schedule.Observe(double.NaN);
        Assert.Equal(0.2, schedule.At(24));
    }
}
