using Rho.Model.Cpu;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Model.Tests;

/// <summary>Functions with a gradient of their own inside libtorch's backward pass.</summary>
public sealed class BackwardPassTests
{
    /// <summary>Its own argument; its gradient is the given one times the number that was given, or what the function throws instead.</summary>
    private sealed class Scaled : CpuFunction<Scaled>
    {
        public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
        {
            ctx.save_data("gradient", vars[1]);
            return ((Tensor)vars[0]).clone();
        }

        protected override List<Tensor?> Gradients(autograd.AutogradContext ctx, Tensor gradient) => [gradient.mul(((Func<double>)ctx.get_data("gradient"))()), null];
    }

    private static Tensor NormedTwice(Tensor x, Tensor weight, Func<double> gradient) =>
        Kernels.RmsNorm(Scaled.apply(Kernels.RmsNorm(x, weight, 1e-5), gradient), weight, 1e-5);

    [Fact]
    public void Run_FunctionThrows_ThrowsItsExceptionAndTheNextPassIsRight()
    {
        using var scope = NewDisposeScope();
        using var guard = enable_grad();
        var weight = ones(32).requires_grad_();
        var x = arange(64, ScalarType.Float32).view(2, 32).requires_grad_();
        var gradient = linspace(0, 1, 64).view(2, 32);
        BackwardPass.Run(NormedTwice(x, weight, () => 1), gradient);
        var expected = x.grad!.data<float>().ToArray();
        Assert.Contains(expected, value => value != 0);
        x.grad = null;

        for (var i = 0; i < 3; i++)
        {
            var output = NormedTwice(x, weight, () => throw new TimeoutException($"in pass {i}"));
            Assert.Equal($"in pass {i}", Assert.Throws<TimeoutException>(() => BackwardPass.Run(output, gradient)).Message);
            Assert.Null(x.grad);
        }

        BackwardPass.Run(NormedTwice(x, weight, () => 1), gradient);
        Assert.Equal(expected, x.grad!.data<float>().ToArray());
    }

    [Fact]
    public void Run_FailsInLibTorch_ThrowsToo()
    {
        using var scope = NewDisposeScope();
        using var guard = enable_grad();
        var output = NormedTwice(ones(2, 32).requires_grad_(), ones(32), () => 1);
        Assert.Contains("shape", Assert.ThrowsAny<Exception>(() => BackwardPass.Run(output, ones(3, 32))).Message, StringComparison.OrdinalIgnoreCase);
    }

    /// <summary>Where the caller has no scope either, nothing waits for the finalizer.</summary>
    [Fact]
    public void Run_OutsideOfScopes_LeavesTheGradientAlone()
    {
        using var guard = enable_grad();
        using var weight = ones(32);
        using var x = ones(2, 32).requires_grad_();
        using var gradient = ones(2, 32);
        Tensor output;
        using (var scope = NewDisposeScope()) output = NormedTwice(x, weight, () => 1).DetachFromDisposeScope();
        using (output)
        {
            var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
            BackwardPass.Run(output, gradient);
            Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
        }
    }
}
