using Rho.Formats;
using static TorchSharp.torch;

namespace Rho.Model.Scoring;

/// <summary>
/// The language-model head for scoring: the vocabulary is taken in blocks, and of each row only the running maximum, sum of
/// exponentials and what else is wanted is kept. So logits take the same memory whatever the vocabulary, and the head's weights are
/// read once for all rows. Sums are float32 whatever the logits' type.
/// </summary>
/// <param name="weight">[vocab, hidden]</param>
/// <param name="cap">logits l become cap * tanh(l / cap)</param>
/// <param name="logitsBytes">of a block's logits</param>
internal sealed class HeadScores(Tensor weight, double? cap, long logitsBytes) : IDisposable
{
    private const int LeastBlock = 64;      // no fewer than the largest top-k

    private Tensor? _logits;                // [rows * block]

    /// <summary>Of the buffer for logits.</summary>
    internal long Bytes => _logits is null ? 0 : _logits.NumberOfElements * _logits.ElementSize;

    /// <param name="hidden">[rows, hidden]</param>
    /// <param name="targets">token after each row's. [rows]</param>
    /// <param name="scores">of the rows, what there is room for; written. [rows]</param>
    internal void Score(Tensor hidden, ReadOnlySpan<long> targets, TokenScores scores)
    {
        var vocabulary = weight.size(0);
        var rows = targets.Length;
        var block = Math.Min(vocabulary, Math.Max(LeastBlock, logitsBytes / (weight.ElementSize * rows) / 64 * 64));
        if (_logits is null || _logits.NumberOfElements < rows * block)
        {
            _logits?.Dispose();
            _logits = empty([rows * block], weight.dtype, weight.device).DetachFromDisposeScope();
        }

        if (Cpu.Work.Fits(_logits)) OnCpu(hidden, targets, scores, block);
        else InTorch(hidden, targets, scores, block);
    }

    /// <summary>The next block's logits. [rows, columns]</summary>
    private Tensor Logits(Tensor hidden, long first, long columns) =>
        Kernels.Cap_(_logits!.narrow(0, 0, hidden.size(0) * columns).view(hidden.size(0), columns).addmm_(hidden, weight.narrow(0, first, columns).t(), beta: 0), cap);

    private void OnCpu(Tensor hidden, ReadOnlySpan<long> targets, TokenScores scores, long block)
    {
        var rows = targets.Length;
        var running = new Cpu.RunningSoftmax(rows, scores.Entropies.Length > 0);
        for (long first = 0; first < weight.size(0); first += block)
        {
            using var scope = NewDisposeScope();
            var logits = Logits(hidden, first, Math.Min(block, weight.size(0) - first));
            running.Add(logits, first, targets);
            if (scores.TopK > 0) Cpu.MostLikely.Add(logits, first, scores.TopK, scores.TopIds, scores.TopLogProbabilities);
        }

        running.Finish(scores.Losses, scores.Entropies);
        for (var i = 0; i < scores.TopLogProbabilities.Length; i++) scores.TopLogProbabilities[i] -= running.LogSum(i / scores.TopK);
    }

    private void InTorch(Tensor hidden, ReadOnlySpan<long> targets, TokenScores scores, long block)
    {
        using var scope = NewDisposeScope();
        var rows = targets.Length;
        var device = hidden.device;
        var target = tensor(targets.ToArray(), [rows, 1], device: device);
        var logSum = full([rows, 1], float.NegativeInfinity, ScalarType.Float32, device);
        var mean = zeros([rows, 1], ScalarType.Float32, device);              // of the logits, under the distribution so far
        var chosen = zeros([rows, 1], ScalarType.Float32, device);            // the target's logit
        var values = empty([rows, 0], ScalarType.Float32, device);            // the largest logits so far, in order
        var ids = empty([rows, 0], ScalarType.Int64, device);
        for (long first = 0; first < weight.size(0); first += block)
        {
            using var inner = NewDisposeScope();
            var columns = Math.Min(block, weight.size(0) - first);
            var wide = Logits(hidden, first, columns).to(ScalarType.Float32);
            var blockSum = wide.logsumexp(1, keepdim: true);
            var both = logSum.logaddexp(blockSum);
            if (scores.Entropies.Length > 0)
            {
                // An impossible token (a logit of -inf) counts 0.
                var part = wide.sub(both).exp().mul(wide.clamp_min(-1e30)).sum([1], keepdim: true);
                mean.mul_(logSum.sub(both).exp()).add_(part);
            }

            logSum.copy_(both);
            var inBlock = target.ge(first).logical_and(target.lt(first + columns));
            chosen.add_(wide.gather(1, target.sub(first).clamp(0, columns - 1)).masked_fill(inBlock.logical_not(), 0));
            if (scores.TopK == 0) continue;
            // A stable sort keeps equal ones in the order of their ids; topk does not.
            var candidates = cat([values, wide], 1);
            var names = cat([ids, arange(first, first + columns, ScalarType.Int64, device).expand(rows, columns)], 1);
            var kept = Math.Min(scores.TopK, candidates.size(1));
            var (sorted, order) = candidates.sort(1, descending: true, stable: true);
            values = sorted.narrow(1, 0, kept).contiguous().MoveToOuterDisposeScope();
            ids = names.gather(1, order.narrow(1, 0, kept)).MoveToOuterDisposeScope();
        }

        logSum.sub(chosen).cpu().data<float>().CopyTo(scores.Losses.AsSpan());
        if (scores.Entropies.Length > 0) logSum.sub(mean).clamp_min(0).cpu().data<float>().CopyTo(scores.Entropies.AsSpan());
        if (scores.TopK == 0) return;
        values.sub(logSum).cpu().data<float>().CopyTo(scores.TopLogProbabilities.AsSpan());
        ids.to(ScalarType.Int32).cpu().data<int>().CopyTo(scores.TopIds.AsSpan());
    }

    public void Dispose() => _logits?.Dispose();
}
