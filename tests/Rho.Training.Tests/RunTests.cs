using System.Text.Json.Nodes;
using Rho.Model;
using TorchSharp;

namespace Rho.Training.Tests;

public sealed class RunTests : IDisposable
{
    private readonly World _world = new();

    public void Dispose() => _world.Dispose();

    private string Source() => $$"""{ "model": "{{_world.Checkpoint("reference", 77)}}" }""";

    private static List<JsonNode> Metrics(string directory) => [.. File.ReadLines(Path.Combine(directory, "metrics.jsonl")).Select(line => JsonNode.Parse(line)!)];

    private static List<JsonNode> Of(string directory, string name) => [.. Metrics(directory).Where(line => line["event"]!.GetValue<string>() == name)];

    /// <summary>Starts the run and stops it once so many steps are done.</summary>
    private static async Task<RunResult> StopAfterAsync(TrainingRun run, long steps)
    {
        using var stop = new CancellationTokenSource();
        var seen = 0L;
        run.SelectionObserver = batch =>
        {
            seen = batch.Step;
            if (seen == steps) stop.Cancel();
        };
        return await World.RunAsync(run, stop.Token);
    }

    [Fact]
    public async Task Run_Clm_LowersTheLossAndWritesAModelThatLoads()
    {
        var run = _world.Run("out", _world.Corpus("corpus", [40, 30]), """ "evaluation": { "every_steps": 5, "sets": [ { "name": "held", "corpus": "held" } ] }, """);
        _world.Corpus("held", [10], seed: 9);
        var result = await World.RunAsync(TrainingRun.Start(run));
        Assert.Equal((RunState.Finished, 12), (result.State, result.Step));
        Assert.True(result.Losses["held"] < 5.3, $"{result.Losses["held"]}");

        using var model = ReferenceModel.Load(result.Model!, torch.CPU, ComputeType.Float32);
        Assert.Equal(World.Tokenizer.Fingerprint, model.TokenizerFingerprint);
        Assert.Equal([0, 5, 10, 12], Of(run.Output, "evaluation").Select(line => line["step"]!.GetValue<int>()));
        Assert.Equal(Enumerable.Range(1, 12), Of(run.Output, "step").Select(line => line["step"]!.GetValue<int>()));
        Assert.Equal("run_started", Metrics(run.Output)[0]["event"]!.GetValue<string>());
        Assert.Equal("finished", Metrics(run.Output)[^1]["state"]!.GetValue<string>());
        var step = Of(run.Output, "step")[^1];
        Assert.Equal(12 * 8 * World.Length, step["tokens"]!.GetValue<long>());
        Assert.True(step["gradient_norm"]!.GetValue<double>() > 0);
    }

