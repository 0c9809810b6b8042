namespace Rho.Model.Inference.Tests;

/// <summary>Decoding with a cache against what data/make.py computed without one, and against itself in other company.</summary>
public sealed class DecodingTests
{
    public static TheoryData<string, DecodingBackend> KindsAndBackends
    {
        get
        {
            var data = new TheoryData<string, DecodingBackend>();
            foreach (var kind in Decoder.Kinds)
            {
                data.Add(kind, DecodingBackend.Kernels);
                data.Add(kind, DecodingBackend.Torch);
            }

            return data;
        }
    }

    [Theory, MemberData(nameof(KindsAndBackends))]
    public void Greedy_AllPromptsInOneBatch_EqualsPyTorch(string kind, DecodingBackend backend)
    {
        using var decoder = Decoder.Load(kind, backend);
        var cases = Decoder.Cases(kind);
        var sequences = cases.Select(_ => decoder.Begin()).ToArray();
        var next = cases.Select(x => x.Prompt).ToArray();
        for (var step = 0; step < cases[0].Continuation.Length; step++)
        {
            var batch = new ForwardBatch();
            for (var i = 0; i < cases.Count; i++) sequences[i].Add(batch, next[i], allOutputs: false);
            var logits = decoder.Run(batch);
            for (var i = 0; i < cases.Count; i++)
            {
                var token = Kernels.Softmax.IndexOfMax(logits[i]);
                Assert.Equal(cases[i].Continuation[step], token);
                Assert.Equal(cases[i].LogProbabilities[cases[i].Prompt.Length + step - 1], logits[i][token] - Kernels.Softmax.LogSumExp(logits[i]), 2e-4);
                next[i] = [token];
            }
        }
    }

    [Theory, MemberData(nameof(KindsAndBackends))]
    public void LogProbabilities_InPieces_EqualPyTorch(string kind, DecodingBackend backend)
    {
        using var decoder = Decoder.Load(kind, backend);
        foreach (var expected in Decoder.Cases(kind))
        {
            int[] tokens = [.. expected.Prompt, .. expected.Continuation];
            var sequence = decoder.Begin();
            foreach (var piece in tokens.Chunk(17))
            {
                var start = sequence.Position;
                var logits = sequence.Run(piece);
                for (var i = 0; i < piece.Length && start + i + 1 < tokens.Length; i++)
                {
                    var sum = Kernels.Softmax.LogSumExp(logits[i]);
                    Assert.Equal(expected.LogProbabilities[start + i], logits[i][tokens[start + i + 1]] - sum, 2e-4);
                    foreach (var pair in expected.Top[start + i]) Assert.Equal(pair[1], logits[i][(int)pair[0]] - sum, 2e-4);
                }
            }
        }
    }

    [Theory, MemberData(nameof(Decoder.Kinds), MemberType = typeof(Decoder))]
    public void Kernels_WhateverTheBatchAndThePieces_GiveTheSameBits(string kind)
    {
        var tokens = Decoder.Cases(kind)[2].Prompt;
        foreach (var compute in new[] { ComputeType.Float32, ComputeType.BFloat16 })
        {
            using var decoder = Decoder.Load(kind, DecodingBackend.Kernels, compute);
            var whole = decoder.Begin().Run(tokens);
            foreach (var piece in new[] { 1, 2, 3, 7, 16, 30 })
            {
                var sequence = decoder.Begin();
                var logits = tokens.Chunk(piece).SelectMany(part => sequence.Run(part)).ToArray();
                AssertSame(whole, logits);
            }

            // Among others, of which some are prompts and some single tokens.
            var batch = new ForwardBatch();
            decoder.Begin().Add(batch, tokens.AsSpan(5, 20), allOutputs: false);
            decoder.Begin().Add(batch, [7], allOutputs: false);
            decoder.Begin().Add(batch, tokens, allOutputs: true);
            decoder.Begin().Add(batch, [9], allOutputs: false);
            AssertSame(whole, decoder.Run(batch)[2..^1]);
        }
    }

