using System.CommandLine;
using System.Globalization;
using Rho.Cli.Quickstart;
using Rho.Training;
using Spectre.Console;

namespace Rho.Cli.Commands;

/// <summary>rho quickstart: the main job on this machine, from text to a served model.</summary>
internal static class QuickstartCommand
{
    private const int Shown = 5;

    public static Command Create()
    {
        var output = new Option<string>("--out") { Description = "Folder for everything: new, empty, or of an earlier quickstart, which it replaces", HelpName = "DIR", DefaultValueFactory = _ => "quickstart" };
        var seed = new Option<int>("--seed") { Description = "Of the generated text, the models' first weights and the order of training", HelpName = "N", DefaultValueFactory = _ => new QuickstartSettings().Seed };
        var dtype = new Option<ComputePrecision>("--dtype") { Description = "Type of training's products: auto (bfloat16 where the processor has it), float32 or bfloat16", DefaultValueFactory = _ => ComputePrecision.Auto };
        var command = new ExampleCommand(
            "quickstart", "Show the whole of it in about a minute: a reference, its losses from two scorers, CLM and SLM on the same tokens, the result served; with a report.",
            "rho quickstart",
            "rho quickstart --out /tmp/quickstart --seed 2") { output, seed, dtype };
        command.SetAction(async (result, cancellation) =>
        {
            var directory = Path.GetFullPath(result.GetValue(output)!);
            await using var job = new QuickstartJob(directory, new QuickstartSettings { Seed = result.GetValue(seed), Precision = result.GetValue(dtype) });
            Show(await job.RunAsync(cancellation), directory);
            return 0;
        });
        return command;
    }

    private static void Show(QuickstartSummary summary, string directory)
    {
        var table = new Table().Border(TableBorder.Rounded).AddColumn("model");
        foreach (var name in (string[])["trained on", "held-out loss", "noise trained on", "clean trained on", "time"]) table.AddColumn(new TableColumn(name).RightAligned());
        table.AddRow("reference", "curated text", Number(summary.Reference.HeldOutLoss), "none seen", "100 %", Seconds(summary.Reference.Seconds));
        foreach (var run in summary.Runs)
            table.AddRow(run.Objective.ToUpperInvariant(), $"{Percent(run.Ratio)} of the crawl", Number(run.HeldOutLoss), Percent(run.NoiseTrainedOn), Percent(run.CleanTrainedOn), Seconds(run.Seconds));
        AnsiConsole.WriteLine();
        AnsiConsole.Write(table);
        var percent = Percent(summary.Data.NoiseShare);
        Console.WriteLine(summary.ReachesClmAfter is { } share && summary.Runs[1].HeldOutLoss < summary.Runs[0].HeldOutLoss
            ? $"SLM reached CLM's final loss after {Percent(share)} of the tokens. {percent} of the crawl is noise."
            : $"SLM did not end below CLM this time. {percent} of the crawl is noise.");
        Console.WriteLine();
        Console.WriteLine($"{summary.Asked.Count} held-out questions over HTTP: CLM answered {summary.ClmRight} right, SLM {summary.SlmRight}. The first {Math.Min(Shown, summary.Asked.Count)}:");
        foreach (var exchange in summary.Asked.Take(Shown))
            Console.WriteLine($"\n{exchange.Prompt}\n  CLM {Marked(exchange.Clm)}\n  SLM {Marked(exchange.Slm)}");
        Console.WriteLine();
        Console.WriteLine($"{Seconds(summary.Seconds)} in all. Open {Path.Combine(directory, "report.html")}");
    }

    private static string Marked(Reply reply) => $"{(reply.Right ? "right" : "wrong")}: {reply.Text.Trim()}";

    private static string Number(double value) => value.ToString("F3", CultureInfo.InvariantCulture);

    private static string Percent(double value) => (100 * value).ToString("F0", CultureInfo.InvariantCulture) + " %";

    private static string Seconds(double value) => Terminal.Durations.Short(TimeSpan.FromSeconds(value));
}
