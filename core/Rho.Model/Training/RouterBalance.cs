using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Model.Training;

/// <summary>
/// The load-balancing loss of mixtures of experts (Fedus et al. 2021, eq. 4 to 6, as Hugging Face's load_balancing_loss_func computes it over
/// k choices and all layers together): E * sum over experts e of f_e P_e, with f_e the number of choices of e, and P_e the sum of its
/// probabilities, each divided by the rows of all layers. Padding is left out. It is k where experts are taken evenly, E at most. The
/// forward counts; then, as f_e has no gradient, that of a row's probability of e is E f_e / rows, the same for every row.
/// </summary>
internal sealed class RouterBalance(TokenBatch batch) : IDisposable
{
    private readonly bool[]? _isText = batch.Documents is { } documents && Array.Exists(documents, document => document < 0) ? [.. documents.Select(document => document >= 0)] : null;
    private readonly List<Tensor> _choices = [];        // by layer. [E]
    private Tensor? _mask;                              // [rows, 1]
    private Tensor? _probabilities;                     // sums over rows and layers. [E]
    private Tensor? _slopes;                            // [E]

    /// <summary>Counts what a layer's rows take; no more once the forward is done, when layers are only run again.</summary>
    /// <param name="probabilities">[rows, E]</param>
    /// <param name="ids">[rows, k]</param>
    internal void Add(Tensor probabilities, Tensor ids)
    {
        if (_slopes is not null) return;
        using var scope = NewDisposeScope();
        var taken = zeros_like(probabilities).scatter_(1, ids, ones_like(ids, dtype: probabilities.dtype));
        _choices.Add(Masked(taken).sum([0L], type: ScalarType.Float64).DetachFromDisposeScope());
        var sum = Masked(probabilities).sum([0L], type: ScalarType.Float64);
        if (_probabilities is null) _probabilities = sum.DetachFromDisposeScope();
        else _probabilities.add_(sum);
    }

    /// <summary>Ends the forward.</summary>
    /// <param name="weight">what the loss counts in the gradient</param>
    /// <returns>the loss, and the share of a layer's choices that its busiest expert has, of the layer where that is largest</returns>
    internal (double Loss, double Busiest) Close(double weight)
    {
        using var scope = NewDisposeScope();
        var byLayer = stack(_choices);                                                          // [layers, E]
        double experts = byLayer.size(1), rows = (double)_choices.Count * Math.Max(1, _isText?.Count(one => one) ?? batch.Tokens.Length);
        var choices = byLayer.sum([0L]);
        _slopes = choices.mul(weight * experts / (rows * rows)).DetachFromDisposeScope();
        var loss = choices.mul(_probabilities!).sum().item<double>() * experts / (rows * rows);
        return (loss, byLayer.max().item<double>() / Math.Max(1, byLayer[0].sum().item<double>()));
    }

    /// <summary>The gradient of probabilities. [rows, E] to [rows, E]</summary>
    internal Tensor Gradient(Tensor probabilities) =>
        Masked((_slopes ?? throw new InvalidOperationException("the forward is not done")).to(probabilities.dtype).expand_as(probabilities));

    private Tensor Masked(Tensor rows)
    {
        if (_isText is null) return rows;
        _mask ??= tensor(_isText, [_isText.Length, 1], device: rows.device).DetachFromDisposeScope();
        return rows.mul(_mask);
    }

    public void Dispose()
    {
        foreach (var part in _choices.Append(_mask).Append(_probabilities).Append(_slopes)) part?.Dispose();
    }
}
