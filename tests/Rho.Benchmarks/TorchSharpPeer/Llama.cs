using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Rho.Benchmarks.TorchSharpPeer;

/// <summary>What a TorchSharp user writes for a Llama-family model: modules and libtorch's own operations, nothing of Rho. Names are Hugging Face's.</summary>
internal sealed class Llama : nn.Module<Tensor, long, KeyValueCache?, Tensor>
{
    private readonly Embedding embed_tokens;
    private readonly ModuleList<Block> layers;
    private readonly RmsNorm norm;
    private readonly Linear lm_head;

    /// <param name="longest">tokens of a sequence at most</param>
    internal Llama(Sizes sizes, int longest) : base(nameof(Llama))
    {
        embed_tokens = nn.Embedding(sizes.Vocabulary, sizes.Hidden);
        layers = new ModuleList<Block>([.. Enumerable.Range(0, sizes.Layers).Select(_ => new Block(sizes))]);
        norm = new RmsNorm(sizes.Hidden);
        lm_head = nn.Linear(sizes.Hidden, sizes.Vocabulary, hasBias: false);
        RegisterComponents();
        using (no_grad())
        {
            foreach (var parameter in parameters().Where(parameter => parameter.dim() > 1)) nn.init.normal_(parameter, 0, 0.02);
        }

        var size = sizes.Hidden / sizes.Heads;
        using var scope = NewDisposeScope();
        var inverse = 1 / pow(10_000, arange(0, size, 2, float32) / size);
        var angles = outer(arange(longest, float32), inverse);
        angles = cat([angles, angles], -1);
        register_buffer("cosine", angles.cos().DetachFromDisposeScope(), persistent: false);
        register_buffer("sine", angles.sin().DetachFromDisposeScope(), persistent: false);
    }

    /// <summary>Logits: of every token, or with a cache, which then holds what was before <paramref name="start"/>, of the last one.</summary>
    public override Tensor forward(Tensor ids, long start, KeyValueCache? cache)
    {
        var x = embed_tokens.forward(ids);
        var cos = get_buffer("cosine")!.narrow(0, start, ids.shape[1]).to(x.dtype);
        var sin = get_buffer("sine")!.narrow(0, start, ids.shape[1]).to(x.dtype);
        for (var i = 0; i < layers.Count; i++) x = layers[i].forward(x, cos, sin, cache?.Layers[i]);
        if (cache is not null) x = x.narrow(1, -1, 1);
        return lm_head.forward(norm.forward(x));
    }
}

internal sealed class Block : nn.Module<Tensor, Tensor, Tensor, KeyValues?, Tensor>
{
    private readonly RmsNorm input_layernorm;
    private readonly Attention self_attn;
    private readonly RmsNorm post_attention_layernorm;
    private readonly SwiGlu mlp;

    internal Block(Sizes sizes) : base(nameof(Block))
    {
        input_layernorm = new RmsNorm(sizes.Hidden);
        self_attn = new Attention(sizes);
        post_attention_layernorm = new RmsNorm(sizes.Hidden);
        mlp = new SwiGlu(sizes);
        RegisterComponents();
    }

    public override Tensor forward(Tensor x, Tensor cos, Tensor sin, KeyValues? cache)
    {
        // Frees what the backward does not need, as Python does.
        using var scope = NewDisposeScope();
        x = x + self_attn.forward(input_layernorm.forward(x), cos, sin, cache);
        return (x + mlp.forward(post_attention_layernorm.forward(x))).MoveToOuterDisposeScope();
    }
}

internal sealed class Attention : nn.Module<Tensor, Tensor, Tensor, KeyValues?, Tensor>
{
    private readonly int _heads, _keyValueHeads, _size;
    private readonly Linear q_proj, k_proj, v_proj, o_proj;

