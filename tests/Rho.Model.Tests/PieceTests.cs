using Rho.Formats;
using static TorchSharp.torch;

namespace Rho.Model.Tests;

/// <summary>Scoring in passes of bounded size, with keys and values kept, against PyTorch's losses and against whole sequences at once.</summary>
public sealed class PieceTests
{
    public static TheoryData<string> Kinds => NumericsTests.Kinds;

    [Theory, MemberData(nameof(Kinds))]
    public void Score_InPasses_EqualsPyTorch(string kind)
    {
        using var expected = SafetensorsFile.Open(Path.Combine(NumericsTests.Data, kind, "expected.safetensors"));
        // Float64 goes through libtorch's operations, as accelerators do.
        foreach (var type in new[] { ScalarType.Float32, ScalarType.Float64 })
        {
            foreach (var pass in new[] { 3, 7, 64 })
            {
                using var model = Load(kind, type, pass);
                foreach (var documents in new[] { false, true })
                {
                    var batch = NumericsTests.Batch(expected, documents);
                    Assert.SkipWhen(batch.Length > model.ContextLength, "scaled by the length: whole sequences beyond the context are for inference");
                    var losses = Score(model, batch.Tokens, Enumerable.Repeat(batch.Length, batch.Sequences).ToArray(), batch.Documents);
                    NumericsTests.AssertClose(NumericsTests.Floats(expected, documents ? "loss_documents" : "loss"), losses, 1e-5f);
                }
            }
        }
    }

    [Theory, MemberData(nameof(Kinds))]
    public void Score_InPasses_GivesTheSameExtras(string kind)
    {
        using var expected = SafetensorsFile.Open(Path.Combine(NumericsTests.Data, kind, "expected.safetensors"));
        var batch = NumericsTests.Batch(expected, withDocuments: true);
        foreach (var type in new[] { ScalarType.Float32, ScalarType.Float64 })
        {
            using var model = Load(kind, type, 5);
            Assert.SkipWhen(batch.Length > model.ContextLength, "scaled by the length: whole sequences beyond the context are for inference");
            var scores = TokenScores.Room(batch.Tokens.Length, entropies: true, topK: 5);
            model.Score(batch.Tokens, batch.Sequences, batch.Length, batch.Documents, scores, CancellationToken.None);
            NumericsTests.AssertClose(NumericsTests.Floats(expected, "entropy_documents"), scores.Entropies, 1e-5f);
            NumericsTests.AssertClose(NumericsTests.Floats(expected, "top_log_probabilities_documents"), scores.TopLogProbabilities, 1e-5f);
            Assert.Equal(Score(model, batch.Tokens, Enumerable.Repeat(batch.Length, batch.Sequences).ToArray(), batch.Documents), scores.Losses);
        }
    }

    [Theory]
    [InlineData("llama", ComputeType.Float32, 1e-5f)]
    [InlineData("mistral", ComputeType.Float32, 1e-5f)]   // a sliding window
    [InlineData("qwen3", ComputeType.Float32, 1e-5f)]     // queries and keys normed
    [InlineData("qwen2", ComputeType.Float32, 1e-5f)]     // biases
    [InlineData("llama", ComputeType.BFloat16, 0.02f)]
    [InlineData("qwen3", ComputeType.BFloat16, 0.02f)]
    public void Score_LongSequences_EqualsTheWholeAtOnce(string type, ComputeType compute, float tolerance)
    {
        // Longer than two passes, cut within a tile of keys; a short one after it, and one that just fits a pass.
        int[] lengths = [2_300, 40, 1_024, 1_025];
        using var weights = Sharpened(Config(type));
        var tokens = Tokens(lengths.Sum(), weights.Config.VocabularySize);
        using var model = ReferenceModel.Of(weights.CopyTo(CPU, compute.Resolve(CPU)), "none");
        using var whole = new TrainingModel(weights.CopyTo(CPU, ScalarType.Float32), new TrainingOptions { Compute = compute });
        foreach (var documents in new[] { null, Documents(lengths) })
        {
            var losses = Score(model, tokens, lengths, documents);
            var start = 0;
            foreach (var length in lengths)
            {
                var range = start..(start + length);
                var expected = new float[length];
                whole.Evaluate(new TokenBatch(tokens[range], 1, length, documents?[range]), expected);
                NumericsTests.AssertClose(expected, losses.AsSpan(range), tolerance);
                start += length;
            }

            Assert.Equal(losses, Score(model, tokens, lengths, documents));
        }
    }

