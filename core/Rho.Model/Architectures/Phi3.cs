using System.Text.Json.Nodes;

namespace Rho.Model.Architectures;

/// <summary>
/// Phi-3 and Phi-4-mini (Abdin et al. 2024): Llama whose projections of one input are one parameter in the checkpoint, heads rotated in part, and longrope.
/// Longrope has two sets of frequencies: those of sequences up to original_max_position_embeddings, and those of longer ones. As in Hugging Face's
/// implementation a sequence has one set at all of its positions, by its length: in training and scoring that of the sequence with all documents
/// packed into it, in decoding the length so far. A text that grows beyond the original length while it is decoded is computed anew then, as keys
/// lie in the cache with their angles. (vLLM decides once, by the longest sequence that the server takes, which costs short ones quality.)
/// </summary>
internal sealed class Phi3 : Llama
{
    internal override string ModelType => "phi3";
    internal override string ClassName => "Phi3ForCausalLM";

    internal override ModelConfig Read(ConfigFields fields)
    {
        fields.Demand("hidden_act", "silu");
        fields.Demand("attention_bias", false);
        // Without effect in Hugging Face's implementation; the context is read with longrope.
        foreach (var name in new[] { "full_attn_mod", "interpolate_factor", "original_max_position_embeddings" }) fields.Node(name);
        return fields.Common(context: 4096, epsilon: 1e-5) with
        {
            SlidingWindow = fields.Optional<int>("sliding_window"),
            RotatedShare = fields.Get("partial_rotary_factor", 1.0),
        };
    }

    internal override void Write(ModelConfig config, JsonObject json)
    {
        json["attention_bias"] = false;
        json["sliding_window"] = config.SlidingWindow;
        json["partial_rotary_factor"] = config.RotatedShare;
    }

    internal override bool IsFused => true;
}
