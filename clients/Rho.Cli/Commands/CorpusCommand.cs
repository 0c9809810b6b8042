using System.CommandLine;
using System.Globalization;
using Rho.Cli.Terminal;
using Rho.Data;
using Rho.Formats;
using Rho.Tokenization;

namespace Rho.Cli.Commands;

/// <summary>rho corpus: token shards from text, and a look into them.</summary>
internal static class CorpusCommand
{
    public static Command Create() => new("corpus", "Build corpora, and look into them.") { CreateBuild(), CreateInspect() };

    private static ExampleCommand CreateBuild()
    {
        var tokenizer = new Option<string>("--tokenizer") { Description = "Folder with tokenizer.json", HelpName = "DIR", Required = true };
        var length = new Option<int>("--length") { Description = "Tokens of each sequence", HelpName = "N", Required = true };
        var output = new Option<string>("--out") { Description = "Folder of the corpus: new, or holding an interrupted build of the same, which goes on", HelpName = "DIR", Required = true };
        var heldOut = new Option<double>("--held-out") { Description = "Share of documents that go into a corpus of their own, DIR/heldout", HelpName = "SHARE" };
        var shuffle = new Option<long?>("--shuffle") { Description = "Order documents at random from this seed", HelpName = "SEED" };
        var apart = new Option<bool>("--separate-documents") { Description = "Record that a token does not see earlier documents of its sequence" };
        var whole = new Option<bool>("--whole-documents") { Description = "Keep each document inside one sequence, with padding" };
        var duplicates = new Option<bool>("--keep-duplicates") { Description = "Keep documents that occurred before" };
        var shard = new Option<int>("--shard-tokens") { Description = "Tokens of a shard file, at most", HelpName = "N", DefaultValueFactory = _ => 4 << 20 };
        var threads = new Option<int>("--threads") { Description = "Threads that tokenize; 0 takes one per core. The corpus does not depend on it", HelpName = "N" };
        var sources = new SourceOptions();
        var command = new ExampleCommand(
            "build", "Build a corpus of token shards from text files. Stopped, it goes on when started again.",
            "rho corpus build --tokenizer tokenizer --length 2048 --out corpus --shuffle 1 crawl/",
            "rho corpus build --tokenizer tokenizer --length 512 --out math --template '{question}\\n{answer}' gsm8k.jsonl",
            "rho corpus build --tokenizer tokenizer --length 2048 --out chats --messages messages --whole-documents --separate-documents chats.jsonl.zst",
            "rho corpus build --tokenizer tokenizer --length 2048 --out mixed --mixture mixture.json --held-out 0.01",
            "echo '[{\"paths\": [\"owm/\"], \"weight\": 6}, {\"paths\": [\"web/\"], \"weight\": 3}, {\"paths\": [\"code/\"], \"weight\": 1, \"epochs\": 2}]' > mixture.json") { tokenizer, length, output, heldOut, shuffle, apart, whole, duplicates, shard, threads };
        sources.AddTo(command, corpus: true);
        command.SetAction(async (result, cancellation) =>
        {
            var options = new CorpusOptions
            {
                Sources = sources.Read(result),
                Directory = result.GetValue(output)!,
                SequenceLength = result.GetValue(length),
                HeldOutShare = result.GetValue(heldOut),
                ShuffleSeed = result.GetValue(shuffle),
                DocumentsSeeEachOther = !result.GetValue(apart),
                DocumentsCrossSequences = !result.GetValue(whole),
                RemoveDuplicates = !result.GetValue(duplicates),
                ShardTokens = result.GetValue(shard),
                Workers = result.GetValue(threads),
                MaxBadRecords = result.GetValue(sources.MaxBad),
            };
            var loaded = Tokenizer.Load(result.GetValue(tokenizer)!);
            using var progress = new CorpusProgressLine("corpus");
            Corpus corpus;
            try
            {
                corpus = await CorpusBuilder.BuildAsync(options, loaded, progress, cancellation);
            }
            catch (OperationCanceledException)
            {
                progress.Dispose();
                await Console.Error.WriteLineAsync("stopped; the same command goes on from here");
                throw;
            }

            progress.Complete(corpus);
            foreach (var bad in corpus.Description.Report?.BadRecords ?? []) await Console.Error.WriteLineAsync($"skipped {bad.File} line {bad.Line}: {bad.Reason}");
            return 0;
        });
        return command;
    }

