using TorchSharp.Modules;
using static TorchSharp.torch;
using F = TorchSharp.torch.nn.functional;

namespace TorchSharp.Tests;

public sealed class OwnershipTests
{
    private static long Live => DisposeScopeManager.Statistics.ThreadTotalLiveCount;

    [Fact]
    public void Scope_DisposesWhatWasMadeInIt()
    {
        var before = Live;
        Tensor inside, moved, detached;
        using (var outer = NewDisposeScope())
        {
            using (var inner = NewDisposeScope())
            {
                Assert.Same(inner, CurrentDisposeScope);
                inside = ones(2);
                moved = ones(2).MoveToOuterDisposeScope();
                detached = ones(2).DetachFromDisposeScope();
                Assert.True(inner.Contains(inside));
                Assert.Equal(1, inner.DisposablesCount);
            }

            Assert.Same(outer, CurrentDisposeScope);
            Assert.True(inside.IsInvalid);
            Assert.False(moved.IsInvalid);
            Assert.Equal([moved], outer.DisposablesView);
        }

        Assert.True(moved.IsInvalid);
        Assert.False(detached.IsInvalid);
        Assert.Equal(before + 1, Live);
        detached.Dispose();
        detached.Dispose();
        Assert.Equal(before, Live);
    }

    [Fact]
    public void Scope_MovesAttachesAndKeeps()
    {
        using var outer = NewDisposeScope();
        using var inner = NewDisposeScope();
        var (a, b, c, d) = (ones(1), ones(1), ones(1), ones(1));
        Assert.Equal((a, b), inner.MoveToOuter(a, b));
        Assert.True(outer.Contains(a) && outer.Contains(b));
        inner.MoveToOther(outer, c);
        inner.MoveToOuter([d, d]);
        Assert.Equal((0, 4), (inner.DisposablesCount, outer.DisposablesCount));
        inner.Attach(a);
        Assert.Equal((1, 3), (inner.DisposablesCount, outer.DisposablesCount));
        Assert.Same(b, inner.Attach((IEnumerable<IDisposable>)[b])[0]);
        inner.DisposeEverythingBut(a);
        Assert.True(b.IsInvalid);
        Assert.False(a.IsInvalid);
        inner.Detach(a);
        Assert.Equal(0, inner.DisposablesCount);
        inner.Attach(a);
        a.MoveToOtherDisposeScope(c);
        Assert.True(outer.Contains(a));
        inner.DisposeEverything();
        inner.Dispose();
        Assert.Throws<ObjectDisposedException>(() => inner.DisposablesCount);
        Assert.Throws<ObjectDisposedException>(() => inner.Attach(c));
        Assert.Throws<InvalidOperationException>(() => outer.Attach(new MemoryStream()));
    }

    [Fact]
    public void Scope_ClosedOutOfOrder_LeavesTheInnerOneCurrent()
    {
        var outer = NewDisposeScope();
        var middle = NewDisposeScope();
        using var inner = NewDisposeScope();
        middle.Dispose();
        Assert.Same(inner, CurrentDisposeScope);
        inner.Dispose();
        Assert.Same(outer, CurrentDisposeScope);
        outer.Dispose();
    }

    [Fact]
    public void Statistics_CountWhatScopesDid()
    {
        DisposeScopeManager.Statistics.Reset();
        var outside = ones(1);
        using (var scope = NewDisposeScope())
        {
            _ = ones(1);
            scope.Attach(outside);
            ones(1).DetachFromDisposeScope().Dispose();
        }

        var statistics = DisposeScopeManager.Statistics;
        Assert.Equal(
            (1L, 2L, 1L, 2L, 1L, 1L, 0L),
            (statistics.CreatedOutsideScopeCount, statistics.CreatedInScopeCount, statistics.DisposedOutsideScopeCount, statistics.DisposedInScopeCount, statistics.AttachedToScopeCount, statistics.DetachedFromScopeCount, statistics.ThreadTotalLiveCount));
    }

    [Fact]
    public void DisposedTensor_ThrowsAndNeverCrashes()
    {
        var x = ones(2);
        var data = x.data<float>();
        x.Dispose();
        Assert.Throws<ObjectDisposedException>(() => x.shape);
        Assert.Throws<ObjectDisposedException>(() => x.add(1));
        Assert.Throws<ObjectDisposedException>(() => x.add_(1));
        Assert.Throws<ObjectDisposedException>(() => ones(2).add(x));
        Assert.Throws<ObjectDisposedException>(() => cat([x, x]));
        Assert.Throws<ObjectDisposedException>(() => x.bytes.Length);
        Assert.Throws<ObjectDisposedException>(() => x.backward());
        Assert.Throws<ObjectDisposedException>(() => data[0]);
        Assert.ThrowsAny<InvalidOperationException>(() => x.Handle);
        Assert.Equal("", x.ToString());
        using var scope = NewDisposeScope();
        Assert.Throws<ObjectDisposedException>(() => ones(2)[x]);
        using var generator = new Generator();
        generator.Dispose();
        Assert.Throws<ObjectDisposedException>(() => rand(2, generator: generator));
    }