    [Fact]
    public void Score_SequencesOfDifferentLengthsTogether_EqualsEachAlone()
    {
        int[] lengths = [1, 700, 2, 33, 500, 1, 64];
        using var model = ReferenceModel.Of(Sharpened(Config("llama")), "none");
        var tokens = Tokens(lengths.Sum(), model.VocabularySize);
        var documents = Documents(lengths);
        var together = Score(model, tokens, lengths, documents);
        var start = 0;
        foreach (var length in lengths)
        {
            var range = start..(start + length);
            NumericsTests.AssertClose(Score(model, tokens[range], [length], documents[range]), together.AsSpan(range), 1e-5f);
            start += length;
        }
    }

    [Fact]
    public void Score_LongerSequences_NeedsNoMoreThanTheirKeysAndValues()
    {
        var config = Config("llama");
        using var model = ReferenceModel.Of(LanguageModel.Create(config, 1, CPU, ComputeType.Float32), "none");
        var activations = 0L;
        foreach (var length in new[] { 1_025, 2_048, 4_096, 5_000 })
        {
            var live = TorchSharp.DisposeScopeManager.Statistics.ThreadTotalLiveCount;
            Score(model, Tokens(length, config.VocabularySize), [length], null);
            if (activations == 0) activations = model.ActivationBytes;
            else Assert.Equal(live, TorchSharp.DisposeScopeManager.Statistics.ThreadTotalLiveCount);
            Assert.Equal(activations, model.ActivationBytes);
            var kept = (length - 1) / 1_024 * 1_024;   // the last piece's need not be kept
            Assert.Equal((long)config.Layers * kept * 2 * config.KeyValueHeads * config.HeadSize * sizeof(float), model.KeyValueBytes);
        }
    }

    [Fact]
    public void Score_LengthsThatDoNotAddUp_IsRefused()
    {
        using var model = ReferenceModel.Of(LanguageModel.Create(Config("llama"), 1, CPU, ComputeType.Float32), "none");
        Assert.Throws<ArgumentException>(() => Score(model, [1, 2, 3], [2, 2], null));
        Assert.Throws<RhoException>(() => Score(model, new int[9_000], [9_000], null));
        Assert.Equal([float.NaN, float.NaN], Score(model, [1, 2], [1, 1], null));
    }

    private static ModelConfig Config(string type) => new()
    {
        ModelType = type,
        VocabularySize = 613,
        HiddenSize = 64,
        IntermediateSize = 96,
        Layers = 2,
        Heads = 4,
        KeyValueHeads = 2,
        HeadSize = 32,
        ContextLength = 8_192,
        AttentionBias = type == "qwen2",
        QueryKeyNorm = type == "qwen3",
        SlidingWindow = type == "mistral" ? 1_300 : null,
    };

    /// <summary>Random weights so large that tokens attend to some others rather than to all alike.</summary>
    private static LanguageModel Sharpened(ModelConfig config)
    {
        var model = LanguageModel.Create(config, 7, CPU, ComputeType.Float32);
        using var guard = no_grad();
        using var scope = NewDisposeScope();
        foreach (var span in model.Layout.Spans)
        {
            using var part = model.Slice(span.Offset, span.Count);
            if (span.Name.Contains("_proj.bias", StringComparison.Ordinal)) part.normal_(0, 0.5);
            else if (span.Name.Contains("q_norm", StringComparison.Ordinal)) part.uniform_(0.5, 2);
            else if (span.Name.Contains("q_proj", StringComparison.Ordinal) || span.Name.Contains("k_proj", StringComparison.Ordinal) || span.Name.Contains("v_proj", StringComparison.Ordinal) || span.Name == "lm_head.weight") part.mul_(10);
        }

        return model;
    }

    private static int[] Tokens(int count, int vocabulary)
    {
        var random = new Random(count);
        return [.. Enumerable.Range(0, count).Select(_ => random.Next(vocabulary))];
    }

    /// <summary>Documents of 1 to 900 tokens; the end of each sequence is padding.</summary>
    private static int[] Documents(int[] lengths)
    {
        var random = new Random(3);
        var documents = new List<int>();
        foreach (var length in lengths)
        {
            var (document, left) = (0, random.Next(1, 900));
            for (var t = 0; t < length; t++)
            {
                if (left-- == 0) (document, left) = (document + 1, random.Next(900));
                documents.Add(t > 30 && t >= length - 10 ? -1 : document);
            }
        }

        return [.. documents];
    }

    private static ReferenceModel Load(string kind, ScalarType type, int pass)
    {
        using var model = LanguageModel.Load(Path.Combine(NumericsTests.Data, kind), CPU, ComputeType.Float32);
        return ReferenceModel.InPassesOf(pass, model.CopyTo(CPU, type));
    }

    private static float[] Score(ReferenceModel model, int[] tokens, int[] lengths, int[]? documents)
    {
        var scores = TokenScores.Room(tokens.Length);
        model.Score(tokens, lengths, documents, scores, CancellationToken.None);
        return scores.Losses;
    }
}