    private static ExampleCommand CreateInspect()
    {
        var directory = new Argument<string>("DIR") { Description = "Folder of the corpus" };
        var tokenizer = new Option<string?>("--tokenizer") { Description = "Folder with tokenizer.json, to show text instead of ids", HelpName = "DIR" };
        var sequence = new Option<long>("--sequence") { Description = "Sequence to show, counted over all shards", HelpName = "N" };
        var command = new ExampleCommand(
            "inspect", "Show shards, token statistics and a sample of a corpus; checks every shard on the way.",
            "rho corpus inspect corpus --tokenizer tokenizer",
            "rho corpus inspect corpus --tokenizer tokenizer --sequence 1000") { directory, tokenizer, sequence };
        command.SetAction((result, cancellation) => Task.Run(() =>
        {
            var corpus = Corpus.Open(result.GetValue(directory)!);
            var loaded = result.GetValue(tokenizer) is { } folder ? Tokenizer.Load(folder) : null;
            CorpusInspection inspection;
            using (var progress = new ProgressLine("reading", "tokens"))
            {
                long read = 0;
                inspection = CorpusInspector.Inspect(corpus, new InlineProgress<ShardInspection>(shard => progress.Report(read += shard.Tokens, corpus.Tokens)), cancellation);
            }

            Show(corpus, inspection, loaded, result.GetValue(sequence));
            return 0;
        }, cancellation));
        return command;
    }

    private static void Show(Corpus corpus, CorpusInspection inspection, Tokenizer? tokenizer, long sequence)
    {
        var (median, ninety, largest) = inspection.DocumentLengths;
        Row("folder", corpus.Directory);
        Row("tokenizer", corpus.TokenizerFingerprint);
        Row("vocabulary", $"{corpus.VocabularySize}, of which {inspection.TokensUsed} occur");
        Row("tokens", $"{corpus.Tokens:N0} in {corpus.Sequences:N0} sequences of {corpus.SequenceLength}");
        Row("documents", $"{corpus.Description.Documents:N0}; tokens each: median {median}, 90th percentile {ninety}, longest {largest}; {(corpus.DocumentsSeeEachOther ? "see each other" : "do not see each other")}");
        Row("entropy", $"{inspection.UnigramEntropy.ToString("F3", CultureInfo.InvariantCulture)} nats per token of the bare frequencies");
        if (corpus.Description.Report is { } report)
            Row("built from", $"{report.Bytes:N0} bytes, {report.TokensPerByte.ToString("F3", CultureInfo.InvariantCulture)} tokens per byte; left out: {report.Dropped.Duplicates} duplicates, {report.Dropped.Empty} empty, {report.Dropped.BadRecords} bad");
        Row("frequent", string.Join("  ", inspection.MostFrequent.Take(12).Select(count => $"{(tokenizer is null ? count.Token.ToString(CultureInfo.InvariantCulture) : Quoted(tokenizer.Decode([count.Token])))} {count.Count}")));
        Console.WriteLine();
        Console.WriteLine($"{"shard",-28} {"sequences",12} {"tokens",14} {"padding",10} {"documents",11} {"bytes",14}");
        foreach (var shard in inspection.Shards)
            Console.WriteLine($"{shard.File,-28} {shard.Sequences,12:N0} {shard.Tokens,14:N0} {shard.Padding,10:N0} {shard.Documents,11:N0} {shard.FileBytes,14:N0}");
        if (tokenizer is null) return;
        Console.WriteLine();
        foreach (var piece in CorpusInspector.Sample(corpus, tokenizer, sequence))
        {
            Console.WriteLine($"-- sequence {sequence}, document {piece.Document}, tokens {piece.Start} to {piece.Start + piece.Tokens - 1}");
            Console.WriteLine(piece.Text);
        }
    }

    private static void Row(string name, string value) => Console.WriteLine($"{name,-12} {value}");

    private static string Quoted(string token) => $"\"{token.Replace("\n", "\\n", StringComparison.Ordinal)}\"";
}

/// <summary>Progress of a corpus build, whose two stages count different things, as one line.</summary>
internal sealed class CorpusProgressLine(string title) : IProgress<CorpusProgress>, IDisposable
{
    private readonly ProgressLine line = new(title, "bytes");
    private CorpusStage stage;

    public void Report(CorpusProgress value)
    {
        if (value.Stage != stage) line.StartOver("tokens");
        stage = value.Stage;
        line.Report(value.Done, value.Total, value.Stage == CorpusStage.Packing ? "packing" : $"{Quantities.Short(value.Documents)} documents, {Quantities.Short(value.Tokens)} tokens");
    }

    public void Complete(Corpus corpus) => line.Complete($"{Quantities.Short(corpus.Tokens)} tokens in {corpus.Sequences} sequences, {corpus.Directory}");

    public void Dispose() => line.Dispose();
}
