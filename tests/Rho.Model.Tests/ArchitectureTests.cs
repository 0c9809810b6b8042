using Rho.Formats;
using Rho.Model.Architectures;
using Rho.Model.Inference;
using static TorchSharp.torch;

namespace Rho.Model.Tests;

/// <summary>Every architecture through every engine against its formula in float64 (architectures/make.py).</summary>
public sealed class ArchitectureTests
{
    public static TheoryData<string> Models => [.. Directory.GetDirectories(Folder).Select(path => Path.GetFileName(path)!).Order(StringComparer.Ordinal)];

    public static TheoryData<string> Mixtures => [.. Directory.GetDirectories(Folder).Where(path => ModelConfig.Load(path).Experts > 0).Select(path => Path.GetFileName(path)!).Order(StringComparer.Ordinal)];

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

    /// <summary>
    /// A step in bfloat16 beside the same in float32: losses on average and at most, and of every parameter's gradient the distance, all as shares of float32's
    /// size. In mixtures a little changes which experts are taken, and with them what follows: they have limits of their own.
    /// </summary>
    [Theory, MemberData(nameof(Models))]
    public void Training_InBFloat16_StaysNearFloat32(string model)
    {
        using var expected = Expected(model);
        var shares = NumericsTests.Floats(expected, "weights");
        (float[] Losses, float[] Gradients, IReadOnlyList<ParameterSpan> Layout) Step(ComputeType compute, TokenBatch batch, bool checkpointing)
        {
            using var training = new TrainingModel(Load(model), new TrainingOptions { Compute = compute, ActivationCheckpointing = checkpointing });
            var losses = new float[batch.Tokens.Length];
            training.AccumulateGradients(batch, Weigh(shares), losses, new float[losses.Length]);
            return (losses, training.Gradients.data<float>().ToArray(), training.Layout);
        }

        static double Norm(IEnumerable<float> values) => Math.Sqrt(values.Sum(value => (double)value * value));
        static double Distance(float[] from, float[] to) => Norm(from.Zip(to, (a, b) => a - b)) / Norm(from);
        var experts = ModelConfig.Load(Path.Combine(Folder, model)).Experts > 0;
        foreach (var (documents, checkpointing) in new[] { (false, false), (true, false), (true, true) })
        {
            var batch = NumericsTests.Batch(expected, documents);
            var (exact, half) = (Step(ComputeType.Float32, batch, checkpointing), Step(ComputeType.BFloat16, batch, checkpointing));
            var pairs = exact.Losses.Zip(half.Losses).Where(pair => !float.IsNaN(pair.First)).ToArray();
            var mean = pairs.Average(pair => pair.First);
            Limit("the mean loss", Math.Abs(pairs.Average(pair => pair.Second) - mean) / mean, 0.002);
            Limit("a token's loss", pairs.Max(pair => Math.Abs(pair.First - pair.Second)) / mean, experts ? 0.1 : 0.04);
            Limit("the whole gradient", Distance(exact.Gradients, half.Gradients), 0.05);
            foreach (var span in exact.Layout)
            {
                var range = (int)span.Offset..(int)(span.Offset + span.Count);
                Limit($"the gradient of {span.Name}", Distance(exact.Gradients[range], half.Gradients[range]), experts ? 0.3 : 0.08);
            }

            void Limit(string what, double share, double most) => Assert.True(share <= most, $"{what} is off by {share:0.0 %}, at most {most:0.0 %} are expected");
        }
    }

