using System.Text.Json.Nodes;
using Rho.Formats;

namespace Rho.Training.Tests;

public sealed class DynamicsTests : IDisposable
{
    private readonly World _world = new();

    public void Dispose() => _world.Dispose();

    [Fact]
    public void Classify_FollowsThePaper()
    {
        // Four tokens over three checkpoints: falls, rises, stays low, stays high; the mean of the last losses is 2.
        float[][] losses = [[3, 1, 0.5f, 4], [2, 2, 0.4f, 4.1f], [1, 2.5f, 0.5f, 4]];
        Assert.Equal([TokenClass.HighToLow, TokenClass.LowToHigh, TokenClass.LowToLow, TokenClass.HighToHigh], TokenDynamics.Classify(losses));
        // A change of exactly the threshold is none; the line counts, not first against last.
        Assert.Equal([TokenClass.LowToLow], TokenDynamics.Classify([[1], [0.9f], [0.8f]], 0.2001));
        Assert.Equal([TokenClass.HighToLow], TokenDynamics.Classify([[1], [2], [0.5f], [0.5f]]));
    }

    [Fact]
    public async Task Create_OverARunsCheckpoints_ReportsSharesTrajectoriesAndText()
    {
        var run = _world.Run("out", _world.Corpus("corpus", [40, 30]), steps: 30);
        await World.RunAsync(TrainingRun.Start(run with { Checkpoints = new CheckpointSection { EverySteps = 10, KeepLast = 5 } }));
        var checkpoints = new[] { 10, 20, 30 }.Select(step => _world.At($"out/checkpoints/step-{step:D8}/model")).ToList();
        var report = DynamicsReport.Create(new DynamicsOptions { Checkpoints = checkpoints, Corpus = _world.Corpus("held", [12], seed: 9, documentsSeeEachOther: false), Compute = run.Compute });

        Assert.Equal(12 * (World.Length - 2), report.Tokens);
        Assert.Equal(1, report.Classes.Sum(row => row.Share), 1e-9);
        Assert.True(report.Losses[^1] < report.Losses[0]);
        var learnt = report.Classes.Single(row => row.Class == TokenClass.HighToLow);
        Assert.True(learnt.Tokens > 0 && learnt.Losses[0] - learnt.Losses[^1] > 0.2);
        Assert.Equal(World.Length, report.Examples[0].Count);
        Assert.Null(report.Examples[0][0].Class);

        var json = JsonNode.Parse(report.ToJson())!;
        Assert.Equal(4, json["classes"]!.AsArray().Count);
        var html = report.ToHtml();
        Assert.Contains("H→L", html, StringComparison.Ordinal);
        Assert.DoesNotContain("http", html, StringComparison.Ordinal);
        Assert.Contains("at least two", Assert.ThrowsAny<RhoException>(() => DynamicsReport.Create(new DynamicsOptions { Checkpoints = [checkpoints[0]], Corpus = "x" })).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(ObjectiveScope.MicroBatch)]
    [InlineData(ObjectiveScope.Sequence)]
    [InlineData(ObjectiveScope.GlobalBatch)]
    public async Task Concentrate_WritesACorpusWithMasksOfTheRatio(ObjectiveScope scope)
    {
        var corpus = _world.Corpus("corpus", [20, 9], padded: true);
        var options = new ConcentrationOptions
        {
            Corpus = corpus,
            Output = _world.At("concentrated"),
            Model = _world.Checkpoint("model", 1),
            Reference = new ReferenceSection { Sources = [new ReferenceSourceSection { Model = _world.Checkpoint("reference", 2) }] },
            Objective = new ObjectiveSection { Kind = ObjectiveKind.Slm, Ratio = 0.5, Scope = scope },
            Compute = new ComputeSection { Device = "cpu", Precision = ComputePrecision.Float32 },
        };
        var report = await Concentrator.RunAsync(options).WaitAsync(World.Patience);
        Assert.InRange((double)report.Selected / report.Candidates, 0.5, 0.54);

        var concentrated = Corpus.Open(options.Output);
        Assert.Equal(Corpus.Open(corpus).Shards, concentrated.Shards);
        var selected = 0;
        for (var i = 0; i < 2; i++)
        {
            using var shard = concentrated.OpenShard(i);
            using var file = SafetensorsFile.Open(shard.Path);
            var mask = file.Bytes("loss_mask").ToArray();
            var documents = new int[mask.Length];
            shard.ReadDocuments(0, documents);
            Assert.All(Enumerable.Range(0, mask.Length), at => Assert.True(mask[at] == 0 || (at % World.Length != 0 && documents[at] >= 0)));
            selected += mask.Sum(value => value);
        }

        Assert.Equal(report.Selected, selected);
        Assert.Contains("exists already", (await Assert.ThrowsAnyAsync<RhoException>(() => Concentrator.RunAsync(options))).Message, StringComparison.Ordinal);
    }
}
