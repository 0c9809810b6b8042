using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>
/// Losses and gradients of the language-model head without ever holding all logits: rows are taken in chunks, the log-sum-exp is float32,
/// and the backward recomputes the logits of the selected rows only. At rows that are not selected the loss has no gradient, so none is
/// computed: the result is exactly that of the masked loss (RHO1.md 7.6).
/// </summary>
internal static class HeadLoss
{
    /// <summary>losses[i] = -ln softmax(hidden[i] W^T)[targets[i]], in nats.</summary>
    /// <param name="hidden">[rows, hidden]</param>
    /// <param name="weight">[vocab, hidden]</param>
    /// <param name="targets">[rows], int64</param>
    /// <param name="losses">[rows], float32, written</param>
    internal static void Forward(Tensor hidden, Tensor weight, Tensor targets, Tensor losses, long logitsBudgetBytes)
    {
        var (rows, chunk) = (hidden.size(0), ChunkRows(weight, logitsBudgetBytes));
        for (long start = 0; start < rows; start += chunk)
        {
            using var scope = NewDisposeScope();
            var count = Math.Min(chunk, rows - start);
            var logits = hidden.narrow(0, start, count).mm(weight.t()).to(ScalarType.Float32);  // [chunk, vocab]
            var target = logits.gather(1, targets.narrow(0, start, count).unsqueeze(1)).squeeze(1);
            losses.narrow(0, start, count).copy_(logits.logsumexp(1).sub(target));
        }
    }

    /// <summary>
    /// Adds the gradient of sum_i weights[i] * loss_i to <paramref name="weightGradient"/> and returns that of the hidden states.
    /// </summary>
    /// <param name="weights">what each row's loss counts. [rows], float32</param>
    /// <param name="weightGradient">[vocab, hidden], of the weight's type</param>
    internal static Tensor Backward(Tensor hidden, Tensor weight, Tensor targets, Tensor weights, Tensor weightGradient, TrainingOptions options)
    {
        var hiddenGradient = empty_like(hidden);
        var (rows, chunk) = (hidden.size(0), ChunkRows(weight, options.LogitsBudgetBytes));
        for (long start = 0; start < rows; start += chunk)
        {
            using var scope = NewDisposeScope();
            var count = Math.Min(chunk, rows - start);
            var part = hidden.narrow(0, start, count);
            var target = targets.narrow(0, start, count).unsqueeze(1);                          // [chunk, 1]
            var share = weights.narrow(0, start, count).unsqueeze(1);                           // [chunk, 1]
            var logits = part.mm(weight.t()).to(ScalarType.Float32);                            // [chunk, vocab]
            var logSum = logits.logsumexp(1, keepdim: true);
            // d/dlogits of -(1 - s) ln p_target - s mean(ln p) + z logSum^2, times the row's weight.
            var gradient = logits.sub_(logSum).exp_();
            if (options.ZLoss > 0) gradient.mul_(logSum.mul(2 * options.ZLoss).add(1));
            if (options.LabelSmoothing > 0) gradient.sub_(options.LabelSmoothing / weight.size(0));
            gradient.scatter_add_(1, target, full([count, 1], options.LabelSmoothing - 1, ScalarType.Float32, hidden.device));
            gradient = gradient.mul_(share).to(weight.dtype);
            hiddenGradient.narrow(0, start, count).copy_(gradient.mm(weight));
            weightGradient.addmm_(gradient.t(), part);
        }

        return hiddenGradient;
    }

    private static long ChunkRows(Tensor weight, long budgetBytes) => Math.Max(1, budgetBytes / (4 * weight.size(0)));
}
