using System.Buffers;

namespace Rho.Selection;

/// <summary>Keeps every target: causal language modeling, whatever the ratio.</summary>
public sealed class AllTokens : ITokenSelector
{
    public LossKinds Needs => LossKinds.None;

    public void Select(in TokenLosses batch, double ratio, Span<float> weights)
    {
        for (var i = 0; i < weights.Length; i++) weights[i] = float.IsNaN(batch.Current[i]) ? 0f : 1f;
    }
}

/// <summary>Keeps the top ceil(ratio * candidates) tokens by a score (Rho-1, equation 5).</summary>
public sealed class TopTokens(ITokenScore score, SelectionScope scope = SelectionScope.Batch) : ITokenSelector
{
    public LossKinds Needs => score.Needs;

    public void Select(in TokenLosses batch, double ratio, Span<float> weights) =>
        Scored.ForEach(score, scope, batch, weights, (in TokenLosses part, Span<float> scores, Span<float> output) =>
            TopK.Mark(scores, TopK.Count(ratio, TopK.Candidates(scores)), output));
}

/// <summary>
/// Weights every candidate by the softmax of its score over a temperature, scaled so that weights have mean 1 over the candidates.
/// A soft alternative to the top k: the ratio plays no part.
/// </summary>
public sealed class SoftTokens(ITokenScore score, double temperature, SelectionScope scope = SelectionScope.Batch) : ITokenSelector
{
    public LossKinds Needs => score.Needs;

    public void Select(in TokenLosses batch, double ratio, Span<float> weights) =>
        Scored.ForEach(score, scope, batch, weights, (in TokenLosses part, Span<float> scores, Span<float> output) =>
        {
            var highest = float.NegativeInfinity;
            foreach (var value in scores)
                if (value > highest) highest = value;
            if (!float.IsFinite(highest))
            {
                // No candidate, or a loss that overflowed: nothing to weigh by, and the step's own check reports it.
                for (var i = 0; i < output.Length; i++) output[i] = float.IsNaN(scores[i]) ? 0f : 1f;
                return;
            }

            double sum = 0;
            var candidates = 0;
            for (var i = 0; i < scores.Length; i++)
            {
                if (float.IsNaN(scores[i]))
                {
                    output[i] = 0f;
                    continue;
                }

                var weight = Math.Exp(((double)scores[i] - highest) / temperature);
                output[i] = (float)weight;
                sum += weight;
                candidates++;
            }

            var scale = candidates / sum;
            for (var i = 0; i < output.Length; i++) output[i] = (float)(output[i] * scale);
        });
}

/// <summary>
/// Keeps whole sequences, by the mean score of their candidates: ceil(ratio * sequences) of them (RHO-LOSS, Mindermann et al. 2022,
/// with a sequence as the example).
/// </summary>
public sealed class TopSequences(ITokenScore score) : ITokenSelector
{
    public LossKinds Needs => score.Needs;

    public void Select(in TokenLosses batch, double ratio, Span<float> weights) =>
        Scored.ForEach(score, SelectionScope.Batch, batch, weights, (in TokenLosses part, Span<float> scores, Span<float> output) =>
        {
            var means = new float[part.Sequences];
            for (var sequence = 0; sequence < means.Length; sequence++) means[sequence] = Mean(scores.Slice(sequence * part.Length, part.Length));
            var kept = new float[means.Length];
            TopK.Mark(means, TopK.Count(ratio, TopK.Candidates(means)), kept);
            for (var i = 0; i < output.Length; i++) output[i] = float.IsNaN(scores[i]) ? 0f : kept[i / part.Length];
        });

    private static float Mean(ReadOnlySpan<float> scores)
    {
        double sum = 0;
        var count = 0;
        foreach (var score in scores)
        {
            if (float.IsNaN(score)) continue;
            sum += score;
            count++;
        }

        return count == 0 ? float.NaN : (float)(sum / count);
    }
}

/// <summary>How the pieces of a word make its score.</summary>
public enum WordScore
{
    Mean,
    Max,
}

/// <summary>
/// Keeps or drops a word's tokens together: words by descending score until at least ceil(ratio * candidates) tokens are kept,
/// so the count may pass that by less than one word.
/// </summary>
public sealed class TopWords(ITokenScore score, WordScore wordScore = WordScore.Mean, SelectionScope scope = SelectionScope.Batch) : ITokenSelector
{
    public LossKinds Needs => score.Needs | LossKinds.Words;

