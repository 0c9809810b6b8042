using Rho.Cli.Quickstart;
using Rho.Data;
using Rho.Tokenization;

namespace Rho.Benchmarks.Experiment;

/// <summary>
/// The experiment's corpora: curated text, two halves of a noisy corpus, and held-out sets of both kinds. From a folder with curated/,
/// pretrain/shard-0?.jsonl.* and heldout/{gsm8k,math,general}.jsonl, or from the quickstart's generator.
/// </summary>
/// <param name="CuratedSets">held-out text like the curated one</param>
/// <param name="GeneralSet">held-out text like the noisy corpus</param>
internal sealed record ExperimentData(IReadOnlyList<string> CuratedSets, string GeneralSet)
{
    public static async Task<ExperimentData> PrepareAsync(ExperimentSettings settings, string directory, CancellationToken cancellation)
    {
        string In(string path) => Path.Combine(directory, path);
        var generated = settings.Data == "quickstart";
        if (generated && !Directory.Exists(In("texts"))) Generate(In("texts"));
        IReadOnlyDictionary<string, string[]> files = generated ? Generated(In("texts")) : Given(settings.Data);

        if (!Directory.Exists(In("tokenizer")))
        {
            var texts = DocumentTexts.Read([new CorpusSource { Paths = [.. files["curated"], files["first"][0]] }], cancellation: cancellation);
            BpeTrainer.Train(texts, new BpeTrainerOptions { VocabularySize = settings.Vocabulary }, cancellation: cancellation).Save(In("tokenizer"));
        }

        var tokenizer = Tokenizer.Load(In("tokenizer"));
        foreach (var (name, paths) in files)
        {
            if (File.Exists(In($"{name}/corpus.json"))) continue;
            var corpus = await CorpusBuilder.BuildAsync(
                new CorpusOptions { Sources = [new CorpusSource { Paths = paths }], Directory = In(name), SequenceLength = settings.Length, ShuffleSeed = 1 }, tokenizer, cancellation: cancellation);
            await Console.Error.WriteLineAsync($"{name}: {corpus.Tokens} tokens");
        }

        return generated ? new ExperimentData(["problems"], "crawl") : new ExperimentData(["gsm8k", "math"], "general");
    }

    private static Dictionary<string, string[]> Given(string data)
    {
        string[] Find(string folder, Func<string, bool> take)
        {
            var path = Path.Combine(data, folder);
            if (!Directory.Exists(path)) throw new NotFoundException($"{data} has no folder {folder}: the experiment needs curated/, pretrain/shard-0?.jsonl.* and heldout/{{gsm8k,math,general}}.jsonl, or --data quickstart");
            string[] found = [.. Directory.GetFiles(path).Where(file => take(Path.GetFileName(file))).Order(StringComparer.Ordinal)];
            return found.Length > 0 ? found : throw new NotFoundException($"{path} has none of the files that the experiment needs");
        }

        return new(StringComparer.Ordinal)
        {
            ["curated"] = Find("curated", _ => true),
            ["first"] = Find("pretrain", name => name.CompareTo("shard-04", StringComparison.Ordinal) < 0),
            ["second"] = Find("pretrain", name => name.CompareTo("shard-04", StringComparison.Ordinal) >= 0),
            ["heldout-gsm8k"] = Find("heldout", name => name == "gsm8k.jsonl"),
            ["heldout-math"] = Find("heldout", name => name == "math.jsonl"),
            ["heldout-general"] = Find("heldout", name => name == "general.jsonl"),
        };
    }

    private static void Generate(string directory)
    {
        var building = directory + ".building";
        Directory.CreateDirectory(building);
        var data = QuickstartCorpus.Generate(1, 2_000_000, 8_000_000, 30_000);
        var held = data.Crawl.Count / 50;
        var half = (data.Crawl.Count - held) / 2;
        void Write(string name, IEnumerable<MarkedDocument> documents) => QuickstartCorpus.Write(Path.Combine(building, $"{name}.jsonl"), documents);
        Write("curated", data.Curated);
        Write("heldout-problems", data.HeldOut);
        Write("heldout-crawl", data.Crawl.Take(held));
        Write("first", data.Crawl.Skip(held).Take(half));
        Write("second", data.Crawl.Skip(held + half));
        Directory.Move(building, directory);
    }

    private static Dictionary<string, string[]> Generated(string directory) =>
        Directory.GetFiles(directory).ToDictionary(file => Path.GetFileNameWithoutExtension(file)!, file => new[] { file }, StringComparer.Ordinal);
}
