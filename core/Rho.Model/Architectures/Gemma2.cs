using System.Text.Json.Nodes;

namespace Rho.Model.Architectures;

/// <summary>
/// Gemma 2 (Gemma Team 2024): norms before and after attention and feed-forward, weights of norms stored as differences from one, inputs times
/// sqrt(hidden), caps on scores and logits, and the window on every other layer.
/// </summary>
internal class Gemma2 : Architecture
{
    internal override string ModelType => "gemma2";
    internal override string ClassName => "Gemma2ForCausalLM";
    internal override string HiddenActivation => "gelu_pytorch_tanh";
    internal override bool HasLayerTypes => true;

    internal override ModelConfig Read(ConfigFields fields)
    {
        var config = Gemma(fields, fields.Common(keyValueHeads: 4, headSize: 256, context: 8192, tied: true));
        return fields.Windowed(config, fields.Has("sliding_window") ? fields.Optional<int>("sliding_window") : 4096, layer => layer % 2 == 0) with
        {
            AttentionCap = fields.Has("attn_logit_softcapping") ? fields.Optional<double>("attn_logit_softcapping") : 50,
            LogitsCap = fields.Has("final_logit_softcapping") ? fields.Optional<double>("final_logit_softcapping") : 30,
        };
    }

    protected static ModelConfig Gemma(ConfigFields fields, ModelConfig config)
    {
        // hidden_act is a remnant in early files: Hugging Face's implementation goes by hidden_activation.
        fields.Node("hidden_act");
        fields.Node("sliding_window_size");
        fields.Demand("hidden_activation", "gelu_pytorch_tanh");
        fields.Demand("attention_bias", false);
        return config with { QueryScalar = fields.Get("query_pre_attn_scalar", 256.0) };
    }

    internal override void Write(ModelConfig config, JsonObject json)
    {
        json["hidden_activation"] = HiddenActivation;
        json["attention_bias"] = false;
        json["query_pre_attn_scalar"] = config.QueryScalar;
        json["sliding_window"] = config.SlidingWindow;
        (json["attn_logit_softcapping"], json["final_logit_softcapping"]) = (config.AttentionCap, config.LogitsCap);
    }

    internal override IBlock Block(ModelConfig config, ParameterScope parameters, AttentionSpec attention) => new GemmaBlock(config, parameters, attention);

    internal override Norm FinalNorm(ModelConfig config, ParameterScope parameters) => parameters.Norm("norm", config.HiddenSize, shift: 1);

    internal override double EmbeddingScale(ModelConfig config) => Math.Sqrt(config.HiddenSize);
}

/// <summary>x + norm(attention(norm(x))), then x + norm(feedForward(norm(x))).</summary>
// D hidden, N heads, K key-value heads, H head size, F intermediate.
internal sealed class GemmaBlock : IBlock
{
    private readonly AttentionSpec _attention;
    private readonly Norm _inputNorm, _attentionNorm, _beforeNorm, _afterNorm;
    private readonly Norm? _queryNorm, _keyNorm;
    private readonly Linear _qkv, _output, _gateUp, _down;

    internal GemmaBlock(ModelConfig config, ParameterScope parameters, AttentionSpec attention)
    {
        long D = config.HiddenSize, N = config.Heads, K = config.KeyValueHeads, H = config.HeadSize, F = config.IntermediateSize;
        _attention = attention;
        _inputNorm = parameters.Norm("input_layernorm", D, shift: 1);
        _qkv = parameters.Linear(D, false, ("self_attn.q_proj", N * H), ("self_attn.k_proj", K * H), ("self_attn.v_proj", K * H));
        if (config.QueryKeyNorm) (_queryNorm, _keyNorm) = (parameters.Norm("self_attn.q_norm", H, shift: 1), parameters.Norm("self_attn.k_norm", H, shift: 1));
        _output = parameters.Linear(N * H, false, ("self_attn.o_proj", D));
        _attentionNorm = parameters.Norm("post_attention_layernorm", D, shift: 1);
        _beforeNorm = parameters.Norm("pre_feedforward_layernorm", D, shift: 1);
        _gateUp = parameters.Linear(D, false, ("mlp.gate_proj", F), ("mlp.up_proj", F));
        _down = parameters.Linear(F, false, ("mlp.down_proj", D));
        _afterNorm = parameters.Norm("post_feedforward_layernorm", D, shift: 1);
    }

    public T Run<T>(IOps<T> ops, T x)
    {
        var qkv = ops.Linear(ops.Norm(x, _inputNorm), _qkv);                                    // [rows, (N + 2 K) * H]
        if (_queryNorm is not null && _keyNorm is not null) qkv = ops.NormQueriesAndKeys(qkv, _queryNorm, _keyNorm, _attention);
        x = ops.Add(x, ops.Norm(ops.Linear(ops.Attend(qkv, _attention), _output), _attentionNorm)); // [rows, D]
        var gateUp = ops.Linear(ops.Norm(x, _beforeNorm), _gateUp);                             // [rows, 2 F]
        return ops.Add(x, ops.Norm(ops.Linear(ops.Gate(gateUp, Activation.GeluTanh), _down), _afterNorm));
    }
}
