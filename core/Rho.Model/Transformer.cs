using static TorchSharp.torch;
using static TorchSharp.torch.nn.functional;

namespace Rho.Model;

/// <summary>What a batch's attention sees: rotary tables, and the earliest position that each query sees.</summary>
/// <param name="Cos">[length, headSize / 2]</param>
/// <param name="Sin">[length, headSize / 2]</param>
/// <param name="FirstSeen">Null where every token sees all before it; else per token, [sequences, length]. It never falls within a sequence.</param>
internal sealed record AttentionContext(float[] Cos, float[] Sin, int[]? FirstSeen, int Length)
{
    /// <param name="documents">Empty, or per token its document's number; a document's tokens lie together. [sequences, length]</param>
    internal static AttentionContext For(ModelConfig config, int sequences, int length, ReadOnlySpan<int> documents)
    {
        var (cos, sin) = Rotary.Tables(config, length);
        var window = config.SlidingWindow is { } tokens && tokens < length ? tokens : length;
        if (documents.IsEmpty && window == length) return new AttentionContext(cos, sin, null, length);
        var first = new int[sequences * length];
        for (var i = 0; i < sequences; i++)
            FirstSeenOf(documents.IsEmpty ? [] : documents.Slice(i * length, length), window, first.AsSpan(i * length, length));
        return new AttentionContext(cos, sin, first, length);
    }

    /// <summary>The earliest position of its sequence that each token sees.</summary>
    /// <param name="documents">empty, or of one sequence. [length]</param>
    /// <param name="window">tokens that a token sees at most, itself included</param>
    /// <param name="first">[length], written</param>
    internal static void FirstSeenOf(ReadOnlySpan<int> documents, int window, Span<int> first)
    {
        var start = 0;
        for (var t = 0; t < first.Length; t++)
        {
            if (t > 0 && !documents.IsEmpty && documents[t] != documents[t - 1]) start = t;
            first[t] = Math.Max(start, t - window + 1);
        }
    }

    /// <summary>Tables as tensors. [length, headSize / 2]</summary>
    internal (Tensor Cos, Tensor Sin) Tables(Device device, ScalarType dtype) =>
        (tensor(Cos, [Length, Cos.Length / Length], dtype, device), tensor(Sin, [Length, Sin.Length / Length], dtype, device));

    /// <summary>True where a query sees a key; null where causality says it all. [sequences, 1, length, length]</summary>
    internal Tensor? Mask(Device device)
    {
        if (FirstSeen is null) return null;
        var key = arange(Length, ScalarType.Int32, device);
        var first = tensor(FirstSeen, [FirstSeen.Length / Length, 1, Length, 1], device: device);
        return key.ge(first).logical_and(key.le(key.unsqueeze(-1)));
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
        var attended = Attention(config, layer, x, sequences, context);
        var middle = x.add(linear(attended, layer.Output));                                     // [B * T, D]
        var gateUp = Kernels.RmsNormLinear(middle, layer.PostNorm, config.NormEpsilon, layer.GateUp); // [B * T, 2 F]
        return middle.add(Kernels.SwiGluLinear(gateUp, layer.Down)).MoveToOuterDisposeScope();
    }

    /// <summary>softmax(Q K^T / sqrt(H)) V of the normed x, before its output projection. [B * T, D] to [B * T, N * H]</summary>
    private static Tensor Attention(ModelConfig config, LayerWeights layer, Tensor x, int sequences, AttentionContext context) =>
        Attend(config, layer, Kernels.RmsNormLinear(x, layer.InputNorm, config.NormEpsilon, layer.Qkv, layer.QkvBias), sequences, context);

    /// <summary>softmax(Q K^T / sqrt(H)) V of projected queries, keys and values. [B * T, (N + 2 K) * H] to [B * T, N * H]</summary>
    internal static Tensor Attend(ModelConfig config, LayerWeights layer, Tensor projected, int sequences, AttentionContext context)
    {
        var qkv = projected.view(sequences, projected.size(0) / sequences, config.Heads + (2 * config.KeyValueHeads), config.HeadSize); // [B, T, N + 2 K, H]
        if (layer.QueryNorm is { } queryNorm && layer.KeyNorm is { } keyNorm)
        {
            var parts = qkv.split([config.Heads, config.KeyValueHeads, config.KeyValueHeads], 2);
            qkv = cat([Kernels.RmsNorm(parts[0], queryNorm, config.NormEpsilon), Kernels.RmsNorm(parts[1], keyNorm, config.NormEpsilon), parts[2]], 2);
        }

        return Kernels.Attention(config, qkv, context).view(-1, config.Heads * config.HeadSize);
    }
}
