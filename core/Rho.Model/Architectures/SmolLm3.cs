using System.Text.Json.Nodes;

namespace Rho.Model.Architectures;

/// <summary>SmolLM3 (Hugging Face 2025): Llama in which every fourth layer's queries and keys are not rotated.</summary>
internal sealed class SmolLm3 : Llama
{
    internal override string ModelType => "smollm3";
    internal override string ClassName => "SmolLM3ForCausalLM";
    internal override bool HasLayerTypes => true;

    internal override ModelConfig Read(ConfigFields fields)
    {
        fields.Demand("hidden_act", "silu");
        fields.Demand("attention_bias", false);
        var config = fields.Common(keyValueHeads: 4, context: 32_768, theta: 2e6, tied: true) with { MlpBias = fields.Get("mlp_bias", false) };
        fields.Node("max_window_layers");
        var (rotated, interval) = (fields.List<int>("no_rope_layers"), fields.Get("no_rope_layer_interval", 4)); // 1 where a layer is rotated
        fields.Refuse(rotated.Count != 0 && rotated.Count != config.Layers, $"no_rope_layers of {rotated.Count} layers, where num_hidden_layers is {config.Layers},");
        bool[] turned = [.. Enumerable.Range(0, config.Layers).Select(layer => rotated.Count > 0 ? rotated[layer] != 0 : (layer + 1) % interval != 0)];
        var (on, window) = (fields.Get("use_sliding_window", false), fields.Optional<int>("sliding_window"));
        return fields.Windowed(config, on ? window : null, layer => !turned[layer]) with { RotatedLayers = new ValueList<bool>(turned) };
    }

    internal override void Write(ModelConfig config, JsonObject json)
    {
        base.Write(config, json);
        json["no_rope_layers"] = new JsonArray([.. config.RotatedLayers.Select(rotated => JsonValue.Create(rotated ? 1 : 0))]);
        (json["use_sliding_window"], json["sliding_window"]) = (config.SlidingWindow is not null, config.SlidingWindow);
    }
}