    [Theory]
    [InlineData("")]
    [InlineData(", \"scope\": \"sequence\"")]
    [InlineData(", \"scope\": \"global_batch\"")]
    [InlineData(", \"selector\": { \"unit\": \"word\" }")]
    [InlineData(", \"selector\": { \"unit\": \"sequence\" }")]
    [InlineData(", \"selector\": { \"temperature\": 0.5 }")]
    [InlineData(", \"selector\": { \"all_of\": [ { \"by\": \"excess_loss\", \"ratio\": 0.8 }, { \"by\": \"reference_loss\" } ] }")]
    [InlineData(", \"selector\": { \"all_of\": [ { \"by\": \"reference_entropy\", \"ratio\": 0.7 }, { \"by\": \"reference_loss\", \"ratio\": 0.7 } ] }")]
    [InlineData(", \"scope\": \"global_batch\", \"selector\": { \"by\": \"reference_entropy\" }")]
    [InlineData(", \"selector\": { \"by\": \"divergence\" }")]
    [InlineData(", \"scope\": \"global_batch\", \"selector\": { \"any_of\": [ { \"by\": \"divergence\", \"top_k\": 5, \"ratio\": 0.4 }, { \"by\": \"excess_loss\", \"ratio\": 0.3 } ] }")]
    [InlineData(", \"ratio_schedule\": { \"kind\": \"adaptive\" }, \"clm_steps\": 2")]
    [InlineData(", \"floor\": { \"weight\": 0.2, \"share\": 0.3 }, \"backward\": \"filtered\", \"ratio_schedule\": { \"kind\": \"linear\", \"to\": 0.3 }")]
    [InlineData(", \"floor\": { \"weight\": 0.2, \"share\": 0.3 }, \"selector\": { \"temperature\": 0.5 }")]
    public async Task Run_Slm_InterruptedAndResumed_EqualsUninterruptedBitForBit(string objective)
    {
        var corpus = _world.Corpus("corpus", [40, 30], padded: true);
        var extra = _world.Slm(Source(), objective);
        var whole = await World.RunAsync(TrainingRun.Start(_world.Run("whole", corpus, extra)));

        var cut = _world.Run("cut", corpus, extra);
        Assert.Equal(RunState.Stopped, (await StopAfterAsync(TrainingRun.Start(cut), 6)).State);
        Assert.Equal(RunState.Stopped, (await StopAfterAsync(TrainingRun.Resume(cut.Output), 9)).State);
        var resumed = await World.RunAsync(TrainingRun.Resume(cut.Output));

        Assert.Equal(RunState.Finished, resumed.State);
        Assert.Equal(World.Weights(whole.Model!), World.Weights(resumed.Model!));
        Assert.Equal(File.ReadAllBytes(_world.At("whole/checkpoints/step-00000012/optimizer.safetensors")), File.ReadAllBytes(_world.At("cut/checkpoints/step-00000012/optimizer.safetensors")));
        Assert.Equal(Of(_world.At("whole"), "step").Select(line => line["loss"]!.ToJsonString()), Of(cut.Output, "step").Select(line => line["loss"]!.ToJsonString()));
    }

    [Fact]
    public async Task Run_MovingAverageReference_ResumesExactly()
    {
        var corpus = _world.Corpus("corpus", [40, 30]);
        const string extra = """ "objective": { "kind": "slm" }, "reference": { "moving_average_decay": 0.9 }, """;
        var whole = await World.RunAsync(TrainingRun.Start(_world.Run("whole", corpus, extra)));
        var cut = _world.Run("cut", corpus, extra);
        await StopAfterAsync(TrainingRun.Start(cut), 7);
        Assert.Equal(World.Weights(whole.Model!), World.Weights((await World.RunAsync(TrainingRun.Resume(cut.Output))).Model!));
    }

    [Fact]
    public async Task Run_TwoCorporaWithWeights_ResumesExactly()
    {
        _world.Corpus("a", [40]);
        _world.Corpus("b", [30], seed: 2);
        var source = Source();
        RunFile Two(string output)
        {
            var run = _world.Run(output, "a", _world.Slm(source));
            var corpora = new[] { new CorpusSection { Path = _world.At("a"), Weight = 3 }, new CorpusSection { Path = _world.At("b"), Weight = 1, Epochs = 1 } };
            return run with { Data = new DataSection { Corpora = corpora, ShuffleTokens = 128 } };
        }

        var whole = await World.RunAsync(TrainingRun.Start(Two("whole")));
        var cut = Two("cut");
        await StopAfterAsync(TrainingRun.Start(cut), 5);
        Assert.Equal(World.Weights(whole.Model!), World.Weights((await World.RunAsync(TrainingRun.Resume(cut.Output))).Model!));
        Assert.Equal(2, Of(cut.Output, "step")[^1]["selected_share_by_corpus"]!.AsArray().Count);
    }

