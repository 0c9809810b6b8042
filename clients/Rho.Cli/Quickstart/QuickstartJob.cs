using System.Diagnostics;
using System.Net.Http.Json;
using System.Text.Json;
using Rho.Cli.Commands;
using Rho.Cli.Terminal;
using Rho.Client;
using Rho.Data;
using Rho.Formats;
using Rho.Model;
using Rho.Selection;
using Rho.Tokenization;
using Rho.Training;
using static TorchSharp.torch;

namespace Rho.Cli.Quickstart;

/// <summary>Sizes of the quickstart. The defaults take about a minute on two cores.</summary>
internal sealed record QuickstartSettings
{
    public int Seed { get; init; } = 1;

    public int CuratedCharacters { get; init; } = 900_000;

    public int CrawlCharacters { get; init; } = 1_900_000;

    public int HeldOutCharacters { get; init; } = 16_000;

    public int VocabularySize { get; init; } = 1024;

    public int SequenceLength { get; init; } = 128;

    public int Hidden { get; init; } = 128;

    public int Layers { get; init; } = 2;

    /// <summary>Sequences of a step.</summary>
    public int BatchSequences { get; init; } = 8;

    /// <summary>Share of the tokens that SLM trains on.</summary>
    public double Ratio { get; init; } = 0.3;

    /// <summary>How often the reference reads the curated text.</summary>
    public double ReferenceEpochs { get; init; } = 1;

    public double LearningRate { get; init; } = 1e-2;

    /// <summary>Held-out losses along each of the two compared runs.</summary>
    public int Evaluations { get; init; } = 20;

    /// <summary>Number type of training's products, and of scoring and serving.</summary>
    public ComputePrecision Precision { get; init; }

    /// <summary>Held-out problems that both finished models are asked: the first ones.</summary>
    public int Questions { get; init; } = 40;

    /// <summary>The executable that scorers and the server are started from; null: this one.</summary>
    public string? Program { get; init; }
}

/// <summary>
/// The main job from beginning to end: 1. text, tokenizer and corpora; 2. a reference, trained on curated text; 3. its losses of the
/// crawl, by two scorer processes that share a cache; 4. CLM and SLM on the same tokens; 5. both models served and asked; 6. a summary
/// and a report. Everything that it starts ends with it.
/// </summary>
internal sealed class QuickstartJob : IAsyncDisposable
{
    private const int PageTokens = 900;
    private static readonly TimeSpan StartPatience = TimeSpan.FromSeconds(60);

    private readonly QuickstartSettings _settings;
    private readonly string _directory;
    private readonly Stopwatch _clock = Stopwatch.StartNew();
    private readonly List<StageTime> _stages = [];
    private readonly List<ChildProcess> _children = [];
    private string? _redis;

    public QuickstartJob(string directory, QuickstartSettings settings) => (_directory, _settings) = (directory, settings);

    /// <summary>Makes the folder, which has to be new, empty, or left by an earlier quickstart; what that one made is deleted.</summary>
    /// <exception cref="RhoException">The folder holds something else.</exception>
    public static void Claim(string directory)
    {
        string[] own = ["data", "tokenizer", "corpora", "runs", "scores", "logs", "summary.json", "report.html", "quickstart.json"];
        if (File.Exists(directory)) throw new RhoException($"{directory}: is a file; name a folder with --out");
        Directory.CreateDirectory(directory);
        var entries = Directory.EnumerateFileSystemEntries(directory).Select(entry => Path.GetFileName(entry)!).ToList();
        if (entries.Count > 0 && !entries.Contains("quickstart.json")) throw new RhoException($"{directory}: holds something else than a quickstart; name another folder with --out");
        foreach (var name in own.Where(entries.Contains))
        {
            var path = Path.Combine(directory, name);
            if (Directory.Exists(path)) Directory.Delete(path, recursive: true);
            else File.Delete(path);
        }
    }