    [Fact]
    public void Parameter_TakesTheTensorOver()
    {
        var before = Live;
        Parameter parameter;
        using (var scope = NewDisposeScope())
        {
            var data = ones(2);
            parameter = new Parameter(data);
            Assert.True(data.IsInvalid);
            Assert.True(scope.Contains(parameter));
            Assert.True(parameter.requires_grad && parameter.is_leaf);
            Assert.False(nn.Parameter(ones(1), requires_grad: false).requires_grad);
            Assert.True(ones(1).AsParameter().requires_grad);
        }

        Assert.True(parameter.IsInvalid);
        Assert.Equal(before, Live);
    }

    [Fact]
    public void ForgottenTensors_AreFinalized()
    {
        Forget(200);
        var left = Tensor.TotalCount;
        Forget(200);
        for (var i = 0; i < 10 && Tensor.TotalCount > left; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }

        Assert.InRange(Tensor.TotalCount, 0, left);
        Assert.InRange(Tensor.PeakCount, 200, long.MaxValue);
    }

    [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.NoInlining)]
    private static void Forget(int count)
    {
        for (var i = 0; i < count; i++) _ = ones(1);
    }

    [Fact]
    public void DecoupledHandle_BelongsToTheCaller()
    {
        var before = Live;
        using var scope = NewDisposeScope();
        var x = ones(2);
        var handle = x.DecoupleFromNativeHandle();
        Assert.True(x.IsInvalid);
        Assert.Equal(0, scope.DisposablesCount);
        using var again = Tensor.UnsafeCreateTensor(handle);
        Assert.Equal(2, again.numel());
        again.Dispose();
        Assert.Equal(before, Live);
    }

    [Fact]
    public void ClipGradNorm_ScalesAllGradientsTogether()
    {
        using var scope = NewDisposeScope();
        Parameter[] parameters = [new(zeros(2)), new(zeros(1)), new(zeros(3))];
        parameters[0].grad = tensor(new[] { 3f, 0f });
        parameters[1].grad = tensor(new[] { 4f });
        Assert.Equal(5.0, nn.utils.clip_grad_norm_(parameters, 10), 1e-6);
        Assert.Equal(3f, parameters[0].grad![0].item<float>());
        Assert.Equal(5.0, nn.utils.clip_grad_norm_(parameters, 1), 1e-6);
        Assert.Equal(0.6f, parameters[0].grad![0].item<float>(), 1e-5f);
        Assert.Equal(0.8f, parameters[1].grad![0].item<float>(), 1e-5f);
        nn.utils.clip_grad_value_(parameters, 0.7);
        Assert.Equal(0.7f, parameters[1].grad![0].item<float>(), 1e-6f);
        Assert.Equal(0.0, nn.utils.clip_grad_norm_([], 1));
    }

    /// <summary>A small network, trained for long: no tensor and no memory may stay behind a step.</summary>
    [Fact]
    public void Training_TenThousandSteps_LeavesNothingBehind()
    {
        using var scope = NewDisposeScope();
        using var generator = new Generator(1);
        Parameter[] weights = [Initialize([16, 8], generator), Initialize([16], generator), Initialize([4, 16], generator)];
        var inputs = randn([32L, 8L], generator: generator);
        var targets = randint(4, [32L], generator: generator);

        float Step()
        {
            using var step = NewDisposeScope();
            var hidden = F.silu(F.linear(inputs, weights[0], weights[1]));
            var logits = Doubled.apply(F.linear(hidden, weights[2]));
            var loss = F.cross_entropy(logits, targets);
            loss.backward();
            using (no_grad())
            {
                foreach (var weight in weights)
                {
                    var grad = weight.grad!;
                    weight.addcmul_(grad, grad.sign().abs(), -0.01);
                    grad.zero_();
                }
            }

            return loss.item<float>();
        }

        var first = Step();
        for (var i = 0; i < 500; i++) Step();
        var (live, memory) = (Live, ResidentBytes());
        var last = 0f;
        for (var i = 0; i < 10_000; i++) last = Step();
        Assert.True(last < first / 2, $"the loss went from {first} to {last}");
        Assert.Equal(live, Live);
        Assert.InRange(ResidentBytes() - memory, long.MinValue, 32L << 20);
    }

    private static Parameter Initialize(long[] shape, Generator generator) => new(randn(shape, generator: generator).mul_(0.3));

    private static long ResidentBytes()
    {
        GC.Collect();
        GC.WaitForPendingFinalizers();
        return long.Parse(File.ReadAllText("/proc/self/statm").Split(' ')[1], System.Globalization.CultureInfo.InvariantCulture) * Environment.SystemPageSize;
    }

    private sealed class Doubled : autograd.SingleTensorFunction<Doubled>
    {
        public override string Name => nameof(Doubled);

        public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
        {
            ctx.save_for_backward([(Tensor)vars[0]]);
            return (Tensor)vars[0] * 2;
        }

        public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
        {
            Assert.Single(ctx.get_saved_variables());
            return [grad_output * 2];
        }
    }
}
