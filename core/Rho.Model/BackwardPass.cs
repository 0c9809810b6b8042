using System.Runtime.ExceptionServices;
using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>
/// Backward passes in which functions of our own may fail. libtorch calls these from native code, which no exception can cross: it would end the
/// process. So a failure is kept here and thrown once the pass is over. On the CPU a pass runs on the thread that asked for it.
/// </summary>
internal static class BackwardPass
{
    [ThreadStatic]
    private static ExceptionDispatchInfo? t_failure;

    /// <summary>Whether a function of the pass on this thread has failed: the rest of it computes nothing.</summary>
    internal static bool HasFailed => t_failure is not null;

    /// <summary>To be thrown by <see cref="Run"/>.</summary>
    internal static void Fail(Exception exception) => t_failure ??= ExceptionDispatchInfo.Capture(exception);

    /// <summary>Adds the gradients of <paramref name="output"/> times <paramref name="gradient"/> to the leaves; what the pass makes besides is freed at its end.</summary>
    /// <remarks>Throws what a function's backward threw; the leaves' gradients are then of no use.</remarks>
    internal static void Run(Tensor output, Tensor gradient)
    {
        using var scope = NewDisposeScope();
        ExceptionDispatchInfo? failure;
        try
        {
            autograd.backward(output, gradient);
        }
        finally
        {
            (failure, t_failure) = (t_failure, null);
        }

        failure?.Throw();
    }
}
