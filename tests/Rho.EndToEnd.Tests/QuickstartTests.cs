using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;
using Rho.Cli.Quickstart;

namespace Rho.EndToEnd.Tests;

public sealed partial class QuickstartTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task Quickstart_SmallSizes_LeavesSummaryAndReportAndNoProcess()
    {
        var settings = new QuickstartSettings
        {
            CuratedCharacters = 80_000,
            CrawlCharacters = 120_000,
            HeldOutCharacters = 8_000,
            VocabularySize = 400,
            SequenceLength = 64,
            Hidden = 64,
            Layers = 1,
            Evaluations = 4,
            Questions = 12,
            Program = Path.Combine(AppContext.BaseDirectory, "rho"),
        };
        using var patience = new CancellationTokenSource(RhoProgram.Patience);
        await using (var job = new QuickstartJob(_folder["out"], settings)) await job.RunAsync(patience.Token);

        var summary = JsonSerializer.Deserialize<QuickstartSummary>(await File.ReadAllTextAsync(Path.Combine(_folder["out"], "summary.json")), QuickstartSummary.JsonOptions)!;
        var (clm, slm) = (summary.Runs[0], summary.Runs[1]);
        Assert.Equal(clm.Tokens, slm.Tokens);
        Assert.Equal(1, clm.NoiseTrainedOn);
        Assert.InRange(slm.NoiseTrainedOn, 0.01, settings.Ratio);
        Assert.True(slm.CleanTrainedOn > slm.NoiseTrainedOn);
        Assert.True(slm.Curve.Count >= settings.Evaluations && slm.Curve[0].HeldOutLoss > slm.HeldOutLoss);
        Assert.Equal(settings.Questions, summary.Asked.Count);
        AssertMarkedCorrectly(summary.Asked);
        Assert.Contains("<polyline class=\"slm\"", await File.ReadAllTextAsync(Path.Combine(_folder["out"], "report.html")), StringComparison.Ordinal);
        Assert.False(IsAlive(RedisProcess()));
    }

    [Fact]
    public async Task Quickstart_Interrupted_StopsWhatItStarted()
    {
        var quickstart = RhoProgram.Start(line => null, "quickstart", "--out", _folder["out"]);
        await using (quickstart)
        {
            using var patience = new CancellationTokenSource(RhoProgram.Patience);
            while (!File.Exists(RedisLog()) || !File.ReadAllText(RedisLog()).Contains("Ready to accept", StringComparison.Ordinal)) await Task.Delay(20, patience.Token);
            Assert.True(IsAlive(RedisProcess()));
            quickstart.Signal(2);
            await quickstart.WaitForExitAsync(patience.Token);
            Assert.Equal(130, quickstart.ExitCode);
        }

        Assert.False(IsAlive(RedisProcess()));
        Assert.False(File.Exists(Path.Combine(_folder["out"], "summary.json")));
    }

    [Fact]
    public async Task Quickstart_Killed_TakesItsProcessesAlong()
    {
        var quickstart = RhoProgram.Start(line => null, "quickstart", "--out", _folder["out"]);
        await using (quickstart)
        {
            using var patience = new CancellationTokenSource(RhoProgram.Patience);
            while (!File.Exists(RedisLog()) || !File.ReadAllText(RedisLog()).Contains("Ready to accept", StringComparison.Ordinal)) await Task.Delay(20, patience.Token);
            quickstart.Signal(9);
            await quickstart.WaitForExitAsync(patience.Token);
            while (IsAlive(RedisProcess())) await Task.Delay(20, patience.Token);
        }
    }

    [Fact]
    public async Task Quickstart_FolderWithOtherThings_IsRefusedAndUntouched()
    {
        Directory.CreateDirectory(_folder["mine"]);
        await File.WriteAllTextAsync(Path.Combine(_folder["mine"], "summary.json"), "mine");
        Assert.Contains(_folder["mine"], await RhoProgram.FailAsync("quickstart", "--out", _folder["mine"]), StringComparison.Ordinal);
        Assert.Equal("mine", await File.ReadAllTextAsync(Path.Combine(_folder["mine"], "summary.json")));
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task Quickstart_FullSizes_SelectiveTrainingEndsLower()
    {
        await RhoProgram.SucceedAsync("quickstart", "--out", _folder["out"]);
        var summary = JsonSerializer.Deserialize<QuickstartSummary>(await File.ReadAllTextAsync(Path.Combine(_folder["out"], "summary.json")), QuickstartSummary.JsonOptions)!;
        Assert.True(summary.Runs[1].HeldOutLoss < summary.Runs[0].HeldOutLoss - 0.02);
        Assert.True(summary.ReachesClmAfter < 0.75);
        Assert.True(summary.Runs[1].NoiseTrainedOn < 0.3);
        Assert.True(summary.SlmRight > summary.ClmRight);
        AssertMarkedCorrectly(summary.Asked);
    }

    /// <summary>Marks again, from the held-out text as written.</summary>
    private void AssertMarkedCorrectly(IReadOnlyList<Exchange> asked)
    {
        var texts = File.ReadLines(Path.Combine(_folder["out"], "data", "heldout.jsonl")).Select(line => JsonSerializer.Deserialize<JsonElement>(line).GetProperty("text").GetString()!);
        var problems = texts.SelectMany(text => text.TrimEnd().Split("\n\n")).Take(asked.Count).ToList();
        Assert.Equal(problems, asked.Select(exchange => $"{exchange.Prompt} {exchange.Answer}"));
        foreach (var (problem, exchange) in problems.Zip(asked))
            Assert.All((Reply[])[exchange.Clm, exchange.Slm], reply => Assert.Equal(exchange.Prompt + reply.Text.TrimEnd() == problem, reply.Right));
    }

    private string RedisLog() => Path.Combine(_folder["out"], "logs", "redis.log");

    private int RedisProcess() => int.Parse(LogPrefix().Match(File.ReadAllText(RedisLog())).Groups["process"].Value, CultureInfo.InvariantCulture);

    /// <summary>Running: neither gone nor a zombie that nobody has collected yet.</summary>
    private static bool IsAlive(int process)
    {
        try
        {
            var fields = File.ReadAllText($"/proc/{process}/stat");
            return fields[fields.LastIndexOf(')') + 2] is not ('Z' or 'X');
        }
        catch (IOException)
        {
            return false;
        }
    }

    [GeneratedRegex(@"^(?<process>\d+):[A-Z] ", RegexOptions.Multiline)]
    private static partial Regex LogPrefix();
}
