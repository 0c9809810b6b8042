using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using Rho.Torch;

namespace Rho.Benchmarks;

/// <summary>
/// Speed and peak memory side by side with plain programs: one in TorchSharp on the same libtorch, torch_llama.py on another PyTorch; or with
/// another build of Rho. Every figure comes from a process of its own; all take turns, and ratios are medians over the rounds. Prints a row of
/// README's table per size, type and mode.
/// </summary>
internal static class PeerComparison
{
    private static readonly string[] Modes = ["score", "clm", "slm-cached", "generate-batch-1", "generate-batch-8"];

    internal static void AddTo(RootCommand root)
    {
        var sizes = Sizes.Several();
        var dtypes = Choice("--dtypes", "Element types of the products", ["float32", "bfloat16"]);
        var modes = Choice("--modes", "What to measure", Modes);
        var rounds = new Option<int>("--rounds") { Description = "Processes per figure", HelpName = "N", DefaultValueFactory = _ => 3 };
        var steps = new Option<int>("--steps") { Description = "Measured steps per process", HelpName = "N", DefaultValueFactory = _ => 7 };
        var python = new Option<string>("--python") { Description = "A Python that has torch", HelpName = "PATH", DefaultValueFactory = _ => "/usr/bin/python3" };
        var against = new Option<string?>("--against") { Description = "Another build's Rho.Benchmarks to compare with, instead of the peers", HelpName = "PATH" };
        var byProcessorTime = new Option<bool>("--by-processor-time") { Description = "Ratios of processor time per step, which other work on the machine changes little" };
        var below = new Option<double?>("--below") { Description = "Ends with a line that names the rows whose first ratio is less", HelpName = "RATIO" };
        var (length, batch) = (Sizes.LengthOption(), Sizes.BatchOption());
        foreach (var option in new Option[] { sizes, dtypes, modes, length, batch, rounds, steps, python, against, byProcessorTime, below }) root.Add(option);
        against.Validators.Add(result =>
        {
            if (result.GetValueOrDefault<string?>() is { } path && !File.Exists(path)) result.AddError($"--against {path}: there is no such file");
        });
        root.SetAction(result =>
        {
            var ours = OwnWorker("Rho", Environment.ProcessPath!, "worker");
            var others = result.GetValue(against) is { } path ? [OwnWorker("other build", path, "worker")] : Peers(result.GetValue(python)!);
            Console.WriteLine($"{File.ReadLines("/proc/cpuinfo").First(line => line.StartsWith("model name", StringComparison.Ordinal)).Split(':')[1].Trim()}, {Environment.ProcessorCount} cores, libtorch {LibTorch.Version}");
            Console.WriteLine();
            Console.WriteLine($"| sizes | type | what | Rho, tokens/s |{string.Concat(others.Select(other => $" {other.Name}, tokens/s | ratio |"))} Rho, peak MB |{string.Concat(others.Select(other => $" {other.Name}, peak MB |"))}");
            Console.WriteLine($"| --- | --- | --- | ---: |{string.Concat(others.Select(_ => " ---: | ---: |"))} ---: |{string.Concat(others.Select(_ => " ---: |"))}");
            var slow = new List<string>();
            foreach (var name in result.GetValue(sizes)!)
            {
                foreach (var dtype in result.GetValue(dtypes)!)
                {
                    foreach (var mode in result.GetValue(modes)!)
                    {
                        var work = new Work(Sizes.All[name].With(result.GetValue(length), result.GetValue(batch)), dtype, mode, result.GetValue(steps));
                        var ratio = Row(work, ours, others, result.GetValue(rounds), result.GetValue(byProcessorTime));
                        if (ratio < result.GetValue(below)) slow.Add(string.Create(CultureInfo.InvariantCulture, $"{work.Sizes.Name} {dtype} {mode} {ratio:0.000}"));
                    }
                }
            }

            if (result.GetValue(below) is { } least)
            {
                Console.WriteLine();
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"below {least} of {others[0].Name}: {(slow.Count == 0 ? "none" : string.Join("; ", slow))}"));
            }

            return 0;
        });
    }

    private static Side[] Peers(string python)
    {
        TorchSharpPeer.Check.Run(log: null);
        var torchSharp = OwnWorker("TorchSharp", Environment.ProcessPath!, "peer");
        if (TorchVersion(python) is { } version) return [torchSharp, new Side($"PyTorch {version}", work => Measuring.Run(python, PythonArguments(work)))];
        Console.Error.WriteLine($"rho: {python} has no PyTorch (Debian: python3-torch); measured without it");
        return [torchSharp];
    }

    private static Side OwnWorker(string name, string program, string command) => new(name, work => Measuring.Run(program,
        [command, "--sizes", work.Sizes.Key, "--length", $"{work.Sizes.Length}", "--batch", $"{work.Sizes.Batch}", "--dtype", work.Dtype, "--mode", work.Mode, "--steps", $"{work.Steps}"]));

    private static IEnumerable<string> PythonArguments(Work work)
    {
        var (sizes, generate) = (work.Sizes, work.Mode.StartsWith("generate", StringComparison.Ordinal));
        return
        [
            Path.Combine(AppContext.BaseDirectory, "torch_llama.py"),
            "--hidden", $"{sizes.Hidden}", "--layers", $"{sizes.Layers}", "--heads", $"{sizes.Heads}", "--kv-heads", $"{sizes.KeyValueHeads}", "--vocab", $"{sizes.Vocabulary}", "--seq", $"{sizes.Length}",
            "--batch", generate ? "8" : $"{sizes.Batch}", "--intermediate", $"{sizes.Intermediate}", "--dtype", work.Dtype, "--steps", $"{work.Steps}", "--threads", $"{Environment.ProcessorCount}", "--modes", work.Mode,
        ];
    }

    private static string? TorchVersion(string python)
    {
        if (!File.Exists(python)) return null;
        using var process = Process.Start(new ProcessStartInfo(python, ["-c", "import torch; print(torch.__version__)"]) { RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false })!;
        process.ErrorDataReceived += static (_, _) => { };
        process.BeginErrorReadLine();
        var version = process.StandardOutput.ReadToEnd().Trim();
        process.WaitForExit();
        return process.ExitCode == 0 ? version : null;
    }

    /// <summary>Measures and prints one; returns the ratio to the first of the others.</summary>
    private static double Row(Work work, Side ours, Side[] others, int rounds, bool byProcessorTime)
    {
        Side[] sides = [ours, .. others];
        var figures = sides.Select(_ => new List<Figure>()).ToArray();
        for (var round = 0; round < rounds; round++)
            for (var i = 0; i < sides.Length; i++) figures[i].Add(sides[i].Measure(work));

        double Median(List<Figure> of, Func<Figure, double> value) => Measuring.Median(of.Select(value));
        double Ratio(List<Figure> other) => Measuring.Median(figures[0].Zip(other, (a, b) =>
            byProcessorTime ? b.ProcessorMilliseconds / a.ProcessorMilliseconds : b.StepMilliseconds / a.StepMilliseconds));
        var text = CultureInfo.InvariantCulture;
        Console.WriteLine(
            string.Create(text, $"| {work.Sizes.Name} | {work.Dtype} | {work.Mode} | {Median(figures[0], figure => figure.TokensPerSecond):N0} |") +
            string.Concat(figures.Skip(1).Select(other => string.Create(text, $" {Median(other, figure => figure.TokensPerSecond):N0} | {Ratio(other):0.00} |"))) +
            string.Concat(figures.Select(side => string.Create(text, $" {Median(side, figure => figure.PeakMegabytes):N0} |"))));
        return Ratio(figures[1]);
    }

    private sealed record Work(Sizes Sizes, string Dtype, string Mode, int Steps);

    /// <summary>A program to be measured.</summary>
    private sealed record Side(string Name, Func<Work, Figure> Measure);

    private static Option<string[]> Choice(string name, string description, string[] values) =>
        new Option<string[]>(name) { Description = description, AllowMultipleArgumentsPerToken = true, DefaultValueFactory = _ => values }.With(option => option.AcceptOnlyFromAmong(values));
}
