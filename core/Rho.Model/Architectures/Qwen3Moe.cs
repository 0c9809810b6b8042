using System.Text.Json.Nodes;

namespace Rho.Model.Architectures;

/// <summary>Qwen3 with experts (Yang et al. 2025): a feed-forward of many small ones, eight of 128 a token.</summary>
internal sealed class Qwen3Moe : Qwen2
{
    internal override string ModelType => "qwen3_moe";
    internal override string ClassName => "Qwen3MoeForCausalLM";
    internal override ExpertNames ExpertNames => new("mlp", "gate_proj", "up_proj", "down_proj");

    internal override ModelConfig Read(ConfigFields fields)
    {
        fields.Demand("decoder_sparse_step", 1);
        fields.Refuse(fields.List<int>("mlp_only_layers").Count > 0, "mlp_only_layers");
        return Windowed(fields, fields.Common(keyValueHeads: 4) with
        {
            QueryKeyNorm = true,
            Experts = fields.Get("num_experts", 128),
            ExpertsPerToken = fields.Get("num_experts_per_tok", 8),
            ExpertSize = fields.Get("moe_intermediate_size", 768),
            NormalizedExperts = fields.Get("norm_topk_prob", false),
        });
    }

    internal override void Write(ModelConfig config, JsonObject json)
    {
        base.Write(config, json);
        (json["num_experts"], json["num_experts_per_tok"], json["moe_intermediate_size"], json["norm_topk_prob"]) = (config.Experts, config.ExpertsPerToken, config.ExpertSize, config.NormalizedExperts);
    }
}