    public async Task<QuickstartSummary> RunAsync(CancellationToken cancellation)
    {
        Claim(_directory);
        Directory.CreateDirectory(In("logs"));
        AtomicFile.WriteText(In("quickstart.json"), JsonSerializer.Serialize(_settings, QuickstartSummary.JsonOptions) + "\n");

        var cache = await StartCacheAsync(cancellation);
        var (data, tokenizer) = MakeText(cancellation);
        var corpora = await BuildCorporaAsync(tokenizer, cancellation);
        var noise = NoiseMap.Create(corpora.Crawl, tokenizer, data.Crawl);

        var reference = await TrainReferenceAsync(cancellation);
        var scorers = await StartScorersAsync(reference.Model, cancellation);
        var scores = await ScoreAsync(corpora.Crawl, scorers, cache, cancellation);

        var clm = await TrainAsync("clm", reference.Tokens, scorers, noise, cancellation);
        var slm = await TrainAsync("slm", reference.Tokens, scorers, noise, cancellation);
        await StopChildrenAsync("scorer");

        var page = MakePage(slm.Model, corpora.Crawl, tokenizer, noise, cancellation);
        var asked = await AskAsync(clm.Model, slm.Model, data.HeldOut, cancellation);

        var shares = noise.Shares();
        var summary = new QuickstartSummary
        {
            Machine = $"{Machine.Processor}, {Environment.ProcessorCount} cores",
            Seconds = _clock.Elapsed.TotalSeconds,
            Stages = _stages,
            Model = slm.Description,
            VocabularySize = tokenizer.VocabularySize,
            Data = new DataSummary(corpora.Curated.Tokens, corpora.Crawl.Tokens, corpora.HeldOut.Tokens, shares.Values.Sum(), shares),
            Reference = reference.Summary,
            Scores = scores,
            Runs = [clm.Summary, slm.Summary],
            Asked = asked,
        };
        AtomicFile.WriteText(In("summary.json"), JsonSerializer.Serialize(summary, QuickstartSummary.JsonOptions) + "\n");
        AtomicFile.WriteText(In("report.html"), ReportPage.Render(summary, page));
        return summary;
    }

    public async ValueTask DisposeAsync() => await StopChildrenAsync("");

    // ---- 1. text, tokenizer, corpora

    private (QuickstartCorpus Data, Tokenizer Tokenizer) MakeText(CancellationToken cancellation)
    {
        using var stage = Begin("text and tokenizer");
        var data = QuickstartCorpus.Generate(_settings.Seed, _settings.CuratedCharacters, _settings.CrawlCharacters, _settings.HeldOutCharacters);
        Directory.CreateDirectory(In("data"));
        QuickstartCorpus.Write(In("data/curated.jsonl"), data.Curated);
        QuickstartCorpus.Write(In("data/crawl.jsonl"), data.Crawl);
        QuickstartCorpus.Write(In("data/heldout.jsonl"), data.HeldOut);
        var texts = data.Curated.Concat(data.Crawl).Select(document => document.Text);
        var tokenizer = BpeTrainer.Train(texts, new BpeTrainerOptions { VocabularySize = _settings.VocabularySize }, cancellation: cancellation);
        tokenizer.Save(In("tokenizer"));
        stage.Complete($"{data.Curated.Count} curated documents, {data.Crawl.Count} crawled pages, {tokenizer.VocabularySize} tokens in the vocabulary");
        return (data, tokenizer);
    }

    private async Task<(Corpus Curated, Corpus Crawl, Corpus HeldOut)> BuildCorporaAsync(Tokenizer tokenizer, CancellationToken cancellation)
    {
        using var stage = Begin("corpora");
        var curated = await BuildAsync("curated");
        var crawl = await BuildAsync("crawl");
        var heldOut = await BuildAsync("heldout");
        stage.Complete($"{Quantities.Short(curated.Tokens)} curated tokens, {Quantities.Short(crawl.Tokens)} crawled, {Quantities.Short(heldOut.Tokens)} held out");
        return (curated, crawl, heldOut);

        Task<Corpus> BuildAsync(string name) => CorpusBuilder.BuildAsync(
            new CorpusOptions
            {
                Sources = [new CorpusSource { Paths = [In($"data/{name}.jsonl")] }],
                Directory = In($"corpora/{name}"),
                SequenceLength = _settings.SequenceLength,
                RemoveDuplicates = false,
                ShardTokens = Math.Max(16 * _settings.SequenceLength, _settings.CrawlCharacters / 24),
            },
            tokenizer, cancellation: cancellation);
    }

    // ---- 2. the reference

