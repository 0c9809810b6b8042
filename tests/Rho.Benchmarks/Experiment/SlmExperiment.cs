using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Rho.Formats;
using Rho.Model;
using Rho.Tokenization;
using Rho.Training;
using static TorchSharp.torch;

namespace Rho.Benchmarks.Experiment;

/// <summary>How large the experiment is. All of it is set before any run; nothing is chosen by held-out losses.</summary>
internal sealed record ExperimentSettings
{
    public required string Data { get; init; }

    public required int Seeds { get; init; }

    public required int Vocabulary { get; init; }

    public required int Length { get; init; }

    public required int Hidden { get; init; }

    public required int Layers { get; init; }

    /// <summary>Sequences of a step.</summary>
    public required int Batch { get; init; }

    public required long BaseTokens { get; init; }

    public required long ReferenceTokens { get; init; }

    /// <summary>What each compared run reads.</summary>
    public required long Tokens { get; init; }

    /// <summary>Sequences of each held-out set.</summary>
    public required int HeldOutSequences { get; init; }

    /// <summary>Held-out losses along each compared run.</summary>
    public int Evaluations { get; init; } = 10;

    public double BaseLearningRate { get; init; } = 1e-3;

    public double LearningRate { get; init; } = 5e-4;

    public static ExperimentSettings Of(string data, int seeds, bool brief) => brief
        ? new() { Data = data, Seeds = seeds, Vocabulary = 2048, Length = 256, Hidden = 128, Layers = 3, Batch = 8, BaseTokens = 800_000, ReferenceTokens = 400_000, Tokens = 400_000, HeldOutSequences = 64 }
        : new() { Data = data, Seeds = seeds, Vocabulary = 4096, Length = 256, Hidden = 256, Layers = 4, Batch = 16, BaseTokens = 2_000_000, ReferenceTokens = 1_500_000, Tokens = 1_500_000, HeldOutSequences = 300 };
}

/// <summary>One of the runs that are compared.</summary>
internal sealed record Variant(string Name, string Description, ObjectiveSection Objective);

/// <summary>
/// The paper's setting of continued pretraining, for each seed: a base by CLM on one half of a noisy corpus; a reference continued from
/// it on curated text; then, from the same base and on the same tokens of the other half in the same order, CLM, SLM at several ratios,
/// and the controls. Each finished run stays, and one that was stopped goes on where it was.
/// </summary>
internal sealed class SlmExperiment(ExperimentSettings settings, string directory)
{
    public static IReadOnlyList<Variant> Variants { get; } =
    [
        new("clm", "CLM", new ObjectiveSection()),
        .. new[] { 0.3, 0.4, 0.6, 0.8 }.Select(ratio => new Variant(
            string.Create(CultureInfo.InvariantCulture, $"slm-{ratio}"), string.Create(CultureInfo.InvariantCulture, $"SLM, {100 * ratio:0} %"),
            new ObjectiveSection { Kind = ObjectiveKind.Slm, Ratio = ratio })),
        new("random-0.6", "random, 60 %", Selective(SelectorCriterion.Random)),
        new("reference-0.6", "reference loss alone, 60 %", Selective(SelectorCriterion.ReferenceLoss)),
    ];

    internal static Command Command()
    {
        var data = new Option<string?>("--data") { Description = "Folder with curated/, pretrain/ and heldout/, or quickstart for generated text [default: ../shared/data where it is, else quickstart]", HelpName = "DIR" };
        var output = new Option<string?>("--out") { Description = "Folder of the runs, below .build/ where absent; the same command goes on with what is there", HelpName = "DIR" };
        var seeds = new Option<int>("--seeds") { Description = "How often all of it is done", HelpName = "N", DefaultValueFactory = _ => 3 };
        var brief = new Option<bool>("--short") { Description = "A smaller model and a third of the tokens" };
        var command = new Command("slm", "The experiment: continued pretraining by CLM, by SLM at several ratios and by controls, at equal tokens.") { data, output, seeds, brief };
        seeds.Validators.Add(result =>
        {
            if (result.GetValueOrDefault<int>() < 1) result.AddError("--seeds: at least 1");
        });
        command.SetAction((result, cancellation) => RunAsync(result.GetValue(data), result.GetValue(output), result.GetValue(seeds), result.GetValue(brief), cancellation));
        return command;
    }

