using Rho.Formats;
using Rho.Model.Architectures;
using Rho.Model.Inference;
using static TorchSharp.torch;

namespace Rho.Model.Tests;

/// <summary>Every architecture through every engine against its formula in float64 (architectures/make.py).</summary>
public sealed class ArchitectureTests
{
    public static TheoryData<string> Models => [.. Directory.GetDirectories(Folder).Select(path => Path.GetFileName(path)!).Order(StringComparer.Ordinal)];

    private static string Folder => Path.Combine(AppContext.BaseDirectory, "architectures");

    private static SafetensorsFile Expected(string model) => SafetensorsFile.Open(Path.Combine(Folder, model, "expected.safetensors"));

    private static LanguageModel Load(string model, ComputeType compute = ComputeType.Float32) => LanguageModel.Load(Path.Combine(Folder, model), CPU, compute);

    [Fact]
    public void Registry_EveryArchitecture_HasTestData() =>
        Assert.Equal([], Architecture.All.Select(one => one.ModelType).Except(Directory.GetDirectories(Folder).Select(path => ModelConfig.Load(path).ModelType)));

    [Theory, MemberData(nameof(Models))]
    public void Config_WrittenAndRead_IsTheSame(string model)
    {
        var config = ModelConfig.Load(Path.Combine(Folder, model));
        Assert.Equal(config, ModelConfig.Parse(config.ToJson("float32"), "written"));
    }

    /// <summary>Losses of both kinds, and the gradients of both micro-batches' selections.</summary>
    [Theory, MemberData(nameof(Models))]
    public void Training_LossesAndGradients_EqualTheFormula(string model)
    {
        using var expected = Expected(model);
        foreach (var (checkpointing, compute, tolerance) in new[] { (false, ComputeType.Float32, 2e-5f), (true, ComputeType.Float32, 2e-5f), (false, ComputeType.BFloat16, 0.08f) })
        {
            // So small a budget that the head takes rows and vocabulary in parts.
            using var training = new TrainingModel(Load(model), new TrainingOptions { Compute = compute, ActivationCheckpointing = checkpointing, LogitsBudgetBytes = checkpointing ? 61 * 4 * 7 : 40 << 20 });
            var shares = NumericsTests.Floats(expected, "weights");
            foreach (var documents in new[] { false, true })
            {
                var batch = NumericsTests.Batch(expected, documents);
                var losses = new float[batch.Tokens.Length];
                training.AccumulateGradients(batch, Weigh(shares), losses, new float[losses.Length]);
                AssertNear(model, NumericsTests.Floats(expected, documents ? "loss_documents" : "loss"), losses, tolerance);
                var evaluated = new float[losses.Length];
                training.Evaluate(batch, evaluated);
                NumericsTests.AssertClose(losses, evaluated, 1e-5f);
            }

            var gradients = training.Gradients.data<float>().ToArray();
            foreach (var span in training.Layout)
                AssertNear(model, NumericsTests.Floats(expected, $"gradient.{span.Name}"), gradients.AsSpan((int)span.Offset, (int)span.Count), tolerance);
        }
    }

    /// <summary>A selection of few rows, whose gradient reaches part of the rows only: with its complement it adds up to the whole.</summary>
    [Theory, MemberData(nameof(Models))]
    public void Training_FewRowsAndTheOthers_AddUp(string model)
    {
        using var expected = Expected(model);
        var batch = NumericsTests.Batch(expected, withDocuments: true);
        using var training = new TrainingModel(Load(model), new TrainingOptions { Compute = ComputeType.Float32 });
        float[] Gradients(Func<int, bool> selects)
        {
            training.ClearGradients();
            var shares = Enumerable.Range(0, batch.Tokens.Length).Select(i => selects(i) ? 1f : 0).ToArray();
            training.AccumulateGradients(batch, Weigh(shares), new float[shares.Length], new float[shares.Length]);
            return training.Gradients.data<float>().ToArray();
        }

        var (few, others, whole) = (Gradients(i => i % batch.Length is 4 or 11), Gradients(i => i % batch.Length is not (4 or 11)), Gradients(_ => true));
        foreach (var span in training.Layout)
        {
            var range = (int)span.Offset..(int)(span.Offset + span.Count);
            NumericsTests.AssertClose(whole[range], few[range].Zip(others[range], (a, b) => a + b).ToArray(), 2e-5f);
        }
    }

    [Theory, MemberData(nameof(Models))]
    public void Scoring_WholeAndInPieces_EqualsTheFormula(string model)
    {
        using var expected = Expected(model);
        // Float64 goes through libtorch's operations, as accelerators do.
        foreach (var (type, tolerance) in new[] { (ScalarType.Float32, 1e-5f), (ScalarType.Float64, 1e-5f), (ScalarType.BFloat16, 0.06f) })
        {
            foreach (var pass in new[] { 7, 1024 })
            {
                using var weights = Load(model);
                using var reference = ReferenceModel.InPassesOf(pass, weights.CopyTo(CPU, type));
                foreach (var documents in new[] { false, true })
                {
                    var batch = NumericsTests.Batch(expected, documents);
                    var losses = new float[batch.Tokens.Length];
                    reference.Score(batch.Tokens, batch.Sequences, batch.Length, batch.Documents, losses, CancellationToken.None);
                    AssertNear(model, NumericsTests.Floats(expected, documents ? "loss_documents" : "loss"), losses, tolerance);
                }
            }
        }
    }

