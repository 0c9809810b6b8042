using System.Runtime.InteropServices;
using static TorchSharp.torch;
using static TorchSharp.torch.autograd;

namespace TorchSharp.Tests;

/// <summary>Autograd functions written in C#.</summary>
public sealed class FunctionTests
{
    [Fact]
    public void Apply_FunctionOfTensorsAndNumbers_HasItsGradients()
    {
        using var scope = NewDisposeScope();
        var x = randn(3, 4, float64, requires_grad: true);
        var y = randn(3, 4, float64, requires_grad: true);
        var output = ScaledProduct.apply(x, y, 2.5);
        Assert.True(output.requires_grad);
        Assert.True(output.allclose(x * y * 2.5));
        output.sum().backward();
        Assert.True(x.grad!.allclose(y * 2.5));
        Assert.True(y.grad!.allclose(x * 2.5));
    }

    [Fact]
    public void Apply_WithoutGradients_RecordsNothing()
    {
        using var scope = NewDisposeScope();
        Assert.False(ScaledProduct.apply(ones(2), ones(2), 1.0).requires_grad);
        using (no_grad()) Assert.False(ScaledProduct.apply(ones(2, requires_grad: true), ones(2), 1.0).requires_grad);
    }

    [Fact]
    public void Apply_FunctionOfSeveralOutputs_GetsZerosForUnusedOnes()
    {
        using var scope = NewDisposeScope();
        var x = randn(5, float64, requires_grad: true);
        var outputs = ExpAndSquare.apply(x);
        Assert.Equal(2, outputs.Count);
        outputs[1].sum().backward();
        Assert.True(x.grad!.allclose(2 * x));
        Assert.True(ExpAndSquare.SawZeros);
    }

    [Fact]
    public void Backward_ThatThrows_SurfacesTheSameException()
    {
        using var scope = NewDisposeScope();
        var x = ones(2, requires_grad: true);
        var output = Failing.apply(x).sum();
        var error = Assert.Throws<FormatException>(() => output.backward());
        Assert.Equal("no gradient today", error.Message);
        Assert.True(is_grad_enabled());
        (x * 2).sum().backward();
        Assert.NotNull(x.grad);
    }

