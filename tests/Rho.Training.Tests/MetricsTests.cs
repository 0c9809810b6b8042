using System.Collections.Concurrent;
using System.Diagnostics;
using System.Diagnostics.Metrics;
using System.Text;
using System.Text.Json.Nodes;

namespace Rho.Training.Tests;

/// <summary>What a whole run reports, and where.</summary>
public sealed class MetricsTests : IDisposable
{
    private readonly World _world = new();

    public void Dispose() => _world.Dispose();

    private RunFile TwoCorpora(string output, string objective, long steps = 12)
    {
        _world.Corpus("web", [40], seed: 1);
        _world.Corpus("math", [30], seed: 2);
        _world.Corpus("held", [10], seed: 9);
        var run = _world.Run(output, "web", _world.Slm($$"""{ "model": "{{_world.Checkpoint("reference", 77)}}" }""", objective)
            + """ "evaluation": { "every_steps": 5, "sets": [ { "name": "held", "corpus": "held" } ] }, "metrics": { "tensorboard": true, "peak_flops": 1e12 } """, steps);
        return run with { Data = run.Data with { Corpora = [new CorpusSection { Path = _world.At("web") }, new CorpusSection { Path = _world.At("math") }] } };
    }

    private static List<JsonNode> Of(string directory, string name) =>
        [.. File.ReadLines(Path.Combine(directory, "metrics.jsonl")).Select(line => JsonNode.Parse(line)!).Where(line => line["event"]!.GetValue<string>() == name)];

    [Fact]
    public async Task Run_Slm_ReportsEveryQuantityEverywhere()
    {
        var name = $"all{Guid.NewGuid():N}";
        var values = new ConcurrentDictionary<string, double>(StringComparer.Ordinal);
        using var listener = Listen(name, values);
        var run = TwoCorpora(name, "");
        await World.RunAsync(TrainingRun.Start(run));

        var steps = Of(run.Output, "step");
        Assert.Equal(12, steps.Count);
        foreach (var step in steps)
        {
            foreach (var field in new[]
            {
                "loss", "all_loss", "selected_loss", "unselected_loss", "reference_loss", "ratio", "selected_share", "threshold", "negative_excess_share", "gradient_norm",
                "learning_rate", "tokens_per_second", "flops_share", "milliseconds", "training_milliseconds", "reference_milliseconds", "score_wait_milliseconds", "data_wait_milliseconds",
                "checkpoint_milliseconds",
            }) Assert.True(double.IsFinite(step[field]!.GetValue<double>()), field);
            Assert.Equal(3, step["excess_quantiles"]!.AsArray().Count);
            Assert.Equal(2, step["selected_share_by_corpus"]!.AsArray().Count);
            Assert.True(step["training_milliseconds"]!.GetValue<double>() <= step["milliseconds"]!.GetValue<double>());
        }

        // Training stood still after steps 4 and 8: the next one says for how long.
        Assert.Equal([5, 9], steps.Where(step => step["checkpoint_milliseconds"]!.GetValue<double>() > 0).Select(step => step["step"]!.GetValue<int>()));
        Assert.All(Of(run.Output, "checkpoint").Skip(1), line => Assert.InRange(line["mask_overlap"]!.GetValue<double>(), 0, 1));
        Assert.All(Of(run.Output, "evaluation"), line => Assert.True(line["losses"]!["held"]!.GetValue<double>() > 0));

        var events = Encoding.Latin1.GetString(await File.ReadAllBytesAsync(Directory.EnumerateFiles(Path.Combine(run.Output, "tensorboard")).Single()));
        foreach (var tag in new[]
        {
            "loss/trained", "loss/all", "loss/selected", "loss/unselected", "loss/reference", "selection/threshold", "selection/negative_excess", "selection/mask_overlap",
            "selection/excess_p10", "selection/excess_p50", "selection/excess_p90", "selection/share_web", "selection/share_math", "optimizer/gradient_norm", "optimizer/learning_rate",
            "speed/tokens_per_second", "speed/flops_share", "speed/training_ms", "speed/reference_ms", "speed/score_wait_ms", "speed/checkpoint_stall_ms", "heldout/held",
        }) Assert.Contains(tag, events, StringComparison.Ordinal);

        var last = steps[^1];
        foreach (var (instrument, expected) in new[]
        {
            ("loss trained", "loss"), ("loss all", "all_loss"), ("loss selected", "selected_loss"), ("loss unselected", "unselected_loss"), ("loss reference", "reference_loss"),
            ("ratio", "ratio"), ("selected_share", "selected_share"), ("threshold", "threshold"), ("negative_excess_share", "negative_excess_share"), ("gradient_norm", "gradient_norm"),
            ("learning_rate", "learning_rate"), ("tokens_per_second", "tokens_per_second"), ("flops_share", "flops_share"),
        }) Assert.Equal(last[expected]!.GetValue<double>(), values[$"rho.training.{instrument}"], 1e-9);
        Assert.Equal(last["excess_quantiles"]![1]!.GetValue<float>(), values["rho.training.excess 0.5"], 1e-6);
        Assert.Equal(last["selected_share_by_corpus"]![1]!.GetValue<double>(), values["rho.training.corpus_selected_share math"], 1e-9);
        Assert.Equal(last["tokens"]!.GetValue<double>(), values["rho.training.tokens"]);
        Assert.Equal(last["selected_tokens"]!.GetValue<double>(), values["rho.training.selected_tokens"]);
        Assert.Equal(Of(run.Output, "evaluation")[^1]["losses"]!["held"]!.GetValue<double>(), values["rho.training.held_out_loss held"], 1e-9);
        foreach (var instrument in new[] { "score_wait", "data_wait", "reference_time", "training_time", "checkpoint_stall", "mask_overlap" }) Assert.Contains($"rho.training.{instrument}", values.Keys);
    }

