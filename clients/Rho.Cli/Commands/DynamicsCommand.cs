using System.CommandLine;
using Rho.Cli.Terminal;
using Rho.Training;

namespace Rho.Cli.Commands;

/// <summary>rho dynamics: how tokens' losses went over a series of checkpoints.</summary>
internal static class DynamicsCommand
{
    public static Command Create()
    {
        var checkpoints = new Argument<string[]>("CHECKPOINT") { Description = "Hugging Face folders in the order of training", Arity = new ArgumentArity(2, 1000) };
        var corpus = new Option<string>("--corpus") { Description = "Folder of the validation corpus", HelpName = "DIR", Required = true };
        var output = new Option<string>("--out") { Description = "Folder for dynamics.html and dynamics.json", HelpName = "DIR", Required = true };
        var tokens = new Option<long>("--max-tokens") { Description = "Tokens of the corpus to use at most", HelpName = "N", DefaultValueFactory = _ => 320_000 };
        var threshold = new Option<double>("--threshold") { Description = "Change of loss, in nats, from which on a token counts as learnt or lost", HelpName = "NATS", DefaultValueFactory = _ => 0.2 };
        var dtype = ComputeTypeOption.Create();
        var command = new ExampleCommand(
            "dynamics", "Classify the tokens of a corpus by how their losses went over a series of checkpoints (H→H, L→H, H→L, L→L).",
            "rho dynamics --corpus heldout --out dynamics base/final run1/final run2/final") { checkpoints, corpus, output, tokens, threshold, dtype };
        command.SetAction((result, cancellation) => Task.Run(() =>
        {
            var directory = result.GetValue(output)!;
            var options = new DynamicsOptions
            {
                Checkpoints = result.GetValue(checkpoints)!,
                Corpus = result.GetValue(corpus)!,
                MaxTokens = result.GetValue(tokens),
                Threshold = result.GetValue(threshold),
                Compute = ComputeTypeOption.Read(result, dtype, result.GetValue(checkpoints)!),
            };
            using var progress = new ProgressLine("dynamics", unit: "");
            var report = DynamicsReport.Create(options, new InlineProgress<double>(share => progress.Report((long)(1000 * share), 1000)), cancellation);
            Directory.CreateDirectory(directory);
            AtomicFile.WriteText(Path.Combine(directory, "dynamics.json"), report.ToJson());
            AtomicFile.WriteText(Path.Combine(directory, "dynamics.html"), report.ToHtml());
            progress.Complete($"{string.Join(", ", report.Classes.Select(part => $"{Name(part.Class)} {100 * part.Share:0} %"))}, {Path.Combine(directory, "dynamics.html")}");
            return 0;
        }, cancellation));
        return command;
    }

    private static string Name(TokenClass tokens) => tokens switch
    {
        TokenClass.HighToHigh => "H→H",
        TokenClass.LowToHigh => "L→H",
        TokenClass.HighToLow => "H→L",
        _ => "L→L",
    };
}
