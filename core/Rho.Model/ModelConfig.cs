using System.Text.Json;
using System.Text.Json.Nodes;
using Rho.Model.Architectures;

namespace Rho.Model;

/// <summary>The shape of a decoder, as in a Hugging Face config.json.</summary>
public sealed record ModelConfig
{
    /// <summary>Names the architecture: llama, mistral, qwen2, ...</summary>
    public string ModelType { get; init; } = "llama";
    public required int VocabularySize { get; init; }
    public required int HiddenSize { get; init; }
    public required int IntermediateSize { get; init; }
    public required int Layers { get; init; }
    public required int Heads { get; init; }
    public required int KeyValueHeads { get; init; }
    public required int HeadSize { get; init; }
    /// <summary>Longest sequence in tokens.</summary>
    public required int ContextLength { get; init; }
    /// <summary>Share of each head that is rotated, from its beginning (Phi).</summary>
    public double RotatedShare { get; init; } = 1;
    public double NormEpsilon { get; init; } = 1e-5;
    public double RopeTheta { get; init; } = 10_000;
    public RopeScaling? RopeScaling { get; init; }
    public bool TiedEmbeddings { get; init; }
    /// <summary>Whether the query, key and value projections have a bias (Qwen2).</summary>
    public bool AttentionBias { get; init; }
    /// <summary>Whether the feed-forward's projections have a bias.</summary>
    public bool MlpBias { get; init; }
    /// <summary>Whether queries and keys are normalised per head before the rotation (Qwen3).</summary>
    public bool QueryKeyNorm { get; init; }
    /// <summary>Tokens that a token sees, itself included; null for all before it (Mistral).</summary>
    public int? SlidingWindow { get; init; }
    /// <summary>Per layer whether it has the window; empty where all have.</summary>
    public ValueList<bool> SlidingLayers { get; init; }
    /// <summary>Per layer whether queries and keys are rotated; empty where all are (SmolLM3).</summary>
    public ValueList<bool> RotatedLayers { get; init; }
    /// <summary>Rotary base of the layers that have the window, where it is another (Gemma 3).</summary>
    public double? SlidingRopeTheta { get; init; }
    /// <summary>Scores are divided by its root; null for the head size (Gemma).</summary>
    public double? QueryScalar { get; init; }
    /// <summary>Attention's scores s become cap * tanh(s / cap) (Gemma 2).</summary>
    public double? AttentionCap { get; init; }
    /// <summary>Logits l become cap * tanh(l / cap) (Gemma 2).</summary>
    public double? LogitsCap { get; init; }
    public int? BosTokenId { get; init; }
    public int? EosTokenId { get; init; }
    /// <summary>What ends a text besides <see cref="EosTokenId"/>, such as the end of a turn in chat models.</summary>
    public ValueList<int> OtherEosTokenIds { get; init; }

    internal Architecture Architecture => Architecture.Find(ModelType) ?? throw new RhoException($"model_type {ModelType} is not supported (supported: {string.Join(", ", Architecture.All.Select(one => one.ModelType))})");

    internal int RotatedSize => (int)(HeadSize * RotatedShare);

    internal int? WindowOf(int layer) => SlidingLayers.Count == 0 || SlidingLayers[layer] ? SlidingWindow : null;

    internal Rotation? RotationOf(int layer) => RotatedLayers.Count > 0 && !RotatedLayers[layer] ? null
        // The long context, which scaling is for, is that of the layers without the window.
        : SlidingRopeTheta is { } theta && WindowOf(layer) is not null ? new Rotation(RotatedSize, theta, null, ContextLength)
        : new Rotation(RotatedSize, RopeTheta, RopeScaling, ContextLength);

    /// <summary>Reads config.json of a checkpoint folder.</summary>
    /// <exception cref="RhoException">The file is missing, broken, or asks for something that this model does not compute.</exception>
    public static ModelConfig Load(string directory)
    {
        var path = Path.Combine(directory, "config.json");
        if (!Directory.Exists(directory)) throw new NotFoundException($"no checkpoint folder at {directory}");
        if (!File.Exists(path)) throw new NotFoundException($"{directory} is no checkpoint: config.json is missing");
        try
        {
            return Parse(JsonNode.Parse(File.ReadAllText(path))!.AsObject(), path);
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException or FormatException or OverflowException)
        {
            throw new RhoException($"{path} is broken: {error.Message.Split('\n')[0]}", error);
        }
    }

    internal static ModelConfig Parse(JsonObject json, string path)
    {
        var fields = new ConfigFields(json, path);
        var type = fields.Required<string>("model_type");
        var architecture = Architecture.Find(type);
        fields.Refuse(architecture is null, $"model_type {type} (supported: {string.Join(", ", Architecture.All.Select(one => one.ModelType))})");
        var config = architecture!.Read(fields);
        fields.RefuseUnread();
        config.Validate(path);
        return config;
    }