    [Fact]
    public void Kernels_OnAnyNumberOfThreads_GiveTheSameBits()
    {
        var tokens = Decoder.Cases("llama")[2].Prompt;
        using var one = Decoder.Load("llama", DecodingBackend.Kernels, threads: 1);
        using var three = Decoder.Load("llama", DecodingBackend.Kernels, threads: 3);
        AssertSame(one.Begin().Run(tokens), three.Begin().Run(tokens));
    }

    [Theory, MemberData(nameof(Decoder.Kinds), MemberType = typeof(Decoder))]
    public void BFloat16_StaysNearFloat32(string kind)
    {
        foreach (var backend in new[] { DecodingBackend.Kernels, DecodingBackend.Torch })
        {
            var difference = MeanDifference(kind, backend, ComputeType.BFloat16, WeightFormat.Model);
            Assert.InRange(difference, 1e-5, 0.03);
        }
    }

    [Theory, MemberData(nameof(Decoder.Kinds), MemberType = typeof(Decoder))]
    public void Int8_StaysNearFloat32(string kind) =>
        Assert.InRange(MeanDifference(kind, DecodingBackend.Kernels, ComputeType.Float32, WeightFormat.Int8), 1e-5, 0.06);

    [Fact]
    public void Cache_ReusedBlock_ShowsNothingOfItsPast()
    {
        using var decoder = Decoder.Load("llama", DecodingBackend.Kernels);
        var tokens = Decoder.Cases("llama")[1].Prompt;
        var expected = decoder.Begin().Run(tokens);
        var model = decoder.Model;
        var blocks = decoder.TakeBlocks(4);
        var batch = new ForwardBatch();
        batch.AddOutput(batch.Add(tokens, 0, blocks) + tokens.Length - 1);
        decoder.Run(batch);

        // Another sequence with the same blocks, shorter than what lies in them.
        batch.Clear();
        batch.AddOutput(batch.Add(tokens.AsSpan(0, 5), 0, blocks) + 4);
        AssertSame([expected[4]], decoder.Run(batch));
        Assert.Equal(8 << 20, model.CacheBytes, (double)(8 << 20) / model.Blocks);
    }

    [Fact]
    public void Create_CacheTooSmall_SaysSo()
    {
        using var model = LanguageModel.Load(Path.Combine(Decoder.Data, "llama"), TorchSharp.torch.CPU, ComputeType.Float32);
        var error = Assert.Throws<RhoException>(() => DecodingModel.Create(model, new DecodingOptions { CacheBytes = 1000 }));
        Assert.Contains("1,000 bytes is too small", error.Message, StringComparison.Ordinal);
    }

    /// <summary>Mean difference of log-probabilities from float32 PyTorch's over prompts and continuations, in nats.</summary>
    private static double MeanDifference(string kind, DecodingBackend backend, ComputeType compute, WeightFormat weights)
    {
        using var decoder = Decoder.Load(kind, backend, compute, weights: weights);
        var differences = new List<double>();
        foreach (var expected in Decoder.Cases(kind))
        {
            int[] tokens = [.. expected.Prompt, .. expected.Continuation];
            var logits = decoder.Begin().Run(tokens);
            for (var i = 0; i + 1 < tokens.Length; i++)
                differences.Add(Math.Abs(logits[i][tokens[i + 1]] - Kernels.Softmax.LogSumExp(logits[i]) - expected.LogProbabilities[i]));
        }

        return differences.Average();
    }

    private static void AssertSame(float[][] expected, float[][] actual)
    {
        Assert.Equal(expected.Length, actual.Length);
        for (var i = 0; i < expected.Length; i++) Assert.True(expected[i].AsSpan().SequenceEqual(actual[i]), $"row {i} differs");
    }
}
