using Rho.Formats;
using static TorchSharp.torch;

namespace Rho.Model.Tests;

/// <summary>The filtered backward against its definition: automatic differentiation in float64 where keys and values of rows that are not selected are constants.</summary>
public sealed class FilteredBackwardTests
{
    private const int Sequences = 2, Length = 12, Hidden = 16, Heads = 2, HeadSize = 8, Inner = 24, Vocabulary = 19;
    private const double Epsilon = 1e-3, Theta = 100;

    [Theory]
    [InlineData(1, 0)]
    [InlineData(2, 0)]
    [InlineData(2, 2)]
    public void Gradients_EqualTheDefinition(int layers, int halo)
    {
        var config = new ModelConfig
        {
            VocabularySize = Vocabulary,
            HiddenSize = Hidden,
            IntermediateSize = Inner,
            Layers = layers,
            Heads = Heads,
            KeyValueHeads = Heads,
            HeadSize = HeadSize,
            ContextLength = Length,
            NormEpsilon = Epsilon,
            RopeTheta = Theta,
        };
        var model = LanguageModel.Create(config, 3, CPU, ComputeType.Float32);
        using (no_grad()) model.Flat.mul_(5);
        using var training = new TrainingModel(model, new TrainingOptions { Compute = ComputeType.Float32, Backward = BackwardRows.Filtered, BackwardHalo = halo });
        var random = new Random(4);
        var batch = new TokenBatch([.. Enumerable.Range(0, Sequences * Length).Select(_ => random.Next(Vocabulary))], Sequences, Length, null);
        var weights = batch.Tokens.Select((_, i) => i % Length > 0 && random.Next(3) == 0 ? 1 + (float)random.NextDouble() : 0).ToArray();
        training.AccumulateGradients(batch, (_, output) => weights.CopyTo(output), new float[weights.Length], new float[weights.Length]);

        using var scope = NewDisposeScope();
        var parameters = training.Layout.ToDictionary(span => span.Name, span => training.Parameters.narrow(0, span.Offset, span.Count).view(span.Shape).to(float64).detach().requires_grad_());
        Loss(parameters, layers, batch, weights, halo).backward();
        foreach (var span in training.Layout)
        {
            var found = training.Gradients.narrow(0, span.Offset, span.Count).data<float>().ToArray();
            NumericsTests.AssertClose(parameters[span.Name].grad!.to(float32).flatten().data<float>().ToArray(), found, 2e-5f);
        }
    }