    internal Attention(Sizes sizes) : base(nameof(Attention))
    {
        (_heads, _keyValueHeads, _size) = (sizes.Heads, sizes.KeyValueHeads, sizes.Hidden / sizes.Heads);
        q_proj = nn.Linear(sizes.Hidden, _heads * _size, hasBias: false);
        k_proj = nn.Linear(sizes.Hidden, _keyValueHeads * _size, hasBias: false);
        v_proj = nn.Linear(sizes.Hidden, _keyValueHeads * _size, hasBias: false);
        o_proj = nn.Linear(_heads * _size, sizes.Hidden, hasBias: false);
        RegisterComponents();
    }

    public override Tensor forward(Tensor x, Tensor cos, Tensor sin, KeyValues? cache)
    {
        var (b, t) = (x.shape[0], x.shape[1]);
        var q = Rotate(q_proj.forward(x).view(b, t, _heads, _size).transpose(1, 2), cos, sin);
        var k = Rotate(k_proj.forward(x).view(b, t, _keyValueHeads, _size).transpose(1, 2), cos, sin);
        var v = v_proj.forward(x).view(b, t, _keyValueHeads, _size).transpose(1, 2);
        if (cache is not null) (k, v) = cache.Append(k, v);
        // TorchSharp's attention does not know grouped heads.
        var groups = _heads / _keyValueHeads;
        (k, v) = (k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1));
        // A single query sees everything; among several, none is preceded by cached keys here.
        var y = nn.functional.scaled_dot_product_attention(q, k, v, is_casual: t > 1);
        return o_proj.forward(y.transpose(1, 2).reshape(b, t, -1));
    }

    private static Tensor Rotate(Tensor x, Tensor cos, Tensor sin)
    {
        var halves = x.chunk(2, -1);
        return (x * cos) + (cat([-halves[1], halves[0]], -1) * sin);
    }
}

internal sealed class SwiGlu : nn.Module<Tensor, Tensor>
{
    private readonly Linear gate_proj, up_proj, down_proj;

    internal SwiGlu(Sizes sizes) : base(nameof(SwiGlu))
    {
        gate_proj = nn.Linear(sizes.Hidden, sizes.Intermediate, hasBias: false);
        up_proj = nn.Linear(sizes.Hidden, sizes.Intermediate, hasBias: false);
        down_proj = nn.Linear(sizes.Intermediate, sizes.Hidden, hasBias: false);
        RegisterComponents();
    }

    public override Tensor forward(Tensor x) => down_proj.forward(nn.functional.silu(gate_proj.forward(x)) * up_proj.forward(x));
}

/// <summary>By tensor operations: TorchSharp has no RMSNorm.</summary>
internal sealed class RmsNorm : nn.Module<Tensor, Tensor>
{
    private const double Epsilon = 1e-5;

    private readonly Parameter weight;

    internal RmsNorm(long size) : base(nameof(RmsNorm))
    {
        weight = new Parameter(ones(size));
        RegisterComponents();
    }

    public override Tensor forward(Tensor x)
    {
        var wide = x.to(float32);
        return (wide * rsqrt(wide.pow(2).mean([-1], keepdim: true) + Epsilon)).to(x.dtype) * weight;
    }
}

/// <summary>Keys and values of all layers, which grow by torch.cat, as in most such programs.</summary>
internal sealed class KeyValueCache(int layers) : IDisposable
{
    internal IReadOnlyList<KeyValues> Layers { get; } = [.. Enumerable.Range(0, layers).Select(_ => new KeyValues())];

    public void Dispose()
    {
        foreach (var layer in Layers) layer.Dispose();
    }
}

/// <summary>Of one layer. Both [batch, key-value heads, tokens, head size]</summary>
internal sealed class KeyValues : IDisposable
{
    private Tensor? _keys, _values;

    internal (Tensor Keys, Tensor Values) Append(Tensor keys, Tensor values)
    {
        var joined = (Join(_keys, keys), Join(_values, values));
        Dispose();
        (_keys, _values) = joined;
        return joined;
    }

    private static Tensor Join(Tensor? before, Tensor added) => (before is null ? added.clone() : cat([before, added], 2)).DetachFromDisposeScope();

    public void Dispose()
    {
        _keys?.Dispose();
        _values?.Dispose();
    }
}
