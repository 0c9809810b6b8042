using System.Text.Json.Nodes;

namespace Rho.Model.Architectures;

/// <summary>Qwen2 and 2.5 (Yang et al. 2024): Llama with biases on queries, keys and values, and a window on the later layers where that is on.</summary>
internal class Qwen2 : Llama
{
    internal override string ModelType => "qwen2";
    internal override string ClassName => "Qwen2ForCausalLM";

    internal override ModelConfig Read(ConfigFields fields) => Windowed(fields, fields.Common(keyValueHeads: 32) with { AttentionBias = true });

    protected static ModelConfig Windowed(ConfigFields fields, ModelConfig config)
    {
        fields.Demand("hidden_act", "silu");
        fields.Refuse(!config.AttentionBias && fields.Get("attention_bias", false), "attention_bias (also on the output projection)");
        fields.Get("attention_bias", false);
        var (on, window, full) = (fields.Get("use_sliding_window", false), fields.Optional<int>("sliding_window"), fields.Get("max_window_layers", 28));
        return fields.Windowed(config, on ? window : null, layer => layer >= full);
    }

    internal override void Write(ModelConfig config, JsonObject json)
    {
        json["attention_bias"] = config.AttentionBias;
        if (config.SlidingWindow is not { } window) return;
        (json["sliding_window"], json["use_sliding_window"], json["max_window_layers"]) = (window, true, 0);
    }
}