    private static async Task<int> RunAsync(string? data, string? output, int seeds, bool brief, CancellationToken cancellation)
    {
        data ??= Directory.Exists("../shared/data") ? "../shared/data" : "quickstart";
        var generated = data == "quickstart";
        var directory = Path.GetFullPath(output ?? $".build/bench-slm{(brief ? "-short" : "")}{(generated ? "-quickstart" : "")}");
        var settings = ExperimentSettings.Of(generated ? data : Path.GetFullPath(data), seeds, brief);
        var experiment = new SlmExperiment(settings, directory);
        try
        {
            var results = await experiment.MeasureAsync(cancellation);
            var report = ExperimentReport.Markdown(settings, experiment.BaseLosses(), results);
            AtomicFile.WriteText(Path.Combine(directory, "report.md"), report);
            AtomicFile.WriteText(Path.Combine(directory, "curves.svg"), ExperimentReport.Plot(results));
            Console.WriteLine(report);
            await Console.Error.WriteLineAsync($"written: {directory}/report.md and curves.svg");
            return 0;
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            await Console.Error.WriteLineAsync("stopped; the same command goes on");
            return 130;
        }
    }

    private static ObjectiveSection Selective(SelectorCriterion criterion) =>
        new() { Kind = ObjectiveKind.Slm, Ratio = 0.6, Selector = new SelectorSection { By = criterion } };

    private string In(params string[] path) => Path.Combine([directory, .. path]);

    private string Of(long seed, string run) => In($"seed-{seed}", run);

    private async Task<IReadOnlyList<Curve>> MeasureAsync(CancellationToken cancellation)
    {
        Directory.CreateDirectory(directory);
        Claim();
        var data = await ExperimentData.PrepareAsync(settings, directory, cancellation);
        for (var seed = 1; seed <= settings.Seeds; seed++)
        {
            var origin = new ModelSection { Config = new NewModelSection { HiddenSize = settings.Hidden, Layers = settings.Layers, Heads = settings.Hidden / 32, KeyValueHeads = settings.Hidden / 64 }, Tokenizer = In("tokenizer") };
            await TrainAsync(data, seed, "base", origin, "first", new ObjectiveSection(), settings.BaseTokens, settings.BaseLearningRate, cancellation);
            var fromBase = new ModelSection { From = Of(seed, "base/final") };
            await TrainAsync(data, seed, "reference", fromBase, "curated", new ObjectiveSection(), settings.ReferenceTokens, settings.LearningRate, cancellation);
            Score(seed, cancellation);
            foreach (var variant in Variants) await TrainAsync(data, seed, variant.Name, fromBase, "second", variant.Objective, settings.Tokens, settings.LearningRate, cancellation);
        }

        return [.. Variants.Select(variant => new Curve(variant, [.. Enumerable.Range(1, settings.Seeds).Select(seed => Points(Of(seed, variant.Name)))]))];
    }

    /// <summary>A folder holds one experiment.</summary>
    private void Claim()
    {
        var text = JsonSerializer.Serialize(settings with { Seeds = 0 }, new JsonSerializerOptions { WriteIndented = true });
        var file = In("settings.json");
        if (File.Exists(file) && File.ReadAllText(file) != text) throw new RhoException($"{directory} holds an experiment with other settings ({file}): choose another --out");
        AtomicFile.WriteText(file, text);
    }

