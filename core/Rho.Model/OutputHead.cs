using Rho.Formats;
using Rho.Kernels;
using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>What is found out of the next-token distribution of each of some rows.</summary>
internal sealed class HeadScores(int rows, bool entropies = false, int topK = 0, int[]? asked = null)
{
    /// <summary>Of the rows' targets, and of the distributions that they are drawn from. [rows]</summary>
    internal TokenScores Tokens { get; } = TokenScores.Room(rows, entropies, topK);

    /// <summary>Log-sum-exps. [rows]</summary>
    internal float[] LogSums { get; } = new float[rows];

    /// <summary>Tokens that are asked for besides. [rows, k]</summary>
    internal int[] Asked { get; } = asked ?? [];

    /// <summary>ln p of them; NaN where the vocabulary has no such token. [rows, k]</summary>
    internal float[] AskedLogProbabilities { get; } = Enumerable.Repeat(float.NaN, asked?.Length ?? 0).ToArray();
}

/// <summary>
/// The language-model head: the vocabulary is taken in blocks, and of each row only the running maximum, sum of exponentials and what
/// else is wanted is kept. So logits take the same memory whatever the vocabulary, and the head's weights are read once for all rows.
/// Sums are float32 at least, whatever the logits' type.
/// </summary>
/// <param name="weight">[vocab, hidden]</param>
/// <param name="cap">logits l become cap * tanh(l / cap)</param>
/// <param name="logitsBytes">of a block's logits</param>
internal sealed class OutputHead(Tensor weight, double? cap, long logitsBytes) : IDisposable
{
    private const int LeastBlock = 64;      // no fewer than the largest top-k

    private Tensor? _logits;                // [rows * block]

    /// <summary>Of the buffer for logits.</summary>
    internal long Bytes => _logits is null ? 0 : _logits.NumberOfElements * _logits.ElementSize;

    /// <param name="hidden">[rows, hidden]</param>
    /// <param name="targets">token after each row's. [rows]</param>
    /// <returns>whether one block was the whole vocabulary: its logits are kept</returns>
    internal bool Score(Tensor hidden, long[] targets, HeadScores scores)
    {
        var vocabulary = weight.size(0);
        var rows = targets.Length;
        var block = Math.Min(vocabulary, Math.Max(LeastBlock, logitsBytes / (weight.ElementSize * rows) / 64 * 64));
        if (_logits is null || _logits.NumberOfElements < rows * block)
        {
            _logits?.Dispose();
            _logits = empty([rows * block], weight.dtype, weight.device).DetachFromDisposeScope();
        }

        if (CpuKernels.Fit(_logits)) OnCpu(hidden, targets, scores, block);
        else InTorch(hidden, targets, scores, block);
        return block == vocabulary;
    }

    /// <summary>The logits that were kept. [rows, vocab]</summary>
    internal Tensor Kept(int rows) => Block(rows, weight.size(0));

    private Tensor Block(long rows, long columns) => _logits!.narrow(0, 0, rows * columns).view(rows, columns);

    /// <summary>The next block's logits. [rows, columns]</summary>
    private Tensor Logits(Tensor hidden, long first, long columns) =>
        TensorOps.Cap_(Block(hidden.size(0), columns).addmm_(hidden, weight.narrow(0, first, columns).t(), beta: 0), cap);

    private void OnCpu(Tensor hidden, long[] targets, HeadScores scores, long block)
    {
        var running = new RunningSoftmax(targets, scores.Tokens.Entropies.Length > 0, scores.Tokens.TopK, get_num_threads());
        for (long first = 0; first < weight.size(0); first += block)
        {
            using var scope = NewDisposeScope();
            var logits = Logits(hidden, first, Math.Min(block, weight.size(0) - first));
            CpuKernels.Of(logits).Add(running, logits, first);
            CpuKernels.Of(logits).Gather(logits, first, scores.Asked, scores.AskedLogProbabilities);
        }

        for (var row = 0; row < targets.Length; row++) (scores.LogSums[row], scores.Tokens.Losses[row]) = (running.LogSum(row), running.Loss(row));
        for (var row = 0; row < scores.Tokens.Entropies.Length; row++) scores.Tokens.Entropies[row] = running.Entropy(row);
        running.Top(scores.Tokens.TopIds, scores.Tokens.TopLogProbabilities);
        for (var i = 0; i < scores.Asked.Length; i++) scores.AskedLogProbabilities[i] -= scores.LogSums[i / (scores.Asked.Length / targets.Length)];
    }