    [Fact]
    public async Task Run_Filtered_SaysHowNearItsGradientIsToTheExactOne()
    {
        var name = $"filtered{Guid.NewGuid():N}";
        var values = new ConcurrentDictionary<string, double>(StringComparer.Ordinal);
        using var listener = Listen(name, values);
        var run = TwoCorpora(name, """, "ratio": 0.4, "backward": "filtered" """);
        await World.RunAsync(TrainingRun.Start(run with { Metrics = run.Metrics with { GradientCheckSteps = 5 } }));

        var compared = Of(run.Output, "step").Where(step => step["gradient_cosine"] is not null).ToList();
        Assert.Equal([1, 6, 11], compared.Select(step => step["step"]!.GetValue<int>()));
        Assert.All(compared, step =>
        {
            Assert.InRange(step["gradient_cosine"]!.GetValue<double>(), 0.5, 0.99999);
            Assert.InRange(step["gradient_norm_ratio"]!.GetValue<double>(), 0.3, 1.5);
        });
        Assert.Equal(compared[^1]["gradient_cosine"]!.GetValue<double>(), values["rho.training.gradient_cosine"], 1e-9);
        Assert.Equal(compared[^1]["gradient_norm_ratio"]!.GetValue<double>(), values["rho.training.gradient_norm_ratio"], 1e-9);
        var events = Encoding.Latin1.GetString(await File.ReadAllBytesAsync(Directory.EnumerateFiles(Path.Combine(run.Output, "tensorboard")).Single()));
        Assert.Contains("optimizer/gradient_cosine", events, StringComparison.Ordinal);
    }

    /// <summary>The last value of each gauge and the sum of each counter of one run, by instrument and its tag.</summary>
    private static MeterListener Listen(string run, ConcurrentDictionary<string, double> values)
    {
        var listener = new MeterListener
        {
            InstrumentPublished = (instrument, self) =>
            {
                if (instrument.Meter.Name == "Rho.Training") self.EnableMeasurementEvents(instrument);
            },
        };
        void Keep(Instrument instrument, double value, ReadOnlySpan<KeyValuePair<string, object?>> tags)
        {
            if (!run.Equals(tags[0].Value)) return;
            var key = tags.Length > 1 ? FormattableString.Invariant($"{instrument.Name} {tags[1].Value}") : instrument.Name;
            var adds = instrument is Counter<long> or Counter<double>;
            values.AddOrUpdate(key, value, (_, before) => adds ? before + value : value);
        }

        listener.SetMeasurementEventCallback<double>((instrument, value, tags, _) => Keep(instrument, value, tags));
        listener.SetMeasurementEventCallback<long>((instrument, value, tags, _) => Keep(instrument, value, tags));
        listener.Start();
        return listener;
    }

    [Fact]
    public async Task Run_Spans_AreOneTraceOfStepsEvaluationsAndCheckpoints()
    {
        var name = $"spans{Guid.NewGuid():N}";
        var spans = new ConcurrentQueue<Activity>();
        using var listener = new ActivityListener
        {
            ShouldListenTo = source => source.Name == "Rho.Training",
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllDataAndRecorded,
            ActivityStopped = activity =>
            {
                if (name.Equals(activity.GetTagItem("run"))) spans.Enqueue(activity);
            },
        };
        ActivitySource.AddActivityListener(listener);
        await World.RunAsync(TrainingRun.Start(TwoCorpora(name, "")));

        var run = Assert.Single(spans, span => span.OperationName == "training.run");
        var parts = spans.Where(span => span != run).ToList();
        Assert.All(parts, span => Assert.Equal(run.SpanId, span.ParentSpanId));
        Assert.Equal(Enumerable.Range(1, 12).Select(step => (long)step), Steps("training.step"));
        Assert.Equal([0L, 5, 10, 12], Steps("training.evaluation"));
        Assert.Equal([4L, 8, 12], Steps("training.checkpoint"));
        IEnumerable<long> Steps(string operation) => parts.Where(span => span.OperationName == operation).Select(span => (long)span.GetTagItem("training.step")!).Order();
    }

