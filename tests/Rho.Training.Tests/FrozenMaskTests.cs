using System.Collections.Concurrent;
using Rho.Formats;

namespace Rho.Training.Tests;

/// <summary>Masks that are made once, from cached losses, and runs that need nothing else.</summary>
public sealed class FrozenMaskTests : IDisposable
{
    private static readonly int[] s_shards = [20, 12];

    private readonly World _world = new();
    private readonly string _corpus, _base, _reference;

    public FrozenMaskTests()
    {
        _corpus = _world.Corpus("corpus", s_shards, padded: true);
        _base = _world.Scores("base", _corpus, _world.Checkpoint("a", 1));
        _reference = _world.Scores("reference", _corpus, _world.Checkpoint("b", 2));
    }

    public void Dispose() => _world.Dispose();

    private async Task<string> MaskAsync(double ratio, string name = "mask", string? corpus = null)
    {
        await Concentrator.RunAsync(new ConcentrationOptions
        {
            Corpus = corpus ?? _corpus,
            Output = _world.At(name),
            ModelScores = _base,
            MaskOnly = true,
            Reference = new ReferenceSection { Sources = [new ReferenceSourceSection { Scores = _reference }] },
            Objective = new ObjectiveSection { Kind = ObjectiveKind.Slm, Ratio = ratio, Scope = ObjectiveScope.GlobalBatch },
        }).WaitAsync(World.Patience);
        return _world.At(name);
    }

    private RunFile Run(string output, string mask, int minimumSelected, string extra = "", long steps = 12) => _world.Run(output, _corpus, extra, steps) with
    {
        Data = new DataSection { Corpora = [new CorpusSection { Path = _corpus, Mask = mask, MinimumSelected = minimumSelected }], ShuffleTokens = 128 },
    };

    private static async Task<List<SelectedBatch>> BatchesAsync(RunFile run)
    {
        var batches = new ConcurrentQueue<SelectedBatch>();
        var training = TrainingRun.Start(run);
        training.SelectionObserver = batches.Enqueue;
        await World.RunAsync(training);
        return [.. batches];
    }

    private byte[] Mask(string directory, int shard)
    {
        using var mask = CorpusMask.Open(directory, Corpus.Open(_corpus));
        return mask.Read(shard, 0, s_shards[shard]).ToArray();
    }

    private static float[] Losses(string scores, string shardSha256)
    {
        foreach (var path in Directory.GetFiles(scores, "*.safetensors"))
        {
            using var file = ScoreFile.Open(path);
            if (file.ShardSha256 != shardSha256) continue;
            var losses = new float[file.Sequences * file.Length];
            file.Read(0, losses);
            return losses;
        }

        throw new InvalidOperationException("no such scores");
    }

    [Fact]
    public async Task Concentrate_CachedLosses_KeepsTheHighestDifferencesOfEachShard()
    {
        var mask = await MaskAsync(0.3);
        var corpus = Corpus.Open(_corpus);
        for (var i = 0; i < s_shards.Length; i++)
        {
            var (first, second) = (Losses(_base, corpus.Shards[i].Sha256), Losses(_reference, corpus.Shards[i].Sha256));
            var candidates = Enumerable.Range(0, first.Length).Where(at => !float.IsNaN(first[at])).ToList();
            var expected = candidates.OrderByDescending(at => first[at] - second[at]).Take((int)Math.Ceiling(Math.Round(0.3 * candidates.Count, 9))).Order();
            var made = Mask(mask, i);
            Assert.Equal(expected, Enumerable.Range(0, made.Length).Where(at => made[at] == 1));
        }
    }

    [Fact]
    public async Task Run_Mask_TrainsOnItsTokensWithoutAReference_AndLeavesOutThinSequences()
    {
        const int minimum = 4;
        var mask = await MaskAsync(0.25);
        byte[][] masks = [Mask(mask, 0), Mask(mask, 1)];
        ReadOnlySpan<byte> Row(int shard, long sequence) => masks[shard].AsSpan((int)sequence * World.Length, World.Length);
        var kept = Enumerable.Range(0, 2).SelectMany(shard => Enumerable.Range(0, s_shards[shard]).Where(sequence => Row(shard, sequence).Count((byte)1) >= minimum).Select(sequence => (shard, (long)sequence))).ToList();
        Assert.InRange(kept.Count, 4, 31);

        var batches = await BatchesAsync(Run("out", mask, minimum));
        var read = batches.SelectMany(batch => batch.Batch.Origins).Select(origin => (origin.Shard, origin.Sequence)).ToList();
        Assert.Equal(kept, read.Take(kept.Count).Order());
        Assert.Equal(kept, read.Distinct().Order());
        Assert.Contains(batches, batch => batch.Batch.Tokens.Length < World.Length);
        foreach (var batch in batches)
        {
            Assert.Null(batch.Batch.Reference);
            var (length, last) = (batch.Batch.Tokens.Length, 0);
            for (var i = 0; i < batch.Batch.Origins.Length; i++)
            {
                var row = Row(batch.Batch.Origins[i].Shard, batch.Batch.Origins[i].Sequence);
                last = Math.Max(last, row.LastIndexOf((byte)1));
                Assert.Equal(row[..length].ToArray().Select(value => (float)value), batch.Weights.AsSpan(i * length, length).ToArray());
            }

            Assert.Equal(last + 1, length);
        }
    }

