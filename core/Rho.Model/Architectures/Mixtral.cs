using System.Text.Json.Nodes;

namespace Rho.Model.Architectures;

/// <summary>Mixtral (Jiang et al. 2024): Mistral with two of eight experts a token.</summary>
internal sealed class Mixtral : Llama
{
    internal override string ModelType => "mixtral";
    internal override string ClassName => "MixtralForCausalLM";
    internal override ExpertNames ExpertNames => new("block_sparse_moe", "w1", "w3", "w2");

    internal override ModelConfig Read(ConfigFields fields)
    {
        fields.Demand("hidden_act", "silu");
        fields.Demand("attention_bias", false);
        var config = fields.Windowed(fields.Common(keyValueHeads: 8, context: 131_072, epsilon: 1e-5, theta: 1e6), fields.Optional<int>("sliding_window"), _ => true);
        return config with { Experts = fields.Get("num_local_experts", 8), ExpertsPerToken = fields.Get("num_experts_per_tok", 2), ExpertSize = config.IntermediateSize, NormalizedExperts = true };
    }

    internal override void Write(ModelConfig config, JsonObject json)
    {
        json["sliding_window"] = config.SlidingWindow;
        (json["num_local_experts"], json["num_experts_per_tok"]) = (config.Experts, config.ExpertsPerToken);
    }
}
