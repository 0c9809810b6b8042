using System.Text.Json.Nodes;

namespace Rho.Model.Architectures;

/// <summary>Llama 1 to 3 (Touvron et al. 2023), TinyLlama, SmolLM2 and what else has their form.</summary>
internal class Llama : Architecture
{
    internal override string ModelType => "llama";
    internal override string ClassName => "LlamaForCausalLM";

    internal override ModelConfig Read(ConfigFields fields)
    {
        fields.Demand("hidden_act", "silu");
        fields.Refuse(fields.Get("attention_bias", false), "attention_bias (also on the output projection)");
        return fields.Common() with { MlpBias = fields.Get("mlp_bias", false) };
    }

    internal override void Write(ModelConfig config, JsonObject json)
    {
        json["attention_bias"] = false;
        json["mlp_bias"] = config.MlpBias;
    }

    /// <summary>Whether the projections of one input are one parameter in the checkpoint: qkv_proj and gate_up_proj.</summary>
    internal virtual bool IsFused => false;

    internal override IBlock Block(ModelConfig config, ParameterScope parameters, AttentionSpec attention) => new LlamaBlock(config, parameters, attention, IsFused);
}

/// <summary>x + attention(norm(x)), then x + feedForward(norm(x)).</summary>
// D hidden, N heads, K key-value heads, H head size, F intermediate.
internal sealed class LlamaBlock : IBlock
{
    private readonly AttentionSpec _attention;
    private readonly Norm _inputNorm, _postNorm;
    private readonly Norm? _queryNorm, _keyNorm;
    private readonly Linear _qkv, _output, _gateUp, _down;

    internal LlamaBlock(ModelConfig config, ParameterScope parameters, AttentionSpec attention, bool fused)
    {
        long D = config.HiddenSize, N = config.Heads, K = config.KeyValueHeads, H = config.HeadSize, F = config.IntermediateSize;
        _attention = attention;
        _inputNorm = parameters.Norm("input_layernorm", D);
        _qkv = fused ? parameters.Linear(D, config.AttentionBias, ("self_attn.qkv_proj", (N + (2 * K)) * H))
            : parameters.Linear(D, config.AttentionBias, ("self_attn.q_proj", N * H), ("self_attn.k_proj", K * H), ("self_attn.v_proj", K * H));
        if (config.QueryKeyNorm) (_queryNorm, _keyNorm) = (parameters.Norm("self_attn.q_norm", H), parameters.Norm("self_attn.k_norm", H));
        _output = parameters.Linear(N * H, false, ("self_attn.o_proj", D));
        _postNorm = parameters.Norm("post_attention_layernorm", D);
        _gateUp = fused ? parameters.Linear(D, config.MlpBias, ("mlp.gate_up_proj", 2 * F)) : parameters.Linear(D, config.MlpBias, ("mlp.gate_proj", F), ("mlp.up_proj", F));
        _down = parameters.Linear(F, config.MlpBias, ("mlp.down_proj", D));
    }

    public T Run<T>(IOps<T> ops, T x)
    {
        var qkv = ops.Linear(ops.Norm(x, _inputNorm), _qkv);                                    // [rows, (N + 2 K) * H]
        if (_queryNorm is not null && _keyNorm is not null) qkv = ops.NormQueriesAndKeys(qkv, _queryNorm, _keyNorm, _attention);
        x = ops.AddLinear(x, ops.Attend(qkv, _attention), _output);                             // [rows, D]
        var gateUp = ops.Linear(ops.Norm(x, _postNorm), _gateUp);                               // [rows, 2 F]
        return ops.AddLinear(x, ops.Gate(gateUp, Activation.Silu), _down);
    }
}
