using System.Diagnostics;
using System.Globalization;
using Xunit.Abstractions;
using static TorchSharp.torch;

namespace TorchSharp.Tests;

/// <summary>What a call costs beside PyTorch's Python calls, where the work itself is next to nothing.</summary>
public sealed class CallCostTests(ITestOutputHelper output)
{
    private const string Peer = """
        import timeit, torch
        torch.set_num_threads(1)
        x, y, m = torch.rand(8), torch.rand(8), torch.rand(8, 8)
        with torch.no_grad():
            for name, f in (("add", lambda: x + y), ("add_", lambda: x.add_(y)), ("mul by a number", lambda: x * 2.0), ("view", lambda: m.view(4, 16)),
                            ("matmul 8x8", lambda: m @ m), ("sum", lambda: x.sum()), ("index", lambda: m[1])):
                timer = timeit.Timer(f)
                timer.timeit(20000)
                print(name, min(timer.repeat(7, 20000)) / 20000 * 1e9, sep="\t")
        """;

    [Fact]
    [Trait("Category", "Slow")]
    public async Task ElementwiseCall_CostsAtMostOneAndAHalfOfPythons()
    {
        var python = await MeasurePython();
        using var scope = NewDisposeScope();
        using var mode = no_grad();
        set_num_threads(1);
        var (x, y, m) = (rand(8), rand(8), rand(8, 8));
        var ours = new Dictionary<string, double>(StringComparer.Ordinal)
        {
            ["add"] = Measure(() => (x + y).Dispose()),
            ["add_"] = Measure(() => x.add_(y)),
            ["mul by a number"] = Measure(() => (x * 2.0).Dispose()),
            ["view"] = Measure(() => m.view(4, 16).Dispose()),
            ["matmul 8x8"] = Measure(() => m.matmul(m).Dispose()),
            ["sum"] = Measure(() => x.sum().Dispose()),
            ["index"] = Measure(() => m[1].Dispose()),
        };
        foreach (var (name, nanoseconds) in ours)
        {
            output.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{name,-16} {nanoseconds,6:F0} ns here, {python[name],6:F0} ns in Python: {nanoseconds / python[name]:F2} times"));
        }

        Assert.InRange(ours["add"] / python["add"], 0, 1.5);
    }

    private static double Measure(Action call)
    {
        const int calls = 20_000;
        for (var i = 0; i < 5 * calls; i++) call();
        var best = double.MaxValue;
        for (var round = 0; round < 7; round++)
        {
            var start = Stopwatch.GetTimestamp();
            for (var i = 0; i < calls; i++) call();
            best = Math.Min(best, Stopwatch.GetElapsedTime(start).TotalNanoseconds / calls);
        }

        return best;
    }

    private static async Task<Dictionary<string, double>> MeasurePython()
    {
        using var process = Process.Start(new ProcessStartInfo("/usr/bin/python3", ["-c", Peer]) { RedirectStandardOutput = true, UseShellExecute = false })!;
        using var timeout = new CancellationTokenSource(TimeSpan.FromMinutes(1));
        try
        {
            var lines = await process.StandardOutput.ReadToEndAsync(timeout.Token);
            await process.WaitForExitAsync(timeout.Token);
            return lines.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => line.Split('\t'))
                .ToDictionary(parts => parts[0], parts => double.Parse(parts[1], CultureInfo.InvariantCulture), StringComparer.Ordinal);
        }
        finally
        {
            if (!process.HasExited) process.Kill();
        }
    }
}