    private async Task TrainAsync(ExperimentData data, long seed, string name, ModelSection model, string corpus, ObjectiveSection objective, long tokens, double rate, CancellationToken cancellation)
    {
        var output = Of(seed, name);
        if (Directory.Exists(Path.Combine(output, "final"))) return;
        var steps = tokens / (settings.Batch * settings.Length);
        var run = new RunFile
        {
            Name = $"seed {seed}, {name}",
            Output = output,
            Model = model,
            Data = new DataSection { Corpora = [new CorpusSection { Path = In(corpus) }] },
            Objective = objective,
            Reference = objective.Kind == ObjectiveKind.Slm && objective.Selector.By != SelectorCriterion.Random ? new ReferenceSection { Sources = [new ReferenceSourceSection { Scores = Of(seed, "scores") }] } : new(),
            Batch = new BatchSection { Sequences = settings.Batch },
            Steps = steps,
            Schedule = new ScheduleSection { LearningRate = rate },
            Seed = seed,
            Checkpoints = new CheckpointSection { EverySteps = 100, KeepLast = 1 },
            Evaluation = new EvaluationSection { EverySteps = Math.Max(1, steps / settings.Evaluations), Sets = [.. data.CuratedSets.Append(data.GeneralSet).Select(set => new EvaluationSetSection { Name = set, Corpus = In($"heldout-{set}"), MaxSequences = settings.HeldOutSequences })] },
        };
        var training = File.Exists(Path.Combine(output, "run.json")) ? TrainingRun.Resume(output) : TrainingRun.Start(run);
        var result = await training.RunAsync(cancellation);
        cancellation.ThrowIfCancellationRequested();
        Directory.Delete(Path.Combine(output, "checkpoints"), recursive: true); // The final model and the metrics are what is needed of it.
        await Console.Error.WriteLineAsync($"{run.Name}: {string.Join(", ", result.Losses.Select(pair => string.Create(CultureInfo.InvariantCulture, $"{pair.Key} {pair.Value:0.000}")))}");
    }

    /// <summary>The reference's losses of the second half, as score files.</summary>
    private void Score(long seed, CancellationToken cancellation)
    {
        const int batch = 32;
        var folder = Of(seed, "scores");
        Directory.CreateDirectory(folder);
        var corpus = Corpus.Open(In("second"));
        using var reference = ReferenceModel.Load(Of(seed, "reference/final"), CPU, ComputeType.Auto);
        for (var i = 0; i < corpus.Shards.Count; i++)
        {
            var path = Path.Combine(folder, corpus.Shards[i].File);
            if (File.Exists(path)) continue;
            using var shard = corpus.OpenShard(i);
            using var file = ScoreFile.Create(path, reference.Fingerprint, shard.Sha256, LossEncoding.F16, shard.Sequences, shard.Length);
            var (tokens, documents, losses) = (new int[batch * shard.Length], new int[batch * shard.Length], new float[batch * shard.Length]);
            for (long first = 0; first < shard.Sequences; first += batch)
            {
                var count = (int)Math.Min(batch, shard.Sequences - first);
                var size = count * shard.Length;
                shard.Read(first, tokens.AsSpan(0, size));
                shard.ReadDocuments(first, documents.AsSpan(0, size));
                if (corpus.DocumentsSeeEachOther) foreach (ref var document in documents.AsSpan(0, size)) document = Math.Min(document, 0);
                reference.Score(tokens.AsSpan(0, size), count, shard.Length, documents.AsSpan(0, size), losses.AsSpan(0, size), cancellation);
                file.Write(first, losses.AsSpan(0, size));
            }

            file.Complete();
        }
    }

    private List<Point> Points(string run)
    {
        var points = new List<Point>();
        foreach (var line in File.ReadLines(Path.Combine(run, "metrics.jsonl")))
        {
            if (!line.StartsWith("{\"event\":\"evaluation\"", StringComparison.Ordinal)) continue;
            using var json = JsonDocument.Parse(line);
            var losses = json.RootElement.GetProperty("losses").EnumerateObject().ToDictionary(property => property.Name, property => property.Value.GetDouble(), StringComparer.Ordinal);
            points.Add(new Point(json.RootElement.GetProperty("tokens").GetInt64(), losses));
        }

        return points;
    }

    /// <summary>Of the bases and of the references: the last held-out losses of each seed.</summary>
    private IReadOnlyList<(string Name, IReadOnlyList<Point> Seeds)> BaseLosses() =>
    [
        .. new[] { "base", "reference" }.Select(name => (name, (IReadOnlyList<Point>)[.. Enumerable.Range(1, settings.Seeds).Select(seed => Points(Of(seed, name))[^1])])),
    ];
}
