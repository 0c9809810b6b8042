using System.Collections;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Rho.Model;

/// <summary>How rotary angles are stretched beyond the trained context (Hugging Face's rope_scaling).</summary>
/// <param name="Type">linear, dynamic, llama3 or yarn</param>
public sealed record RopeScaling(string Type, double Factor, double LowFrequencyFactor, double HighFrequencyFactor, int OriginalContextLength,
    double BetaFast, double BetaSlow, double? AttentionFactor);

/// <summary>Token ids, equal where all of them are.</summary>
public readonly struct TokenIds(params int[] ids) : IReadOnlyList<int>, IEquatable<TokenIds>
{
    private readonly int[]? _ids = ids;

    public int Count => _ids?.Length ?? 0;

    public int this[int index] => (_ids ?? [])[index];

    public IEnumerator<int> GetEnumerator() => ((IEnumerable<int>)(_ids ?? [])).GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();

    public bool Equals(TokenIds other) => (_ids ?? []).AsSpan().SequenceEqual(other._ids ?? []);

    public override bool Equals(object? obj) => obj is TokenIds other && Equals(other);

    public override int GetHashCode() => _ids is null ? 0 : _ids.Aggregate(0, HashCode.Combine);

    public static bool operator ==(TokenIds left, TokenIds right) => left.Equals(right);

    public static bool operator !=(TokenIds left, TokenIds right) => !left.Equals(right);

    public override string ToString() => $"[{string.Join(", ", _ids ?? [])}]";
}

/// <summary>The architecture of a Llama-family decoder, as in a Hugging Face config.json.</summary>
public sealed record ModelConfig
{
    /// <summary>llama, mistral, qwen2 or qwen3.</summary>
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
    public double NormEpsilon { get; init; } = 1e-5;
    public double RopeTheta { get; init; } = 10_000;
    public RopeScaling? RopeScaling { get; init; }
    public bool TiedEmbeddings { get; init; }
    /// <summary>Whether the query, key and value projections have a bias (Qwen2).</summary>
    public bool AttentionBias { get; init; }
    /// <summary>Whether queries and keys are normalised per head before the rotation (Qwen3).</summary>
    public bool QueryKeyNorm { get; init; }
    /// <summary>Tokens that a token sees, itself included; null for all before it (Mistral).</summary>
    public int? SlidingWindow { get; init; }
    public int? BosTokenId { get; init; }
    public int? EosTokenId { get; init; }
    /// <summary>What ends a text besides <see cref="EosTokenId"/>, such as the end of a turn in chat models.</summary>
    public TokenIds OtherEosTokenIds { get; init; }

    public int QueryKeyValueRows => (Heads + (2 * KeyValueHeads)) * HeadSize;

    private static readonly HashSet<string> s_withoutEffect =
    [
        "architectures", "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling", "tie_word_embeddings", "attention_bias", "mlp_bias", "hidden_act",
        "sliding_window", "use_sliding_window", "max_window_layers", "layer_types", "bos_token_id", "eos_token_id", "pad_token_id", "torch_dtype", "dtype",
        "transformers_version", "use_cache", "initializer_range", "attention_dropout", "pretraining_tp", "_name_or_path", "return_dict", "unk_token_id",
        "auto_map", "rope_parameters", "id2label", "label2id", "_attn_implementation", "attn_implementation", "_commit_hash", "max_sequence_length", "is_llama_config",
        "tokenizer_class", "torchscript", "output_attentions", "output_hidden_states", "use_return_dict", "problem_type", "finetuning_task", "num_labels", "task_specific_params",
        // How text is generated: requests and generation_config.json say that.
        "do_sample", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
        "num_beams", "num_beam_groups", "diversity_penalty", "early_stopping", "max_length", "min_length", "num_return_sequences", "remove_invalid_values", "return_dict_in_generate",
    ];

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
        T Value<T>(string name, JsonNode node)
        {
            try
            {
                return node.GetValue<T>();
            }
            catch (Exception error) when (error is InvalidOperationException or FormatException)
            {
                throw new RhoException($"{path}: {name} is {node.ToJsonString()}, which is no {(typeof(T) == typeof(string) ? "string" : typeof(T) == typeof(bool) ? "true or false" : typeof(T) == typeof(int) ? "integer" : "number")}", error);
            }
        }

        T Get<T>(string name, T? fallback = default, bool required = false) => json[name] is { } node ? Value<T>(name, node)
            : required ? throw new RhoException($"{path}: {name} is missing") : fallback!;
        T? Optional<T>(string name) where T : struct => json[name] is { } node ? Value<T>(name, node) : null;
        void Refuse(bool condition, string what)
        {
            if (condition) throw new RhoException($"{path}: {what} is not supported");
        }

        var type = Get<string>("model_type", required: true);
        Refuse(type is not ("llama" or "mistral" or "qwen2" or "qwen3"), $"model_type {type} (supported: llama, mistral, qwen2, qwen3)");
        foreach (var (name, value) in json)
            Refuse(!s_withoutEffect.Contains(name) && value is not null && !IsFalse(value), $"the field {name}, which may change the result,");
        Refuse(Get("hidden_act", "silu") is not "silu", $"hidden_act {json["hidden_act"]}");
        Refuse(Get("mlp_bias", false), "mlp_bias");
        Refuse(type != "qwen2" && Get("attention_bias", false), "attention_bias (also on the output projection)");

