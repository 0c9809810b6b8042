using Rho.Kernels;

namespace Rho.Serving.Engine;

/// <summary>Log-probabilities of one position's tokens.</summary>
internal static class LogProbabilities
{
    /// <summary>Scores a token, and names the most likely ones.</summary>
    /// <param name="logits">As the model gave them.</param>
    /// <param name="count">How many most likely tokens to name.</param>
    public static ScoredToken Of(ReadOnlySpan<float> logits, int token, int count)
    {
        var logSumExp = Softmax.LogSumExp(logits);
        var top = MostLikely(logits, count);
        for (var i = 0; i < top.Length; i++) top[i] = top[i] with { LogProbability = (float)(top[i].LogProbability - logSumExp) };
        return new ScoredToken(token, (float)(logits[token] - logSumExp), top, 1 + Above(logits, logits[token]));
    }

    private static int Above(ReadOnlySpan<float> logits, float value)
    {
        var count = 0;
        foreach (var logit in logits)
        {
            if (logit > value) count++;
        }

        return count;
    }

    /// <summary>The largest logits in order; of equal ones the lower token first.</summary>
    private static TokenAlternative[] MostLikely(ReadOnlySpan<float> logits, int count)
    {
        var top = new TokenAlternative[Math.Min(count, logits.Length)];
        if (top.Length == 0) return top;
        var found = 0;
        for (var token = 0; token < logits.Length; token++)
        {
            var value = logits[token];
            if (found == top.Length && !(value > top[^1].LogProbability)) continue;
            var place = found < top.Length ? found++ : found - 1;
            for (; place > 0 && top[place - 1].LogProbability < value; place--) top[place] = top[place - 1];
            top[place] = new TokenAlternative(token, value);
        }

        return top;
    }
}
