using Rho.Formats;
using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>Sees the logits of the language-model head chunk by chunk, while they are there.</summary>
internal interface IHeadObserver
{
    /// <param name="logits">[chunk, vocab]</param>
    /// <param name="first">the chunk's first row</param>
    /// <param name="logSums">log-sum-exp of the chunk's rows. [chunk]</param>
    void Take(Tensor logits, int first, ReadOnlySpan<float> logSums);
}

/// <summary>What rows of logits say of their distributions besides the loss.</summary>
/// <param name="scores">of the micro-batch's rows: all but the losses is written where there is room for it. [rows]</param>
internal sealed class HeadDistribution(TokenScores scores) : IHeadObserver
{
    public void Take(Tensor logits, int first, ReadOnlySpan<float> logSums)
    {
        var (count, topK, entropy) = (logSums.Length, scores.TopK, scores.Entropies.Length > 0);
        var entropies = entropy ? scores.Entropies.AsSpan(first, count) : [];
        var ids = scores.TopIds.AsSpan(first * topK, count * topK);
        var logProbabilities = scores.TopLogProbabilities.AsSpan(first * topK, count * topK);
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

/// <summary>Gathers the log-probabilities that a probe asks for.</summary>
internal sealed class HeadProbe(HeadRows rows, TokenProbe probe) : IHeadObserver
{
    public void Take(Tensor logits, int first, ReadOnlySpan<float> logSums)
    {
        var (count, k, vocabulary) = (logSums.Length, probe.K, logits.size(1));
        var ids = new long[count * k];
        for (var i = 0; i < ids.Length; i++)
        {
            var id = probe.Ids[((rows.Positions[first + (i / k)] + 1) * k) + (i % k)];
            ids[i] = id >= 0 && id < vocabulary ? id : -1;
        }

        var values = new float[ids.Length];
        if (Cpu.Work.Fits(logits))
        {
            Cpu.Distribution.At(logits, ids, k, values);
        }
        else
        {
            using var scope = NewDisposeScope();
            var index = tensor(Array.ConvertAll(ids, id => Math.Max(0, id)), [count, k], device: logits.device);
            logits.gather(1, index).to(ScalarType.Float32).contiguous().cpu().data<float>().CopyTo(values);
        }

        for (var i = 0; i < ids.Length; i++)
            probe.LogProbabilities[((rows.Positions[first + (i / k)] + 1) * k) + (i % k)] = ids[i] < 0 ? float.NaN : values[i] - logSums[i / k];
    }
}
