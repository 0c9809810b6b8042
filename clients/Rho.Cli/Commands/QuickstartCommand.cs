using System.CommandLine;
using System.Globalization;
using Rho.Cli.Quickstart;
using Spectre.Console;

namespace Rho.Cli.Commands;

/// <summary>rho quickstart: the main job on this machine, from text to a served model.</summary>
internal static class QuickstartCommand
{
    public static Command Create()
    {
        var output = new Option<string>("--out") { Description = "Folder for everything: new, empty, or of an earlier quickstart, which it replaces", HelpName = "DIR", DefaultValueFactory = _ => "quickstart" };
        var command = new ExampleCommand(
            "quickstart", "Show the whole of it in about two minutes: a reference, its losses from two scorers, CLM and SLM on the same tokens, the result served; with a report.",
            "rho quickstart",
            "rho quickstart --out /tmp/quickstart") { output };
        command.SetAction(async (result, cancellation) =>
        {
            var directory = Path.GetFullPath(result.GetValue(output)!);
            await using var job = new QuickstartJob(directory, new QuickstartSettings());
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
        var (clm, slm) = (summary.Runs[0], summary.Runs[1]);
        var reached = slm.Curve.FirstOrDefault(point => point.HeldOutLoss <= clm.HeldOutLoss);
        Console.WriteLine(slm.HeldOutLoss < clm.HeldOutLoss
            ? $"SLM reached CLM's final loss after {Percent((double)reached.Tokens / clm.Tokens)} of the tokens. {Percent(summary.Data.NoiseShare)} of the crawl is noise."
            : "SLM did not end below CLM this time.");
        Console.WriteLine();
        foreach (var exchange in summary.Asked) Console.WriteLine($"{exchange.Prompt}{exchange.Answer}\n");
        Console.WriteLine($"{Seconds(summary.Seconds)} in all. Open {Path.Combine(directory, "report.html")}");
    }

    private static string Number(double value) => value.ToString("F3", CultureInfo.InvariantCulture);

    private static string Percent(double value) => (100 * value).ToString("F0", CultureInfo.InvariantCulture) + " %";

    private static string Seconds(double value) => Terminal.Durations.Short(TimeSpan.FromSeconds(value));
}
