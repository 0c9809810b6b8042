using System.Runtime.InteropServices;
using Rho.Formats;
using Rho.TestSupport;

namespace Rho.Model.Tests;

/// <summary>Losses and gradients against those that data/make.py computed with plain PyTorch.</summary>
public sealed class NumericsTests
{
    public static TheoryData<string> Kinds => [.. Directory.GetDirectories(Data).Select(path => Path.GetFileName(path)!).Order(StringComparer.Ordinal)];

    internal static string Data => Path.Combine(AppContext.BaseDirectory, "data");

    [Theory, MemberData(nameof(Kinds))]
    public void Score_EqualsPyTorch(string kind)
    {
        using var expected = SafetensorsFile.Open(Path.Combine(Data, kind, "expected.safetensors"));
        using var model = ReferenceModel.Of(LanguageModel.Load(Path.Combine(Data, kind), TestDevice.Device, ComputeType.Float32), "none");
        var batch = Batch(expected, withDocuments: false);
        Assert.SkipWhen(batch.Length > model.ContextLength, "scaled by the length: whole sequences beyond the context are for inference");
        var losses = new float[batch.Tokens.Length];
        model.Score(batch.Tokens, batch.Sequences, batch.Length, [], losses, CancellationToken.None);
        AssertClose(Floats(expected, "loss"), losses, 1e-4f);

        batch = Batch(expected, withDocuments: true);
        model.Score(batch.Tokens, batch.Sequences, batch.Length, batch.Documents, losses, CancellationToken.None);
        AssertClose(Floats(expected, "loss_documents"), losses, 1e-4f);
    }

    [Theory, MemberData(nameof(Kinds))]
    public void Gradients_EqualPyTorch(string kind)
    {
        using var expected = SafetensorsFile.Open(Path.Combine(Data, kind, "expected.safetensors"));
        foreach (var checkpointing in new[] { false, true })
        {
            foreach (var documents in new[] { false, true })
            {
                var suffix = documents ? "_documents" : "";
                using var model = Load(kind, new TrainingOptions { Compute = ComputeType.Float32, ActivationCheckpointing = checkpointing, LogitsBudgetBytes = 61 * 4 * 7 });
                var batch = Batch(expected, documents);
                var (losses, weights, shares) = (new float[batch.Tokens.Length], new float[batch.Tokens.Length], Floats(expected, "weights"));
                model.AccumulateGradients(batch, Weigh(shares), losses, weights);
                AssertClose(Floats(expected, "loss" + suffix), losses, 1e-4f);
                var gradients = model.Gradients.cpu().data<float>().ToArray();
                foreach (var span in model.Layout)
                    AssertClose(Floats(expected, $"gradient{suffix}.{span.Name}"), gradients.AsSpan((int)span.Offset, (int)span.Count), 1e-4f);

                var evaluated = new float[losses.Length];
                model.Evaluate(batch, evaluated);
                AssertClose(losses, evaluated, 1e-5f);
            }
        }
    }

    [Fact]
    public void AccumulateGradients_SplitInMicroBatches_GivesTheSameSum()
    {
        using var expected = SafetensorsFile.Open(Path.Combine(Data, "llama", "expected.safetensors"));
        var whole = Batch(expected, withDocuments: false);
        var shares = Floats(expected, "weights");
        using var model = Load("llama", new TrainingOptions { Compute = ComputeType.Float32 });
        for (var i = 0; i < whole.Sequences; i++)
        {
            var range = (i * whole.Length)..((i + 1) * whole.Length);
            model.AccumulateGradients(new TokenBatch(whole.Tokens[range], 1, whole.Length, null), Weigh(shares[range]), new float[whole.Length], new float[whole.Length]);
        }

        foreach (var span in model.Layout)
            AssertClose(Floats(expected, $"gradient.{span.Name}"), model.Gradients.cpu().data<float>().ToArray().AsSpan((int)span.Offset, (int)span.Count), 1e-4f);
    }

    [Fact]
    public void AccumulateGradients_InBFloat16_StaysNearFloat32()
    {
        using var expected = SafetensorsFile.Open(Path.Combine(Data, "llama", "expected.safetensors"));
        var batch = Batch(expected, withDocuments: false);
        using var model = Load("llama", new TrainingOptions { Compute = ComputeType.BFloat16 });
        var losses = new float[batch.Tokens.Length];
        model.AccumulateGradients(batch, Weigh(Floats(expected, "weights")), losses, new float[losses.Length]);
        AssertClose(Floats(expected, "loss"), losses, 0.05f);
        model.AccumulateGradients(batch, Weigh(Floats(expected, "weights")), losses, new float[losses.Length]);
        var gradients = Array.ConvertAll(model.Gradients.cpu().data<float>().ToArray(), sum => sum / 2);
        foreach (var span in model.Layout)
            AssertClose(Floats(expected, $"gradient.{span.Name}"), gradients.AsSpan((int)span.Offset, (int)span.Count), 0.05f);
    }

    [Fact]
    public void TrainingSteps_LeaveNoTensorBehind()
    {
        using var expected = SafetensorsFile.Open(Path.Combine(Data, "llama", "expected.safetensors"));
        var batch = Batch(expected, withDocuments: false);
        using var model = Load("llama", new TrainingOptions { Compute = ComputeType.Float32 });
        var shares = Floats(expected, "weights");
        void Step() => model.AccumulateGradients(batch, Weigh(shares), new float[shares.Length], new float[shares.Length]);
        Step();
        var before = TorchSharp.DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        for (var i = 0; i < 20; i++) Step();
        Assert.Equal(before, TorchSharp.DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    private static TokenWeighting Weigh(float[] shares) => (losses, weights) =>
    {
        for (var i = 0; i < weights.Length; i++) weights[i] = float.IsNaN(losses[i]) ? 0 : shares[i];
    };

    internal static TrainingModel Load(string kind, TrainingOptions options) => new(LanguageModel.Load(Path.Combine(Data, kind), TestDevice.Device, ComputeType.Float32), options);

    internal static TokenBatch Batch(SafetensorsFile file, bool withDocuments)
    {
        int[] Ints(string name) => Array.ConvertAll(MemoryMarshal.Cast<byte, long>(file.Bytes(name)).ToArray(), value => (int)value);
        var shape = file.Tensors["tokens"].Shape;
        return new TokenBatch(Ints("tokens"), (int)shape[0], (int)shape[1], withDocuments ? Ints("documents") : null);
    }

    internal static float[] Floats(SafetensorsFile file, string name) => MemoryMarshal.Cast<byte, float>(file.Bytes(name)).ToArray();

    /// <summary>Equal within a share of the largest magnitude.</summary>
    internal static void AssertClose(ReadOnlySpan<float> expected, ReadOnlySpan<float> actual, float tolerance)
    {
        Assert.Equal(expected.Length, actual.Length);
        var largest = 0f;
        foreach (var value in expected)
            if (!float.IsNaN(value)) largest = Math.Max(largest, Math.Abs(value));
        for (var i = 0; i < expected.Length; i++)
        {
            if (float.IsNaN(expected[i])) Assert.True(float.IsNaN(actual[i]), $"[{i}] is {actual[i]}, expected none");
            else Assert.True(Math.Abs(expected[i] - actual[i]) <= tolerance * largest, $"[{i}] is {actual[i]}, expected {expected[i]} (largest {largest})");
        }
    }
}
