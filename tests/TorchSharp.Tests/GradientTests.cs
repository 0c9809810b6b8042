using static TorchSharp.torch;
using F = TorchSharp.torch.nn.functional;

namespace TorchSharp.Tests;

/// <summary>Gradients against central differences, in double precision.</summary>
public sealed class GradientTests
{
    private static readonly Dictionary<string, Func<Tensor, Tensor>> Functions = new(StringComparer.Ordinal)
    {
        ["exp"] = x => x.exp(),
        ["log of square"] = x => (x.square() + 1).log(),
        ["rsqrt"] = x => (x.square() + 1).rsqrt(),
        ["silu"] = x => F.silu(x),
        ["gelu"] = x => F.gelu(x),
        ["sigmoid, tanh"] = x => x.sigmoid() * x.tanh(),
        ["sin, cos"] = x => x.sin() + x.cos(),
        ["softmax"] = x => x.softmax(1) * arange(4),
        ["log_softmax"] = x => x.log_softmax(1).gather(1, tensor(new long[] { 0, 3, 1 }).unsqueeze(1)),
        ["logsumexp"] = x => x.logsumexp(1),
        ["matmul"] = x => x.matmul(x.t()),
        ["bmm"] = x => x.view(1, 3, 4).bmm(x.view(1, 4, 3)),
        ["linear"] = x => F.linear(x, x, x[TensorIndex.Ellipsis, 0]),
        ["einsum"] = x => einsum("ij,kj->ik", x, x),
        ["normalization"] = x => x * (x.square().mean([1], keepdim: true) + 1e-5).rsqrt(),
        ["cross_entropy"] = x => F.cross_entropy(x, tensor(new long[] { 1, -100, 3 })),
        ["attention"] = x => F.scaled_dot_product_attention(x.view(1, 3, 4), x.view(1, 3, 4), x.view(1, 3, 4), is_casual: true),
        ["index_select"] = x => x.index_select(0, tensor(new long[] { 2, 0, 2 })).square(),
        ["index_add"] = x => x.index_add(0, tensor(new long[] { 1, 1, 0 }), x, 2).square(),
        ["masked_fill"] = x => x.masked_fill(x > 0, 3).square(),
        ["where"] = x => where(x > 0, x.square(), x.exp()),
        ["cat, stack"] = x => cat([x, x * 2], 1).square().sum() + stack([x, x.exp()]).sum(),
        ["chunk, split"] = x => x.chunk(2, 1)[0] * x.split(2, 1)[1],
        ["index"] = x => x[1.., TensorIndex.Slice(step: 2)].square(),
        ["permute, reshape"] = x => x.permute(1, 0).reshape(2, 6).cumsum(1),
        ["expand, repeat_interleave"] = x => x.unsqueeze(1).expand(3, 2, 4) * x.repeat_interleave(2, 0).view(3, 2, 4),
        ["max"] = x => x.max(1).values,
        ["topk"] = x => x.topk(2).values,
        ["norm"] = x => linalg.vector_norm(x) + x.norm(3f),
        ["clamp"] = x => x.clamp((Scalar)(-0.5), (Scalar)0.5).square(),
        ["custom function"] = x => Swish.apply(x),
    };

    public static TheoryData<string> Names => [.. Functions.Keys];

    [Theory]
    [MemberData(nameof(Names))]
    public void Gradient_EqualsCentralDifference(string name)
    {
        using var scope = NewDisposeScope();
        using var generator = new Generator(3);
        var function = Functions[name];
        var x = randn([3L, 4L], float64, generator: generator).requires_grad_();
        var output = function(x);
        var weights = randn(output.shape, float64, generator: generator);
        (output * weights).sum().backward();
        var gradient = x.grad!.data<double>();
        using var mode = no_grad();
        var point = x.detach().clone();
        var values = point.data<double>();
        const double step = 1e-6;
        for (var i = 0L; i < 12; i++)
        {
            var value = values[i];
            values[i] = value + step;
            var above = (function(point) * weights).sum().item<double>();
            values[i] = value - step;
            var below = (function(point) * weights).sum().item<double>();
            values[i] = value;
            Assert.Equal((above - below) / (2 * step), gradient[i], 1e-5);
        }
    }

    private sealed class Swish : autograd.SingleTensorFunction<Swish>
    {
        public override string Name => nameof(Swish);

        public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
        {
            var x = (Tensor)vars[0];
            ctx.save_for_backward([x]);
            return x * x.sigmoid();
        }

        public override List<Tensor> backward(autograd.AutogradContext ctx, Tensor grad_output)
        {
            var x = ctx.get_saved_variables()[0];
            var gate = x.sigmoid();
            return [grad_output * gate * (1 + (x * (1 - gate)))];
        }
    }
}
