using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>
/// Losses and gradients of the language-model head over the rows of one micro-batch, without holding all logits of a large vocabulary:
/// the forward takes rows in chunks, the log-sum-exp is float32, and the backward takes the selected rows only. At rows that are not selected the
/// loss has no gradient, so none is computed: the result is exactly that of the masked loss. Where the logits of all rows fit the budget
/// they are kept for the backward, else those of the selected rows are computed again.
/// </summary>
/// <param name="hidden">becomes this object's own. [rows, hidden]</param>
/// <param name="weight">[vocab, hidden]</param>
/// <param name="cap">logits l become cap * tanh(l / cap)</param>
/// <param name="targets">token after each row's. [rows]</param>
internal sealed class HeadLoss(Tensor hidden, Tensor weight, double? cap, long[] targets, long logitsBudgetBytes) : IDisposable
{
    private readonly float[] _logSums = new float[targets.Length];
    private Tensor? _logits;

    /// <summary>losses[i] = -ln softmax(hidden[i] W^T)[targets[i]], in nats.</summary>
    /// <param name="observer">Sees the logits too.</param>
    internal float[] Forward(bool keepLogits, IHeadObserver? observer = null)
    {
        var losses = new float[targets.Length];
        keepLogits &= targets.Length <= ChunkRows;
        for (long start = 0; start < targets.Length; start += ChunkRows)
        {
            using var scope = NewDisposeScope();
            var count = (int)Math.Min(ChunkRows, targets.Length - start);
            var logits = Kernels.Cap_(hidden.narrow(0, start, count).mm(weight.t()), cap);      // [chunk, vocab]
            var range = (int)start;
            var rows = targets.AsSpan(range, count);
            if (Cpu.Work.Fits(logits))
            {
                Cpu.CrossEntropy.Losses(logits, rows, _logSums.AsSpan(range, count), losses.AsSpan(range, count));
            }
            else
            {
                var wide = Kernels.Wide(logits);
                var logSum = wide.logsumexp(1);
                var target = wide.gather(1, tensor(rows.ToArray(), device: hidden.device).unsqueeze(1)).squeeze(1);
                logSum.to(ScalarType.Float32).cpu().data<float>().CopyTo(_logSums.AsSpan(range, count));
                logSum.sub(target).to(ScalarType.Float32).cpu().data<float>().CopyTo(losses.AsSpan(range, count));
            }

            observer?.Take(logits, range, _logSums.AsSpan(range, count));
            if (keepLogits) _logits = logits.DetachFromDisposeScope();
        }

        return losses;
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
        var (vocabulary, columns) = (weight.size(0), _logits is null ? SliceColumns(selected.Length) : weight.size(0));
        for (long start = 0; start < vocabulary; start += columns)
        {
            using var scope = NewDisposeScope();
            var count = Math.Min(columns, vocabulary - start);
            var part = weight.narrow(0, start, count);                                          // [slice, hidden]
            // Kept logits are taken as they are where all rows count: nothing reads them afterwards.
            var logits = _logits is not { } kept ? Kernels.Cap_(rows.mm(part.t()), cap)
                : selected.Length == targets.Length ? kept : kept.index_select(0, chosen);      // [selected, slice]
            Tensor gradient;
            if (Cpu.Work.Fits(logits))
            {
                Cpu.CrossEntropy.Differentiate(logits, start, vocabulary, target, logSums, weights, options.ZLoss, options.LabelSmoothing, cap);
                gradient = logits;
            }
            else
            {
                // d/dlogits of -(1 - s) ln p_target - s mean(ln p) + z logSum^2, times the row's weight.
                var logSum = tensor(logSums, [selected.Length, 1], device: hidden.device);
                var wide = Kernels.Wide(logits).sub(logSum).exp_();
                if (options.ZLoss > 0) wide.mul_(logSum.mul(2 * options.ZLoss).add(1));
                if (options.LabelSmoothing > 0) wide.sub_(options.LabelSmoothing / vocabulary);
                var at = tensor(target, [selected.Length, 1], device: hidden.device).sub_(start);
                var here = at.ge(0).logical_and(at.lt(count)).to(wide.dtype);
                wide.scatter_add_(1, at.clamp(0, count - 1), here.mul_(options.LabelSmoothing - 1));
                wide.mul_(tensor(weights, [selected.Length, 1], device: hidden.device));
                if (cap is { } most) wide.mul_(Kernels.Wide(logits).div(most).pow_(2).neg_().add_(1)); // d cap tanh(l / cap) = 1 - tanh^2
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

    private long ChunkRows => Math.Max(1, logitsBudgetBytes / (weight.ElementSize * weight.size(0)));

    public void Dispose()
    {
        _logits?.Dispose();
        hidden.Dispose();
    }
}
