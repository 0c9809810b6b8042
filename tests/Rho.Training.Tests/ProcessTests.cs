using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text.Json.Nodes;
using Rho.Data;

namespace Rho.Training.Tests;

/// <summary>Runs that are killed, and runs of several processes.</summary>
[Trait("Category", "Slow")]
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
    public async Task Run_KilledTwentyTimesAtRandomMoments_EndsWithTheSameBits()
    {
        var corpus = _world.Corpus("corpus", [90, 60], padded: true);
        var extra = _world.Slm(Source());
        RunFile Run(string name) => Write(_world.Run(name, corpus, extra, steps: 2000) with { Checkpoints = new CheckpointSection { EverySteps = 7 } });
        var whole = Run("whole");
        Assert.Equal(0, (await TrainerProcess.EndAsync(TrainerProcess.Start("train", _world.At("whole.json")))).Code);

        var cut = Run("cut");
        var random = new Random(20);
        for (var kill = 0; kill < 20; kill++)
        {
            var before = LastStep(cut);
            using var process = File.Exists(Path.Combine(cut.Output, "run.json")) ? TrainerProcess.Start("resume", cut.Output) : TrainerProcess.Start("train", _world.At("cut.json"));
            var limit = Stopwatch.StartNew();
            // Some die before their first step, most between two checkpoints, some while one is written.
            while (kill % 5 != 4 && LastStep(cut) < before + 5 && !process.HasExited && limit.Elapsed < World.Patience) await Task.Delay(20);
            await Task.Delay(random.Next(150));
            process.Kill();
            await process.WaitForExitAsync().WaitAsync(World.Patience);
        }

        Assert.InRange(LastStep(cut), 20, 1999);
        var (code, error) = await TrainerProcess.EndAsync(TrainerProcess.Start("resume", cut.Output));
        Assert.True(code == 0, error);
        Assert.Equal(World.Weights(Path.Combine(whole.Output, "final")), World.Weights(Path.Combine(cut.Output, "final")));
        Assert.Equal(2000, File.ReadLines(Path.Combine(cut.Output, "metrics.jsonl")).Count(line => line.StartsWith("{\"event\":\"step\"", StringComparison.Ordinal)));
    }

    [Fact]
    public async Task Run_Terminated_WritesACheckpointAndEnds()
    {
        var run = Write(_world.Run("out", _world.Corpus("corpus", [40]), steps: 100_000));
        var process = TrainerProcess.Start("train", _world.At("out.json"));
        await UntilStepAsync(run, 3, process);
        Assert.Equal(0, Signal(process.Id, 15));
        Assert.Equal(2, (await TrainerProcess.EndAsync(process)).Code);
        Assert.True(Directory.Exists(Path.Combine(run.Output, "checkpoints", $"step-{LastStep(run):D8}")));
    }

    private static async Task UntilStepAsync(RunFile run, long step, Process process)
    {
        var limit = Stopwatch.StartNew();
        while (LastStep(run) < step && !process.HasExited && limit.Elapsed < World.Patience) await Task.Delay(20);
    }

    [Theory]
    [InlineData(2, "")]
    [InlineData(3, "")]
    [InlineData(2, ", \"scope\": \"global_batch\"")]
    public async Task Run_SeveralRanks_EqualsOneProcessAtEqualBatch(int ranks, string objective)
    {
        if (!TrainerProcess.HasMpi) return;
        var corpus = _world.Corpus("corpus", [90, 60], padded: true);
        var extra = _world.Slm(Source(), objective);
        RunFile Run(string name, int accumulation) => Write(_world.Run(name, corpus, extra) with { Batch = new BatchSection { Sequences = 4, Accumulation = accumulation } });
        var one = Run("one", ranks * 2);
        var many = Run("many", 2);
        Assert.Equal(0, (await TrainerProcess.EndAsync(TrainerProcess.Start("train", _world.At("one.json")))).Code);
        var (code, error) = await TrainerProcess.EndAsync(TrainerProcess.StartRanks(ranks, "train", _world.At("many.json")));
        Assert.True(code == 0, error);

        var (a, b) = (Weights(Path.Combine(one.Output, "final")), Weights(Path.Combine(many.Output, "final")));
        for (var i = 0; i < a.Length; i++) Assert.Equal(a[i], b[i], 2e-4);
        var (first, last) = (Steps(one), Steps(many));
        for (var i = 0; i < first.Count; i++)
        {
            foreach (var field in new[] { "loss", "all_loss", "gradient_norm", "threshold" }) Assert.Equal(first[i][field]!.GetValue<double>(), last[i][field]!.GetValue<double>(), 2e-3);
            Assert.Equal(first[i]["selected_tokens"]!.GetValue<long>(), last[i]["selected_tokens"]!.GetValue<long>());
        }
    }

    private static List<JsonNode> Steps(RunFile run) =>
        [.. File.ReadLines(Path.Combine(run.Output, "metrics.jsonl")).Select(line => JsonNode.Parse(line)!).Where(line => line["event"]!.GetValue<string>() == "step")];

    [Fact]
    public async Task Run_TwoRanks_StoppedAndResumed_EqualsUninterrupted()
    {
        if (!TrainerProcess.HasMpi) return;
        var corpus = _world.Corpus("corpus", [90, 60]);
        var extra = _world.Slm(Source());
        var whole = Write(_world.Run("whole", corpus, extra, steps: 400));
        var cut = Write(_world.Run("cut", corpus, extra, steps: 400));
        Assert.Equal(0, (await TrainerProcess.EndAsync(TrainerProcess.StartRanks(2, "train", _world.At("whole.json")))).Code);
        var process = TrainerProcess.StartRanks(2, "train", _world.At("cut.json"));
        await UntilStepAsync(cut, 20, process);
        Assert.Equal(0, Signal(process.Id, 15)); // mpirun passes it on to all ranks.
        await TrainerProcess.EndAsync(process);
        Assert.InRange(LastStep(cut), 20, 399);
        var (code, error) = await TrainerProcess.EndAsync(TrainerProcess.StartRanks(2, "resume", cut.Output));
        Assert.True(code == 0, error);
        Assert.Equal(World.Weights(Path.Combine(whole.Output, "final")), World.Weights(Path.Combine(cut.Output, "final")));
        (code, error) = await TrainerProcess.EndAsync(TrainerProcess.Start("resume", cut.Output));
        Assert.Equal(1, code);
        Assert.Contains("was trained by 2 processes", error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Run_ARankDies_AllEndWithAnError()
    {
        if (!TrainerProcess.HasMpi) return;
        var run = Write(_world.Run("out", _world.Corpus("corpus", [90, 60]), steps: 100_000));
        var process = TrainerProcess.StartRanks(2, "train", _world.At("out.json"));
        await UntilStepAsync(run, 10, process);
        var ranks = Process.GetProcessesByName("dotnet").Where(candidate => CommandLine(candidate.Id).Contains(_world.At("out.json"), StringComparison.Ordinal) && !CommandLine(candidate.Id).Contains("mpirun", StringComparison.Ordinal)).ToList();
        Assert.Equal(2, ranks.Count);
        ranks[^1].Kill();
        Assert.NotEqual(0, (await TrainerProcess.EndAsync(process)).Code);
        Assert.Contains("step-", Directory.EnumerateDirectories(Path.Combine(run.Output, "checkpoints")).First(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Run_ARankCannotStart_AllEndWithItsReason()
    {
        if (!TrainerProcess.HasMpi) return;
        var run = _world.Run("out", _world.Corpus("corpus", [4]));
        Write(run with { Steps = null, Data = run.Data with { Corpora = [run.Data.Corpora[0] with { Epochs = 1 }] } });
        var (code, error) = await TrainerProcess.EndAsync(TrainerProcess.StartRanks(2, "train", _world.At("out.json")));
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