    [Fact]
    public void Backward_OfWrongLength_SaysSo()
    {
        using var scope = NewDisposeScope();
        var output = WrongCount.apply(ones(2, requires_grad: true)).sum();
        var error = Assert.Throws<NotImplementedException>(() => output.backward());
        Assert.Contains("expected 1, got 2", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Forward_ThatThrows_LeavesGradientModeAndNothingBehind()
    {
        var before = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        using (NewDisposeScope())
        {
            Assert.Throws<InvalidCastException>(() => ScaledProduct.apply(ones(2, requires_grad: true), "no tensor", 1.0));
            Assert.True(is_grad_enabled());
        }

        Assert.Equal(before, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
    }

    [Fact]
    public void Backward_Twice_FailsAsSavedTensorsAreFreed()
    {
        using var scope = NewDisposeScope();
        var x = ones(2, requires_grad: true);
        var output = ScaledProduct.apply(x, x, 1.0).sum();
        output.backward(retain_graph: true);
        output.backward();
        var error = Assert.Throws<ExternalException>(() => output.backward());
        Assert.Contains("second time", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Backward_AfterSavedTensorChanged_Fails()
    {
        using var scope = NewDisposeScope();
        var x = ones(2, requires_grad: true);
        var y = ones(2);
        var output = ScaledProduct.apply(x, y, 1.0).sum();
        y.add_(1);
        var error = Assert.Throws<ExternalException>(() => output.backward());
        Assert.Contains("modified by an inplace operation", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void MarkDirty_InPlaceFunction_ReturnsTheInputItself()
    {
        using var scope = NewDisposeScope();
        var leaf = tensor(new[] { 1f, 2f }, requires_grad: true);
        var x = leaf * 1;
        var output = DoubleInPlace.apply(x);
        Assert.Equal([2f, 4f], x.data<float>().ToArray());
        output.sum().backward();
        Assert.Equal([2f, 2f], leaf.grad!.data<float>().ToArray());
    }

    [Fact]
    public void MarkNonDifferentiable_Output_RequiresNoGradient()
    {
        using var scope = NewDisposeScope();
        var x = tensor(new[] { 3f, 1f, 2f }, requires_grad: true);
        var outputs = SortWithIndices.apply(x);
        Assert.True(outputs[0].requires_grad);
        Assert.False(outputs[1].requires_grad);
        (outputs[0] * tensor(new[] { 1f, 10f, 100f })).sum().backward();
        Assert.Equal([100f, 1f, 10f], x.grad!.data<float>().ToArray());
    }

    [Fact]
    public void Functions_InAGraph_AreFreedWithIt()
    {
        var context = BuildAndDrop();
        for (var i = 0; i < 10 && IsAlive(context); i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }

        Assert.False(IsAlive(context));
    }

    // Of its own, so that no local of the test keeps the target.
    [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.NoInlining)]
    private static bool IsAlive(WeakReference<AutogradContext> context) => context.TryGetTarget(out _);

    [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.NoInlining)]
    private static WeakReference<AutogradContext> BuildAndDrop()
    {
        using var scope = NewDisposeScope();
        var x = ones(2, requires_grad: true);
        ScaledProduct.apply(x, x, 1.0).sum().backward();
        return new WeakReference<AutogradContext>(ScaledProduct.LastContext!);
    }

    private sealed class ScaledProduct : SingleTensorFunction<ScaledProduct>
    {
        [ThreadStatic] private static WeakReference<AutogradContext>? _lastContext;

        public static AutogradContext? LastContext => _lastContext is not null && _lastContext.TryGetTarget(out var context) ? context : null;

        public override string Name => nameof(ScaledProduct);

        public override Tensor forward(AutogradContext ctx, params object[] vars)
        {
            _lastContext = new WeakReference<AutogradContext>(ctx);
            var (x, y, scale) = ((Tensor)vars[0], (Tensor)vars[1], (double)vars[2]);
            ctx.save_for_backward([x, y]);
            ctx.save_data("scale", scale);
            Assert.False(is_grad_enabled());
            return x * y * scale;
        }

        public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output)
        {
            var saved = ctx.get_saved_variables();
            var scale = (double)ctx.get_data("scale");
            return [grad_output * saved[1] * scale, grad_output * saved[0] * scale, null!];
        }
    }

    private sealed class ExpAndSquare : MultiTensorFunction<ExpAndSquare>
    {
        [ThreadStatic] public static bool SawZeros;

        public override string Name => nameof(ExpAndSquare);

        public override List<Tensor> forward(AutogradContext ctx, params object[] vars)
        {
            var x = (Tensor)vars[0];
            var exp = x.exp();
            ctx.save_for_backward([x, exp]);
            return [exp, x.square()];
        }

        public override List<Tensor> backward(AutogradContext ctx, List<Tensor> grad_outputs)
        {
            var saved = ctx.get_saved_variables();
            SawZeros = !grad_outputs[0].any().ToBoolean();
            return [(grad_outputs[0] * saved[1]) + (grad_outputs[1] * 2 * saved[0])];
        }
    }

    private sealed class Failing : SingleTensorFunction<Failing>
    {
        public override string Name => nameof(Failing);

        public override Tensor forward(AutogradContext ctx, params object[] vars) => ((Tensor)vars[0]) * 1;

        public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output) => throw new FormatException("no gradient today");
    }

    private sealed class WrongCount : SingleTensorFunction<WrongCount>
    {
        public override string Name => nameof(WrongCount);

        public override Tensor forward(AutogradContext ctx, params object[] vars) => ((Tensor)vars[0]) * 1;

        public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output) => [grad_output, grad_output];
    }

    private sealed class DoubleInPlace : SingleTensorFunction<DoubleInPlace>
    {
        public override string Name => nameof(DoubleInPlace);

        public override Tensor forward(AutogradContext ctx, params object[] vars)
        {
            var x = (Tensor)vars[0];
            x.mul_(2);
            ctx.mark_dirty([x]);
            return x;
        }

        public override List<Tensor> backward(AutogradContext ctx, Tensor grad_output) => [grad_output * 2];
    }

    private sealed class SortWithIndices : MultiTensorFunction<SortWithIndices>
    {
        public override string Name => nameof(SortWithIndices);

        public override List<Tensor> forward(AutogradContext ctx, params object[] vars)
        {
            var (values, indices) = ((Tensor)vars[0]).sort();
            ctx.save_for_backward([indices]);
            ctx.mark_non_differentiable([indices]);
            return [values, indices];
        }

        public override List<Tensor> backward(AutogradContext ctx, List<Tensor> grad_outputs)
        {
            var indices = ctx.get_saved_variables()[0];
            return [zeros_like(grad_outputs[0]).scatter_(0, indices, grad_outputs[0])];
        }
    }
}