        var heads = Get<int>("num_attention_heads", required: true);
        var hidden = Get<int>("hidden_size", required: true);
        var context = Get("max_position_embeddings", 2048);
        var rope = json["rope_parameters"] as JsonObject;
        // Fields that are absent have the defaults of Hugging Face's configuration class of the type.
        int? window = type == "mistral" && !json.ContainsKey("sliding_window") ? 4096
            : type == "mistral" || Get("use_sliding_window", false) ? Optional<int>("sliding_window")
            : null;
        var (keyValueHeads, headSize) = (heads, heads > 0 ? hidden / heads : 0);
        if (!json.ContainsKey("num_key_value_heads")) keyValueHeads = type switch { "mistral" => 8, "qwen2" or "qwen3" => 32, _ => heads };
        if (type == "qwen3" && !json.ContainsKey("head_dim")) headSize = 128;
        var kinds = (json["layer_types"] as JsonArray)?.Select(node => node!.GetValue<string>()).Distinct().ToList();
        if (kinds is not null)
        {
            Refuse(kinds is not ["full_attention" or "sliding_attention"], $"layer_types {string.Join(", ", kinds)}");
            if (kinds[0] == "full_attention") window = null;
        }
        else if (window is not null && type != "mistral")
        {
            var full = Get("max_window_layers", 28);
            Refuse(full > 0 && full < Get<int>("num_hidden_layers", required: true), "a sliding window on part of the layers");
            if (full > 0) window = null;
        }

        var config = new ModelConfig
        {
            ModelType = type,
            VocabularySize = Get<int>("vocab_size", required: true),
            HiddenSize = hidden,
            IntermediateSize = Get<int>("intermediate_size", required: true),
            Layers = Get<int>("num_hidden_layers", required: true),
            Heads = heads,
            KeyValueHeads = Get("num_key_value_heads", keyValueHeads),
            HeadSize = Get("head_dim", headSize),
            ContextLength = context,
            NormEpsilon = Get("rms_norm_eps", 1e-6),
            RopeTheta = rope?["rope_theta"]?.GetValue<double>() ?? Get("rope_theta", 10_000.0),
            RopeScaling = ParseScaling(rope ?? json["rope_scaling"] as JsonObject, context, path),
            TiedEmbeddings = Get("tie_word_embeddings", false),
            AttentionBias = type == "qwen2",
            QueryKeyNorm = type == "qwen3",
            SlidingWindow = window,
            BosTokenId = json["bos_token_id"] is JsonValue ? Optional<int>("bos_token_id") : null,
            EosTokenId = json["eos_token_id"] switch { JsonArray { Count: > 0 } many => many[0]!.GetValue<int>(), JsonValue => Optional<int>("eos_token_id"), _ => null },
            OtherEosTokenIds = json["eos_token_id"] is JsonArray { Count: > 1 } several ? new TokenIds([.. several.Skip(1).Select(id => id!.GetValue<int>())]) : default,
        };
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
        if (HeadSize % 2 != 0) throw new RhoException($"{where}: head_dim is {HeadSize}, it must be even for the rotary embedding");
    }

    private static readonly HashSet<string> s_scalingFields =
        ["rope_type", "type", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor", "rope_theta"];

    private static bool IsFalse(JsonNode value) => value.GetValueKind() == JsonValueKind.False;

    private static RopeScaling? ParseScaling(JsonObject? json, int context, string path)
    {
        if (json is null) return null;
        var type = (json["rope_type"] ?? json["type"])?.GetValue<string>() ?? "default";
        foreach (var (name, value) in json)
            if (value is not null && !s_scalingFields.Contains(name)) throw new RhoException($"{path}: rope_scaling.{name} is not supported");
        if (type == "default") return null;
        if (type is not ("linear" or "dynamic" or "llama3" or "yarn")) throw new RhoException($"{path}: rope_scaling of type {type} is not supported (supported: linear, dynamic, llama3, yarn)");
        double Number(string name, double fallback) => json[name]?.GetValue<double>() ?? fallback;
        return new RopeScaling(type, Number("factor", 1), Number("low_freq_factor", 1), Number("high_freq_factor", 4),
            json["original_max_position_embeddings"]?.GetValue<int>() ?? context, Number("beta_fast", 32), Number("beta_slow", 1), json["attention_factor"]?.GetValue<double>());
    }

    /// <summary>config.json as Hugging Face reads it.</summary>
    public JsonObject ToJson(string dtype)
    {
        var json = new JsonObject
        {
            ["architectures"] = new JsonArray(ModelType switch { "mistral" => "MistralForCausalLM", "qwen2" => "Qwen2ForCausalLM", "qwen3" => "Qwen3ForCausalLM", _ => "LlamaForCausalLM" }),
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
            ["hidden_act"] = "silu",
            ["tie_word_embeddings"] = TiedEmbeddings,
            ["attention_bias"] = AttentionBias,
            ["torch_dtype"] = dtype,
        };
        if (ModelType == "llama") json["mlp_bias"] = false;
        if (SlidingWindow is { } window)
        {
            json["sliding_window"] = window;
            if (ModelType != "mistral")
            {
                json["use_sliding_window"] = true;
                json["max_window_layers"] = 0;
            }
        }
        else if (ModelType == "mistral")
        {
            json["sliding_window"] = null;
        }

        if (RopeScaling is { } scaling)
        {
            var rope = new JsonObject { ["rope_type"] = scaling.Type, ["factor"] = scaling.Factor };
            if (scaling.Type is "llama3" or "yarn") rope["original_max_position_embeddings"] = scaling.OriginalContextLength;
            if (scaling.Type == "llama3") (rope["low_freq_factor"], rope["high_freq_factor"]) = (scaling.LowFrequencyFactor, scaling.HighFrequencyFactor);
            if (scaling.Type == "yarn") (rope["beta_fast"], rope["beta_slow"]) = (scaling.BetaFast, scaling.BetaSlow);
            if (scaling.AttentionFactor is { } factor) rope["attention_factor"] = factor;
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
