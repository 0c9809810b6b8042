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

    /// <summary>Of the checkpoint's parameters, where the feed-forward is a mixture of experts.</summary>
    internal virtual ExpertNames ExpertNames => throw new InvalidOperationException($"{ModelType} has no experts");

    internal override IBlock Block(ModelConfig config, ParameterScope parameters, AttentionSpec attention) =>
        new LlamaBlock(config, parameters, attention, IsFused, config.Experts > 0 ? ExpertNames : null);
}

/// <param name="Module">holds the router, gate, and the experts</param>
internal sealed record ExpertNames(string Module, string Gate, string Up, string Down);

/// <summary>x + attention(norm(x)), then x + feedForward(norm(x)).</summary>
// D hidden, N heads, K key-value heads, H head size, F intermediate.
internal sealed class LlamaBlock : IBlock
{
    private readonly AttentionSpec _attention;
    private readonly Norm _inputNorm, _postNorm;
    private readonly Norm? _queryNorm, _keyNorm;
    private readonly Linear _qkv, _output;
    private readonly Linear? _gateUp, _down;

    internal LlamaBlock(ModelConfig config, ParameterScope parameters, AttentionSpec attention, bool fused, ExpertNames? experts)
    {
        long D = config.HiddenSize, N = config.Heads, K = config.KeyValueHeads, H = config.HeadSize, F = config.IntermediateSize;
        _attention = attention;
        _inputNorm = parameters.Norm("input_layernorm", D);
        _qkv = fused ? parameters.Linear(D, config.AttentionBias, ("self_attn.qkv_proj", (N + (2 * K)) * H))
            : parameters.Linear(D, config.AttentionBias, ("self_attn.q_proj", N * H), ("self_attn.k_proj", K * H), ("self_attn.v_proj", K * H));
        if (config.QueryKeyNorm) (_queryNorm, _keyNorm) = (parameters.Norm("self_attn.q_norm", H), parameters.Norm("self_attn.k_norm", H));
        _output = parameters.Linear(N * H, false, ("self_attn.o_proj", D));
        _postNorm = parameters.Norm("post_attention_layernorm", D);
        if (experts is not null)
        {
            F = config.ExpertSize;
            var router = parameters.Router(D, $"{experts.Module}.gate", config.Experts);
            var all = Enumerable.Range(0, config.Experts).Select(e => $"{experts.Module}.experts.{e}").Select(e => (
                parameters.Linear(D, false, ($"{e}.{experts.Gate}", F), ($"{e}.{experts.Up}", F)), parameters.Linear(F, false, ($"{e}.{experts.Down}", D))));
            Experts = new Experts(router, [.. all], config.ExpertsPerToken, config.NormalizedExperts);
            return;
        }

        _gateUp = fused ? parameters.Linear(D, config.MlpBias, ("mlp.gate_up_proj", 2 * F)) : parameters.Linear(D, config.MlpBias, ("mlp.gate_proj", F), ("mlp.up_proj", F));
        _down = parameters.Linear(F, config.MlpBias, ("mlp.down_proj", D));
    }

    public Experts? Experts { get; }

    public T Run<T>(IOps<T> ops, T x)
    {
        var qkv = ops.Linear(ops.Norm(x, _inputNorm), _qkv);                                    // [rows, (N + 2 K) * H]
        if (_queryNorm is not null && _keyNorm is not null) qkv = ops.NormQueriesAndKeys(qkv, _queryNorm, _keyNorm, _attention);
        x = ops.AddLinear(x, ops.Attend(qkv, _attention), _output);                             // [rows, D]
        if (Experts is not null) return ops.Add(x, ops.Experts(ops.Norm(x, _postNorm), Experts));
        var gateUp = ops.Linear(ops.Norm(x, _postNorm), _gateUp!);                              // [rows, 2 F]
        return ops.AddLinear(x, ops.Gate(gateUp, Activation.Silu), _down!);
    }
}
