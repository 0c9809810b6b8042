using System.Collections.Concurrent;
using Rho.Formats;

namespace Rho.Training.Tests;

/// <summary>Selection by the losses of a third model.</summary>
public sealed class HistoryTests : IDisposable
{
    private readonly World _world = new();
    private readonly string _corpus;

    public HistoryTests() => _corpus = _world.Corpus("corpus", [20, 12], padded: true);

    public void Dispose() => _world.Dispose();

    private string History() => $$""" "history": { "scores": "{{_world.Scores("history", _corpus, _world.Checkpoint("earlier", 5))}}" } """;

    private string Reference() => $$""" "sources": [ { "scores": "{{_world.Scores("scores", _corpus, _world.Checkpoint("reference", 77))}}" } ] """;

    private static string Objective(string excessOf, string more = "") => $$""" "objective": { "kind": "slm", "ratio": 0.4, "selector": { "excess_of": {{excessOf}} }{{more}} }, """;

    private static async Task<(List<SelectedBatch> Batches, RunResult Result)> RunAsync(TrainingRun training, long stopAt = long.MaxValue)
    {
        var batches = new ConcurrentQueue<SelectedBatch>();
        using var stop = new CancellationTokenSource();
        training.SelectionObserver = batch =>
        {
            batches.Enqueue(batch);
            if (batch.Step == stopAt) stop.Cancel();
        };
        var result = await World.RunAsync(training, stop.Token);
        return ([.. batches], result);
    }

    private Dictionary<(int Shard, long Sequence), float[]> Scores(string directory)
    {
        var corpus = Corpus.Open(_corpus);
        var losses = new Dictionary<(int, long), float[]>();
        foreach (var path in Directory.GetFiles(directory, "*.safetensors"))
        {
            using var file = ScoreFile.Open(path);
            var shard = corpus.Shards.Select((entry, i) => (entry, i)).First(pair => pair.entry.Sha256 == file.ShardSha256).i;
            for (var sequence = 0L; sequence < file.Sequences; sequence++)
            {
                losses[(shard, sequence)] = new float[World.Length];
                file.Read(sequence, losses[(shard, sequence)]);
            }
        }

        return losses;
    }

    [Theory]
    [InlineData("[\"history\", \"current\"]")]
    [InlineData("[\"history\", \"reference\"]")]
    [InlineData("[\"current\", \"reference\"]")]
    [InlineData("[\"history\", \"current\"]", ", \"scope\": \"global_batch\"")]
    [InlineData("[\"history\", \"reference\"]", ", \"scope\": \"global_batch\"")]
    public async Task Run_ExcessOf_KeepsTheHighestDifferences(string excessOf, string more = "")
    {
        var (withHistory, withReference) = (excessOf.Contains("history", StringComparison.Ordinal), excessOf.Contains("reference", StringComparison.Ordinal));
        var reference = string.Join(',', new[] { withHistory ? History() : null, withReference ? Reference() : null }.OfType<string>());
        var run = _world.Run("out", _corpus, $"{Objective(excessOf, more)} \"reference\": {{ {reference} }},", steps: 3);
        var (batches, _) = await RunAsync(TrainingRun.Start(run));
        var history = withHistory ? Scores(_world.At("history")) : [];
        var known = withReference ? Scores(_world.At("scores")) : [];
        float Of(string name, SelectedBatch batch, int at)
        {
            var origin = batch.Batch.Origins[at / World.Length];
            return name switch
            {
                "current" => batch.Losses[at],
                "history" => history[(origin.Shard, origin.Sequence)][at % World.Length],
                _ => known[(origin.Shard, origin.Sequence)][at % World.Length],
            };
        }

        var names = excessOf.Trim('[', ']').Split(',').Select(name => name.Trim(' ', '"')).ToArray();
        foreach (var together in more.Length > 0 ? batches.GroupBy(batch => batch.Step).Select(step => step.ToList()) : batches.Select(batch => new List<SelectedBatch> { batch }))
        {
            var scores = together.SelectMany(batch => batch.Losses.Select((loss, at) => (Score: Of(names[0], batch, at) - Of(names[1], batch, at), Weight: batch.Weights[at], IsTarget: !float.IsNaN(loss)))).Where(token => token.IsTarget).ToList();
            Assert.Equal((int)Math.Ceiling(Math.Round(0.4 * scores.Count, 9)), scores.Count(token => token.Weight == 1));
            var lowestKept = scores.Where(token => token.Weight == 1).Min(token => token.Score);
            // In the global scope losses come from a pass of their own, which rounds differently.
            Assert.All(scores.Where(token => token.Weight == 0), token => Assert.True(token.Score <= lowestKept + 1e-5));
        }
    }

