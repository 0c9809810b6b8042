using static TorchSharp.torch;
using static TorchSharp.torch.nn.functional;

namespace Rho.Model;

/// <summary>What a batch's attention sees: rotary tables, and a mask where causality alone does not say it.</summary>
/// <param name="Cos">[length, headSize / 2]</param>
/// <param name="Sin">[length, headSize / 2]</param>
/// <param name="Mask">True where a query sees a key; null for plain causality. [1 or sequences, 1, length, length]</param>
internal sealed record AttentionContext(Tensor Cos, Tensor Sin, Tensor? Mask) : IDisposable
{
    /// <param name="documents">Empty, or per token its document's number. [sequences, length]</param>
    internal static AttentionContext For(ModelConfig config, int sequences, int length, ReadOnlySpan<int> documents, Device device, ScalarType dtype)
    {
        using var scope = NewDisposeScope();
        var (cos, sin) = Rotary.Tables(config, length);
        long[] shape = [length, config.HeadSize / 2];
        Tensor? mask = null;
        if (!documents.IsEmpty)
        {
            var document = tensor(documents.ToArray(), [sequences, 1, length], device: device);
            mask = document.unsqueeze(-1).eq(document.unsqueeze(-2)).logical_and(Causal(config, length, device));  // [sequences, 1, length, length]
        }
        else if (config.SlidingWindow is { } window && window < length)
        {
            mask = Causal(config, length, device).view(1, 1, length, length);
        }

        return new AttentionContext(
            tensor(cos, shape, dtype, device).DetachFromDisposeScope(), tensor(sin, shape, dtype, device).DetachFromDisposeScope(), mask?.DetachFromDisposeScope());
    }

    /// <summary>Causality, within the sliding window where there is one. [length, length]</summary>
    private static Tensor Causal(ModelConfig config, int length, Device device)
    {
        var causal = ones([length, length], ScalarType.Bool, device).tril();
        return config.SlidingWindow is { } window && window < length ? causal.triu(1 - window) : causal;
    }

    public void Dispose()
    {
        Cos.Dispose();
        Sin.Dispose();
        Mask?.Dispose();
    }
}

/// <summary>The forward pass over whole sequences, for scoring and training. B sequences, T tokens, D hidden, N heads, K key-value heads, H head size, F intermediate.</summary>
internal static class Transformer
{
    /// <summary>The input of the first block. [B * T, D]</summary>
    internal static Tensor Embed(Tensor embedding, Tensor tokens) => embedding.index_select(0, tokens);

    /// <summary>One block: x + attention(norm(x)), then x + feedForward(norm(x)). [B * T, D] to [B * T, D]</summary>
    internal static Tensor Block(ModelConfig config, LayerWeights layer, Tensor x, int sequences, AttentionContext context)
    {
        using var scope = NewDisposeScope();
        var attended = Attention(config, layer, Kernels.RmsNorm(x, layer.InputNorm, config.NormEpsilon), sequences, context);
        var middle = x.add(linear(attended, layer.Output));                                     // [B * T, D]
        var gateUp = linear(Kernels.RmsNorm(middle, layer.PostNorm, config.NormEpsilon), layer.GateUp); // [B * T, 2 F]
        return middle.add(linear(Kernels.SwiGlu(gateUp), layer.Down)).MoveToOuterDisposeScope();
    }

    /// <summary>softmax(Q K^T / sqrt(H)) V before its output projection. [B * T, D] to [B * T, N * H]</summary>
    private static Tensor Attention(ModelConfig config, LayerWeights layer, Tensor x, int sequences, AttentionContext context)
    {
        long length = x.size(0) / sequences;
        var qkv = linear(x, layer.Qkv, layer.QkvBias).view(sequences, length, config.Heads + (2 * config.KeyValueHeads), config.HeadSize); // [B, T, N + 2 K, H]
        if (layer.QueryNorm is { } queryNorm && layer.KeyNorm is { } keyNorm)
        {
            var parts = qkv.split([config.Heads, config.KeyValueHeads, config.KeyValueHeads], 2);
            qkv = cat([Kernels.RmsNorm(parts[0], queryNorm, config.NormEpsilon), Kernels.RmsNorm(parts[1], keyNorm, config.NormEpsilon), parts[2]], 2);
        }

        return Kernels.Attention(config, qkv, context).view(-1, config.Heads * config.HeadSize);
    }
}
