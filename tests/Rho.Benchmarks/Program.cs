using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using Rho.Benchmarks;

// Rho.Benchmarks [--rounds N] [--steps N] [--sizes 0,1,2] [--dtypes float32,bfloat16] [--modes score,clm,slm-cached,generate-batch-1,generate-batch-8] [--python PATH]
// Rho.Benchmarks --serving SECONDS [--sizes 0] [--dtypes bfloat16]: latency and throughput of the inference endpoint as load grows.
// Every figure comes from a process of its own; Rho and the peer take turns, and the ratio is the median over the rounds.
var options = new Dictionary<string, string>(StringComparer.Ordinal);
for (var i = 0; i + 1 < args.Length; i += 2) options[args[i]] = args[i + 1];
string Option(string name, string fallback) => options.GetValueOrDefault("--" + name, fallback);
int Number(string name, int fallback) => int.Parse(Option(name, $"{fallback}"), CultureInfo.InvariantCulture);

var steps = Number("steps", 7);
if (options.TryGetValue("--worker", out var worker))
    return Worker.Run(Sizes.All[int.Parse(worker, CultureInfo.InvariantCulture)], Option("dtype", "float32"), Option("mode", "score"), steps);

if (options.TryGetValue("--serving", out var seconds))
    return await ServingLoad.RunAsync(Sizes.All[Number("sizes", 0)], Option("dtypes", "bfloat16"), int.Parse(seconds, CultureInfo.InvariantCulture));

var python = Option("python", "/usr/bin/python3");
var peer = Path.Combine(AppContext.BaseDirectory, "torch_llama.py");
Console.WriteLine($"{File.ReadLines("/proc/cpuinfo").First(line => line.StartsWith("model name", StringComparison.Ordinal)).Split(':')[1].Trim()}, {Environment.ProcessorCount} cores, libtorch {TorchSharp.torch.__version__}");
Console.WriteLine();
Console.WriteLine("| sizes | type | what | Rho, tokens/s | PyTorch, tokens/s | ratio | Rho, peak MB | PyTorch, peak MB |");
Console.WriteLine("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |");
var chosen = Option("sizes", "0,1,2").Split(',').Select(text => int.Parse(text, CultureInfo.InvariantCulture));
foreach (var index in chosen)
{
    foreach (var dtype in Option("dtypes", "float32,bfloat16").Split(','))
    {
        foreach (var mode in Option("modes", "score,clm,slm-cached").Split(','))
        {
            var sizes = Sizes.All[index];
            var ours = new List<Figure>();
            var theirs = new List<Figure>();
            for (var round = 0; round < Number("rounds", 3); round++)
            {
                ours.Add(Measure(Environment.ProcessPath!, ["--worker", $"{index}", "--dtype", dtype, "--mode", mode, "--steps", $"{steps}"], mode));
                // The peak is that of the whole process, read after the last step.
                const string wrapper = "import sys, runpy, resource; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__'); print('{\"peak_mb\": %d}' % (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))";
                theirs.Add(Measure(python, ["-c", wrapper, peer, .. sizes.Arguments(dtype, steps, mode)], mode));
            }

            var ratio = Median(ours.Zip(theirs, (a, b) => a.TokensPerSecond / b.TokensPerSecond));
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"| {sizes.Name} | {dtype} | {mode} | {Median(ours.Select(f => f.TokensPerSecond)):N0} | {Median(theirs.Select(f => f.TokensPerSecond)):N0} | {ratio:0.00} | {Median(ours.Select(f => f.PeakMegabytes)):N0} | {Median(theirs.Select(f => f.PeakMegabytes)):N0} |"));
        }
    }
}

return 0;

static double Median(IEnumerable<double> values)
{
    var sorted = values.Order().ToList();
    return sorted[sorted.Count / 2];
}

static Figure Measure(string program, IEnumerable<string> arguments, string mode)
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
    return process.ExitCode == 0 && speed > 0 ? new Figure(speed, peak) : throw new InvalidOperationException($"{program} measured nothing and exited with {process.ExitCode}");
}

