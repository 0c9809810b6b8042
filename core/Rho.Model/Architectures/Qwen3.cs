namespace Rho.Model.Architectures;

/// <summary>Qwen3 (Yang et al. 2025): queries and keys are normed per head before the rotation.</summary>
internal sealed class Qwen3 : Qwen2
{
    internal override string ModelType => "qwen3";
    internal override string ClassName => "Qwen3ForCausalLM";

    internal override ModelConfig Read(ConfigFields fields) => Windowed(fields, fields.Common(keyValueHeads: 32, headSize: 128) with { QueryKeyNorm = true });
}
