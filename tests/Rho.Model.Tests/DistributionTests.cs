using System.Runtime.InteropServices;
using Rho.Formats;
using Rho.TestSupport;
using static TorchSharp.torch;

namespace Rho.Model.Tests;

/// <summary>Entropies and most likely tokens against those that data/make.py computed with plain PyTorch, and against the definition.</summary>
public sealed class DistributionTests
{
    [Theory, MemberData(nameof(NumericsTests.Kinds), MemberType = typeof(NumericsTests))]
    public void Score_WithExtras_EqualsPyTorch(string kind)
    {
        using var expected = SafetensorsFile.Open(Path.Combine(NumericsTests.Data, kind, "expected.safetensors"));
        using var model = ReferenceModel.Of(LanguageModel.Load(Path.Combine(NumericsTests.Data, kind), TestDevice.Device, ComputeType.Float32), "none");
        foreach (var documents in new[] { false, true })
        {
            var batch = NumericsTests.Batch(expected, documents);
            Assert.SkipWhen(batch.Length > model.ContextLength, "scaled by the length: whole sequences beyond the context are for inference");
            var suffix = documents ? "_documents" : "";
            // One more than expected: its distance tells whether the last expected one could be another.
            var scores = TokenScores.Room(batch.Tokens.Length, entropies: true, topK: 6);
            model.Score(batch.Tokens, batch.Sequences, batch.Length, batch.Documents, scores, CancellationToken.None);
            var (ids, logProbabilities) = (scores.TopIds, scores.TopLogProbabilities);
            NumericsTests.AssertClose(NumericsTests.Floats(expected, "entropy" + suffix), scores.Entropies, 1e-5f);
            NumericsTests.AssertClose(NumericsTests.Floats(expected, "top_log_probabilities" + suffix), [.. logProbabilities.Where((_, i) => i % 6 < 5)], 1e-5f);
            var expectedIds = MemoryMarshal.Cast<byte, long>(expected.Bytes("top_ids" + suffix)).ToArray();
            for (var i = 0; i < ids.Length; i++)
            {
                // Two that are as likely but for rounding may change places.
                bool Apart(int other) => other < 0 || other / 6 != i / 6 || !(Math.Abs(logProbabilities[other] - logProbabilities[i]) < 1e-4f);
                if (i % 6 < 5 && Apart(i - 1) && Apart(i + 1)) Assert.Equal(expectedIds[(i / 6 * 5) + (i % 6)], ids[i]);
            }

            // The losses are the same bits with and without.
            var losses = new float[batch.Tokens.Length];
            model.Score(batch.Tokens, batch.Sequences, batch.Length, batch.Documents, losses, CancellationToken.None);
            Assert.Equal(losses, scores.Losses);
        }
    }

    [Theory]
    [InlineData(ScalarType.Float32, 1000, 17)]
    [InlineData(ScalarType.Float32, 32_003, 64)]
    [InlineData(ScalarType.BFloat16, 32_003, 64)] // 256 steps an octave: full of equal logits
    [InlineData(ScalarType.Float32, 5, 5)]
    public void Take_ChunkByChunk_IsTheDefinition(ScalarType type, int vocabulary, int k)
    {
        manual_seed(3);
        using var scope = NewDisposeScope();
        const int rows = 9;
        var logits = randn([rows, vocabulary]).mul_(3).to(type);
        logits[0].fill_(0.5f);                                       // all equally likely
        logits[1].index_fill_(0, tensor(new long[] { 2 }), 90f);     // one certain
        var wide = logits.to(ScalarType.Float32);
        var logSums = wide.logsumexp(1).data<float>().ToArray();
        var scores = TokenScores.Room(rows, entropies: true, k);
        var distribution = new HeadDistribution(scores);
        for (var first = 0; first < rows; first += 4)
        {
            var count = Math.Min(4, rows - first);
            distribution.Take(logits.narrow(0, first, count).contiguous(), first, logSums.AsSpan(first, count));
        }

        for (var row = 0; row < rows; row++)
        {
            var values = wide[row].data<float>().ToArray();
            double max = values.Max(), sum = values.Sum(value => Math.Exp(value - max)), logSum = max + Math.Log(sum);
            Assert.Equal(-values.Sum(value => Math.Exp(value - logSum) * (value - logSum)), scores.Entropies[row], 3e-5 * Math.Log(vocabulary));
            var order = Enumerable.Range(0, vocabulary).OrderByDescending(id => values[id]).Take(k).ToArray(); // a stable sort
            Assert.Equal(order, scores.TopIds.AsSpan(row * k, k).ToArray());
            for (var i = 0; i < k; i++) Assert.Equal(values[order[i]] - logSum, scores.TopLogProbabilities[row * k + i], 1e-4);
        }
    }
}
