using Rho.Formats;
using Rho.Model;
using static TorchSharp.torch;

namespace Rho.Training;

/// <summary>A moving average of the weights in training, which serves as the reference (self-reference, Rho-1 section 3.4, in one run).</summary>
internal sealed class MovingAverage : IDisposable
{
    private readonly TrainingModel _model;
    private readonly double _decay;

    public MovingAverage(TrainingModel model, double decay)
    {
        (_model, _decay) = (model, decay);
        using var guard = no_grad();
        Weights = model.Parameters.detach().clone().DetachFromDisposeScope();
    }

    /// <summary>[parameters], float32</summary>
    public Tensor Weights { get; }

    /// <summary>To be called after each step.</summary>
    public void Update()
    {
        using var guard = no_grad();
        Weights.lerp_(_model.Parameters, 1 - _decay);
    }

    /// <summary>What the averaged weights, which for this time stand in the model's place, say of batches.</summary>
    public TokenScores[] Score(IReadOnlyList<PreparedBatch> batches, ReferenceNeeds needs)
    {
        using var guard = no_grad();
        using var own = _model.Parameters.clone();
        _model.Parameters.copy_(Weights);
        _model.WeightsChanged();
        try
        {
            return [.. batches.Select(batch =>
            {
                var scores = TokenScores.Room(batch.Tokens.Tokens.Length, needs.Entropies, needs.TopK);
                _model.Evaluate(batch.Tokens, scores);
                return scores;
            })];
        }
        finally
        {
            _model.Parameters.copy_(own);
            _model.WeightsChanged();
        }
    }

    public void Dispose() => Weights.Dispose();
}