    public void Select(in TokenLosses batch, double ratio, Span<float> weights) =>
        Scored.ForEach(score, scope, batch, weights, (in TokenLosses part, Span<float> scores, Span<float> output) =>
        {
            var wordOf = ArrayPool<int>.Shared.Rent(scores.Length);
            var sizes = ArrayPool<int>.Shared.Rent(scores.Length);
            var values = ArrayPool<float>.Shared.Rent(scores.Length);
            var marks = ArrayPool<float>.Shared.Rent(scores.Length);
            try
            {
                var words = Gather(part, scores, wordOf, sizes, values);
                var count = TopK.Count(ratio, TopK.Candidates(scores));
                TopK.Mark(values.AsSpan(0, words), sizes.AsSpan(0, words), count, marks.AsSpan(0, words));
                for (var i = 0; i < output.Length; i++) output[i] = float.IsNaN(scores[i]) ? 0f : marks[wordOf[i]];
            }
            finally
            {
                ArrayPool<int>.Shared.Return(wordOf);
                ArrayPool<int>.Shared.Return(sizes);
                ArrayPool<float>.Shared.Return(values);
                ArrayPool<float>.Shared.Return(marks);
            }
        });

    /// <summary>Runs of candidates with one word number, ended by sequence ends and by tokens that are no candidates.</summary>
    private int Gather(in TokenLosses part, ReadOnlySpan<float> scores, int[] wordOf, int[] sizes, float[] values)
    {
        var words = 0;
        for (var i = 0; i < scores.Length; i++)
        {
            if (float.IsNaN(scores[i])) continue;
            var starts = i % part.Length == 0 || float.IsNaN(scores[i - 1]) || part.Words[i] != part.Words[i - 1];
            if (starts)
            {
                sizes[words] = 1;
                values[words] = scores[i];
                wordOf[i] = words++;
                continue;
            }

            var word = words - 1;
            wordOf[i] = word;
            sizes[word]++;
            values[word] = wordScore == WordScore.Max
                ? Math.Max(values[word], scores[i])
                : values[word] + (scores[i] - values[word]) / sizes[word];
        }

        return words;
    }
}

/// <summary>One selector with a ratio of its own, as a part of a union or intersection; null takes the ratio of the whole.</summary>
public sealed record SelectorPart(ITokenSelector Selector, double? Ratio = null);

/// <summary>Keeps what all parts keep (Rho-1, table 4). The share kept is what comes out, not the ratio; it can be nothing.</summary>
public sealed class IntersectionOf(params SelectorPart[] parts) : ITokenSelector
{
    public LossKinds Needs => Combination.Needs(parts);

    public void Select(in TokenLosses batch, double ratio, Span<float> weights) =>
        Combination.Select(parts, batch, ratio, weights, static (a, b) => MathF.Min(a, b));
}

/// <summary>Keeps what any part keeps (Rho-1, table 4). The share kept is what comes out, not the ratio.</summary>
public sealed class UnionOf(params SelectorPart[] parts) : ITokenSelector
{
    public LossKinds Needs => Combination.Needs(parts);

    public void Select(in TokenLosses batch, double ratio, Span<float> weights) =>
        Combination.Select(parts, batch, ratio, weights, static (a, b) => MathF.Max(a, b));
}

internal static class Combination
{
    internal static LossKinds Needs(SelectorPart[] parts) => parts.Aggregate(LossKinds.None, (needs, part) => needs | part.Selector.Needs);

    internal static void Select(SelectorPart[] parts, in TokenLosses batch, double ratio, Span<float> weights, Func<float, float, float> combine)
    {
        var other = ArrayPool<float>.Shared.Rent(weights.Length);
        try
        {
            parts[0].Selector.Select(batch, parts[0].Ratio ?? ratio, weights);
            foreach (var part in parts.AsSpan(1))
            {
                part.Selector.Select(batch, part.Ratio ?? ratio, other.AsSpan(0, weights.Length));
                for (var i = 0; i < weights.Length; i++) weights[i] = combine(weights[i], other[i]);
            }
        }
        finally
        {
            ArrayPool<float>.Shared.Return(other);
        }
    }
}

internal static class Scored
{
    internal delegate void Weigh(in TokenLosses part, Span<float> scores, Span<float> weights);

    /// <summary>Scores the batch, takes out what is no target, and weighs each scope's part by itself.</summary>
    internal static void ForEach(ITokenScore score, SelectionScope scope, in TokenLosses batch, Span<float> weights, Weigh weigh)
    {
        var rented = ArrayPool<float>.Shared.Rent(Math.Max(1, weights.Length));
        try
        {
            var scores = rented.AsSpan(0, weights.Length);
            score.Score(batch, scores);
            for (var i = 0; i < scores.Length; i++)
                if (float.IsNaN(batch.Current[i])) scores[i] = float.NaN;
            if (scope == SelectionScope.Batch)
            {
                weigh(batch, scores, weights);
                return;
            }

            for (var sequence = 0; sequence < batch.Sequences; sequence++)
            {
                var start = sequence * batch.Length;
                weigh(batch.Sequence(sequence), scores.Slice(start, batch.Length), weights.Slice(start, batch.Length));
            }
        }
        finally
        {
            ArrayPool<float>.Shared.Return(rented);
        }
    }
}