    private async Task<(string Model, long Tokens, ReferenceSummary Summary)> TrainReferenceAsync(CancellationToken cancellation)
    {
        var run = Run("reference", "curated", new ObjectiveSection(), []) with
        {
            Evaluation = Evaluation(everySteps: 0),
            Data = new DataSection { Corpora = [new CorpusSection { Path = In("corpora/curated"), Epochs = _settings.ReferenceEpochs }] },
        };
        var (result, outcome) = await RunAsync(run, "reference, on curated text", tally: null, cancellation);
        return (result.Model!, outcome.Tokens, new ReferenceSummary(outcome.Tokens, outcome.HeldOutLoss, outcome.Seconds));
    }

    // ---- 3. reference losses

    private async Task<string> StartCacheAsync(CancellationToken cancellation)
    {
        if (QuickstartRedis.Find() is null)
        {
            await Console.Error.WriteLineAsync("the scorers cache in a folder; with a Redis, scorers on several machines would share one cache and score nothing twice");
            return "folder";
        }

        var (process, port) = await QuickstartRedis.StartAsync(In("logs/redis.log"), cancellation);
        _children.Add(process);
        _redis = $"127.0.0.1:{port}";
        return "redis";
    }

    private async Task<string[]> StartScorersAsync(string reference, CancellationToken cancellation)
    {
        using var stage = Begin("two scorers");
        string[] cache = _redis is null ? ["--cache", In("scores")] : ["--redis", _redis];
        // Half of the cores each, so that the two do not fight.
        var threads = new Dictionary<string, string>(StringComparer.Ordinal) { ["OMP_NUM_THREADS"] = $"{Math.Max(1, Environment.ProcessorCount / 2)}" };
        var scorers = Enumerable.Range(1, 2)
            .Select(number => StartRho($"scorer {number}", ["scorer", "--reference", reference, "--port", "0", "--dtype", DataType, .. cache], line => After(line, "listening on "), threads))
            .ToList();
        var addresses = await Task.WhenAll(scorers.Select(scorer => scorer.ReadyAsync(StartPatience, cancellation)));
        stage.Complete($"{string.Join(" and ", addresses)}, sharing {(_redis is null ? "a folder" : $"Redis at {_redis}")}");
        return addresses;
    }

    private async Task<ScoresSummary> ScoreAsync(Corpus crawl, string[] scorers, string cache, CancellationToken cancellation)
    {
        using var stage = Begin("reference losses of the crawl");
        await using var client = new ScorerClient(new ScorerClientOptions { Addresses = scorers, TokenizerFingerprint = crawl.TokenizerFingerprint });
        await CorpusScoring.RunAsync(crawl, client, In("scores/crawl"), new InlineProgress<CorpusScoringProgress>(state => stage.Report(state.TokensDone, state.TokensTotal)), cancellation: cancellation);
        var seconds = stage.Complete($"{Quantities.Short(crawl.Tokens)} tokens");
        return new ScoresSummary(scorers.Length, cache, crawl.Tokens, seconds);
    }

    // ---- 4. the two models

    private async Task<(string Model, string Description, RunSummary Summary)> TrainAsync(string objective, long referenceTokens, string[] scorers, NoiseMap noise, CancellationToken cancellation)
    {
        var slm = objective == "slm";
        var section = slm ? new ObjectiveSection { Kind = ObjectiveKind.Slm, Ratio = _settings.Ratio } : new ObjectiveSection();
        var run = Run(objective, "crawl", section, slm ? scorers : []);
        var tally = new NoiseTally(noise);
        var title = slm ? $"SLM, on {100 * _settings.Ratio:0} % of the tokens" : "CLM, on every token";
        var (result, outcome) = await RunAsync(run, title, tally, cancellation);
        return (result.Model!, outcome.Description, new RunSummary
        {
            Objective = objective,
            Ratio = slm ? _settings.Ratio : 1,
            Tokens = outcome.Tokens,
            Seconds = outcome.Seconds,
            HeldOutLoss = outcome.HeldOutLoss,
            NoiseTrainedOn = tally.NoiseShare,
            CleanTrainedOn = tally.CleanShare,
            NoiseTrainedOnByKind = tally.NoiseShareByKind,
            Curve = outcome.Curve,
        });
    }

