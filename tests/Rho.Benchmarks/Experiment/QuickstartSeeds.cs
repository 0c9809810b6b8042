using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Rho.Cli.Quickstart;

namespace Rho.Benchmarks.Experiment;

/// <summary>The quickstart as it is, by its executable, with several seeds: what it claims of SLM against CLM must hold for them, not for one.</summary>
internal static class QuickstartSeeds
{
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(30);

    internal static Command Command()
    {
        var seeds = new Option<int>("--seeds") { Description = "How many, from 1", HelpName = "N", DefaultValueFactory = _ => 5 };
        var dtype = new Option<string>("--dtype") { Description = "auto, float32 or bfloat16", DefaultValueFactory = _ => "auto" };
        var output = new Option<string>("--out") { Description = "Folder of the quickstarts; finished ones there are read and not done again", HelpName = "DIR", DefaultValueFactory = _ => ".build/bench-quickstart" };
        var program = new Option<string>("--program") { Description = "The rho executable", HelpName = "FILE", DefaultValueFactory = _ => Path.Combine(AppContext.BaseDirectory, "../../Rho.Cli/release/rho") };
        var command = new Command("quickstart", "The quickstart with several seeds: fails unless SLM ends below CLM in all and reaches CLM's loss after at most 60 % of the tokens in the median.") { seeds, dtype, output, program };
        seeds.Validators.Add(result =>
        {
            if (result.GetValueOrDefault<int>() < 1) result.AddError("--seeds: at least 1");
        });
        dtype.AcceptOnlyFromAmong("auto", "float32", "bfloat16");
        command.SetAction((result, cancellation) => RunAsync(result.GetValue(seeds), result.GetValue(dtype)!, Path.GetFullPath(result.GetValue(output)!), Path.GetFullPath(result.GetValue(program)!), cancellation));
        return command;
    }

    private static async Task<int> RunAsync(int seeds, string dtype, string directory, string program, CancellationToken cancellation)
    {
        Directory.CreateDirectory(directory);
        Console.WriteLine("| seed | reference | CLM | SLM | SLM reaches CLM after | CLM right | SLM right | noise trained on | clean trained on | time, s |");
        Console.WriteLine("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
        var summaries = new List<QuickstartSummary>();
        for (var seed = 1; seed <= seeds; seed++)
        {
            var folder = Path.Combine(directory, $"{dtype}-{seed}");
            var file = Path.Combine(folder, "summary.json");
            if (!File.Exists(file))
            {
                await using var process = ChildProcess.Start($"quickstart, seed {seed}", program, ["quickstart", "--out", folder, "--seed", $"{seed}", "--dtype", dtype], _ => null);
                using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
                patience.CancelAfter(Patience);
                await process.WaitForExitAsync(patience.Token);
                if (process.ExitCode != 0) throw new RhoException($"quickstart with seed {seed} ended with {process.ExitCode}: {process.Output}");
            }

            var summary = JsonSerializer.Deserialize<QuickstartSummary>(await File.ReadAllTextAsync(file, cancellation), QuickstartSummary.JsonOptions)
                ?? throw new RhoException($"{file}: is null");
            summaries.Add(summary);
            var (clm, slm) = (summary.Runs[0], summary.Runs[1]);
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"| {seed} | {summary.Reference.HeldOutLoss:0.000} | {clm.HeldOutLoss:0.000} | {slm.HeldOutLoss:0.000} | {(summary.ReachesClmAfter is { } share ? $"{100 * share:0} %" : "never")} | {summary.ClmRight} of {summary.Asked.Count} | {summary.SlmRight} of {summary.Asked.Count} | {100 * slm.NoiseTrainedOn:0} % | {100 * slm.CleanTrainedOn:0} % | {summary.Seconds:0} |"));
        }

        var median = summaries.Select(summary => summary.ReachesClmAfter ?? double.PositiveInfinity).Order().ElementAt(seeds / 2);
        var below = summaries.Count(summary => summary.Runs[1].HeldOutLoss < summary.Runs[0].HeldOutLoss);
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"\nSLM ended below CLM with {below} of {seeds} seeds; median share of the tokens after which it reached CLM's last loss: {100 * median:0} %."));
        return below == seeds && median <= 0.6 ? 0 : 1;
    }
}
