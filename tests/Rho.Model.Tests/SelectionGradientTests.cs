using Rho.Formats;
using static TorchSharp.torch;

namespace Rho.Model.Tests;

/// <summary>What is not computed at unselected positions is exactly what is zero there.</summary>
public sealed class SelectionGradientTests
{
    private static float[] Gradients(TrainingModel model, TokenBatch batch, Func<int, float> weigh)
    {
        model.ClearGradients();
        model.AccumulateGradients(
            batch,
            (losses, weights) =>
            {
                for (var i = 0; i < weights.Length; i++) weights[i] = float.IsNaN(losses[i]) ? 0 : weigh(i);
            },
            new float[batch.Tokens.Length],
            new float[batch.Tokens.Length]);
        return model.Gradients.data<float>().ToArray();
    }

    /// <summary>A sum over tokens is linear in their weights: the gradients of a selection and of its complement add up to the whole's.</summary>
    [Theory]
    [InlineData("llama", false)]
    [InlineData("llama", true)]
    [InlineData("qwen2", false)]
    [InlineData("qwen3", false)]
    [InlineData("kernels", false)]
    [InlineData("kernels-window", true)]
    public void Gradients_OfSelectionAndComplement_AddUp(string kind, bool checkpointing)
    {
        using var expected = SafetensorsFile.Open(Path.Combine(AppContext.BaseDirectory, "data", kind, "expected.safetensors"));
        var batch = NumericsTests.Batch(expected, withDocuments: true);
        using var model = NumericsTests.Load(kind, new TrainingOptions { Compute = ComputeType.Float32, ActivationCheckpointing = checkpointing });
        var random = new Random(3);
        var mask = Enumerable.Range(0, batch.Tokens.Length).Select(_ => random.Next(10) < 3).ToArray();
        var selected = Gradients(model, batch, i => mask[i] ? 1 : 0);
        var others = Gradients(model, batch, i => mask[i] ? 0 : 1);
        var whole = Gradients(model, batch, _ => 1);
        foreach (var span in model.Layout)
        {
            var range = (int)span.Offset..(int)(span.Offset + span.Count);
            NumericsTests.AssertClose(whole[range], selected[range].Zip(others[range], (a, b) => a + b).ToArray(), 1e-5f);
        }
    }

    [Fact]
    public void Gradients_OfNothingAndOfOneToken_AreThere()
    {
        using var expected = SafetensorsFile.Open(Path.Combine(AppContext.BaseDirectory, "data", "llama", "expected.safetensors"));
        var batch = NumericsTests.Batch(expected, withDocuments: false);
        using var model = NumericsTests.Load("llama", new TrainingOptions { Compute = ComputeType.Float32 });
        Assert.All(Gradients(model, batch, _ => 0), gradient => Assert.Equal(0, gradient));
        // A token's loss depends on nothing after it, so the embeddings of later tokens that do not occur before have no gradient.
        var gradients = Gradients(model, batch, i => i == 2 ? 1 : 0);
        var embedding = model.Layout.Single(span => span.Name.Contains("embed_tokens", StringComparison.Ordinal));
        var later = batch.Tokens.Skip(2).Except(batch.Tokens.Take(2)).ToList();
        Assert.NotEmpty(later);
        var width = (int)embedding.Shape[1];
        foreach (var token in later) Assert.All(gradients.Skip((int)embedding.Offset + (token * width)).Take(width), gradient => Assert.Equal(0, gradient));
        Assert.Contains(gradients.Skip((int)embedding.Offset + (batch.Tokens[0] * width)).Take(width), gradient => gradient != 0);
    }

    /// <summary>What is said to be final during the backward is: from the end of the flat buffer to the first block, a block at a time.</summary>
    [Theory]
    [InlineData("llama", ComputeType.Float32)]
    [InlineData("kernels", ComputeType.BFloat16)]
    public void Gradients_SaidToBeFinal_ChangeNoMore(string kind, ComputeType compute)
    {
        using var expected = SafetensorsFile.Open(Path.Combine(AppContext.BaseDirectory, "data", kind, "expected.safetensors"));
        var batch = NumericsTests.Batch(expected, withDocuments: false);
        using var model = NumericsTests.Load(kind, new TrainingOptions { Compute = compute });
        List<(long From, float[] Values)> told = [];
        var (losses, weights) = (new float[batch.Tokens.Length], new float[batch.Tokens.Length]);
        model.AccumulateGradients(
            batch, (current, shares) => shares.Fill(1), losses, weights,
            final: from => told.Add((from, model.Gradients.data<float>().ToArray()[(int)from..])));
        var blocks = Enumerable.Range(0, model.Config.Layers).Select(i => model.Layout.First(span => span.Name.Contains($"layers.{i}.", StringComparison.Ordinal)).Offset).Reverse();
        Assert.Equal([model.Layout.Single(span => span.Name == "model.norm.weight").Offset, .. blocks], told.Select(part => part.From));
        var gradients = model.Gradients.data<float>().ToArray();
        foreach (var (from, values) in told)
        {
            Assert.Contains(values, value => value != 0);
            Assert.Equal(gradients[(int)from..], values);
        }
    }
}