    /// <summary>The load-balancing loss over all layers' tokens but padding, and its gradient beside the tokens' losses, which reaches rows that no selected token sees.</summary>
    [Theory, MemberData(nameof(Mixtures))]
    public void Training_RouterBalance_EqualsTheFormula(string model)
    {
        using var expected = Expected(model);
        const float coefficient = 0.7f;
        foreach (var (checkpointing, compute, tolerance) in new[] { (false, ComputeType.Float32, 2e-5f), (true, ComputeType.Float32, 2e-5f), (true, ComputeType.BFloat16, 0.08f) })
        {
            using var training = new TrainingModel(Load(model), new TrainingOptions { Compute = compute, ActivationCheckpointing = checkpointing, RouterBalance = coefficient });
            foreach (var suffix in new[] { "", "_documents" })
            {
                var batch = NumericsTests.Batch(expected, suffix.Length > 0);
                var result = training.AccumulateGradients(batch, Weigh(NumericsTests.Floats(expected, "weights")), new float[batch.Tokens.Length], new float[batch.Tokens.Length]);
                Assert.Equal(NumericsTests.Floats(expected, "balance" + suffix)[0], result.RouterBalance!.Value, tolerance * 5);
                Assert.InRange(result.BusiestExpertShare!.Value, 1.0 / training.Config.Experts, 1);
            }

            var gradients = training.Gradients.data<float>().ToArray();
            foreach (var span in training.Layout)
            {
                var sum = NumericsTests.Floats(expected, $"gradient.{span.Name}").Zip(NumericsTests.Floats(expected, $"balance_gradient.{span.Name}"), (loss, balance) => loss + (coefficient * balance)).ToArray();
                AssertNear(model, sum, gradients.AsSpan((int)span.Offset, (int)span.Count), tolerance);
            }
        }
    }

