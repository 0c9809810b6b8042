using System.CommandLine;
using System.Globalization;
using Rho.Cli.Terminal;
using Rho.Formats;
using Rho.Training;

namespace Rho.Cli.Commands;

/// <summary>rho concentrate: what selection keeps of a corpus, for other trainers.</summary>
internal static class ConcentrateCommand
{
    public static Command Create()
    {
        var corpus = new Option<string>("--corpus") { Description = "Folder of the corpus", HelpName = "DIR", Required = true };
        var model = new Option<string>("--model") { Description = "Checkpoint whose losses are the current ones", HelpName = "DIR", Required = true };
        var scores = new Option<string?>("--scores") { Description = "Folder of score files with the reference's losses", HelpName = "DIR" };
        var scorer = new Option<string?>("--scorer") { Description = "Scorers to take them from instead", HelpName = "ADDRESS[,ADDRESS...]" };
        var output = new Option<string>("--out") { Description = "Folder for the corpus with loss masks", HelpName = "DIR", Required = true };
        var ratio = new Option<double>("--ratio") { Description = "Share of the tokens to keep", HelpName = "K", DefaultValueFactory = _ => 0.6 };
        var command = new ExampleCommand(
            "concentrate", "Write a corpus again with a tensor loss_mask per shard: 1 where a token's excess loss is among the highest.",
            "rho concentrate --corpus corpus --model base --scores scores --out concentrated",
            "rho concentrate --corpus corpus --model base --scorer localhost:5001 --ratio 0.7 --out concentrated") { corpus, model, scores, scorer, output, ratio };
        command.Validators.Add(result =>
        {
            if (result.GetValue(scores) is null == result.GetValue(scorer) is null) result.AddError("name where reference losses come from: --scores or --scorer");
        });
        command.SetAction(async (result, cancellation) =>
        {
            var source = new ReferenceSourceSection { Scores = result.GetValue(scores), Scorers = result.GetValue(scorer)?.Split(',', StringSplitOptions.RemoveEmptyEntries) };
            var options = new ConcentrationOptions
            {
                Corpus = result.GetValue(corpus)!,
                Output = result.GetValue(output)!,
                Model = result.GetValue(model)!,
                Reference = new ReferenceSection { Sources = [source] },
                Objective = new ObjectiveSection { Kind = ObjectiveKind.Slm, Ratio = result.GetValue(ratio) },
            };
            var total = Corpus.Open(options.Corpus).Tokens;
            using var progress = new ProgressLine("concentrating", "tokens");
            var report = await Concentrator.RunAsync(options, new InlineProgress<long>(done => progress.Report(done, total)), cancellation);
            progress.Complete(string.Create(CultureInfo.InvariantCulture, $"{report.Selected} of {report.Candidates} tokens, mean loss {report.SelectedLoss:F3} (all {report.AllLoss:F3}), {options.Output}"));
            return 0;
        });
        return command;
    }
}
