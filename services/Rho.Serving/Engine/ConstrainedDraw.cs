using Rho.Serving.Constraints;

namespace Rho.Serving.Engine;

/// <summary>What may come next, of which the sampler draws.</summary>
internal static class ConstrainedDraw
{
    /// <summary>Draws a token that the constraint allows and that is not banned. Changes the logits.</summary>
    /// <param name="matcher">Null where any text may come.</param>
    /// <param name="banned">Ends that cannot come yet; they do where the constraint leaves nothing else, since a text that has to end ends.</param>
    /// <param name="logits">Of each token of the vocabulary, as the model gave them.</param>
    /// <exception cref="RhoException">The constraint allows no token.</exception>
    public static ScoredToken Next(Sampler sampler, ConstraintMatcher? matcher, IEnumerable<int> banned, Span<float> logits)
    {
        if (matcher is null) return sampler.Draw(logits, banned, []);
        var allowed = new ulong[(logits.Length + 63) / 64];
        if (!matcher.Allow(allowed)) throw new RhoException("the model's vocabulary cannot spell what the constraint demands next");
        int[] ends = [.. banned];
        return sampler.Draw(logits, AllowsOnly(allowed, ends) ? [] : ends, allowed);
    }

    private static bool AllowsOnly(ReadOnlySpan<ulong> allowed, int[] tokens)
    {
        var left = allowed.ToArray();
        foreach (var token in tokens) left[token >> 6] &= ~(1UL << (token & 63));
        return !left.AsSpan().ContainsAnyExcept(0UL);
    }
}
