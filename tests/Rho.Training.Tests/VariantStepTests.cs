using System.Runtime.InteropServices;
using Rho.Formats;
using Rho.Model;
using Rho.TestSupport;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Training.Tests;

/// <summary>Objectives other than the plain one over several steps, against an independent account in PyTorch (data/make.py, variants).</summary>
public class VariantStepTests
{
    private const int Steps = 4, Micro = 2, Batch = 3, Length = 11, K = 4;
    private const int MicroBatch = Batch * Length, Step = Micro * MicroBatch;

    private static string DataPath(string name) => Path.Combine(AppContext.BaseDirectory, "data", name);

    private static float[] Floats(SafetensorsFile file, string name) => MemoryMarshal.Cast<byte, float>(file.Bytes(name)).ToArray();

    private static void Close(ReadOnlySpan<float> expected, ReadOnlySpan<float> actual, double relative)
    {
        Assert.Equal(expected.Length, actual.Length);
        float scale = 0;
        foreach (var value in expected)
            if (float.IsFinite(value)) scale = Math.Max(scale, Math.Abs(value));
        for (var i = 0; i < expected.Length; i++)
        {
            if (float.IsNaN(expected[i]) && float.IsNaN(actual[i])) continue;
            Assert.True(Math.Abs(expected[i] - actual[i]) <= relative * scale, $"at {i}: {expected[i]} expected, {actual[i]} found (largest {scale})");
        }
    }

    private static List<PreparedBatch> Batches(SafetensorsFile steps, SafetensorsFile variants, int step)
    {
        var tokens = MemoryMarshal.Cast<byte, long>(steps.Bytes("tokens"));
        var ids = MemoryMarshal.Cast<byte, long>(variants.Bytes("top_ids"));
        var (reference, top) = (Floats(steps, "reference"), Floats(variants, "top_log_probabilities"));
        var batches = new List<PreparedBatch>();
        for (var micro = 0; micro < Micro; micro++)
        {
            var at = step * Step + micro * MicroBatch;
            batches.Add(new PreparedBatch
            {
                Tokens = new TokenBatch(Integers(tokens.Slice(at, MicroBatch)), Batch, Length, null),
                Reference = new TokenScores(reference[at..(at + MicroBatch)])
                {
                    TopIds = Integers(ids.Slice(at * K, MicroBatch * K)),
                    TopLogProbabilities = top[(at * K)..((at + MicroBatch) * K)],
                },
                Origins = new SequenceOrigin[Batch],
                Consumed = [0],
            });
        }

        return batches;
    }

    private static int[] Integers(ReadOnlySpan<long> values)
    {
        var result = new int[values.Length];
        for (var i = 0; i < result.Length; i++) result[i] = (int)values[i];
        return result;
    }

    [Theory]
    [InlineData("divergence", ", \"selector\": { \"by\": \"divergence\", \"top_k\": 4 }", "")]
    [InlineData("divergence_sequence", ", \"scope\": \"sequence\", \"selector\": { \"by\": \"divergence\", \"top_k\": 4 }", "")]
    [InlineData("divergence_global", ", \"scope\": \"global_batch\", \"selector\": { \"by\": \"divergence\", \"top_k\": 4 }", "")]
    [InlineData("z_loss", "", "\"z_loss\": 0.01")]
    [InlineData("smoothing", "", "\"label_smoothing\": 0.1")]
    [InlineData("z_loss_smoothing", "", "\"z_loss\": 0.01, \"label_smoothing\": 0.1")]
    [InlineData("soft", ", \"selector\": { \"temperature\": 0.7 }", "")]
    [InlineData("sequences", ", \"selector\": { \"unit\": \"sequence\" }", "", 0.5)]
    [InlineData("linear", ", \"ratio_schedule\": { \"kind\": \"linear\", \"to\": 0.3 }", "", 0.9)]
    [InlineData("cosine", ", \"ratio_schedule\": { \"kind\": \"cosine\", \"to\": 0.3 }", "", 0.9)]
    public void Run_FourSteps_EqualPyTorch(string name, string objective, string loss, double ratio = 0.6)
    {
        using var steps = SafetensorsFile.Open(DataPath("slm/steps.safetensors"));
        using var variants = SafetensorsFile.Open(DataPath("slm/variants.safetensors"));
        var run = RunFile.Parse($$"""
            {
              "output": "x", "model": { "from": "x" }, "data": { "corpora": [ { "path": "x" } ] }, "steps": {{Steps}},
              "objective": { "kind": "slm", "ratio": {{ratio}}{{objective}} }, "reference": { "sources": [ { "scores": "x" } ] },
              "schedule": { "kind": "constant", "learning_rate": 3e-3, "warmup_steps": 0 }, "optimizer": { "clip": 0.5, "epsilon": 1e-3 }, "loss": { {{loss}} }
            }
            """, "/");
        var options = new TrainingOptions { Compute = ComputeType.Float32, ZLoss = run.Loss.ZLoss, LabelSmoothing = run.Loss.LabelSmoothing, LogitsBudgetBytes = 61 * 4 * 7 };
        using var runner = new StepRunner(run, new TrainingModel(LanguageModel.Load(DataPath("slm/model"), TestDevice.Device, ComputeType.Float32), options), Steps, null, new SingleRank());
        var (losses, weights) = (new List<float>(), new List<float>());
        runner.Observer = selected =>
        {
            losses.AddRange(selected.Losses);
            weights.AddRange(selected.Weights);
        };
        for (var step = 0; step < Steps; step++)
        {
            var outcome = runner.Run(step, Batches(steps, variants, step));
            Assert.Equal(Floats(variants, $"{name}.norms")[step], outcome.GradientNorm!.Value, 2e-5);
            Assert.Equal(Floats(variants, $"{name}.loss")[step], outcome.Sums.WeightedLossSum / outcome.Sums.WeightSum, 2e-5);
        }

        Close(Floats(variants, $"{name}.losses"), CollectionsMarshal.AsSpan(losses), 1e-5);
        Close(Floats(variants, $"{name}.weights"), CollectionsMarshal.AsSpan(weights), name == "soft" ? 1e-4 : 0);
        using var parameters = runner.Model.Parameters.cpu();
        Close(Floats(variants, $"{name}.parameters"), MemoryMarshal.Cast<byte, float>(parameters.bytes), 2e-6); // as in StepTests
    }