    [Theory]
    [InlineData("linear")]
    [InlineData("cosine")]
    public async Task Run_RatioSchedule_FollowsItsFormulaAndKeepsThatManyTokens(string kind)
    {
        const int steps = 12;
        var run = TwoCorpora("out", $$""", "ratio": 0.9, "ratio_schedule": { "kind": "{{kind}}", "to": 0.25, "steps": 8 }""", steps);
        var counts = new List<(long Step, int Candidates, int Selected)>();
        var training = TrainingRun.Start(run);
        training.SelectionObserver = batch => counts.Add((batch.Step, batch.Losses.Count(loss => !float.IsNaN(loss)), batch.Weights.Count(weight => weight > 0)));
        await World.RunAsync(training);
        var before = 0L;
        foreach (var line in Of(run.Output, "step"))
        {
            var step = line["step"]!.GetValue<long>();
            var progress = Math.Min(1, (step - 1) / 8.0);
            var expected = kind == "linear" ? 0.9 + (0.25 - 0.9) * progress : 0.25 + (0.9 - 0.25) * 0.5 * (1 + Math.Cos(Math.PI * progress));
            Assert.Equal(expected, line["ratio"]!.GetValue<double>(), 1e-12);
            var batches = counts.Where(count => count.Step == step).ToList();
            Assert.Equal(2, batches.Count);
            Assert.All(batches, count => Assert.Equal((int)Math.Ceiling(Math.Round(expected * count.Candidates, 9)), count.Selected));
            var selected = line["selected_tokens"]!.GetValue<long>();
            Assert.Equal(batches.Sum(count => count.Selected), selected - before);
            before = selected;
        }
    }

    [Fact]
    public async Task Run_SoftWeights_AreTheSoftmaxOfTheExcess()
    {
        var run = TrainingRun.Start(TwoCorpora("out", ", \"selector\": { \"temperature\": 0.5 }"));
        var seen = 0;
        run.SelectionObserver = batch =>
        {
            seen++;
            var at = Enumerable.Range(0, batch.Losses.Length).Where(i => !float.IsNaN(batch.Losses[i])).ToArray();
            var exponentials = at.Select(i => Math.Exp((batch.Losses[i] - batch.Batch.Reference!.Losses[i]) / 0.5)).ToArray();
            var scale = at.Length / exponentials.Sum();
            for (var j = 0; j < at.Length; j++) Assert.Equal(exponentials[j] * scale, batch.Weights[at[j]], 1e-3 * (1 + exponentials[j] * scale));
            Assert.Equal(at.Length, batch.Weights.Sum(weight => (double)weight), 1e-2);
        };
        await World.RunAsync(run);
        Assert.Equal(24, seen);
    }

    [Fact]
    public async Task Run_Words_AreKeptOrDroppedWhole()
    {
        var run = TwoCorpora("out", ", \"ratio\": 0.5, \"selector\": { \"unit\": \"word\" }");
        var words = new WordTable(World.Tokenizer, World.Tokenizer.VocabularySize);
        var (joined, training) = (0, TrainingRun.Start(run));
        training.SelectionObserver = batch =>
        {
            var numbers = words.Number(batch.Batch.Tokens.Tokens);
            for (var i = 1; i < batch.Weights.Length; i++)
            {
                if (i % World.Length == 0 || float.IsNaN(batch.Losses[i]) || float.IsNaN(batch.Losses[i - 1]) || numbers[i] != numbers[i - 1]) continue;
                joined++;
                Assert.Equal(batch.Weights[i - 1], batch.Weights[i]);
            }
        };
        await World.RunAsync(training);
        Assert.True(joined > 0);
        // A word more than the count at most.
        Assert.All(Of(run.Output, "step"), line => Assert.InRange(line["selected_share"]!.GetValue<double>(), 0.5, 0.75));
    }

    [Fact]
    public async Task Run_Sequences_AreKeptOrDroppedWhole()
    {
        var run = TrainingRun.Start(TwoCorpora("out", ", \"ratio\": 0.5, \"selector\": { \"unit\": \"sequence\" }"));
        run.SelectionObserver = batch =>
        {
            var means = batch.Losses.Chunk(World.Length).Zip(batch.Batch.Reference!.Losses.Chunk(World.Length)).Select(pair => pair.First.Zip(pair.Second, (a, b) => a - b).Where(excess => !float.IsNaN(excess)).Average(excess => (double)excess)).ToList();
            var kept = batch.Weights.Chunk(World.Length).Select(weights => weights.Skip(1).Distinct().Single()).ToList();
            Assert.Equal(means.Select((mean, i) => (mean, i)).OrderByDescending(pair => pair.mean).Take(2).Select(pair => pair.i).Order(), Enumerable.Range(0, 4).Where(i => kept[i] > 0));
        };
        await World.RunAsync(run);
    }
}
