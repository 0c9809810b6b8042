using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using Rho.Data;
using Rho.Tokenization;

namespace Rho.Benchmarks;

/// <summary>Building a corpus on one thread and on several, side by side with a pipeline of SentencePiece and PyTorch: every figure from a process of its own.</summary>
internal static class CorpusSpeed
{
    internal static Command Command()
    {
        var files = new Argument<string[]>("FILE") { Description = "Lines of JSON with a field text, plain or .gz", Arity = ArgumentArity.OneOrMore };
        var threads = new Option<int[]>("--threads") { Description = "Numbers of threads", AllowMultipleArgumentsPerToken = true, DefaultValueFactory = _ => [1, 2] };
        var rounds = new Option<int>("--rounds") { Description = "Processes per figure; the median counts", HelpName = "N", DefaultValueFactory = _ => 3 };
        var python = new Option<string>("--python") { Description = "A Python that has SentencePiece and PyTorch", HelpName = "PATH", DefaultValueFactory = _ => "/usr/bin/python3" };
        var command = new Command("corpus", "Speed and memory of corpus building, side by side with SentencePiece and PyTorch") { files, threads, rounds, python };
        command.SetAction(result => Run(result.GetValue(files)!, result.GetValue(threads)!, result.GetValue(rounds), TextPeer.Find(result.GetValue(python)!)));
        command.Add(Worker());
        return command;
    }

    private static int Run(string[] files, int[] threads, int rounds, TextPeer? peer)
    {
        var folder = Directory.CreateTempSubdirectory("rho-bench-").FullName;
        try
        {
            var model = Directory.CreateDirectory(Path.Combine(folder, "tokenizer")).FullName;
            var texts = DocumentTexts.Read([new CorpusSource { Paths = files }]);
            if (peer is null)
            {
                BpeTrainer.Train(texts.Take(1000), new BpeTrainerOptions { VocabularySize = 8000 }).Save(model);
            }
            else
            {
                var sample = Path.Combine(folder, "sample.txt");
                File.WriteAllLines(sample, texts.Take(400).SelectMany(text => text.Split('\n')).Where(line => line.Length > 0));
                peer.Run("train", "bpe", sample, Path.Combine(model, "tokenizer"));
            }

            Console.WriteLine("| threads | Rho, MB/s | SentencePiece and PyTorch, MB/s | ratio | Rho, peak MB | SentencePiece and PyTorch, peak MB |");
            Console.WriteLine("| ---: | ---: | ---: | ---: | ---: | ---: |");
            var run = 0;
            foreach (var count in threads)
            {
                var ours = new List<CorpusFigure>();
                var theirs = new List<CorpusFigure>();
                for (var round = 0; round < rounds; round++)
                {
                    ours.Add(new CorpusFigure(Measuring.RunForJson(Environment.ProcessPath!, ["corpus", "worker", model, $"{count}", Path.Combine(folder, $"corpus-{run++}"), .. files])));
                    if (peer is not null) theirs.Add(new CorpusFigure(peer.Run(["corpus", Path.Combine(model, "tokenizer.model"), $"{count}", Path.Combine(folder, $"peer-{run++}"), .. files])));
                }

                Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                    $"| {count} | {Measuring.Median(ours.Select(figure => figure.Speed)):0.0} | {(peer is null ? "- | -" : $"{Measuring.Median(theirs.Select(figure => figure.Speed)):0.0} | {Measuring.Median(ours.Zip(theirs, (mine, other) => mine.Speed / other.Speed)):0.00}")} | {Measuring.Median(ours.Select(figure => figure.Peak)):0} | {(peer is null ? "-" : $"{Measuring.Median(theirs.Select(figure => figure.Peak)):0}")} |"));
            }

            return 0;
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static Command Worker()
    {
        var model = new Argument<string>("MODEL");
        var threads = new Argument<int>("THREADS");
        var output = new Argument<string>("OUT");
        var files = new Argument<string[]>("FILE") { Arity = ArgumentArity.OneOrMore };
        var command = new Command("worker", "One figure, measured in this process") { model, threads, output, files };
        command.Hidden = true;
        command.SetAction(async (result, cancellation) =>
        {
            var tokenizer = Tokenizer.Load(result.GetValue(model)!);
            var begin = Stopwatch.GetTimestamp();
            var corpus = await CorpusBuilder.BuildAsync(
                new CorpusOptions
                {
                    Sources = [new CorpusSource { Paths = result.GetValue(files)! }],
                    Directory = result.GetValue(output)!,
                    SequenceLength = 1024,
                    Workers = result.GetValue(threads),
                },
                tokenizer, progress: null, cancellation);
            var seconds = Stopwatch.GetElapsedTime(begin).TotalSeconds;
            var report = corpus.Description.Report!;
            using var process = Process.GetCurrentProcess();
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{{\"seconds\": {seconds}, \"bytes\": {report.Bytes}, \"tokens\": {report.Tokens}, \"peak_mb\": {process.PeakWorkingSet64 >> 20}}}"));
            return 0;
        });
        return command;
    }

    /// <summary>Megabytes of text per second, and the process's peak in MiB.</summary>
    private readonly record struct CorpusFigure(double Speed, double Peak)
    {
        public CorpusFigure(System.Text.Json.JsonElement json)
            : this(json.GetProperty("bytes").GetDouble() / 1e6 / json.GetProperty("seconds").GetDouble(), json.GetProperty("peak_mb").GetDouble())
        {
        }
    }
}
