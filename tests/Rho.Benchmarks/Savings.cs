using System.CommandLine;
using System.Globalization;
using Rho.Model;

namespace Rho.Benchmarks;

/// <summary>
/// What selection saves: whole training steps with reference losses at hand, by the exact and the filtered backward, beside CLM, each
/// figure from a process of its own. Processor time is what a step costs all cores together; other work on the machine changes it little.
/// </summary>
internal static class Savings
{
    private static readonly (BackwardRows Backward, double Ratio)[] Objectives =
        [(BackwardRows.Exact, 0.6), (BackwardRows.Exact, 0.5), (BackwardRows.Exact, 0.3), (BackwardRows.Filtered, 0.6), (BackwardRows.Filtered, 0.5), (BackwardRows.Filtered, 0.3)];

    internal static Command Command()
    {
        var sizes = Sizes.One();
        var (length, batch) = (Sizes.LengthOption(), Sizes.BatchOption());
        var dtype = new Option<string>("--dtype") { Description = "Element type of the products", DefaultValueFactory = _ => "float32" }.With(option => option.AcceptOnlyFromAmong("float32", "bfloat16"));
        var rounds = new Option<int>("--rounds") { Description = "Processes per figure", HelpName = "N", DefaultValueFactory = _ => 3 };
        var steps = new Option<int>("--steps") { Description = "Measured steps per process", HelpName = "N", DefaultValueFactory = _ => 5 };
        var command = new Command("savings", "What the exact and the filtered backward of selected tokens save against CLM, in time and memory.") { sizes, length, batch, dtype, rounds, steps };
        command.SetAction(result =>
        {
            var chosen = Sizes.All[result.GetValue(sizes)!].With(result.GetValue(length), result.GetValue(batch));
            Figure Measure(string mode, params string[] more) => Measuring.Run(Environment.ProcessPath!, [
                "worker", "--sizes", chosen.Key, "--length", $"{chosen.Length}", "--batch", $"{chosen.Batch}", "--dtype", result.GetValue(dtype)!, "--mode", mode, "--steps", $"{result.GetValue(steps)}", .. more]);

            var clm = new List<Figure>();
            var selective = Objectives.Select(_ => new List<Figure>()).ToArray();
            for (var round = 0; round < result.GetValue(rounds); round++)
            {
                clm.Add(Measure("clm"));
                for (var i = 0; i < Objectives.Length; i++)
                    selective[i].Add(Measure("slm-cached", "--backward", $"{Objectives[i].Backward}", "--ratio", Objectives[i].Ratio.ToString(CultureInfo.InvariantCulture)));
            }

            Console.WriteLine($"| {chosen.Name}, {result.GetValue(dtype)} | ms of processor time per step | of CLM's | floor | ms of wall time per step | of CLM's | peak MB |");
            Console.WriteLine("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
            Row("CLM", 1, clm);
            for (var i = 0; i < Objectives.Length; i++)
                Row(string.Create(CultureInfo.InvariantCulture, $"{Objectives[i].Backward.ToString().ToLowerInvariant()}, {Objectives[i].Ratio:P0}"), Floor(chosen, Objectives[i].Backward, Objectives[i].Ratio), selective[i]);

            void Row(string name, double floor, List<Figure> figures)
            {
                double Share(Func<Figure, double> of) => Measuring.Median(figures.Zip(clm, (figure, whole) => of(figure) / of(whole)));
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                    $"| {name} | {Measuring.Median(figures.Select(f => f.ProcessorMilliseconds)):N0} | {Share(f => f.ProcessorMilliseconds):0.00} | {floor:0.00} | {Measuring.Median(figures.Select(f => f.StepMilliseconds)):N0} | {Share(f => f.StepMilliseconds):0.00} | {Measuring.Median(figures.Select(f => f.PeakMegabytes)):N0} |"));
            }

            return 0;
        });
        return command;
    }

    /// <summary>
    /// Of the products with weights in CLM's step, a third of them in the forward, how many are left. The exact backward needs all
    /// but those of unselected rows in the head and, in the last block, in what follows its keys and values.
    /// </summary>
    private static double Floor(Sizes sizes, BackwardRows backward, double ratio)
    {
        if (backward == BackwardRows.Filtered) return (1 + (2 * ratio)) / 3;
        var config = sizes.Config(sizes.Length);
        double keysValues = 2.0 * config.HiddenSize * config.KeyValueHeads * config.HeadSize;
        double others = (2.0 * config.HiddenSize * config.Heads * config.HeadSize) + (3.0 * config.HiddenSize * config.IntermediateSize);
        double head = (double)config.HiddenSize * config.VocabularySize;
        var all = (config.Layers * (keysValues + others)) + head;
        return (all + (2 * (all - ((1 - ratio) * (others + head))))) / (3 * all);
    }
}
