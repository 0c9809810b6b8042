using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>
/// What rows of logits say of their distributions besides the loss, taken chunk by chunk while the logits are there.
/// </summary>
/// <param name="rows">of the micro-batch</param>
internal sealed class HeadDistribution(int rows, bool entropy, int topK)
{
    /// <summary>-sum_v p_v ln p_v, nats; empty where not wanted. [rows]</summary>
    internal float[] Entropies { get; } = entropy ? new float[rows] : [];

    /// <summary>The most likely tokens, the likeliest first, of equal ones the lower id. [rows, top-k]</summary>
    internal int[] TopIds { get; } = new int[rows * topK];

    /// <summary>ln p of them. [rows, top-k]</summary>
    internal float[] TopLogProbabilities { get; } = new float[rows * topK];

    /// <param name="logits">[chunk, vocab]</param>
    /// <param name="first">the chunk's first row</param>
    /// <param name="logSums">log-sum-exp of the chunk's rows. [chunk]</param>
    internal void Take(Tensor logits, int first, ReadOnlySpan<float> logSums)
    {
        var count = logSums.Length;
        var entropies = entropy ? Entropies.AsSpan(first, count) : [];
        var ids = TopIds.AsSpan(first * topK, count * topK);
        var logProbabilities = TopLogProbabilities.AsSpan(first * topK, count * topK);
        if (Cpu.Work.Fits(logits))
        {
            if (entropy) Cpu.Distribution.Entropies(logits, logSums, entropies);
            if (topK > 0) Cpu.Distribution.Top(logits, logSums, topK, ids, logProbabilities);
            return;
        }

        using var scope = NewDisposeScope();
        var logP = logits.to(ScalarType.Float32).sub(tensor(logSums.ToArray(), [count, 1], device: logits.device));
        if (entropy)
        {
            // An impossible token (ln p = -inf) counts 0.
            logP.exp().mul(logP.clamp_min(-200)).sum(1).neg().clamp_min(0).cpu().data<float>().CopyTo(entropies);
        }

        if (topK == 0) return;
        // A stable sort keeps equal ones in the order of their ids; topk does not.
        var (values, indices) = logP.sort(1, descending: true, stable: true);
        values.narrow(1, 0, topK).contiguous().cpu().data<float>().CopyTo(logProbabilities);
        indices.narrow(1, 0, topK).to(ScalarType.Int32).contiguous().cpu().data<int>().CopyTo(ids);
    }
}
