using System.Runtime.InteropServices;
using Rho.Formats;
using Rho.TestSupport;

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
}
