using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using Rho.Data;
using Rho.Tokenization;

namespace Rho.Benchmarks;

/// <summary>
/// Speed of tokenizers on one thread, side by side with SentencePiece on the same lines with the same model, and whether both give the
/// same ids. Times are processor time of the best round, so that other work on the machine matters little.
/// </summary>
internal static class TokenizerSpeed
{
    private const int MegaByte = 1_000_000;

    internal static Command Command()
    {
        var files = new Argument<string[]>("FILE") { Description = "Text: what corpora are built from", Arity = ArgumentArity.OneOrMore };
        var megabytes = new Option<int>("--megabytes") { Description = "How much of the text is encoded", HelpName = "N", DefaultValueFactory = _ => 10 };
        var rounds = new Option<int>("--rounds") { Description = "Rounds per figure, of which the best counts", HelpName = "N", DefaultValueFactory = _ => 5 };
        var python = new Option<string>("--python") { Description = "A Python that has SentencePiece", HelpName = "PATH", DefaultValueFactory = _ => "/usr/bin/python3" };
        var command = new Command("tokenizer", "Tokenizers' speed on one thread, side by side with SentencePiece") { files, megabytes, rounds, python };
        command.SetAction(result => Run(result.GetValue(files)!, result.GetValue(megabytes), result.GetValue(rounds), TextPeer.Find(result.GetValue(python)!)));
        command.Add(Worker());
        return command;
    }

    private static int Run(string[] files, int megabytes, int rounds, TextPeer? peer)
    {
        var folder = Directory.CreateTempSubdirectory("rho-bench-").FullName;
        try
        {
            var documents = DocumentTexts.Read([new CorpusSource { Paths = files }]).ToList();
            var text = Write(folder, "text", Take(Lines(documents), megabytes * MegaByte));
            var sample = Write(folder, "sample", Take(Lines(documents).Where((_, i) => i % 4 == 0), 2 * MegaByte));
            var words = string.Concat(Take(Lines(documents), 3 * MegaByte).SelectMany(line => line.Where(char.IsAsciiLetter)));
            (string Name, string Path)[] texts =
            [
                ($"text, {new FileInfo(text).Length / 1e6:0.0} MB", text),
                ("1 MB without a space", Write(folder, "joined-1", [words[..MegaByte]])),
                ("2 MB without a space", Write(folder, "joined-2", [words[..(2 * MegaByte)]])),
                ("1 MB of one letter", Write(folder, "letter-1", [new string('a', MegaByte)])),
                ("2 MB of one letter", Write(folder, "letter-2", [new string('a', 2 * MegaByte)])),
            ];

            Console.WriteLine("| text | tokenizer | Rho, MB/s | SentencePiece, MB/s | ratio | same ids |");
            Console.WriteLine("| --- | --- | ---: | ---: | ---: | --- |");
            foreach (var kind in peer is null ? [] : new[] { "bpe", "unigram" })
            {
                var model = Directory.CreateDirectory(Path.Combine(folder, kind)).FullName;
                peer!.Run("train", kind, sample, Path.Combine(model, "tokenizer"));
                foreach (var (name, path) in texts)
                {
                    var theirs = peer.Run("encode", Path.Combine(model, "tokenizer.model"), path, $"{rounds}");
                    Row(name, $"SentencePiece {kind}, 8,000", path, Ours(model, path, rounds), theirs.GetProperty("seconds").GetDouble(), theirs.GetProperty("sha256").GetString());
                }
            }

            var notes = new List<string>();
            foreach (var pattern in new[] { BpePattern.Llama3, BpePattern.Gpt2 })
            {
                var begin = Stopwatch.GetTimestamp();
                var trained = BpeTrainer.Train(Take(documents, 10 * MegaByte), new BpeTrainerOptions { VocabularySize = 32_000, Pattern = pattern });
                var seconds = Stopwatch.GetElapsedTime(begin).TotalSeconds;
                var model = Path.Combine(folder, $"bytes-{pattern}");
                trained.Save(model);
                foreach (var (name, path) in texts) Row(name, $"byte-level BPE, {pattern}, {trained.VocabularySize:N0}", path, Ours(model, path, rounds), null, null);
                notes.Add(string.Create(CultureInfo.InvariantCulture, $"Trained byte-level BPE ({pattern}) of {trained.VocabularySize:N0} tokens on {Take(documents, 10 * MegaByte).Sum(document => (long)Encoding.UTF8.GetByteCount(document)) / 1e6:0.0} MB in {seconds:0.0} s, {Environment.ProcessorCount} cores."));
            }

            Console.WriteLine();
            foreach (var note in notes) Console.WriteLine(note);
            return 0;
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static (double Seconds, string Sha256) Ours(string model, string path, int rounds)
    {
        var ours = Measuring.RunForJson(Environment.ProcessPath!, ["tokenizer", "worker", model, path, $"{rounds}"]);
        return (ours.GetProperty("seconds").GetDouble(), ours.GetProperty("sha256").GetString()!);
    }

    private static void Row(string name, string tokenizer, string path, (double Seconds, string Sha256) ours, double? theirSeconds, string? theirSha256)
    {
        var size = new FileInfo(path).Length / 1e6;
        var peer = theirSeconds is { } seconds ? $"{size / seconds:0.0} | {seconds / ours.Seconds:0.0} | {(theirSha256 == ours.Sha256 ? "yes" : "no")}" : "- | - | -";
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"| {name} | {tokenizer} | {size / ours.Seconds:0.0} | {peer} |"));
    }

    private static Command Worker()
    {
        var model = new Argument<string>("MODEL");
        var text = new Argument<string>("TEXT");
        var rounds = new Argument<int>("ROUNDS");
        var command = new Command("worker", "One figure, measured in this process") { model, text, rounds };
        command.Hidden = true;
        command.SetAction(result =>
        {
            var lines = File.ReadAllText(result.GetValue(text)!).Split('\n')[..^1];
            var ids = new List<int>();
            var best = double.MaxValue;
            for (var round = 0; round < result.GetValue(rounds); round++)
            {
                // A new one each time: what it remembers of words from the round before would help it.
                var tokenizer = Tokenizer.Load(result.GetValue(model)!);
                ids.Clear();
                var begin = Environment.CpuUsage.TotalTime;
                foreach (var line in lines)
                {
                    tokenizer.Encode(line, ids);
                    ids.Add(-1);
                }

                best = Math.Min(best, (Environment.CpuUsage.TotalTime - begin).TotalSeconds);
            }

            var sha256 = Convert.ToHexStringLower(SHA256.HashData(MemoryMarshal.AsBytes(CollectionsMarshal.AsSpan(ids))));
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{{\"seconds\": {best}, \"tokens\": {ids.Count - lines.Length}, \"sha256\": \"{sha256}\"}}"));
            return 0;
        });
        return command;
    }

    private static IEnumerable<string> Lines(IEnumerable<string> documents) => documents.SelectMany(document => document.Split('\n')).Where(line => line.Length > 0);

    private static IEnumerable<string> Take(IEnumerable<string> texts, long bytes)
    {
        foreach (var text in texts)
        {
            if ((bytes -= Encoding.UTF8.GetByteCount(text) + 1) < 0) yield break;
            yield return text;
        }
    }

    private static string Write(string folder, string name, IEnumerable<string> lines)
    {
        var path = Path.Combine(folder, name + ".txt");
        File.WriteAllText(path, string.Concat(lines.Select(line => line + "\n")));
        return path;
    }
}
