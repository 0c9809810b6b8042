namespace Rho.Model;

/// <summary>One parameter in the flat buffer.</summary>
/// <param name="Offset">in elements</param>
/// <param name="Decay">whether weight decay applies (not to norms and biases)</param>
public sealed record ParameterSpan(string Name, long Offset, long[] Shape, bool Decay)
{
    public long Count { get; } = Shape.Aggregate(1L, (product, size) => product * size);
}

/// <summary>
/// Where each parameter lies in one flat buffer. Projections that are applied to the same input lie one after another, so that a single
/// product computes them: q, k and v; gate and up. Names and shapes are Hugging Face's.
/// </summary>
public sealed class ParameterLayout
{
    private readonly List<ParameterSpan> _spans = [];
    private readonly Dictionary<string, ParameterSpan> _byName = [];

    public ParameterLayout(ModelConfig config)
    {
        long hidden = config.HiddenSize, head = config.HeadSize;
        Add("model.embed_tokens.weight", true, config.VocabularySize, hidden);
        for (var i = 0; i < config.Layers; i++)
        {
            var layer = $"model.layers.{i}";
            Add($"{layer}.input_layernorm.weight", false, hidden);
            Add($"{layer}.self_attn.q_proj.weight", true, config.Heads * head, hidden);
            Add($"{layer}.self_attn.k_proj.weight", true, config.KeyValueHeads * head, hidden);
            Add($"{layer}.self_attn.v_proj.weight", true, config.KeyValueHeads * head, hidden);
            if (config.AttentionBias)
            {
                Add($"{layer}.self_attn.q_proj.bias", false, config.Heads * head);
                Add($"{layer}.self_attn.k_proj.bias", false, config.KeyValueHeads * head);
                Add($"{layer}.self_attn.v_proj.bias", false, config.KeyValueHeads * head);
            }

            if (config.QueryKeyNorm)
            {
                Add($"{layer}.self_attn.q_norm.weight", false, head);
                Add($"{layer}.self_attn.k_norm.weight", false, head);
            }

            Add($"{layer}.self_attn.o_proj.weight", true, hidden, config.Heads * head);
            Add($"{layer}.post_attention_layernorm.weight", false, hidden);
            Add($"{layer}.mlp.gate_proj.weight", true, config.IntermediateSize, hidden);
            Add($"{layer}.mlp.up_proj.weight", true, config.IntermediateSize, hidden);
            Add($"{layer}.mlp.down_proj.weight", true, hidden, config.IntermediateSize);
        }

        Add("model.norm.weight", false, hidden);
        if (!config.TiedEmbeddings) Add("lm_head.weight", true, config.VocabularySize, hidden);
    }

    public IReadOnlyList<ParameterSpan> Spans => _spans;

    /// <summary>Parameters in all.</summary>
    public long Count { get; private set; }

    public ParameterSpan this[string name] => _byName[name];

    public bool Contains(string name) => _byName.ContainsKey(name);

    private void Add(string name, bool decay, params long[] shape)
    {
        var span = new ParameterSpan(name, Count, shape, decay);
        _spans.Add(span);
        _byName.Add(name, span);
        Count += span.Count;
    }
}