    private void InTorch(Tensor hidden, long[] targets, HeadScores scores, long block)
    {
        using var scope = NewDisposeScope();
        var rows = targets.Length;
        var (device, type) = (hidden.device, weight.dtype == ScalarType.Float64 ? ScalarType.Float64 : ScalarType.Float32);
        var asked = tensor(scores.Asked, [rows, scores.Asked.Length / rows], device: device).to(ScalarType.Int64);
        var named = cat([tensor(targets, [rows, 1], device: device), asked], 1);
        var chosen = full_like(named, double.NaN, type);                      // their logits
        var logSum = full([rows, 1], float.NegativeInfinity, type, device);
        var mean = zeros([rows, 1], type, device);                            // of the logits, under the distribution so far
        var values = empty([rows, 0], type, device);                          // the largest logits so far, in order
        var ids = empty([rows, 0], ScalarType.Int64, device);
        for (long first = 0; first < weight.size(0); first += block)
        {
            using var inner = NewDisposeScope();
            var columns = Math.Min(block, weight.size(0) - first);
            var wide = TensorOps.Wide(Logits(hidden, first, columns));
            var both = logSum.logaddexp(wide.logsumexp(1, keepdim: true));
            if (scores.Tokens.Entropies.Length > 0)
            {
                // An impossible token (a logit of -inf) counts 0.
                var part = wide.sub(both).exp().mul(wide.clamp_min(-1e30)).sum([1], keepdim: true);
                mean.mul_(logSum.sub(both).exp()).add_(part);
            }

            logSum.copy_(both);
            var here = named.ge(first).logical_and(named.lt(first + columns));
            chosen.copy_(where(here, wide.gather(1, named.sub(first).clamp(0, columns - 1)), chosen));
            if (scores.Tokens.TopK == 0) continue;
            // A stable sort keeps equal ones in the order of their ids; topk does not.
            var candidates = cat([values, wide], 1);
            var names = cat([ids, arange(first, first + columns, ScalarType.Int64, device).expand(rows, columns)], 1);
            var kept = Math.Min(scores.Tokens.TopK, candidates.size(1));
            var (sorted, order) = candidates.sort(1, descending: true, stable: true);
            values = sorted.narrow(1, 0, kept).contiguous().MoveToOuterDisposeScope();
            ids = names.gather(1, order.narrow(1, 0, kept)).MoveToOuterDisposeScope();
        }

        void Copy(Tensor found, Span<float> to) => found.to(ScalarType.Float32).contiguous().cpu().data<float>().CopyTo(to);
        var logProbabilities = chosen.sub(logSum);
        Copy(logSum, scores.LogSums);
        Copy(logProbabilities.narrow(1, 0, 1).neg(), scores.Tokens.Losses);
        if (scores.Asked.Length > 0) Copy(logProbabilities.narrow(1, 1, named.size(1) - 1), scores.AskedLogProbabilities);
        if (scores.Tokens.Entropies.Length > 0) Copy(logSum.sub(mean).clamp_min(0), scores.Tokens.Entropies);
        if (scores.Tokens.TopK == 0) return;
        Copy(values.sub(logSum), scores.Tokens.TopLogProbabilities);
        ids.to(ScalarType.Int32).cpu().data<int>().CopyTo(scores.Tokens.TopIds);
    }

    public void Dispose()
    {
        _logits?.Dispose();
        _logits = null;
    }
}