    /// <summary>The divergences themselves; logits come in chunks of 7 rows here, and in one piece.</summary>
    [Theory]
    [InlineData(7)]
    [InlineData(1000)]
    public void Probe_LogProbabilities_GivePyTorchsDivergences(int rows)
    {
        using var steps = SafetensorsFile.Open(DataPath("slm/steps.safetensors"));
        using var variants = SafetensorsFile.Open(DataPath("slm/variants.safetensors"));
        using var model = new TrainingModel(
            LanguageModel.Load(DataPath("slm/model"), TestDevice.Device, ComputeType.Float32), new TrainingOptions { Compute = ComputeType.Float32, LogitsBudgetBytes = 61 * 4 * rows });
        var expected = Floats(variants, "divergence.divergences");
        foreach (var (batch, micro) in Batches(steps, variants, 0).Select((batch, micro) => (batch, micro)))
        {
            var likely = batch.Reference!;
            var probe = new TokenProbe(K, likely.TopIds);
            var (losses, plain, divergences) = (new float[MicroBatch], new float[MicroBatch], new float[MicroBatch]);
            model.Evaluate(batch.Tokens, losses, probe);
            model.Evaluate(batch.Tokens, plain);
            Assert.Equal(plain, losses);
            Selection.TopDivergence.Measure(likely.TopLogProbabilities, probe.LogProbabilities, K, divergences);
            Close(expected.AsSpan(micro * MicroBatch, MicroBatch), divergences, 1e-5);
        }
    }

    [Fact]
    public void Evaluate_Distributions_AreThoseOfAReferenceWithTheSameWeights()
    {
        using var steps = SafetensorsFile.Open(DataPath("slm/steps.safetensors"));
        using var variants = SafetensorsFile.Open(DataPath("slm/variants.safetensors"));
        using var model = new TrainingModel(LanguageModel.Load(DataPath("slm/model"), TestDevice.Device, ComputeType.Float32), new TrainingOptions { Compute = ComputeType.Float32 });
        using var reference = ReferenceModel.Of(LanguageModel.Load(DataPath("slm/model"), TestDevice.Device, ComputeType.Float32), "none");
        var batch = Batches(steps, variants, 0)[0].Tokens;
        var (own, its) = (TokenScores.Room(MicroBatch, entropies: true, K), TokenScores.Room(MicroBatch, entropies: true, K));
        model.Evaluate(batch, own);
        reference.Score(batch.Tokens, Batch, Length, [], its, CancellationToken.None);
        // Scoring and training have forwards of their own: the same losses, rounded otherwise.
        Close(its.Losses, own.Losses, 1e-5);
        Close(its.Entropies, own.Entropies, 1e-5);
        Assert.Equal(its.TopIds, own.TopIds);
        Close(its.TopLogProbabilities, own.TopLogProbabilities, 1e-5);
    }

    [Fact]
    public void Probe_TokensBeyondTheVocabulary_HaveNoProbability()
    {
        using var steps = SafetensorsFile.Open(DataPath("slm/steps.safetensors"));
        using var variants = SafetensorsFile.Open(DataPath("slm/variants.safetensors"));
        using var model = new TrainingModel(LanguageModel.Load(DataPath("slm/model"), TestDevice.Device, ComputeType.Float32), new TrainingOptions { Compute = ComputeType.Float32 });
        var batch = Batches(steps, variants, 0)[0].Tokens;
        var probe = new TokenProbe(2, [.. Enumerable.Range(0, MicroBatch * 2).Select(i => i % 2 == 0 ? 60 : 61)]);
        model.Evaluate(batch, new float[MicroBatch], probe);
        for (var i = 0; i < MicroBatch; i++)
        {
            Assert.Equal(i % Length == 0, float.IsNaN(probe.LogProbabilities[2 * i]));
            Assert.True(float.IsNaN(probe.LogProbabilities[2 * i + 1]));
        }
    }
}