    [Fact]
    public async Task Run_CurrentMinusReference_IsExcessLoss()
    {
        var reference = Reference();
        var (_, named) = await RunAsync(TrainingRun.Start(_world.Run("named", _corpus, $"{Objective("[\"current\", \"reference\"]")} \"reference\": {{ {reference} }},")));
        var (_, plain) = await RunAsync(TrainingRun.Start(_world.Run("plain", _corpus, $"\"objective\": {{ \"kind\": \"slm\", \"ratio\": 0.4 }}, \"reference\": {{ {reference} }},")));
        Assert.Equal(World.Weights(plain.Model!), World.Weights(named.Model!));
    }

    [Fact]
    public async Task Run_History_ResumesExactly_AndNotWithAnother()
    {
        var extra = $"{Objective("[\"history\", \"current\"]")} \"reference\": {{ {History()} }},";
        var (_, whole) = await RunAsync(TrainingRun.Start(_world.Run("whole", _corpus, extra)));
        var cut = _world.Run("cut", _corpus, extra);
        Assert.Equal(RunState.Stopped, (await RunAsync(TrainingRun.Start(cut), stopAt: 5)).Result.State);

        var scores = _world.At("history");
        Directory.Move(scores, scores + "-away");
        _world.Scores("history", _corpus, _world.Checkpoint("another", 6));
        Assert.Contains("was trained with history", (await Assert.ThrowsAnyAsync<RhoException>(() => World.RunAsync(TrainingRun.Resume(cut.Output)))).Message, StringComparison.Ordinal);
        Directory.Delete(scores, recursive: true);
        Directory.Move(scores + "-away", scores);
        Assert.Equal(World.Weights(whole.Model!), World.Weights((await RunAsync(TrainingRun.Resume(cut.Output))).Result.Model!));
    }

    [Theory]
    [InlineData("[\"history\", \"current\"]", "", "reference.history is missing")]
    [InlineData("[\"current\", \"reference\"]", "", "reference.sources is empty")]
    [InlineData("[\"history\"]", "\"history\": { \"scores\": \"x\" }", "excess_of is to be two different ones")]
    [InlineData("[\"history\", \"history\"]", "\"history\": { \"scores\": \"x\" }", "excess_of is to be two different ones")]
    [InlineData("[\"history\", \"current\"]", "\"history\": {}", "reference.history is to have one of scorers, scores and model")]
    public void RunFile_ExcessOfWithoutWhatItNeeds_IsRefused(string excessOf, string reference, string expected) =>
        Assert.Contains(expected, Assert.ThrowsAny<RhoException>(() => _world.Run("out", "corpus", $"{Objective(excessOf)} \"reference\": {{ {reference} }},")).Message, StringComparison.Ordinal);

    /// <summary>What is there already is kept; scores.json comes last.</summary>
    [Fact]
    public async Task CheckpointScoring_WritesWhatARunReads_AndGoesOnWhereItWas()
    {
        var checkpoint = _world.Checkpoint("earlier", 5);
        var expected = Scores(_world.Scores("expected", _corpus, checkpoint));
        var format = new ScoreFormat(LossEncoding.F32, Entropy: true, TopK: 3);
        var compute = new ComputeSection { Device = "cpu", Precision = ComputePrecision.Float32 };
        Task<Client.ScoresDescription> ScoreAsync(string model) => CheckpointScoring.RunAsync(Corpus.Open(_corpus), model, _world.At("scores"), format, compute).WaitAsync(World.Patience);
        var description = await ScoreAsync(checkpoint);
        foreach (var (sequence, losses) in Scores(_world.At("scores"))) Assert.All(losses.Zip(expected[sequence]), pair => Assert.Equal(pair.Second, pair.First, 1e-4f));

        var (kept, lost) = (_world.At("scores/shard-00000.safetensors"), _world.At("scores/shard-00001.safetensors"));
        var (before, bytes) = (File.GetLastWriteTimeUtc(kept), File.ReadAllBytes(lost));
        File.Delete(lost);
        File.Delete(_world.At($"scores/{Client.ScoresDescription.FileName}"));
        Assert.Equal(description.Reference, (await ScoreAsync(checkpoint)).Reference);
        Assert.Equal(before, File.GetLastWriteTimeUtc(kept));
        Assert.Equal(bytes, File.ReadAllBytes(lost));
        Assert.Contains("choose another folder", (await Assert.ThrowsAnyAsync<MismatchException>(() => ScoreAsync(_world.Checkpoint("another", 6)))).Message, StringComparison.Ordinal);

        var run = _world.Run("out", _corpus, $$"""{{Objective("[\"history\", \"current\"]")}} "reference": { "history": { "scores": "{{_world.At("scores")}}" } },""", steps: 2);
        Assert.Equal(RunState.Finished, (await World.RunAsync(TrainingRun.Start(run))).State);
    }

    [Fact]
    public async Task Run_HistoryOfAnotherCorpus_IsRefusedByItsField()
    {
        var scores = _world.Scores("other-scores", _world.Corpus("other", [8], seed: 3), _world.Checkpoint("earlier", 5));
        var run = _world.Run("out", _corpus, $$"""{{Objective("[\"history\", \"current\"]")}} "reference": { "history": { "scores": "{{scores}}" } },""");
        Assert.StartsWith("reference.history", (await Assert.ThrowsAnyAsync<RhoException>(() => World.RunAsync(TrainingRun.Start(run)))).Message, StringComparison.Ordinal);
    }
}