    [Theory, MemberData(nameof(Mixtures))]
    public void Training_WithoutRouterBalance_SaysNothingOfTheLoad(string model)
    {
        using var expected = Expected(model);
        var batch = NumericsTests.Batch(expected, withDocuments: false);
        using var training = new TrainingModel(Load(model), new TrainingOptions { Compute = ComputeType.Float32 });
        var result = training.AccumulateGradients(batch, (_, weights) => weights.Fill(1), new float[batch.Tokens.Length], new float[batch.Tokens.Length]);
        Assert.Null(result.RouterBalance);
        Assert.Null(result.BusiestExpertShare);
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

    /// <summary>Where all that the selected rows see is selected too, or in the halo, the filtered gradient is the exact one.</summary>
    [Theory, MemberData(nameof(Models))]
    public void Training_FilteredToRowsThatSeeNoOthers_IsExact(string model)
    {
        using var expected = Expected(model);
        var batch = NumericsTests.Batch(expected, withDocuments: true);
        foreach (var (compute, checkpointing) in new[] { (ComputeType.Float32, false), (ComputeType.Float32, true), (ComputeType.BFloat16, false) })
        {
            float[] Gradients(BackwardRows backward, int halo, Func<int, bool> selects)
            {
                using var training = new TrainingModel(Load(model), new TrainingOptions { Compute = compute, ActivationCheckpointing = checkpointing, Backward = backward, BackwardHalo = halo });
                var shares = Enumerable.Range(0, batch.Tokens.Length).Select(i => selects(i) ? 1f : 0).ToArray();
                training.AccumulateGradients(batch, Weigh(shares), new float[shares.Length], new float[shares.Length]);
                return training.Gradients.data<float>().ToArray();
            }

            bool All(int i) => true;
            bool Beginning(int i) => i % batch.Length < batch.Length / 2;
            bool Some(int i) => i % 7 is 2 or 5;
            Assert.Equal(Gradients(BackwardRows.Exact, 0, All), Gradients(BackwardRows.Filtered, 0, All));
            Assert.Equal(Gradients(BackwardRows.Exact, 0, Beginning), Gradients(BackwardRows.Filtered, 0, Beginning));
            var (exact, whole, filtered) = (Gradients(BackwardRows.Exact, 0, Some), Gradients(BackwardRows.Filtered, batch.Length, Some), Gradients(BackwardRows.Filtered, 0, Some));
            NumericsTests.AssertClose(exact, whole, compute == ComputeType.Float32 ? 1e-5f : 0.05f);
            Assert.NotEqual(exact, filtered);
        }
    }

    public static TheoryData<string> UntiedModels => [.. Directory.GetDirectories(Folder).Where(path => !ModelConfig.Load(path).TiedEmbeddings).Select(path => Path.GetFileName(path)!)];

    /// <summary>What is selected in one document moves no other's tokens (where the head, which moves all, is not the embedding).</summary>
    [Theory, MemberData(nameof(UntiedModels))]
    public void Training_FilteredToOneDocument_LeavesTheOthersAlone(string model)
    {
        using var expected = Expected(model);
        var batch = NumericsTests.Batch(expected, withDocuments: true);
        var document = batch.Documents![batch.Length - 1];
        bool Within(int i) => i < batch.Length && batch.Documents[i] == document;
        using var training = new TrainingModel(Load(model), new TrainingOptions { Compute = ComputeType.Float32, Backward = BackwardRows.Filtered });
        var shares = Enumerable.Range(0, batch.Tokens.Length).Select(i => Within(i) && i % 3 > 0 ? 1f : 0).ToArray();
        training.AccumulateGradients(batch, Weigh(shares), new float[shares.Length], new float[shares.Length]);
        var embedding = training.Layout.Single(span => span.Name.Contains("embed_tokens", StringComparison.Ordinal));
        var moved = training.Gradients.narrow(0, embedding.Offset, embedding.Count).view(embedding.Shape).ne(0).any(1).data<bool>().ToArray();
        Assert.Contains(true, moved);
        for (var token = 0; token < moved.Length; token++)
            Assert.True(!moved[token] || Enumerable.Range(0, batch.Length).Any(i => Within(i) && batch.Tokens[i] == token), $"token {token} is not in the document");
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

    /// <summary>Sequences up to the original context have other angles than longer ones, also where one batch has both.</summary>
    [Fact]
    public void Scoring_LongRope_GoesByEachSequencesLength()
    {
        using var expected = Expected("phi3-long");
        var batch = NumericsTests.Batch(expected, withDocuments: false);
        // 16 tokens are the original context; passes of 30 have pieces of both kinds.
        int[] lengths = [12, 40, 16, 17, 9, 9, 17];
        var tokens = batch.Tokens[..lengths.Sum()];
        foreach (var (type, pass) in new[] { (ScalarType.Float32, 1024), (ScalarType.Float32, 30), (ScalarType.Float64, 1024), (ScalarType.Float64, 30) })
        {
            using var weights = Load("phi3-long");
            using var reference = ReferenceModel.InPassesOf(pass, weights.CopyTo(CPU, type));
            using var training = new TrainingModel(Load("phi3-long"), new TrainingOptions { Compute = ComputeType.Float32 });
            var together = TokenScores.Room(tokens.Length);
            reference.Score(tokens, lengths, [], together, CancellationToken.None);
            var start = 0;
            foreach (var length in lengths)
            {
                var alone = new float[length];
                training.Evaluate(new TokenBatch(tokens[start..(start + length)], 1, length, null), alone);
                NumericsTests.AssertClose(alone, together.Losses.AsSpan(start, length), 1e-5f);
                start += length;
            }
        }
    }

    /// <summary>Decoding token by token, with all of it computed anew where it outgrows the original context, gives at each length what scoring gives.</summary>
    [Theory]
    [InlineData(DecodingBackend.Kernels)]
    [InlineData(DecodingBackend.Torch)]
    public void Decoding_LongRope_GoesByTheLengthSoFar(DecodingBackend backend)
    {
        using var expected = Expected("phi3-long");
        var tokens = NumericsTests.Batch(expected, withDocuments: false).Tokens[..24];
        using var decoder = DecodingModel.Create(Load("phi3-long"), new DecodingOptions { Backend = backend, CacheBytes = 4 << 20, MaxBatchTokens = 128, Threads = 2 });
        using var reference = ReferenceModel.InPassesOf(1024, Load("phi3-long"));
        Assert.Equal(16, decoder.RecomputeBeyond);
        var logits = new float[decoder.Config.VocabularySize];
        for (var count = 1; count < tokens.Length; count++)
        {
            var step = new ForwardBatch();
            var from = count == decoder.RecomputeBeyond + 1 ? 0 : count - 1;
            step.AddOutput(step.Add(tokens.AsSpan(from, count - from), from, [0, 1]) + count - from - 1);
            decoder.Forward(step);
            decoder.Logits(0, 1, logits);
            // The loss of the next token, of a sequence whose last token has no part in the angles.
            var loss = Kernels.Softmax.LogSumExp(logits) - logits[tokens[count]];
            if (count == decoder.RecomputeBeyond) continue; // with the next token the sequence is a long one
            var losses = new float[count + 1];
            reference.Score(tokens.AsSpan(0, count + 1), 1, count + 1, [], losses, CancellationToken.None);
            Assert.Equal(losses[count], loss, 1e-4);
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
                        var row = step.Add(batch.Tokens.AsSpan((s * batch.Length) + start, count), start, [.. Enumerable.Range(s * 4, 4)], batch.Length);
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
