using Rho.Data;
using static TorchSharp.torch;

namespace Rho.Model.Tests;

/// <summary>What is not computed at unselected positions is exactly what is zero there.</summary>
public class LastBlockTests
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
}
