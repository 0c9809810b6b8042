using static TorchSharp.torch;
using static TorchSharp.torch.nn.functional;

namespace Rho.Model;

/// <summary>The parts of a block that are not matrix products, differentiable.</summary>
internal static class Kernels
{
    /// <summary>Raised when a change to the computation changes losses; part of a reference's fingerprint.</summary>
    internal const int Epoch = 2;

    /// <summary>x / sqrt(mean(x^2) + epsilon) * weight over the last dimension, the mean in float32.</summary>
    internal static Tensor RmsNorm(Tensor x, Tensor weight, double epsilon)
    {
        if (FitsRmsNorm(x, weight)) return Cpu.RmsNorm.apply(x, weight, epsilon);
        using var scope = NewDisposeScope();
        var wide = x.to(ScalarType.Float32);
        var scale = wide.mul(wide).mean([-1], keepdim: true).add(epsilon).rsqrt();
        return wide.mul(scale).to(x.dtype).mul(weight).MoveToOuterDisposeScope();
    }

    /// <summary>As above, into <paramref name="y"/>.</summary>
    internal static void RmsNorm(Tensor x, Tensor weight, double epsilon, Tensor y)
    {
        if (FitsRmsNorm(x, weight)) Cpu.RmsNorm.Norm(x, weight, y, epsilon);
        else y.copy_(RmsNorm(x, weight, epsilon));
    }

    /// <summary>rmsNorm(x) weight^T + bias. [rows, D], [O, D] to [rows, O]</summary>
    internal static Tensor RmsNormLinear(Tensor x, Tensor norm, double epsilon, Tensor weight, Tensor? bias = null) =>
        FitsRmsNorm(x, norm) ? Cpu.RmsNormLinear.apply(x, norm, epsilon, weight, bias!) : linear(RmsNorm(x, norm, epsilon), weight, bias);

    /// <summary>silu(gate) * up. [rows, 2 F] to [rows, F]</summary>
    internal static Tensor SwiGlu(Tensor gateUp)
    {
        if (FitsSwiGlu(gateUp)) return Cpu.SwiGluLinear.Activate(gateUp);
        using var scope = NewDisposeScope();
        var parts = gateUp.chunk(2, -1);
        return silu(parts[0]).mul(parts[1]).MoveToOuterDisposeScope();
    }

    /// <summary>silu(gate) * up, in place of the gate. Both [rows, F]</summary>
    internal static void SwiGlu_(Tensor gate, Tensor up)
    {
        if (Cpu.Work.Fits(gate)) Cpu.SwiGluLinear.Activate_(gate, up);
        else gate.mul_(gate.sigmoid()).mul_(up);
    }

    /// <summary>The gradient of <see cref="SwiGlu"/>'s input. [rows, 2 F], [rows, F] to [rows, 2 F]</summary>
    internal static Tensor SwiGluGradient(Tensor gateUp, Tensor gradient)
    {
        if (FitsSwiGlu(gateUp)) return Cpu.SwiGluLinear.Differentiate(gateUp, gradient);
        using var scope = NewDisposeScope();
        var parts = gateUp.chunk(2, -1);
        var s = parts[0].sigmoid();                                                             // d silu(g) = s (1 + g (1 - s))
        var gate = gradient.mul(parts[1]).mul_(s).mul_(s.neg().add_(1).mul_(parts[0]).add_(1));
        return cat([gate, gradient.mul(s).mul_(parts[0])], -1).MoveToOuterDisposeScope();
    }

    /// <summary>(silu(gate) * up) down^T. [rows, 2 F], [D, F] to [rows, D]</summary>
    internal static Tensor SwiGluLinear(Tensor gateUp, Tensor down) =>
        FitsSwiGlu(gateUp) ? Cpu.SwiGluLinear.apply(gateUp, down) : linear(SwiGlu(gateUp), down);

    /// <summary>Rotates queries and keys and attends. [B, T, N + 2 K, H] to [B, T, N, H]</summary>
    internal static Tensor Attention(ModelConfig config, Tensor qkv, AttentionContext context)
    {
        if (Cpu.CausalAttention.Fits(config, qkv)) return Cpu.CausalAttention.apply(qkv, config, context);
        using var scope = NewDisposeScope();
        var tables = context.Tables(qkv.device, qkv.dtype);
        var (heads, keyValueHeads) = (config.Heads, config.KeyValueHeads);
        var parts = qkv.split([heads, keyValueHeads, keyValueHeads], 2);
        var query = Rotate(parts[0], tables).transpose(1, 2);                                  // [B, N, T, H]
        var key = Repeat(Rotate(parts[1], tables).transpose(1, 2), heads / keyValueHeads);     // [B, N, T, H]
        var value = Repeat(parts[2].transpose(1, 2), heads / keyValueHeads);                    // [B, N, T, H]
        var mask = context.Mask(qkv.device);
        return scaled_dot_product_attention(query, key, value, mask, is_casual: mask is null).transpose(1, 2).contiguous().MoveToOuterDisposeScope();
    }

    private static bool FitsRmsNorm(Tensor x, Tensor weight) => Cpu.Work.Fits(x) && x.dtype == weight.dtype && weight.NumberOfElements % 16 == 0;

    private static bool FitsSwiGlu(Tensor gateUp) => Cpu.Work.Fits(gateUp) && gateUp.size(-1) % 32 == 0;

    internal static Tensor Repeat(Tensor x, int times) => times == 1 ? x : x.repeat_interleave(times, 1);

    /// <summary>Rotates each head's halves. [B, T, heads, H], tables [T, H / 2] both</summary>
    internal static Tensor Rotate(Tensor x, (Tensor Cos, Tensor Sin) tables)
    {
        var halves = x.chunk(2, -1);                                                            // [B, T, heads, H / 2]
        var (cos, sin) = (tables.Cos.unsqueeze(1), tables.Sin.unsqueeze(1));                  // [T, 1, H / 2]
        return cat([halves[0].mul(cos).sub(halves[1].mul(sin)), halves[1].mul(cos).add(halves[0].mul(sin))], -1);
    }
}
