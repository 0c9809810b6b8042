using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text.Json.Nodes;
using Rho.Formats;

namespace Rho.Training.Tests;

/// <summary>Runs that are killed, and runs of several processes.</summary>
public sealed partial class ProcessTests : IDisposable
{
    private readonly World _world = new();

    public void Dispose() => _world.Dispose();

    private RunFile Write(RunFile run)
    {
        File.WriteAllText(_world.At($"{run.Name}.json"), run.ToJson());
        return run;
    }

    private string Source() => $$"""{ "model": "{{_world.Checkpoint("reference", 77)}}" }""";

    private static long LastStep(RunFile run)
    {
        var metrics = Path.Combine(run.Output, "metrics.jsonl");
        if (!File.Exists(metrics)) return 0;
        using var reader = new StreamReader(new FileStream(metrics, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete));
        long step = 0;
        while (reader.ReadLine() is { } line)
            if (line.EndsWith('}') && line.StartsWith("{\"event\":\"step\"", StringComparison.Ordinal)) step = JsonNode.Parse(line)!["step"]!.GetValue<long>();
        return step;
    }

    private static float[] Weights(string model)
    {
        using var file = SafetensorsFile.Open(Path.Combine(model, "model.safetensors"));
        return [.. file.Tensors.Keys.Order(StringComparer.Ordinal).SelectMany(name => MemoryMarshal.Cast<byte, float>(file.Bytes(name)).ToArray())];
    }

    [Fact]
    public Task Run_KilledThreeTimes_EndsWithTheSameBits() => EndsWithTheSameBitsAsync(kills: 3, stepsBetween: 15);

    [Fact]
    [Trait("Category", "Slow")]
    public Task Run_KilledTwentyTimesAtRandomMoments_EndsWithTheSameBits() => EndsWithTheSameBitsAsync(kills: 20, stepsBetween: 60);

    /// <summary>Kills a run again and again; each of its processes gets at most <paramref name="stepsBetween"/> steps further than the one before.</summary>
    private async Task EndsWithTheSameBitsAsync(int kills, int stepsBetween)
    {
        var corpus = _world.Corpus("corpus", [90, 60], padded: true);
        var extra = _world.Slm(Source());
        var steps = (kills + 1L) * stepsBetween;
        RunFile Run(string name) => Write(_world.Run(name, corpus, extra, steps) with { Checkpoints = new CheckpointSection { EverySteps = 7 } });
        var whole = Run("whole");
        Assert.Equal(0, (await TrainerProcess.EndAsync(TrainerProcess.Start(null, "train", _world.At("whole.json")))).Code);

        var cut = Run("cut");
        var random = new Random(20);
        for (var kill = 0; kill < kills; kill++)
        {
            var before = LastStep(cut);
            using var process = File.Exists(Path.Combine(cut.Output, "run.json"))
                ? TrainerProcess.Start(before + stepsBetween, "resume", cut.Output)
                : TrainerProcess.Start(before + stepsBetween, "train", _world.At("cut.json"));
            // Some die before their first step, most between two checkpoints, some while one is written.
            if (kill % 5 != 4) await UntilStepAsync(cut, before + random.Next(1, stepsBetween), process);
            await Task.Delay(random.Next(150));
            Assert.False(process.HasExited);
            process.Kill();
            await process.WaitForExitAsync().WaitAsync(World.Patience);
        }

        Assert.InRange(LastStep(cut), 1, steps - 1);
        var (code, error) = await TrainerProcess.EndAsync(TrainerProcess.Start(null, "resume", cut.Output));
        Assert.True(code == 0, error);
        Assert.Equal(World.Weights(Path.Combine(whole.Output, "final")), World.Weights(Path.Combine(cut.Output, "final")));
        Assert.Equal(Enumerable.Range(1, (int)steps), Steps(cut).Select(step => step["step"]!.GetValue<int>()));
    }

    [Fact]
    public async Task Run_Terminated_WritesACheckpointAndEnds()
    {
        var run = Write(_world.Run("out", _world.Corpus("corpus", [40]), steps: 100_000));
        var process = TrainerProcess.Start(null, "train", _world.At("out.json"));
        await UntilStepAsync(run, 3, process);
        Assert.Equal(0, Signal(process.Id, 15));
        Assert.Equal(2, (await TrainerProcess.EndAsync(process)).Code);
        Assert.True(Directory.Exists(Path.Combine(run.Output, "checkpoints", $"step-{LastStep(run):D8}")));
    }