    private RunFile Run(string name, string corpus, ObjectiveSection objective, string[] scorers)
    {
        var steps = Corpus.Open(In($"corpora/{corpus}")).Sequences / _settings.BatchSequences;
        return new RunFile
        {
            Name = name,
            Output = In($"runs/{name}"),
            Model = new ModelSection
            {
                Config = new NewModelSection { HiddenSize = _settings.Hidden, Layers = _settings.Layers, Heads = Math.Max(1, _settings.Hidden / 32), KeyValueHeads = Math.Max(1, _settings.Hidden / 64) },
                Tokenizer = In("tokenizer"),
            },
            Data = new DataSection { Corpora = [new CorpusSection { Path = In($"corpora/{corpus}"), Epochs = 1 }] },
            Objective = objective,
            Reference = new ReferenceSection { Sources = scorers.Length == 0 ? [] : [new ReferenceSourceSection { Scorers = scorers }] },
            Batch = new BatchSection { Sequences = _settings.BatchSequences },
            Schedule = new ScheduleSection { LearningRate = _settings.LearningRate, WarmupSteps = Math.Min(20, steps / 4) },
            Seed = _settings.Seed,
            Compute = new ComputeSection { Precision = _settings.Precision },
            Checkpoints = new CheckpointSection { EverySteps = 0 },
            Evaluation = Evaluation(Math.Max(1, steps / _settings.Evaluations)),
        };
    }

    private EvaluationSection Evaluation(long everySteps) => new() { EverySteps = everySteps, Sets = [new EvaluationSetSection { Name = "clean", Corpus = In("corpora/heldout") }] };

    private async Task<(RunResult Result, (long Tokens, double HeldOutLoss, double Seconds, string Description, List<CurvePoint> Curve) Outcome)> RunAsync(
        RunFile file, string title, NoiseTally? tally, CancellationToken cancellation)
    {
        AtomicFile.WriteText(In($"{file.Name}.run.json"), file.ToJson());
        var run = TrainingRun.Start(file);
        if (tally is not null) run.SelectionObserver = batch => Count(batch, tally);
        var curve = new List<CurvePoint>();
        var description = "";
        var clock = Stopwatch.StartNew();
        using var progress = new TrainingProgress(title)
        {
            ShowEvaluations = false,
            Observer = e =>
            {
                if (e is RunStarted started) description = started.Model;
                if (e is EvaluationFinished evaluation) curve.Add(new CurvePoint(evaluation.Tokens, evaluation.Losses["clean"]));
            },
        };
        var result = await progress.RunAsync(run, cancellation);
        cancellation.ThrowIfCancellationRequested();
        _stages.Add(new StageTime(title, clock.Elapsed.TotalSeconds));
        return (result, (curve[^1].Tokens, curve[^1].HeldOutLoss, clock.Elapsed.TotalSeconds, description, curve));
    }

    private static void Count(SelectedBatch batch, NoiseTally tally)
    {
        var length = batch.Batch.Tokens.Length;
        for (var i = 0; i < batch.Losses.Length; i++)
        {
            if (float.IsNaN(batch.Losses[i])) continue;
            var origin = batch.Batch.Origins[i / length];
            tally.Add(origin.Shard, origin.Sequence, i % length, batch.Weights[i] > 0);
        }
    }

    // ---- 5. the finished model

    /// <summary>A stretch of the crawl as the finished model sees it: its losses, the reference's, and what a batch's selection would take.</summary>
    private List<PageToken> MakePage(string model, Corpus crawl, Tokenizer tokenizer, NoiseMap noise, CancellationToken cancellation)
    {
        using var stage = Begin("a page of selected text");
        var sequences = _settings.BatchSequences;
        var length = crawl.SequenceLength;
        using var shard = crawl.OpenShard(0);
        using var scores = ScoreFile.Open(Path.Combine(In("scores/crawl"), crawl.Shards[0].File));
        var tokens = new int[sequences * length];
        var (losses, reference, weights) = (new float[tokens.Length], new float[tokens.Length], new float[tokens.Length]);
        shard.Read(0, tokens);
        scores.Read(0, reference);
        using (var scorer = ReferenceModel.Load(model, CPU, ComputeType.Auto)) scorer.Score(tokens, sequences, length, [], losses, cancellation);
        new TopTokens(new ExcessLoss(), SelectionScope.Batch).Select(
            new TokenLosses { Length = length, Current = losses, Reference = reference }, _settings.Ratio, weights);

        var page = new List<PageToken>();
        for (var i = 0; i < Math.Min(PageTokens, tokens.Length); i++)
        {
            if (tokenizer.IsSpecial(tokens[i])) continue;
            noise.TryGet(0, i / length, i % length, out var kind);
            page.Add(new PageToken(tokenizer.Decode([tokens[i]]), kind, weights[i] > 0, losses[i], reference[i]));
        }

        stage.Complete($"{page.Count} tokens, {page.Count(token => token.Selected)} selected");
        return page;
    }

