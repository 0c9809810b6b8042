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
        var model = new Option<string?>("--model") { Description = "Checkpoint whose losses are the current ones", HelpName = "DIR" };
        var modelScores = new Option<string?>("--model-scores") { Description = "Folder of score files with that checkpoint's losses instead: no model is run", HelpName = "DIR" };
        var scores = new Option<string?>("--scores") { Description = "Folder of score files with the reference's losses", HelpName = "DIR" };
        var scorer = new Option<string?>("--scorer") { Description = "Scorers to take them from instead", HelpName = "ADDRESS[,ADDRESS...]" };
        var output = new Option<string>("--out") { Description = "Folder for the corpus with loss masks, or for the masks", HelpName = "DIR", Required = true };
        var ratio = new Option<double>("--ratio") { Description = "Share of the tokens to keep", HelpName = "K", DefaultValueFactory = _ => 0.6 };
        var scope = new Option<string>("--scope") { Description = "What is ranked together: sequence, batch (8 sequences) or shard", DefaultValueFactory = _ => "batch" };
        scope.AcceptOnlyFromAmong("sequence", "batch", "shard");
        var dtype = ComputeTypeOption.Create();
        var mask = new Option<bool>("--mask") { Description = "Write the masks alone, which a run reads as data.corpora[].mask: it then needs no reference" };
        var command = new ExampleCommand(
            "concentrate", "Write a corpus again with a tensor loss_mask per shard: 1 where a token's excess loss is among the highest.",
            "rho concentrate --corpus corpus --model base --scores scores --out concentrated",
            "rho concentrate --corpus corpus --model base --scorer localhost:5001 --ratio 0.7 --out concentrated",
            "rho concentrate --corpus corpus --model-scores base-scores --scores scores --scope shard --mask --out mask") { corpus, model, modelScores, scores, scorer, output, ratio, scope, dtype, mask };
        command.Validators.Add(result =>
        {
            if (result.GetValue(model) is null == result.GetValue(modelScores) is null) result.AddError("name where current losses come from: --model or --model-scores");
            if (result.GetValue(scores) is null == result.GetValue(scorer) is null) result.AddError("name where reference losses come from: --scores or --scorer");
        });
        command.SetAction(async (result, cancellation) =>
        {
            var source = new ReferenceSourceSection { Scores = result.GetValue(scores), Scorers = result.GetValue(scorer)?.Split(',', StringSplitOptions.RemoveEmptyEntries) };
            var options = new ConcentrationOptions
            {
                Corpus = result.GetValue(corpus)!,
                Output = result.GetValue(output)!,
                Model = result.GetValue(model),
                ModelScores = result.GetValue(modelScores),
                MaskOnly = result.GetValue(mask),
                Reference = new ReferenceSection { Sources = [source] },
                Objective = new ObjectiveSection { Kind = ObjectiveKind.Slm, Ratio = result.GetValue(ratio), Scope = Scope(result.GetValue(scope)!) },
            };
            if (options.Model is { } checkpoint) options = options with { Compute = ComputeTypeOption.Read(result, dtype, [checkpoint]) };
            var total = Corpus.Open(options.Corpus).Tokens;
            using var progress = new ProgressLine("concentrating", "tokens");
            var report = await Concentrator.RunAsync(options, new InlineProgress<long>(done => progress.Report(done, total)), cancellation);
            progress.Complete(string.Create(CultureInfo.InvariantCulture, $"{report.Selected} of {report.Candidates} tokens, mean loss {report.SelectedLoss:F3} (all {report.AllLoss:F3}), {options.Output}"));
            return 0;
        });
        return command;
    }

    private static ObjectiveScope Scope(string name) => name switch
    {
        "sequence" => ObjectiveScope.Sequence,
        "shard" => ObjectiveScope.GlobalBatch,
        _ => ObjectiveScope.MicroBatch,
    };
}
