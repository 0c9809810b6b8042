using System.Text.Json.Nodes;

namespace Rho.Model.Architectures;

/// <summary>
/// A kind of decoder. To add one: derive a class in a file of its own that says how its config.json is read and written beyond what all
/// have, and which blocks it is made of; name each block's parameters in the order of the flat buffer and write its formula in
/// <see cref="IOps{T}"/>; add it to <see cref="All"/>. Then a folder of test data with the formula in PyTorch, by
/// tests/Rho.Model.Tests/architectures/make.py: training, scoring and decoding are tested against it.
/// </summary>
internal abstract class Architecture
{
    internal static IReadOnlyList<Architecture> All { get; } = [new Llama(), new Mistral(), new Qwen2(), new Qwen3(), new Gemma2(), new Gemma3(), new Olmo2(), new SmolLm3(), new Phi3(), new Mixtral(), new Qwen3Moe()];

    /// <summary>Hugging Face's model_type.</summary>
    internal abstract string ModelType { get; }

    /// <summary>Hugging Face's class.</summary>
    internal abstract string ClassName { get; }

    /// <summary>The feed-forward's, as Hugging Face names it.</summary>
    internal virtual string HiddenActivation => "silu";

    /// <summary>Whether config.json always says which layers have the window.</summary>
    internal virtual bool HasLayerTypes => false;

    /// <summary>Of the model_type.</summary>
    internal static Architecture? Find(string modelType) => All.FirstOrDefault(one => one.ModelType == modelType);

    internal abstract ModelConfig Read(ConfigFields fields);

    /// <summary>Adds fields that not all architectures have.</summary>
    internal virtual void Write(ModelConfig config, JsonObject json)
    {
    }

    internal abstract IBlock Block(ModelConfig config, ParameterScope parameters, AttentionSpec attention);

    internal static AttentionSpec Attention(ModelConfig config, int layer) => new(
        config.Heads, config.KeyValueHeads, config.HeadSize, 1 / Math.Sqrt(config.QueryScalar ?? config.HeadSize), config.RotationOf(layer), config.WindowOf(layer), config.AttentionCap);

    internal virtual Norm FinalNorm(ModelConfig config, ParameterScope parameters) => parameters.Norm("norm", config.HiddenSize);

    /// <summary>What the embedding is multiplied by.</summary>
    internal virtual double EmbeddingScale(ModelConfig config) => 1;
}
