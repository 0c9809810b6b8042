using Rho.Formats;

namespace Rho.Training.Tests;

public class DataTests
{
    private static readonly ShardEntry[] Shards = [new("a", 10, ""), new("b", 7, ""), new("c", 1, "")];

    private static IEnumerable<(int Shard, long Sequence)> Sequences(CorpusOrder order, long consumed) =>
        order.From(consumed).SelectMany(stretch => stretch.Permutation.Skip(stretch.Skip).Select(place => (stretch.Shard, stretch.FirstSequence + place)));

    [Fact]
    public void Order_EachEpoch_HasEverySequenceOnce()
    {
        var order = new CorpusOrder(Shards, 5, 4, 4);
        var epochs = Sequences(order, 0).Take(3 * 18).Chunk(18).ToList();
        Assert.All(epochs, epoch => Assert.Equal(18, epoch.Distinct().Count()));
        Assert.NotEqual(epochs[0], epochs[1]);
        Assert.NotEqual(epochs[0], Sequences(new CorpusOrder(Shards, 6, 4, 4), 0).Take(18));
    }

    [Fact]
    public void Order_EnteredAnywhere_GoesOnAsFromTheStart()
    {
        foreach (var order in new[] { new CorpusOrder(Shards, 5, 4, 4), new CorpusOrder(Shards, 5, 1, 5) })
        {
            var all = Sequences(order, 0).Take(80).ToList();
            for (var consumed = 0; consumed < 60; consumed++) Assert.Equal(all.Skip(consumed).Take(20), Sequences(order, consumed).Take(20));
        }
    }

    [Fact]
    public void Order_LeavesOut_AndKeepsTheOrderOfTheRest()
    {
        bool[][] kept = [.. Shards.Select((shard, i) => Enumerable.Range(0, (int)shard.Sequences).Select(sequence => i < 2 && (sequence * 7 + i) % 3 != 0).ToArray())];
        var count = kept.Sum(flags => flags.Count(flag => flag));
        var thinned = new CorpusOrder(Shards, 5, 1, 5, kept);
        var all = Sequences(new CorpusOrder(Shards, 5, 1, 5), 0).Take(4 * 18).Where(place => kept[place.Shard][place.Sequence]).ToList();
        Assert.Equal(all, Sequences(thinned, 0).Take(4 * count));
        for (var consumed = 0; consumed < 3 * count; consumed++) Assert.Equal(all.Skip(consumed).Take(count), Sequences(thinned, consumed).Take(count));
    }

    [Fact]
    public void Order_FirstStretches_AreShortAndGrow()
    {
        var order = new CorpusOrder([new ShardEntry("a", 100, ""), new ShardEntry("b", 100, "")], 5, 3, 40);
        // Over the shards of the first epoch and the one after it; a shard's last stretch is what is left of it.
        Assert.Equal([3, 6, 12, 24, 40, 15, 40, 40, 20, 40, 40, 20, 40, 40, 20], order.From(0).Take(15).Select(stretch => stretch.Permutation.Length));
        Assert.Equal(Enumerable.Range(0, 200).Select(i => (i / 100, (long)(i % 100))), Sequences(order, 0).Take(200).Order());
    }

    [Fact]
    public void Mixture_FollowsWeights_AndStopsAtLimits()
    {
        var mixture = new Mixture([3, 1], [long.MaxValue, 10]);
        var taken = new long[2];
        for (var i = 0; i < 40; i++) taken[mixture.Next(taken)]++;
        Assert.Equal([30, 10], taken);
        Assert.Equal(0, mixture.Next(taken));
        Assert.Equal(-1, new Mixture([1], [5]).Next([5]));
    }

    [Fact]
    public void Randomness_Permutation_IsFixedForever() => Assert.Equal([0, 3, 4, 1, 7, 2, 6, 5], new Randomness(1).Permutation(8));

    [Fact]
    public async Task Pipeline_Ranks_ShareOneOrder()
    {
        using var world = new World();
        var corpus = world.Corpus("corpus", [9, 5]);
        using var alone = new TrainingData(new DataSection { Corpora = [new CorpusSection { Path = corpus }], ShuffleTokens = 64 }, 1);
        using var shared = new TrainingData(new DataSection { Corpora = [new CorpusSection { Path = corpus }], ShuffleTokens = 64 }, 2);
        var all = await Take(alone, 0, 8);
        var first = await Take(shared, 0, 4);
        var second = await Take(shared, 1, 4);
        Assert.Equal(all, first.Zip(second).SelectMany(pair => new[] { pair.First, pair.Second }));
    }

    private static async Task<List<string>> Take(TrainingData data, int rank, int count)
    {
        using var pipeline = new BatchPipeline(data, null, null, 3, rank, 1, [0], false, CancellationToken.None);
        return await Task.Run(() => Enumerable.Range(0, count).Select(_ =>
        {
            Assert.True(pipeline.Take(out var batch, CancellationToken.None));
            return string.Join(' ', batch.Tokens.Tokens);
        }).ToList()).WaitAsync(World.Patience);
    }

    [Fact]
    public void Data_CorporaThatDoNotFit_AreRefused()
    {
        using var world = new World();
        var a = world.Corpus("a", [4]);
        var b = world.Corpus("b", [4], length: 8);
        var c = world.Corpus("c", [4], documentsSeeEachOther: false);
        static DataSection Two(string first, string second) => new() { Corpora = [new CorpusSection { Path = first }, new CorpusSection { Path = second }] };
        Assert.Contains("sequences of 8 tokens", Assert.ThrowsAny<RhoException>(() => new TrainingData(Two(a, b), 1)).Message, StringComparison.Ordinal);
        Assert.Contains("documents see each other", Assert.ThrowsAny<RhoException>(() => new TrainingData(Two(a, c), 1)).Message, StringComparison.Ordinal);
    }
}