    /// <summary>sum_t weight_t * -ln p(token_t) of a Llama, with keys and values that have a gradient only at rows before a selected token, and up to halo before those.</summary>
    private static Tensor Loss(Dictionary<string, Tensor> parameters, int layers, TokenBatch batch, float[] weights, int halo)
    {
        // Row t predicts token t + 1.
        var kept = tensor(Enumerable.Range(0, weights.Length).Select(row => Enumerable.Range(row + 1, halo + 1).Any(t => t / Length == row / Length && t < weights.Length && weights[t] > 0)).ToArray())
            .view(Sequences, 1, Length, 1);
        Tensor Filtered(Tensor x) => where(kept, x, x.detach());
        Tensor Norm(Tensor x, Tensor weight) => x * rsqrt((x * x).mean([-1L], keepdim: true) + Epsilon) * weight;
        Tensor Split(Tensor x) => x.view(Sequences, Length, Heads, HeadSize).transpose(1, 2);                                      // [B, N, T, H]

        var angles = outer(arange(Length, float64), pow(Theta, arange(0, HeadSize, 2, float64) / -HeadSize));
        var (cos, sin) = (angles.cos(), angles.sin());                                                                              // [T, H / 2]
        Tensor Rotate(Tensor x)
        {
            var halves = x.chunk(2, -1);
            return cat([(halves[0] * cos) - (halves[1] * sin), (halves[1] * cos) + (halves[0] * sin)], -1);
        }

        var tokens = tensor(batch.Tokens).to(int64).view(Sequences, Length);
        var later = ones([Length, Length], ScalarType.Bool).triu(1);
        var x = parameters["model.embed_tokens.weight"].index_select(0, tokens.flatten()).view(Sequences, Length, Hidden);
        for (var layer = 0; layer < layers; layer++)
        {
            Tensor Of(string name) => parameters[$"model.layers.{layer}.{name}.weight"];
            var y = Norm(x, Of("input_layernorm"));
            var (q, k, v) = (Rotate(Split(y.matmul(Of("self_attn.q_proj").t()))), Filtered(Rotate(Split(y.matmul(Of("self_attn.k_proj").t())))), Filtered(Split(y.matmul(Of("self_attn.v_proj").t()))));
            var p = (q.matmul(k.transpose(2, 3)) / Math.Sqrt(HeadSize)).masked_fill(later, double.NegativeInfinity).softmax(-1);
            x = x + p.matmul(v).transpose(1, 2).reshape(Sequences, Length, Hidden).matmul(Of("self_attn.o_proj").t());
            var z = Norm(x, Of("post_attention_layernorm"));
            x = x + (nn.functional.silu(z.matmul(Of("mlp.gate_proj").t())) * z.matmul(Of("mlp.up_proj").t())).matmul(Of("mlp.down_proj").t());
        }

        var logits = Norm(x, parameters["model.norm.weight"]).matmul(parameters["lm_head.weight"].t()).narrow(1, 0, Length - 1);
        var losses = logits.logsumexp(-1) - logits.gather(-1, tokens.narrow(1, 1, Length - 1).unsqueeze(-1)).squeeze(-1);
        return (losses * tensor(weights).to(float64).view(Sequences, Length).narrow(1, 1, Length - 1)).sum();
    }

    /// <summary>The comparison is that of the two gradients, and leaves no trace.</summary>
    [Fact]
    public void CompareGradients_EqualsTheGradientsOfTwoModels()
    {
        using var expected = SafetensorsFile.Open(Path.Combine(AppContext.BaseDirectory, "data", "llama", "expected.safetensors"));
        var batch = NumericsTests.Batch(expected, withDocuments: false);
        var shares = batch.Tokens.Select((_, i) => i % 3 == 1 ? 1f : 0).ToArray();
        TokenWeighting weighting = (losses, weights) =>
        {
            for (var i = 0; i < weights.Length; i++) weights[i] = float.IsNaN(losses[i]) ? 0 : shares[i];
        };
        double[] Gradients(BackwardRows backward)
        {
            using var model = NumericsTests.Load("llama", new TrainingOptions { Compute = ComputeType.Float32, Backward = backward });
            model.AccumulateGradients(batch, weighting, new float[shares.Length], new float[shares.Length]);
            return [.. model.Gradients.data<float>().Select(value => (double)value)];
        }

        var (exact, filtered) = (Gradients(BackwardRows.Exact), Gradients(BackwardRows.Filtered));
        double Dot(double[] a, double[] b) => a.Zip(b, (x, y) => x * y).Sum();
        using var compared = NumericsTests.Load("llama", new TrainingOptions { Compute = ComputeType.Float32, Backward = BackwardRows.Filtered });
        var found = compared.CompareGradients(batch, weighting)!.Value;
        Assert.Equal(Dot(exact, filtered) / Math.Sqrt(Dot(exact, exact) * Dot(filtered, filtered)), found.Cosine, 1e-5);
        Assert.Equal(Math.Sqrt(Dot(filtered, filtered) / Dot(exact, exact)), found.NormRatio, 1e-5);
        Assert.InRange(found.Cosine, 0.5, 0.9999);
        Assert.Equal(0, compared.Gradients.abs().max().item<float>());
        Assert.Null(compared.CompareGradients(batch, (_, weights) => weights.Clear()));
    }
}
