using static TorchSharp.torch;

namespace Rho.Model.Cpu;

/// <summary>A function with a gradient of its own, which only <see cref="BackwardPass.Run"/> may ask for.</summary>
internal abstract class CpuFunction<TSelf> : autograd.SingleTensorFunction<TSelf> where TSelf : CpuFunction<TSelf>, new()
{
    public override string Name => typeof(TSelf).Name;

    /// <summary>The gradients of what forward was given, null for what has none.</summary>
    /// <param name="gradient">of the result, contiguous</param>
    protected abstract List<Tensor?> Gradients(autograd.AutogradContext ctx, Tensor gradient);

    /// <summary>Called from native code: throws nothing, and leaves no tensor but the results, which the pass's scope frees.</summary>
    public sealed override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
    {
        // TorchSharp drops nulls beyond the number of arguments, and to libtorch they are gradients that do not exist.
        List<Tensor> none = [null!, null!, null!, null!, null!, null!];
        if (BackwardPass.HasFailed) return none;
        try
        {
            using var scope = NewDisposeScope();
            using var own = grad_output;
            var gradients = Gradients(ctx, grad_output.contiguous());
            foreach (var gradient in gradients) gradient?.MoveToOuterDisposeScope();
            return gradients!;
        }
#pragma warning disable CA1031 // whatever it is, Run throws it
        catch (Exception exception)
#pragma warning restore CA1031
        {
            BackwardPass.Fail(exception);
            return none;
        }
    }
}