    /// <summary>Both finished models answer the first held-out problems, greedily, over HTTP.</summary>
    private async Task<IReadOnlyList<Exchange>> AskAsync(string clm, string slm, IReadOnlyList<MarkedDocument> heldOut, CancellationToken cancellation)
    {
        using var stage = Begin("both models served");
        var server = StartRho(
            "server", ["serve", "--model", $"clm={clm}", "--model", $"slm={slm}", "--grpc", "0", "--http", "0", "--dtype", DataType, "--cache-mib", "64"], HttpAddress,
            new Dictionary<string, string>(StringComparer.Ordinal));
        var address = await server.ReadyAsync(StartPatience, cancellation);
        using var http = new HttpClient { BaseAddress = new Uri(address), Timeout = StartPatience };
        var problems = heldOut.SelectMany(document => document.Text.Split("\n\n", StringSplitOptions.RemoveEmptyEntries)).Take(_settings.Questions).Select(Problems.Split).ToList();
        var (byClm, bySlm) = (await AnswersAsync("clm"), await AnswersAsync("slm"));
        await StopChildrenAsync("server");
        stage.Complete($"{problems.Count} questions answered by each over HTTP at {address}");
        return [.. problems.Select((problem, i) => new Exchange(problem.Prompt, problem.Answer, Marked(byClm[i], problem.Answer), Marked(bySlm[i], problem.Answer)))];

        async Task<string[]> AnswersAsync(string model)
        {
            using var response = await http.PostAsJsonAsync("/v1/completions", new { model, prompt = problems.ConvertAll(problem => problem.Prompt), max_tokens = 16, temperature = 0, stop = "\n" }, cancellation);
            var body = await response.Content.ReadFromJsonAsync<JsonElement>(cancellation);
            if (!response.IsSuccessStatusCode) throw new RhoException($"the server at {address} answered {(int)response.StatusCode}: {body}");
            return [.. body.GetProperty("choices").EnumerateArray().OrderBy(choice => choice.GetProperty("index").GetInt32()).Select(choice => choice.GetProperty("text").GetString()!)];
        }

        static Reply Marked(string text, string answer) => new(text, text.Trim() == answer);
    }

    // ---- processes and stages

    private ChildProcess StartRho(string name, IEnumerable<string> arguments, Func<string, string?> readiness, IReadOnlyDictionary<string, string> environment)
    {
        var log = In($"logs/{name.Replace(' ', '-')}.log");
        var process = _settings.Program is { } program
            ? ChildProcess.Start(name, program, arguments, readiness, log, environment)
            : ChildProcess.StartSelf(name, arguments, readiness, log, environment);
        _children.Add(process);
        return process;
    }

    private async Task StopChildrenAsync(string prefix)
    {
        var ending = _children.Where(child => child.Name.StartsWith(prefix, StringComparison.Ordinal)).ToList();
        await Task.WhenAll(ending.Select(child => child.DisposeAsync().AsTask()));
        _children.RemoveAll(ending.Contains);
    }

    private string DataType => _settings.Precision.ToString().ToLowerInvariant();

    private Stage Begin(string name) => new(this, name);

    private string In(string name) => Path.Combine(_directory, name);

    private static string? After(string line, string text) => line.StartsWith(text, StringComparison.Ordinal) ? line[text.Length..] : null;

    private static string? HttpAddress(string line) =>
        line.StartsWith("listening on ", StringComparison.Ordinal) ? line.Split(' ').First(word => word.StartsWith("http", StringComparison.Ordinal) && line.Contains($"{word} (HTTP)", StringComparison.Ordinal)) : null;

    /// <summary>A part of the job on the terminal, whose time goes into the summary.</summary>
    private sealed class Stage(QuickstartJob job, string name) : IDisposable
    {
        private readonly ProgressLine _line = new(name, "tokens");

        public void Report(long done, long total) => _line.Report(done, total);

        public double Complete(string result)
        {
            var seconds = _line.Elapsed.TotalSeconds;
            job._stages.Add(new StageTime(name, seconds));
            _line.Complete(result);
            return seconds;
        }

        public void Dispose() => _line.Dispose();
    }
}