    /// <summary>A selection over the whole step is not cut: of all candidates it trains on the same.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Run_CutSequences_DoWhatWholeOnesDo(bool documentsSeeEachOther)
    {
        _world.Corpus("corpus", s_shards, padded: true, documentsSeeEachOther: documentsSeeEachOther);
        var mask = await MaskOfOtherDocumentsAsync(documentsSeeEachOther);
        var whole = await BatchesAsync(Run("whole", mask, 0, """ "objective": { "kind": "slm", "ratio": 1, "scope": "global_batch", "selector": { "by": "current_loss" } }, """));
        var cut = await BatchesAsync(Run("cut", mask, 0));
        Assert.All(whole, batch => Assert.Equal(World.Length, batch.Batch.Tokens.Length));
        Assert.Contains(cut, batch => batch.Batch.Tokens.Length < World.Length);
        for (var i = 0; i < whole.Count; i++)
        {
            var length = cut[i].Batch.Tokens.Length;
            Assert.Equal(whole[i].Weights.Sum(), cut[i].Weights.Sum());
            for (var at = 0; at < cut[i].Losses.Length; at++)
            {
                var expected = whole[i].Losses[at / length * World.Length + at % length];
                Assert.True(float.IsNaN(expected) ? float.IsNaN(cut[i].Losses[at]) : Math.Abs(expected - cut[i].Losses[at]) < 1e-3, $"{expected}, {cut[i].Losses[at]}");
            }
        }

        var norms = new[] { "whole", "cut" }.Select(name => MetricsFile.Read(_world.At(name)).OfType<StepFinished>().First().GradientNorm!.Value).ToList();
        Assert.Equal(1, norms[1] / norms[0], 1e-5);
    }

    private Task<string> MaskOfOtherDocumentsAsync(bool documentsSeeEachOther)
    {
        if (documentsSeeEachOther) return MaskAsync(0.2);
        Directory.Delete(_base, recursive: true);
        Directory.Delete(_reference, recursive: true);
        _world.Scores("base", _corpus, _world.At("a"));
        _world.Scores("reference", _corpus, _world.At("b"));
        return MaskAsync(0.2);
    }

    [Fact]
    public async Task Run_Mask_ResumesExactly_AndNotWithAnother()
    {
        var mask = await MaskAsync(0.25);
        var whole = await World.RunAsync(TrainingRun.Start(Run("whole", mask, 4)));
        var cut = Run("cut", mask, 4);
        using var stop = new CancellationTokenSource();
        var first = TrainingRun.Start(cut);
        first.SelectionObserver = batch =>
        {
            if (batch.Step == 5) stop.Cancel();
        };
        Assert.Equal(RunState.Stopped, (await World.RunAsync(first, stop.Token)).State);

        Directory.Move(mask, mask + "-away");
        await MaskAsync(0.3);
        Assert.Contains("data", (await Assert.ThrowsAnyAsync<RhoException>(() => World.RunAsync(TrainingRun.Resume(cut.Output)))).Message, StringComparison.Ordinal);
        Directory.Delete(mask, recursive: true);
        Directory.Move(mask + "-away", mask);
        Assert.Equal(World.Weights(whole.Model!), World.Weights((await World.RunAsync(TrainingRun.Resume(cut.Output))).Model!));
    }

    [Fact]
    public async Task Run_MaskThatDoesNotFit_IsRefusedInOneLine()
    {
        var mask = await MaskAsync(0.25);
        async Task<string> RefusedAsync(RunFile run)
        {
            var error = await Assert.ThrowsAnyAsync<RhoException>(() => World.RunAsync(TrainingRun.Start(run)));
            Assert.StartsWith("data.corpora[0].mask: ", error.Message, StringComparison.Ordinal);
            Assert.False(Directory.Exists(run.Output));
            return error.Message;
        }

        Assert.Contains("no sequence has 15 selected tokens", await RefusedAsync(Run("out", mask, 15)), StringComparison.Ordinal);
        Assert.Contains("rho concentrate --mask", await RefusedAsync(Run("out", _world.At("nowhere"), 1)), StringComparison.Ordinal);

        var other = _world.Corpus("other", [20], seed: 9);
        var run = Run("out", mask, 1);
        Assert.Contains("it is the mask of another corpus", await RefusedAsync(run with { Data = new DataSection { Corpora = [new CorpusSection { Path = other, Mask = mask }] } }), StringComparison.Ordinal);

        var description = File.ReadAllText(Path.Combine(mask, CorpusMask.FileName));
        File.WriteAllText(Path.Combine(mask, CorpusMask.FileName), description.Replace(World.Tokenizer.Fingerprint, new string('0', 64), StringComparison.Ordinal));
        Assert.Contains("made with tokenizer 000000000000", await RefusedAsync(run), StringComparison.Ordinal);
        File.WriteAllText(Path.Combine(mask, CorpusMask.FileName), description);

        var file = Path.Combine(mask, "shard-00000.safetensors");
        var bytes = File.ReadAllBytes(file);
        bytes[^1] ^= 1;
        File.WriteAllBytes(file, bytes);
        Assert.Contains("the file was changed or damaged", await RefusedAsync(run), StringComparison.Ordinal);
    }
}
