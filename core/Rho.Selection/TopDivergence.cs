namespace Rho.Selection;

/// <summary>
/// How far a model's prediction is from the reference's, by the k tokens that the reference finds most likely and one bucket for all
/// others:
/// <code>
/// D = sum_{v in K} p_v (ln p_v - ln q_v) + p' (ln p' - ln q'),   p' = 1 - sum_{v in K} p_v,   q' = 1 - sum_{v in K} q_v
/// </code>
/// with p the reference's probabilities and q the model's. That is KL(p || q) of the two distributions after all tokens outside K are
/// merged into one. Merging outcomes never raises a divergence (log-sum inequality: Cover and Thomas, Elements of Information Theory,
/// 2006, theorem 2.7.1), so 0 &lt;= D &lt;= KL(p || q) over the whole vocabulary; D grows with k, and is that KL when k is the vocabulary.
/// Renormalising both over K instead would be no bound and would not see how much of the mass lies in K.
/// </summary>
public static class TopDivergence
{
    /// <summary>What is left outside K is a difference from 1 and no more exact than float32 log-probabilities: less than this counts as this.</summary>
    private const double LeastRest = 1e-6;

    /// <summary>Divergences at n positions.</summary>
    /// <param name="reference">ln p of the reference's k most likely tokens; NaN at a position that has none. [n, k]</param>
    /// <param name="model">ln q of the same tokens; NaN where the model has no such token, which then counts among the others. [n, k]</param>
    /// <param name="divergences">nats, at least 0; NaN where the reference has none. [n], written</param>
    public static void Measure(ReadOnlySpan<float> reference, ReadOnlySpan<float> model, int k, Span<float> divergences)
    {
        if (reference.Length != divergences.Length * k || model.Length != reference.Length) throw new ArgumentException("log-probabilities must be [positions, k]");
        for (var i = 0; i < divergences.Length; i++) divergences[i] = Of(reference.Slice(i * k, k), model.Slice(i * k, k));
    }

    private static float Of(ReadOnlySpan<float> reference, ReadOnlySpan<float> model)
    {
        if (float.IsNaN(reference[0])) return float.NaN;
        double sum = 0, referenceRest = 1, modelRest = 1;
        for (var j = 0; j < reference.Length; j++)
        {
            if (float.IsNaN(model[j])) continue;
            var p = Math.Exp(reference[j]);
            referenceRest -= p;
            modelRest -= Math.Exp(model[j]);
            if (p > 0) sum += p * ((double)reference[j] - model[j]);
        }

        referenceRest = Math.Max(referenceRest, LeastRest);
        modelRest = Math.Max(modelRest, LeastRest);
        return (float)Math.Max(0, sum + referenceRest * Math.Log(referenceRest / modelRest));
    }
}
