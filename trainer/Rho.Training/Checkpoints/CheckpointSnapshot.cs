using Rho.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Training;

/// <summary>A copy in host memory of the tensors that a checkpoint holds, taken between two steps, so that it can be written while training goes on.</summary>
internal sealed class CheckpointSnapshot : IDisposable
{
    private CheckpointSnapshot(CheckpointState state, LanguageModel model, IReadOnlyList<(string Name, Tensor Values)> tensors) =>
        (State, Model, Tensors) = (state, model, tensors);

    public CheckpointState State { get; }

    /// <summary>In the compute type.</summary>
    public LanguageModel Model { get; }

    /// <summary>Flat float32 tensors, [parameters].</summary>
    public IReadOnlyList<(string Name, Tensor Values)> Tensors { get; }

    public static CheckpointSnapshot Take(CheckpointState state, StepRunner runner, ScalarType dtype)
    {
        using var guard = no_grad();
        return new CheckpointSnapshot(state, runner.Model.Model.CopyTo(CPU, dtype), [.. Named(runner).Select(tensor => (tensor.Name, tensor.Values.to(CPU, copy: true).DetachFromDisposeScope()))]);
    }

    /// <summary>The run's own tensors, in the order of the file.</summary>
    internal static IEnumerable<(string Name, Tensor Values)> Named(StepRunner runner)
    {
        yield return ("master", runner.Model.Parameters);
        yield return ("exp_avg", runner.Optimizer.FirstMoment);
        yield return ("exp_avg_sq", runner.Optimizer.SecondMoment);
        if (runner.Average is { } average) yield return ("moving_average", average.Weights);
    }

    public void Dispose()
    {
        Model.Dispose();
        foreach (var (_, tensor) in Tensors) tensor.Dispose();
    }
}
