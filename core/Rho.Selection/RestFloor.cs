namespace Rho.Selection;

/// <summary>
/// Keeps some of what a selection leaves out, so that a model does not forget it (after NAT, arXiv 2603.06619): each token of the rest is
/// drawn with probability e and then counts w / e. A token that the selection gives weight s is 1 - s of the rest, where s is below 1: so
/// its expected weight is s + w (1 - s), and the expected sum of losses that of the selection plus w times that of the rest.
/// </summary>
/// <param name="weight">w, in (0, 1].</param>
/// <param name="share">e, in (0, 1].</param>
public sealed class RestFloor(double weight, double share)
{
    /// <summary>Adds the drawn tokens of one sequence to its selection.</summary>
    /// <param name="losses">Of the model in training; NaN where a token is no target and is never drawn. [length]</param>
    /// <param name="seed">Draws follow from it and from positions alone.</param>
    /// <param name="weights">Of the selection. [length], changed</param>
    public void Add(ReadOnlySpan<float> losses, ulong seed, Span<float> weights)
    {
        for (var i = 0; i < weights.Length; i++)
        {
            if (float.IsNaN(losses[i]) || weights[i] >= 1) continue;
            var drawn = (RandomScore.Mix(seed + (ulong)i * 0x9E3779B97F4A7C15) >> 11) * (1.0 / (1L << 53)) < share;
            if (drawn) weights[i] += (float)(weight / share * (1 - weights[i]));
        }
    }
}
