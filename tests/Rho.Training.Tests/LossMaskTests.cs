using System.Collections.Concurrent;

namespace Rho.Training.Tests;

/// <summary>Corpora that say which tokens' losses count.</summary>
public sealed class LossMaskTests : IDisposable
{
    private readonly World _world = new();

    public void Dispose() => _world.Dispose();

    private string Source() => $$"""{ "model": "{{_world.Checkpoint("reference", 77)}}" }""";

    private static bool Counts(int shard, int sequence, int t) => t >= 5 && (shard + sequence + t) % 3 != 0;

    private static async Task<(List<SelectedBatch> Batches, byte[] Weights)> RunAsync(RunFile run)
    {
        var batches = new ConcurrentQueue<SelectedBatch>();
        var training = TrainingRun.Start(run);
        training.SelectionObserver = batches.Enqueue;
        var result = await World.RunAsync(training);
        return ([.. batches], World.Weights(result.Model!));
    }

    [Theory]
    [InlineData("\"objective\": { \"kind\": \"clm\" },")]
    [InlineData("slm")]
    [InlineData("slm", ", \"scope\": \"global_batch\"")]
    [InlineData("slm", ", \"scope\": \"sequence\", \"floor\": { \"weight\": 0.5, \"share\": 1 }")]
    [InlineData("slm", ", \"selector\": { \"temperature\": 1 }, \"backward\": \"filtered\"")]
    public async Task Run_MaskedTokens_AreContextAndNoCandidates(string extra, string objective = "")
    {
        if (extra == "slm") extra = _world.Slm(Source(), objective);
        var plain = _world.Corpus("plain", [20, 12], padded: true);
        var (masked, _) = await RunAsync(_world.Run("masked", _world.WithLossMask("corpus", plain, Counts), extra, steps: 2));
        var (all, _) = await RunAsync(_world.Run("all", plain, extra, steps: 2));
        Assert.Equal(4, masked.Count);
        for (var i = 0; i < masked.Count; i++)
        {
            Assert.Equal(all[i].Batch.Tokens.Tokens, masked[i].Batch.Tokens.Tokens);
            for (var at = 0; at < masked[i].Losses.Length; at++)
            {
                var origin = masked[i].Batch.Origins[at / World.Length];
                if (Counts(origin.Shard, (int)origin.Sequence, at % World.Length))
                {
                    // The first step's losses, before the runs part: a token sees all before it, masked or not.
                    if (i < 2) Assert.Equal(all[i].Losses[at], masked[i].Losses[at]);
                    continue;
                }

                Assert.True(float.IsNaN(masked[i].Losses[at]));
                Assert.Equal(0, masked[i].Weights[at]);
            }

            var candidates = masked[i].Losses.Count(loss => !float.IsNaN(loss));
            Assert.InRange(candidates, 1, all[i].Losses.Count(loss => !float.IsNaN(loss)) - 1);
            Assert.Contains(masked[i].Weights, weight => weight > 0);
        }
    }

    [Fact]
    public async Task Run_MaskOfAll_EqualsTheRunWithoutMask()
    {
        var plain = _world.Corpus("plain", [20, 12], padded: true);
        var extra = _world.Slm(Source());
        var (_, masked) = await RunAsync(_world.Run("masked", _world.WithLossMask("corpus", plain, (_, _, _) => true), extra));
        var (_, all) = await RunAsync(_world.Run("all", plain, extra));
        Assert.Equal(all, masked);
    }

    /// <summary>A micro-batch in which nothing counts is no error.</summary>
    [Fact]
    public async Task Run_NothingCounts_SkipsSteps()
    {
        var plain = _world.Corpus("plain", [20]);
        var (batches, _) = await RunAsync(_world.Run("masked", _world.WithLossMask("corpus", plain, (_, _, _) => false), steps: 3));
        Assert.Equal(6, batches.Count);
        Assert.All(batches, batch => Assert.All(batch.Losses, loss => Assert.True(float.IsNaN(loss))));
        var steps = MetricsFile.Read(_world.At("masked")).OfType<StepFinished>().ToList();
        Assert.All(steps, step => Assert.Equal("no token was selected", step.Skipped));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public async Task Concentrate_CorpusWithMask_SelectsOfWhatCounts(int already)
    {
        var corpus = _world.WithLossMask("corpus", _world.Corpus("plain", [20, 12]), (_, _, t) => t % 2 == 1 - already);
        var report = await Concentrator.RunAsync(new ConcentrationOptions
        {
            Corpus = corpus,
            Output = _world.At("concentrated"),
            Model = _world.Checkpoint("model", 1),
            Reference = new ReferenceSection { Sources = [new ReferenceSourceSection { Model = _world.Checkpoint("reference", 2) }] },
            Objective = new ObjectiveSection { Kind = ObjectiveKind.Slm, Ratio = 0.5 },
            Compute = new ComputeSection { Device = "cpu", Precision = ComputePrecision.Float32 },
        }).WaitAsync(World.Patience);
        Assert.Equal(32 * (already == 0 ? 8 : 7), report.Candidates);
        using var shard = Formats.Corpus.Open(_world.At("concentrated")).OpenShard(0);
        var mask = shard.ReadLossMask(0, 20).ToArray();
        Assert.Contains((byte)1, mask);
        Assert.All(Enumerable.Range(0, mask.Length), at => Assert.True(mask[at] == 0 || at % 2 == 1 - already));
    }
}