    /// <exception cref="RhoException">A size is not positive, or sizes do not fit together; the message names the field.</exception>
    public void Validate(string where)
    {
        foreach (var (name, value) in new[]
        {
            ("vocab_size", VocabularySize), ("hidden_size", HiddenSize), ("intermediate_size", IntermediateSize), ("num_hidden_layers", Layers),
            ("num_attention_heads", Heads), ("num_key_value_heads", KeyValueHeads), ("head_dim", HeadSize), ("max_position_embeddings", ContextLength),
        })
            if (value <= 0) throw new RhoException($"{where}: {name} is {value}, it must be positive");
        if (Heads % KeyValueHeads != 0) throw new RhoException($"{where}: num_attention_heads ({Heads}) must be a multiple of num_key_value_heads ({KeyValueHeads})");
        if (RotatedSize <= 0 || RotatedSize % 2 != 0 || RotatedSize > HeadSize) throw new RhoException($"{where}: {RotatedSize} of head_dim ({HeadSize}) are rotated, an even number is needed");
        if (RopeScaling is { Type: "longrope" } scaling && (scaling.ShortFactors.Count != RotatedSize / 2 || scaling.LongFactors.Count != RotatedSize / 2))
            throw new RhoException($"{where}: rope_scaling of type longrope has {scaling.ShortFactors.Count} short and {scaling.LongFactors.Count} long factors, {RotatedSize / 2} of each are needed");
    }

    /// <summary>config.json as Hugging Face reads it.</summary>
    public JsonObject ToJson(string dtype)
    {
        var json = new JsonObject
        {
            ["architectures"] = new JsonArray(Architecture.ClassName),
            ["model_type"] = ModelType,
            ["vocab_size"] = VocabularySize,
            ["hidden_size"] = HiddenSize,
            ["intermediate_size"] = IntermediateSize,
            ["num_hidden_layers"] = Layers,
            ["num_attention_heads"] = Heads,
            ["num_key_value_heads"] = KeyValueHeads,
            ["head_dim"] = HeadSize,
            ["max_position_embeddings"] = ContextLength,
            ["rms_norm_eps"] = NormEpsilon,
            ["rope_theta"] = RopeTheta,
            ["hidden_act"] = Architecture.HiddenActivation,
            ["tie_word_embeddings"] = TiedEmbeddings,
            ["torch_dtype"] = dtype,
        };
        Architecture.Write(this, json);
        if (SlidingLayers.Count > 0 || Architecture.HasLayerTypes)
            json["layer_types"] = new JsonArray([.. Enumerable.Range(0, Layers).Select(layer => JsonValue.Create(WindowOf(layer) is null ? "full_attention" : "sliding_attention"))]);
        if (RopeScaling is { } scaling)
        {
            var rope = new JsonObject { ["rope_type"] = scaling.Type };
            if (scaling.Type != "longrope") rope["factor"] = scaling.Factor;
            if (scaling.Type is "llama3" or "yarn") rope["original_max_position_embeddings"] = scaling.OriginalContextLength;
            if (scaling.Type == "llama3") (rope["low_freq_factor"], rope["high_freq_factor"]) = (scaling.LowFrequencyFactor, scaling.HighFrequencyFactor);
            if (scaling.Type == "yarn") (rope["beta_fast"], rope["beta_slow"]) = (scaling.BetaFast, scaling.BetaSlow);
            if (scaling.AttentionFactor is { } factor) rope["attention_factor"] = factor;
            if (scaling.Type == "longrope")
            {
                json["original_max_position_embeddings"] = scaling.OriginalContextLength;
                rope["short_factor"] = new JsonArray([.. scaling.ShortFactors.Select(value => JsonValue.Create(value))]);
                rope["long_factor"] = new JsonArray([.. scaling.LongFactors.Select(value => JsonValue.Create(value))]);
            }

            json["rope_scaling"] = rope;
        }

        if (BosTokenId is { } bos) json["bos_token_id"] = bos;
        if (EosTokenJson() is { } eos) json["eos_token_id"] = eos;
        return json;
    }

    /// <summary>The end tokens as Hugging Face writes them: a number, or an array where there are several.</summary>
    internal JsonNode? EosTokenJson() => EosTokenId is not { } eos ? null
        : OtherEosTokenIds.Count == 0 ? JsonValue.Create(eos)
        : new JsonArray([eos, .. OtherEosTokenIds.Select(id => JsonValue.Create(id))]);
}
