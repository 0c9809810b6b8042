using System.Text.Json.Nodes;

namespace Rho.Model.Architectures;

/// <summary>Gemma 3, text (Gemma Team 2025): Gemma 2 with normed queries and keys instead of caps, five layers with the window to one without, and a rotary base for each kind.</summary>
internal sealed class Gemma3 : Gemma2
{
    internal override string ModelType => "gemma3_text";
    internal override string ClassName => "Gemma3ForCausalLM";

    internal override ModelConfig Read(ConfigFields fields)
    {
        var config = Gemma(fields, fields.Common(keyValueHeads: 4, headSize: 256, context: 131_072, theta: 1e6, tied: true));
        fields.Demand("use_bidirectional_attention", false);
        var pattern = fields.Get("sliding_window_pattern", fields.Get("_sliding_window_pattern", 6));
        return fields.Windowed(config, fields.Has("sliding_window") ? fields.Optional<int>("sliding_window") : 4096, layer => (layer + 1) % pattern != 0) with
        {
            QueryKeyNorm = true,
            SlidingRopeTheta = fields.Get("rope_local_base_freq", 10_000.0),
            AttentionCap = fields.Optional<double>("attn_logit_softcapping"),
            LogitsCap = fields.Optional<double>("final_logit_softcapping"),
        };
    }

    internal override void Write(ModelConfig config, JsonObject json)
    {
        base.Write(config, json);
        json["rope_local_base_freq"] = config.SlidingRopeTheta;
    }
}