    private static async Task UntilStepAsync(RunFile run, long step, Process process)
    {
        var limit = Stopwatch.StartNew();
        while (LastStep(run) < step && !process.HasExited && limit.Elapsed < 2 * World.Patience) await Task.Delay(20);
    }

    [Fact]
    public Task Run_TwoRanks_EqualOneProcess() => RanksEqualOneProcessAsync(2, "");

    [Theory]
    [Trait("Category", "Slow")]
    [InlineData(3, "")]
    [InlineData(4, "")]
    [InlineData(2, ", \"scope\": \"global_batch\"")]
    [InlineData(4, ", \"scope\": \"sequence\"")]
    [InlineData(2, ", \"ratio\": 0.4, \"backward\": \"filtered\", \"backward_halo\": 1")]
    [InlineData(2, ", \"ratio\": 0.4, \"floor\": { \"weight\": 0.15, \"share\": 0.15 }")]
    [InlineData(2, ", \"scope\": \"global_batch\", \"floor\": { \"weight\": 0.3, \"share\": 0.3 }")]
    [InlineData(2, ", \"scope\": \"global_batch\", \"selector\": { \"by\": \"divergence\" }")]
    public Task Run_SeveralRanks_EqualOneProcess(int ranks, string objective) => RanksEqualOneProcessAsync(ranks, objective);

    /// <summary>The load-balancing loss is one of each micro-batch: their mean does not depend on which process had them. Two steps, as what is left of a difference changes in time which experts are taken.</summary>
    [Fact]
    [Trait("Category", "Slow")]
    public Task Run_TwoRanksWithRouterBalance_EqualOneProcess()
    {
        var model = new ModelSection { From = MixtureTests.Uneven(_world) };
        return RanksEqualOneProcessAsync(2, "", run => run with { Model = model, Loss = new LossSection { RouterBalance = 0.5 }, Steps = 2 }, "router_balance", "busiest_expert_share");
    }

    /// <summary>Micro-batches are cut to different lengths, and what a history says is exchanged between processes.</summary>
    [Theory]
    [Trait("Category", "Slow")]
    [InlineData(ObjectiveScope.Sequence)]
    [InlineData(ObjectiveScope.GlobalBatch)]
    public async Task Run_TwoRanksWithMaskAndHistory_EqualOneProcess(ObjectiveScope scope)
    {
        var corpus = _world.Corpus("corpus", [90, 60], padded: true);
        var (scores, other) = (_world.Scores("scores", corpus, _world.Checkpoint("earlier", 5)), _world.Scores("other", corpus, _world.Checkpoint("later", 6)));
        await Concentrator.RunAsync(new ConcentrationOptions
        {
            Corpus = corpus,
            Output = _world.At("mask"),
            ModelScores = scores,
            MaskOnly = true,
            Reference = new ReferenceSection { Sources = [new ReferenceSourceSection { Scores = other }] },
            Objective = new ObjectiveSection { Kind = ObjectiveKind.Slm, Ratio = 0.4, Scope = ObjectiveScope.GlobalBatch },
        }).WaitAsync(World.Patience);
        await RanksEqualOneProcessAsync(2, "", run => run with
        {
            Data = run.Data with { Corpora = [new CorpusSection { Path = corpus, Mask = _world.At("mask"), MinimumSelected = 4 }] },
            Objective = run.Objective with { Scope = scope, Selector = new SelectorSection { ExcessOf = [Selection.LossSet.History, Selection.LossSet.Reference] } },
            Reference = run.Reference with { History = new ReferenceSourceSection { Scores = scores } },
        });
    }

    private async Task RanksEqualOneProcessAsync(int ranks, string objective, Func<RunFile, RunFile>? change = null, params string[] alsoEqual)
    {
        var corpus = _world.Corpus("corpus", [90, 60], padded: true);
        var extra = _world.Slm(Source(), objective);
        RunFile Run(string name, int accumulation)
        {
            var run = _world.Run(name, corpus, extra) with { Batch = new BatchSection { Sequences = 4, Accumulation = accumulation } };
            return Write(change?.Invoke(run) ?? run);
        }

        var one = Run("one", ranks * 2);
        var many = Run("many", 2);
        Assert.Equal(0, (await TrainerProcess.EndAsync(TrainerProcess.Start(null, "train", _world.At("one.json")))).Code);
        var (code, error) = await TrainerProcess.EndAsync(TrainerProcess.StartRanks(ranks, null, "train", _world.At("many.json")));
        Assert.True(code == 0, error);

        var (first, last) = (Steps(one), Steps(many));
        Assert.Equal(first.Count, last.Count);
        for (var i = 0; i < first.Count; i++)
        {
            // The first step differs by the order of a sum alone; AdamW then makes what is left of it grow.
            var relative = i == 0 ? 2e-6 : 1e-3;
            foreach (var field in (string[])["loss", "all_loss", "gradient_norm", "threshold", .. alsoEqual])
            {
                var expected = first[i][field]!.GetValue<double>();
                Assert.Equal(expected, last[i][field]!.GetValue<double>(), relative * (1 + Math.Abs(expected)));
            }

            Assert.Equal(first[i]["selected_tokens"]!.GetValue<long>(), last[i]["selected_tokens"]!.GetValue<long>());
        }

        var (a, b) = (Weights(Path.Combine(one.Output, "final")), Weights(Path.Combine(many.Output, "final")));
        for (var i = 0; i < a.Length; i++) Assert.Equal(a[i], b[i], 2e-4);
    }

