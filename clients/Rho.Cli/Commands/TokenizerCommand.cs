using System.CommandLine;
using Rho.Cli.Terminal;
using Rho.Data;
using Rho.Tokenization;

namespace Rho.Cli.Commands;

/// <summary>rho tokenizer train: a byte-level BPE tokenizer from text.</summary>
internal static class TokenizerCommand
{
    public static Command Create() => new("tokenizer", "Make tokenizers.") { CreateTrain() };

    private static ExampleCommand CreateTrain()
    {
        var vocabulary = new Option<int>("--vocab") { Description = "Tokens in all: special ones, 256 bytes and merges", HelpName = "N", Required = true };
        var output = new Option<string>("--out") { Description = "Folder for tokenizer.json and tokenizer_config.json", HelpName = "DIR", Required = true };
        var pattern = new Option<BpePattern>("--pattern") { Description = "How text is cut into words before pairs are counted", DefaultValueFactory = _ => BpePattern.Llama3 };
        var frequency = new Option<long>("--min-frequency") { Description = "Pairs seen less often are not merged", HelpName = "N", DefaultValueFactory = _ => 2 };
        var sources = new SourceOptions();
        var command = new ExampleCommand(
            "train", "Train a byte-level BPE tokenizer (tokenizer.json, as Hugging Face reads it).",
            "rho tokenizer train --vocab 32000 --out tokenizer corpus/*.jsonl.gz",
            "rho tokenizer train --vocab 4096 --out tokenizer --field content notes.jsonl book.txt") { vocabulary, output, pattern, frequency };
        sources.AddTo(command);
        command.SetAction((result, cancellation) => Task.Run(() =>
        {
            var directory = result.GetValue(output)!;
            using var progress = new ProgressLine("tokenizer", "bytes");
            var reading = new InlineProgress<(long Done, long Total)>(state => progress.Report(state.Done, state.Total, "reading"));
            var texts = DocumentTexts.Read(sources.Read(result), result.GetValue(sources.MaxBad), reading, cancellation);
            var merging = new InlineProgress<BpeTrainerProgress>(state =>
            {
                if (state.Merges > 0) progress.Report(state.Merges, state.MergesWanted, $"merging: {state.Merges} of {state.MergesWanted}");
            });
            var options = new BpeTrainerOptions
            {
                VocabularySize = result.GetValue(vocabulary),
                Pattern = result.GetValue(pattern),
                MinimumFrequency = result.GetValue(frequency),
            };
            var tokenizer = BpeTrainer.Train(texts, options, merging, cancellation);
            tokenizer.Save(directory);
            progress.Complete($"{tokenizer.VocabularySize} tokens in {directory}");
            return 0;
        }, cancellation));
        return command;
    }
}

/// <summary>Reports where it is called; System.Progress would post to the thread pool and lose the order.</summary>
internal sealed class InlineProgress<T>(Action<T> report) : IProgress<T>
{
    public void Report(T value) => report(value);
}
