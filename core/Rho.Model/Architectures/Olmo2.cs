using System.Text.Json.Nodes;

namespace Rho.Model.Architectures;

/// <summary>OLMo 2 (OLMo Team 2025): norms after attention and feed-forward instead of before, and of queries and keys over all heads together.</summary>
internal sealed class Olmo2 : Architecture
{
    internal override string ModelType => "olmo2";
    internal override string ClassName => "Olmo2ForCausalLM";

    internal override ModelConfig Read(ConfigFields fields)
    {
        fields.Demand("hidden_act", "silu");
        fields.Demand("attention_bias", false);
        return fields.Common(epsilon: 1e-5);
    }

    internal override void Write(ModelConfig config, JsonObject json) => json["attention_bias"] = false;

    internal override IBlock Block(ModelConfig config, ParameterScope parameters, AttentionSpec attention) => new OlmoBlock(config, parameters, attention);
}

/// <summary>x + norm(attention(x)), then x + norm(feedForward(x)).</summary>
// D hidden, N heads, K key-value heads, H head size, F intermediate.
internal sealed class OlmoBlock : IBlock
{
    private readonly AttentionSpec _attention;
    private readonly Norm _queryNorm, _keyNorm, _attentionNorm, _afterNorm;
    private readonly Linear _qkv, _output, _gateUp, _down;

    internal OlmoBlock(ModelConfig config, ParameterScope parameters, AttentionSpec attention)
    {
        long D = config.HiddenSize, N = config.Heads, K = config.KeyValueHeads, H = config.HeadSize, F = config.IntermediateSize;
        _attention = attention;
        _qkv = parameters.Linear(D, false, ("self_attn.q_proj", N * H), ("self_attn.k_proj", K * H), ("self_attn.v_proj", K * H));
        (_queryNorm, _keyNorm) = (parameters.Norm("self_attn.q_norm", N * H), parameters.Norm("self_attn.k_norm", K * H));
        _output = parameters.Linear(N * H, false, ("self_attn.o_proj", D));
        _attentionNorm = parameters.Norm("post_attention_layernorm", D);
        _gateUp = parameters.Linear(D, false, ("mlp.gate_proj", F), ("mlp.up_proj", F));
        _down = parameters.Linear(F, false, ("mlp.down_proj", D));
        _afterNorm = parameters.Norm("post_feedforward_layernorm", D);
    }

    public T Run<T>(IOps<T> ops, T x)
    {
        var qkv = ops.NormQueriesAndKeys(ops.Linear(x, _qkv), _queryNorm, _keyNorm, _attention); // [rows, (N + 2 K) * H]
        x = ops.Add(x, ops.Norm(ops.Linear(ops.Attend(qkv, _attention), _output), _attentionNorm)); // [rows, D]
        var inner = ops.Gate(ops.Linear(x, _gateUp), Activation.Silu);                          // [rows, F]
        return ops.Add(x, ops.Norm(ops.Linear(inner, _down), _afterNorm));
    }
}
