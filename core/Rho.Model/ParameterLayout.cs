using Rho.Model.Architectures;

namespace Rho.Model;

/// <summary>One parameter in the flat buffer.</summary>
/// <param name="Offset">in elements</param>
/// <param name="Decay">whether weight decay applies (not to norms and biases)</param>
/// <param name="Initial">what a new model's norms and biases begin with; other parameters are drawn</param>
public sealed record ParameterSpan(string Name, long Offset, long[] Shape, bool Decay, float Initial = 0)
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
    private readonly List<Weight> _weights = [];
    private readonly Dictionary<string, ParameterSpan> _byName = [];

    public IReadOnlyList<ParameterSpan> Spans => _spans;

    /// <summary>The parameters as the model computes with them.</summary>
    internal IReadOnlyList<Weight> Weights => _weights;

    /// <summary>Parameters in all.</summary>
    public long Count { get; private set; }

    public ParameterSpan this[string name] => _byName[name];

    public bool Contains(string name) => _byName.ContainsKey(name);

    /// <summary>Adds parameters that are one weight together.</summary>
    /// <param name="columns">null for vectors</param>
    internal Weight Add(bool decay, float initial, long? columns, params (string Name, long Rows)[] parts) => Add(decay, initial, columns, false, parts);

    internal Weight Add(bool decay, float initial, long? columns, bool exact, (string Name, long Rows)[] parts)
    {
        var (start, rows) = (Count, 0L);
        foreach (var (name, count) in parts)
        {
            var span = new ParameterSpan(name, Count, columns is { } width ? [count, width] : [count], decay, initial);
            _spans.Add(span);
            _byName.Add(name, span);
            Count += span.Count;
            rows += count;
        }

        _weights.Add(new Weight(_weights.Count, start, columns is { } all ? [rows, all] : [rows], exact));
        return _weights[^1];
    }
}

/// <summary>Adds parameters whose names begin alike.</summary>
internal readonly record struct ParameterScope(ParameterLayout Layout, string Prefix, double NormEpsilon)
{
    /// <param name="parts">projections of one input, computed together</param>
    internal Linear Linear(long inputs, bool bias, params (string Name, long Outputs)[] parts)
    {
        var prefix = Prefix;
        return new Linear(
            Layout.Add(true, 0, inputs, [.. parts.Select(part => ($"{prefix}.{part.Name}.weight", part.Outputs))]),
            bias ? Layout.Add(false, 0, null, [.. parts.Select(part => ($"{prefix}.{part.Name}.bias", part.Outputs))]) : null);
    }

    internal Linear Router(long inputs, string name, long experts) => new(Layout.Add(true, 0, inputs, exact: true, [($"{Prefix}.{name}.weight", experts)]));

    internal Norm Norm(string name, long width, int shift = 0) => new(Layout.Add(false, 1 - shift, null, ($"{Prefix}.{name}.weight", width)), NormEpsilon, shift);
}

/// <summary>What a model is made of, without numbers: embedding, blocks, head and where their parameters lie.</summary>
public sealed class Network
{
    /// <exception cref="RhoException">The config's model_type is unknown.</exception>
    public Network(ModelConfig config)
    {
        var architecture = config.Architecture;
        Layout = new ParameterLayout();
        Embedding = Layout.Add(true, 0, config.HiddenSize, ("model.embed_tokens.weight", config.VocabularySize));
        Attention = [.. Enumerable.Range(0, config.Layers).Select(layer => Architecture.Attention(config, layer))];
        var (blocks, starts) = (new List<IBlock>(), new List<long>());
        for (var i = 0; i < config.Layers; i++)
        {
            starts.Add(Layout.Count);
            blocks.Add(architecture.Block(config, new ParameterScope(Layout, $"model.layers.{i}", config.NormEpsilon), Attention[i]));
        }

        (Blocks, Starts) = (blocks, starts);
        FinalNorm = architecture.FinalNorm(config, new ParameterScope(Layout, "model", config.NormEpsilon));
        Head = config.TiedEmbeddings ? Embedding : Layout.Add(true, 0, config.HiddenSize, ("lm_head.weight", config.VocabularySize));
        ActiveParameters = Layout.Count - Blocks.Select(block => block.Experts).OfType<Experts>().Sum(experts => experts.All.Skip(experts.PerToken).Sum(one => one.GateUp.Matrix.Count + one.Down.Matrix.Count));
        (EmbeddingScale, LogitsCap) = (architecture.EmbeddingScale(config), config.LogitsCap);
    }

    public ParameterLayout Layout { get; }

    /// <summary>Parameters without those of the experts that a token does not take; all where there are none.</summary>
    public long ActiveParameters { get; }
    internal Weight Embedding { get; }                   // [vocab, hidden]
    internal IReadOnlyList<IBlock> Blocks { get; }

    /// <summary>Where each block's parameters begin; those of later blocks and of the head lie behind them.</summary>
    internal IReadOnlyList<long> Starts { get; }

    /// <summary>Each layer's.</summary>
    internal IReadOnlyList<AttentionSpec> Attention { get; }
    internal Norm FinalNorm { get; }
    internal Weight Head { get; }                        // [vocab, hidden]; the embedding where tied
    internal double EmbeddingScale { get; }
    internal double? LogitsCap { get; }
}
