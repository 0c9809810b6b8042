using System.Text.Json.Nodes;

namespace Rho.Model.Architectures;

/// <summary>Mistral (Jiang et al. 2023): Llama with a sliding window.</summary>
internal sealed class Mistral : Llama
{
    internal override string ModelType => "mistral";
    internal override string ClassName => "MistralForCausalLM";

    internal override ModelConfig Read(ConfigFields fields)
    {
        fields.Demand("hidden_act", "silu");
        fields.Demand("attention_bias", false);
        return fields.Windowed(fields.Common(keyValueHeads: 8), fields.Has("sliding_window") ? fields.Optional<int>("sliding_window") : 4096, _ => true);
    }

    internal override void Write(ModelConfig config, JsonObject json)
    {
        json["attention_bias"] = false;
        json["sliding_window"] = config.SlidingWindow;
    }
}