    [Fact]
    public async Task Run_ScoreFiles_EqualInProcessScoring()
    {
        var corpus = _world.Corpus("corpus", [40, 30], documentsSeeEachOther: false, padded: true);
        var checkpoint = _world.Checkpoint("reference", 77);
        var scores = _world.Scores("scores", corpus, checkpoint);
        var a = await World.RunAsync(TrainingRun.Start(_world.Run("a", corpus, _world.Slm($$"""{ "scores": "{{scores}}" }"""))));
        var b = await World.RunAsync(TrainingRun.Start(_world.Run("b", corpus, _world.Slm($$"""{ "model": "{{checkpoint}}" }"""))));
        using var first = ReferenceModel.Load(a.Model!, torch.CPU, ComputeType.Float32);
        // Batches of other shapes round differently, so the weights agree but for rounding.
        Assert.Equal(Of(_world.At("a"), "step")[^1]["loss"]!.GetValue<double>(), Of(_world.At("b"), "step")[^1]["loss"]!.GetValue<double>(), 1e-4);
    }

    [Fact]
    public async Task Run_WhatDoesNotFit_IsRefusedBeforeAnythingIsWritten()
    {
        var corpus = _world.Corpus("corpus", [40]);
        var longer = _world.Corpus("longer", [40], length: 64);
        var other = _world.Corpus("other", [40], seed: 3);
        var scores = _world.Scores("scores", other, _world.Checkpoint("reference", 77));
        async Task<string> Error(RunFile run)
        {
            var message = (await Assert.ThrowsAnyAsync<RhoException>(() => World.RunAsync(TrainingRun.Start(run)))).Message;
            Assert.False(Directory.Exists(run.Output));
            return message;
        }

        Assert.Contains("has no scores of", await Error(_world.Run("a", corpus, _world.Slm($$"""{ "scores": "{{scores}}" }"""))), StringComparison.Ordinal);
        Assert.Contains("the model's context has 32", await Error(_world.Run("b", longer)), StringComparison.Ordinal);
        Assert.Contains("no such folder", await Error(_world.Run("c", "nowhere")), StringComparison.Ordinal);
        Assert.Contains("no checkpoint folder", await Error(_world.Run("d", corpus, _world.Slm("""{ "model": "nowhere" }"""))), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Run_OutputInUse_IsRefused()
    {
        var run = _world.Run("out", _world.Corpus("corpus", [40]));
        await World.RunAsync(TrainingRun.Start(run));
        Assert.Contains("has a run already", Assert.ThrowsAny<RhoException>(() => TrainingRun.Start(run)).Message, StringComparison.Ordinal);
        using var held = RunFolder.Open(run.Output);
        Assert.Contains("in use", (await Assert.ThrowsAnyAsync<RhoException>(() => World.RunAsync(TrainingRun.Resume(run.Output)))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Resume_OtherReferenceOrData_IsRefused()
    {
        var corpus = _world.Corpus("corpus", [40]);
        var run = _world.Run("out", corpus, _world.Slm(Source()));
        await StopAfterAsync(TrainingRun.Start(run), 5);
        Directory.Delete(_world.At("reference"), recursive: true);
        _world.Checkpoint("reference", 78);
        Assert.Contains("was trained with reference", (await Assert.ThrowsAnyAsync<RhoException>(() => World.RunAsync(TrainingRun.Resume(run.Output)))).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("optimizer.safetensors")]
    [InlineData("model/model.safetensors")]
    [InlineData("state.json")]
    public async Task Resume_NewestCheckpointDamaged_TakesTheOneBefore(string file)
    {
        var corpus = _world.Corpus("corpus", [40, 30]);
        var extra = _world.Slm(Source());
        var whole = await World.RunAsync(TrainingRun.Start(_world.Run("whole", corpus, extra)));
        var cut = _world.Run("cut", corpus, extra);
        await StopAfterAsync(TrainingRun.Start(cut), 6);

        var newest = Path.Combine(cut.Output, "checkpoints", "step-00000006", file);
        var bytes = File.ReadAllBytes(newest);
        bytes[^20] ^= 1;
        File.WriteAllBytes(newest, file == "state.json" ? bytes[..^30] : bytes);
        // A checkpoint that was being written when the process was killed.
        Directory.CreateDirectory(Path.Combine(cut.Output, "checkpoints", "step-00000008.1-2.tmp", "model"));
        File.AppendAllText(Path.Combine(cut.Output, "metrics.jsonl"), "{\"event\":\"step\",\"st");

        var resumed = await World.RunAsync(TrainingRun.Resume(cut.Output));
        Assert.Equal(World.Weights(whole.Model!), World.Weights(resumed.Model!));
        Assert.Contains(Of(cut.Output, "warning"), line => line["message"]!.GetValue<string>().Contains("taking the checkpoint before", StringComparison.Ordinal));
        Assert.Equal(Enumerable.Range(1, 12), Of(cut.Output, "step").Select(line => line["step"]!.GetValue<int>()));
        Assert.DoesNotContain(Directory.EnumerateDirectories(Path.Combine(cut.Output, "checkpoints")), path => path.EndsWith(".tmp", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Checkpoints_KeepLastAndBest()
    {
        _world.Corpus("held", [10], seed: 9);
        var run = _world.Run("out", _world.Corpus("corpus", [40, 30]), """ "evaluation": { "every_steps": 0, "sets": [ { "name": "held", "corpus": "held" } ] }, """, steps: 16, schedule: "\"learning_rate\": 3, \"warmup_steps\": 8");
        run = run with { Checkpoints = run.Checkpoints with { EverySteps = 2, KeepLast = 2, KeepBestBy = "held" } };
        await World.RunAsync(TrainingRun.Start(run));
        var kept = Directory.EnumerateDirectories(Path.Combine(run.Output, "checkpoints")).Select(Path.GetFileName).Order().ToList();
        var best = Of(run.Output, "evaluation").Where(line => line["step"]!.GetValue<int>() > 0).MinBy(line => line["losses"]!["held"]!.GetValue<double>())!["step"]!.GetValue<int>();
        Assert.Contains($"step-{best:D8}", kept);
        Assert.Contains("step-00000016", kept);
        Assert.Contains("step-00000014", kept);
        Assert.InRange(kept.Count, 2, 3);
    }

    [Fact]
    public async Task Checkpoint_OnRequest_ComesWhileTrainingGoesOn()
    {
        var run = TrainingRun.Start(_world.Run("out", _world.Corpus("corpus", [40]), steps: 1_000_000) with { Checkpoints = new CheckpointSection { EverySteps = 0 } });
        using var stop = new CancellationTokenSource();
        var running = World.RunAsync(run, stop.Token);
        var path = await run.CheckpointAsync().WaitAsync(World.Patience);
        Assert.True(File.Exists(Path.Combine(path, "state.json")));
        await stop.CancelAsync();
        Assert.Equal(RunState.Stopped, (await running).State);
    }

    [Fact]
    public async Task Checkpoint_FolderUnwritable_TrainingGoesOnWithAWarning()
    {
        var run = _world.Run("out", _world.Corpus("corpus", [40]), steps: 10);
        var training = TrainingRun.Start(run);
        training.SelectionObserver = batch =>
        {
            // A file where the folder of checkpoints was: nothing can be written there.
            var checkpoints = Path.Combine(run.Output, "checkpoints");
            if (batch.Step == 2 && Directory.Exists(checkpoints))
            {
                Directory.Delete(checkpoints, recursive: true);
                File.WriteAllText(checkpoints, "");
            }

            if (batch.Step == 10 && File.Exists(checkpoints))
            {
                File.Delete(checkpoints);
                Directory.CreateDirectory(checkpoints);
            }
        };
        var result = await World.RunAsync(training);
        Assert.Equal(RunState.Finished, result.State);
        Assert.Contains(Of(run.Output, "warning"), line => line["message"]!.GetValue<string>().Contains("checkpoint of step 4 cannot be written", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Run_LossExplodes_SkipsThenStopsWithADiagnosis()
    {
        var run = _world.Run("out", _world.Corpus("corpus", [40]), steps: 50, schedule: "\"learning_rate\": 99, \"warmup_steps\": 0");
        run = run with { Optimizer = run.Optimizer with { Clip = 0, WeightDecay = 100, MaxNonFiniteSteps = 3 } };
        var error = await Assert.ThrowsAnyAsync<RhoException>(() => World.RunAsync(TrainingRun.Start(run)));
        Assert.Contains("3 steps in a row were skipped", error.Message, StringComparison.Ordinal);
        Assert.Equal("failed", Metrics(run.Output)[^1]["state"]!.GetValue<string>());
        Assert.Equal(3, Of(run.Output, "step").Count(line => line["skipped"] is not null));
    }

    [Fact]
    public async Task Watch_SeesTheWholeRun_AndEnds()
    {
        var run = TrainingRun.Start(_world.Run("out", _world.Corpus("corpus", [40])));
        var events = new List<TrainingEvent>();
        await using var watched = run.WatchAsync().GetAsyncEnumerator();
        var next = watched.MoveNextAsync(); // The watcher is there before the run starts.
        var running = World.RunAsync(run);
        while (await next.AsTask().WaitAsync(World.Patience))
        {
            events.Add(watched.Current);
            next = watched.MoveNextAsync();
        }

        await running;
        Assert.IsType<RunStarted>(events[0]);
        Assert.IsType<RunEnded>(events[^1]);
        Assert.Equal(12, events.OfType<StepFinished>().Count());
        Assert.NotEmpty(events.OfType<CheckpointWritten>());
    }

    [Fact]
    public async Task Run_Epochs_EndTheRun()
    {
        var run = _world.Run("out", _world.Corpus("corpus", [40, 30]));
        run = run with { Steps = null, Data = run.Data with { Corpora = [run.Data.Corpora[0] with { Epochs = 1.5 }] } };
        Assert.Equal(105 / 8, (await World.RunAsync(TrainingRun.Start(run))).Step);
        var tooLong = run with { Steps = 14, Output = _world.At("long") };
        Assert.Contains("end after 13", (await Assert.ThrowsAnyAsync<RhoException>(() => World.RunAsync(TrainingRun.Start(tooLong)))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Run_TensorBoard_WritesFramesThatCheck()
    {
        var run = _world.Run("out", _world.Corpus("corpus", [40]));
        await World.RunAsync(TrainingRun.Start(run with { Metrics = new MetricsSection { Tensorboard = true, PeakFlops = 1e12 } }));
        var bytes = File.ReadAllBytes(Directory.EnumerateFiles(Path.Combine(run.Output, "tensorboard")).Single());
        var frames = 0;
        for (var at = 0; at < bytes.Length; frames++)
        {
            var length = (int)BitConverter.ToUInt64(bytes, at);
            Assert.Equal(TensorBoardWriter.MaskedCrc(bytes.AsSpan(at, 8)), BitConverter.ToUInt32(bytes, at + 8));
            Assert.Equal(TensorBoardWriter.MaskedCrc(bytes.AsSpan(at + 12, length)), BitConverter.ToUInt32(bytes, at + 12 + length));
            at += 16 + length;
        }

        Assert.Equal(1 + 12 + 3, frames); // The version, steps and checkpoints.
        // The check value of CRC-32C, masked as TFRecord does.
        var crc = 0xE3069283u;
        Assert.Equal(((crc >> 15) | (crc << 17)) + 0xa282ead8, TensorBoardWriter.MaskedCrc("123456789"u8));
        Assert.InRange(Of(run.Output, "step")[^1]["flops_share"]!.GetValue<double>(), 1e-9, 1);
    }
}
