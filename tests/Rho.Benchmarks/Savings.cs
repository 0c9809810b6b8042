using System.CommandLine;
using System.Globalization;

namespace Rho.Benchmarks;

/// <summary>
/// What selection saves: whole training steps by CLM and by SLM at 60 % with reference losses at hand, at three vocabularies, each figure
/// from a process of its own. Processor time is what a step costs all cores together; other work on the machine changes it little.
/// </summary>
internal static class Savings
{
    private static readonly int[] Vocabularies = [4096, 32_000, 128_000];

    internal static Command Command()
    {
        var sizes = Sizes.One();
        var dtype = new Option<string>("--dtype") { Description = "Element type of the products", DefaultValueFactory = _ => "float32" }.With(option => option.AcceptOnlyFromAmong("float32", "bfloat16"));
        var rounds = new Option<int>("--rounds") { Description = "Processes per figure", HelpName = "N", DefaultValueFactory = _ => 3 };
        var steps = new Option<int>("--steps") { Description = "Measured steps per process", HelpName = "N", DefaultValueFactory = _ => 5 };
        var command = new Command("savings", "What selection saves against CLM in time and memory, at vocabularies 4,096, 32,000 and 128,000.") { sizes, dtype, rounds, steps };
        command.SetAction(result =>
        {
            Console.WriteLine("| vocabulary | CLM, ms of processor time per step | SLM, 60 % | CLM / SLM, processor time | CLM / SLM, wall time | CLM, peak MB | SLM, peak MB |");
            Console.WriteLine("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
            foreach (var vocabulary in Vocabularies)
            {
                var pairs = Enumerable.Range(0, result.GetValue(rounds))
                    .Select(_ => (Clm: Measure("clm"), Slm: Measure("slm-cached"))).ToList();
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                    $"| {vocabulary:N0} | {Measuring.Median(pairs.Select(pair => pair.Clm.ProcessorMilliseconds)):N0} | {Measuring.Median(pairs.Select(pair => pair.Slm.ProcessorMilliseconds)):N0} | {Measuring.Median(pairs.Select(pair => pair.Clm.ProcessorMilliseconds / pair.Slm.ProcessorMilliseconds)):0.00} | {Measuring.Median(pairs.Select(pair => pair.Clm.StepMilliseconds / pair.Slm.StepMilliseconds)):0.00} | {Measuring.Median(pairs.Select(pair => pair.Clm.PeakMegabytes)):N0} | {Measuring.Median(pairs.Select(pair => pair.Slm.PeakMegabytes)):N0} |"));

                Figure Measure(string mode) => Measuring.Run(Environment.ProcessPath!, ["worker", "--sizes", result.GetValue(sizes)!, "--vocab", $"{vocabulary}", "--dtype", result.GetValue(dtype)!, "--mode", mode, "--steps", $"{result.GetValue(steps)}"]);
            }

            return 0;
        });
        return command;
    }
}