    [Theory, MemberData(nameof(Models))]
    public void Decoding_OneByOneInPiecesAndTogether_EqualsTheFormula(string model)
    {
        using var expected = Expected(model);
        var batch = NumericsTests.Batch(expected, withDocuments: false);
        var losses = NumericsTests.Floats(expected, "loss");
        foreach (var (backend, compute, weights, tolerance) in new[]
        {
            (DecodingBackend.Kernels, ComputeType.Float32, WeightFormat.Model, 1e-5f), (DecodingBackend.Torch, ComputeType.Float32, WeightFormat.Model, 1e-5f),
            (DecodingBackend.Kernels, ComputeType.BFloat16, WeightFormat.Model, 0.06f), (DecodingBackend.Torch, ComputeType.BFloat16, WeightFormat.Model, 0.06f),
            (DecodingBackend.Kernels, ComputeType.Float32, WeightFormat.Int8, 0.06f),
        })
        {
            foreach (var piece in new[] { 1, 7, 40 })
            {
                using var decoder = DecodingModel.Create(Load(model, compute), new DecodingOptions { Backend = backend, CacheBytes = 4 << 20, MaxBatchTokens = 128, Threads = 2, Weights = weights });
                var found = new float[losses.Length];
                Array.Fill(found, float.NaN);
                for (var start = 0; start < batch.Length; start += piece)
                {
                    var step = new ForwardBatch();
                    var count = Math.Min(piece, batch.Length - start);
                    for (var s = 0; s < batch.Sequences; s++)
                    {
                        var row = step.Add(batch.Tokens.AsSpan((s * batch.Length) + start, count), start, [.. Enumerable.Range(s * 4, 4)]);
                        for (var t = 0; t < count; t++) step.AddOutput(row + t);
                    }

                    decoder.Forward(step);
                    var vocabulary = decoder.Config.VocabularySize;
                    var logits = new float[step.Outputs.Length * vocabulary];
                    decoder.Logits(0, step.Outputs.Length, logits);
                    for (var i = 0; i < step.Outputs.Length; i++)
                    {
                        var (s, t) = (i / count, start + (i % count));
                        if (t + 1 == batch.Length) continue;
                        var next = (s * batch.Length) + t + 1;
                        var row = logits.AsSpan(i * vocabulary, vocabulary);
                        found[next] = (float)(Kernels.Softmax.LogSumExp(row) - row[batch.Tokens[next]]);
                    }
                }

                AssertNear(model, losses, found, tolerance);
            }
        }
    }

    /// <summary>What follows the outputs' rows in the last layer is computed for them alone.</summary>
    [Theory, MemberData(nameof(Models))]
    public void Decoding_LastOutputOnly_GivesTheSameBitsAsAll(string model)
    {
        using var expected = Expected(model);
        var tokens = NumericsTests.Batch(expected, withDocuments: false).Tokens.AsSpan(0, 30).ToArray();
        using var decoder = DecodingModel.Create(Load(model), new DecodingOptions { Backend = DecodingBackend.Kernels, CacheBytes = 4 << 20, MaxBatchTokens = 128, Threads = 2 });
        float[] Last(bool all)
        {
            var step = new ForwardBatch();
            var row = step.Add(tokens, 0, [0, 1]);
            for (var t = all ? 0 : tokens.Length - 1; t < tokens.Length; t++) step.AddOutput(row + t);
            decoder.Forward(step);
            var logits = new float[decoder.Config.VocabularySize];
            decoder.Logits(step.Outputs.Length - 1, 1, logits);
            return logits;
        }

        Assert.Equal(Last(all: true), Last(all: false));
    }

    /// <summary>Within the tolerance; on average where a little changes which experts are taken, and with them all that follows.</summary>
    private static void AssertNear(string model, ReadOnlySpan<float> expected, ReadOnlySpan<float> actual, float tolerance)
    {
        if (tolerance < 0.01f || ModelConfig.Load(Path.Combine(Folder, model)).Experts == 0)
        {
            NumericsTests.AssertClose(expected, actual, tolerance);
            return;
        }

        var (largest, sum) = (0f, 0.0);
        for (var i = 0; i < expected.Length; i++)
        {
            if (float.IsNaN(expected[i])) continue;
            largest = Math.Max(largest, Math.Abs(expected[i]));
            sum += Math.Abs(expected[i] - actual[i]);
        }

        Assert.True(sum / expected.Length <= tolerance * largest, $"off by {sum / expected.Length} on average (largest {largest})");
    }

    private static TokenWeighting Weigh(float[] shares) => (losses, weights) =>
    {
        for (var i = 0; i < weights.Length; i++) weights[i] = float.IsNaN(losses[i]) ? 0 : shares[i];
    };
}