    private static List<JsonNode> Steps(RunFile run) =>
        [.. File.ReadLines(Path.Combine(run.Output, "metrics.jsonl")).Select(line => JsonNode.Parse(line)!).Where(line => line["event"]!.GetValue<string>() == "step")];

    [Fact]
    [Trait("Category", "Slow")]
    public async Task Run_TwoRanks_StoppedAndResumed_EqualsUninterrupted()
    {
        var corpus = _world.Corpus("corpus", [90, 60]);
        var extra = _world.Slm(Source());
        var whole = Write(_world.Run("whole", corpus, extra, steps: 60));
        var cut = Write(_world.Run("cut", corpus, extra, steps: 60));
        Assert.Equal(0, (await TrainerProcess.EndAsync(TrainerProcess.StartRanks(2, null, "train", _world.At("whole.json")))).Code);
        var process = TrainerProcess.StartRanks(2, 30, "train", _world.At("cut.json"));
        await UntilStepAsync(cut, 22, process);
        Assert.Equal(0, Signal(process.Id, 15)); // mpirun passes it on to all ranks.
        await TrainerProcess.EndAsync(process);
        Assert.InRange(LastStep(cut), 22, 32);
        var (code, error) = await TrainerProcess.EndAsync(TrainerProcess.StartRanks(2, null, "resume", cut.Output));
        Assert.True(code == 0, error);
        Assert.Equal(World.Weights(Path.Combine(whole.Output, "final")), World.Weights(Path.Combine(cut.Output, "final")));
        (code, error) = await TrainerProcess.EndAsync(TrainerProcess.Start(null, "resume", cut.Output));
        Assert.Equal(1, code);
        Assert.Contains("was trained by 2 processes", error, StringComparison.Ordinal);
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task Run_ARankDies_AllEndWithAnError()
    {
        var run = Write(_world.Run("out", _world.Corpus("corpus", [90, 60]), steps: 100_000));
        var process = TrainerProcess.StartRanks(2, null, "train", _world.At("out.json"));
        var checkpoints = Path.Combine(run.Output, "checkpoints");
        bool HasCheckpoint() => Directory.Exists(checkpoints) && Directory.EnumerateDirectories(checkpoints, "step-*").Any();
        var limit = Stopwatch.StartNew();
        while (!HasCheckpoint() && !process.HasExited && limit.Elapsed < 2 * World.Patience) await Task.Delay(20);
        var ranks = Process.GetProcessesByName("dotnet").Where(candidate => CommandLine(candidate.Id).Contains(_world.At("out.json"), StringComparison.Ordinal)).ToList();
        Assert.Equal(2, ranks.Count);
        ranks[^1].Kill();
        var (code, error) = await TrainerProcess.EndAsync(process);
        Assert.NotEqual(0, code);
        Assert.Contains("exited on signal 9", error, StringComparison.Ordinal); // mpirun names the rank.
        Assert.True(HasCheckpoint());
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task Run_ARankCannotStart_AllEndWithItsReason()
    {
        var run = _world.Run("out", _world.Corpus("corpus", [4]));
        Write(run with { Steps = null, Data = run.Data with { Corpora = [run.Data.Corpora[0] with { Epochs = 1 }] } });
        var (code, error) = await TrainerProcess.EndAsync(TrainerProcess.StartRanks(2, null, "train", _world.At("out.json")));
        Assert.NotEqual(0, code);
        Assert.Contains("fewer than the 16 of one step", error, StringComparison.Ordinal);
    }

    private static string CommandLine(int process)
    {
        try
        {
            return File.ReadAllText($"/proc/{process}/cmdline");
        }
        catch (IOException)
        {
            return "";
        }
    }

    [LibraryImport("libc", EntryPoint = "kill")]
    private static partial int Signal(int process, int signal);
}
