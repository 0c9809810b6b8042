using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using System.Text.Json;

namespace Rho.Benchmarks;

/// <summary>
/// Speed and peak memory side by side with torch_llama.py. Every figure comes from a process of its own; Rho and the peer take turns, and
/// the ratio is the median over the rounds. Prints a row of README's table per size, type and mode.
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
        var (length, batch) = (Sizes.LengthOption(), Sizes.BatchOption());
        foreach (var option in new Option[] { sizes, dtypes, modes, length, batch, rounds, steps, python }) root.Add(option);
        python.Validators.Add(result =>
        {
            var path = result.GetValueOrDefault<string>();
            if (!File.Exists(path)) result.AddError($"--python {path}: there is no such file");
        });
        root.SetAction(result =>
        {
            Console.WriteLine($"{File.ReadLines("/proc/cpuinfo").First(line => line.StartsWith("model name", StringComparison.Ordinal)).Split(':')[1].Trim()}, {Environment.ProcessorCount} cores, libtorch {TorchSharp.torch.__version__}");
            Console.WriteLine();
            Console.WriteLine("| sizes | type | what | Rho, tokens/s | PyTorch, tokens/s | ratio | Rho, peak MB | PyTorch, peak MB |");
            Console.WriteLine("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |");
            foreach (var name in result.GetValue(sizes)!)
            {
                foreach (var dtype in result.GetValue(dtypes)!)
                {
                    foreach (var mode in result.GetValue(modes)!)
                        Console.WriteLine(Row(Sizes.All[name].With(result.GetValue(length), result.GetValue(batch)), dtype, mode, result.GetValue(rounds), result.GetValue(steps), result.GetValue(python)!));
                }
            }

            return 0;
        });
    }

    private static string Row(Sizes sizes, string dtype, string mode, int rounds, int steps, string python)
    {
        // The peak is that of the whole process, read after the last step.
        const string wrapper = "import sys, runpy, resource; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__'); print('{\"peak_mb\": %d}' % (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))";
        var peer = Path.Combine(AppContext.BaseDirectory, "torch_llama.py");
        var ours = new List<Figure>();
        var theirs = new List<Figure>();
        for (var round = 0; round < rounds; round++)
        {
            ours.Add(Measure(Environment.ProcessPath!, ["worker", "--sizes", sizes.Key, "--length", $"{sizes.Length}", "--batch", $"{sizes.Batch}", "--dtype", dtype, "--mode", mode, "--steps", $"{steps}"], mode));
            theirs.Add(Measure(python, ["-c", wrapper, peer, .. sizes.Arguments(dtype, steps, mode)], mode));
        }

        var ratio = Median(ours.Zip(theirs, (a, b) => a.TokensPerSecond / b.TokensPerSecond));
        return string.Create(CultureInfo.InvariantCulture,
            $"| {sizes.Name} | {dtype} | {mode} | {Median(ours.Select(f => f.TokensPerSecond)):N0} | {Median(theirs.Select(f => f.TokensPerSecond)):N0} | {ratio:0.00} | {Median(ours.Select(f => f.PeakMegabytes)):N0} | {Median(theirs.Select(f => f.PeakMegabytes)):N0} |");
    }

    private static double Median(IEnumerable<double> values)
    {
        var sorted = values.Order().ToList();
        return sorted[sorted.Count / 2];
    }

    private static Figure Measure(string program, IEnumerable<string> arguments, string mode)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, UseShellExecute = false };
        start.Environment["OMP_WAIT_POLICY"] = "PASSIVE";
        start.Environment["OMP_NUM_THREADS"] = $"{Environment.ProcessorCount}";
        using var process = Process.Start(start)!;
        double speed = 0, peak = 0;
        while (process.StandardOutput.ReadLine() is { } line)
        {
            using var json = JsonDocument.Parse(line);
            // The peer measures generation at batch 1 and 8 in one go.
            if (json.RootElement.TryGetProperty("tokens_per_second", out var tokens) && json.RootElement.GetProperty("mode").GetString() == mode) speed = tokens.GetDouble();
            if (json.RootElement.TryGetProperty("peak_mb", out var megabytes)) peak = megabytes.GetDouble();
        }

        process.WaitForExit();
        return process.ExitCode == 0 && speed > 0 ? new Figure(speed, peak) : throw new RhoException($"{program} measured nothing and exited with {process.ExitCode}; what it wrote is above");
    }

    /// <summary>What one process measured.</summary>
    private readonly record struct Figure(double TokensPerSecond, double PeakMegabytes);

    private static Option<string[]> Choice(string name, string description, string[] values) =>
        new Option<string[]>(name) { Description = description, AllowMultipleArgumentsPerToken = true, DefaultValueFactory = _ => values }.With(option => option.AcceptOnlyFromAmong(values));
}
