using Rho.Kernels;
using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>
/// Losses and gradients of the language-model head over the rows of one micro-batch, without holding all logits of a large vocabulary: the
/// backward takes the selected rows only. At rows that are not selected the loss has no gradient, so none is computed: the result is exactly
/// that of the masked loss. Where the logits of all rows fit the budget they are kept for the backward, else those of the selected rows are
/// computed again.
/// </summary>
/// <param name="hidden">becomes this object's own. [rows, hidden]</param>
/// <param name="weight">[vocab, hidden]</param>
/// <param name="cap">logits l become cap * tanh(l / cap)</param>
/// <param name="targets">token after each row's. [rows]</param>
internal sealed class OutputLoss(Tensor hidden, Tensor weight, double? cap, long[] targets, long logitsBudgetBytes) : IDisposable
{
    private readonly OutputHead _head = new(weight, cap, logitsBudgetBytes);
    private float[] _logSums = [];
    private bool _kept;

    /// <summary>losses[i] = -ln softmax(hidden[i] W^T)[targets[i]] in nats, and what else is wanted.</summary>
    internal HeadScores Forward(HeadScores scores)
    {
        if (targets.Length > 0) _kept = _head.Score(hidden, targets, scores);
        _logSums = scores.LogSums;
        if (!_kept) _head.Dispose(); // before the backward needs the memory
        return scores;
    }

    /// <summary>
    /// Adds the gradient of sum_i weights[i] * loss_i to <paramref name="weightGradient"/> and returns that of the selected rows' hidden
    /// states. Logits that were not kept are computed again for a slice of the vocabulary at a time, so that each weight's gradient is
    /// added once.
    /// </summary>
    /// <param name="selected">rows with a weight. [selected]</param>
    /// <param name="weights">what each selected row's loss counts. [selected]</param>
    /// <param name="weightGradient">[vocab, hidden], float32</param>
    /// <returns>[selected, hidden]</returns>
    internal Tensor Backward(long[] selected, float[] weights, Tensor weightGradient, TrainingOptions options)
    {
        using var outer = NewDisposeScope();
        var chosen = tensor(selected, device: hidden.device);
        var rows = hidden.index_select(0, chosen);                                              // [selected, hidden]
        var target = Array.ConvertAll(selected, row => targets[row]);
        var logSums = Array.ConvertAll(selected, row => _logSums[row]);
        var result = zeros([selected.Length, hidden.size(1)], hidden.dtype == ScalarType.Float64 ? ScalarType.Float64 : ScalarType.Float32, hidden.device);
        var vocabulary = weight.size(0);
        var columns = _kept ? vocabulary : SliceColumns(selected.Length);
        for (long start = 0; start < vocabulary; start += columns)
        {
            using var scope = NewDisposeScope();
            var count = Math.Min(columns, vocabulary - start);
            var part = weight.narrow(0, start, count);                                          // [slice, hidden]
            // Kept logits are taken as they are where all rows count: nothing reads them afterwards.
            var logits = !_kept ? TensorOps.Cap_(rows.mm(part.t()), cap)
                : _head.Kept(targets.Length) is var all && selected.Length == targets.Length ? all : all.index_select(0, chosen);      // [selected, slice]
            Tensor gradient;
            if (CpuKernels.Fit(logits))
            {
                CpuKernels.Of(logits).CrossEntropyGradient(new CrossEntropy(vocabulary, options.ZLoss, options.LabelSmoothing, cap ?? 0), logits, start, target, logSums, weights);
                gradient = logits;
            }
            else
            {
                // d/dlogits of -(1 - s) ln p_target - s mean(ln p) + z logSum^2, times the row's weight.
                var logSum = tensor(logSums, [selected.Length, 1], device: hidden.device);
                var wide = TensorOps.Wide(logits).sub(logSum).exp_();
                if (options.ZLoss > 0) wide.mul_(logSum.mul(2 * options.ZLoss).add(1));
                if (options.LabelSmoothing > 0) wide.sub_(options.LabelSmoothing / vocabulary);
                var at = tensor(target, [selected.Length, 1], device: hidden.device).sub_(start);
                var here = at.ge(0).logical_and(at.lt(count)).to(wide.dtype);
                wide.scatter_add_(1, at.clamp(0, count - 1), here.mul_(options.LabelSmoothing - 1));
                wide.mul_(tensor(weights, [selected.Length, 1], device: hidden.device));
                if (cap is { } most) wide.mul_(TensorOps.Wide(logits).div(most).pow_(2).neg_().add_(1)); // d cap tanh(l / cap) = 1 - tanh^2
                gradient = wide.to(weight.dtype);
            }

            GradientSum.AddProduct(result, gradient, part);
            GradientSum.AddProduct(weightGradient.narrow(0, start, count), gradient.t(), rows);
        }

        return result.to(hidden.dtype).MoveToOuterDisposeScope();
    }

    /// <summary>Of how many of the vocabulary's logits <paramref name="rows"/> rows fit the budget: whole registers of them, and slices of about one size.</summary>
    private long SliceColumns(long rows)
    {
        var vocabulary = weight.size(0);
        var most = Math.Max(16, logitsBudgetBytes / (weight.ElementSize * rows));
        var slices = (vocabulary + most - 1) / most;
        return ((vocabulary + slices - 1) / slices + 15) & ~15L;
    }

    public void Dispose()
    {
        _head.Dispose();
        hidden.Dispose();
    }
}
