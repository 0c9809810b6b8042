using System.Text.Json;
using System.Text.Json.Nodes;

namespace Rho.Model.Architectures;

/// <summary>The fields of a Hugging Face config.json. A field that nobody read and that may change the result is refused.</summary>
/// <param name="path">named by errors</param>
internal sealed class ConfigFields(JsonObject json, string path)
{
    private static readonly HashSet<string> s_withoutEffectOnLogits =
    [
        "architectures", "pad_token_id", "torch_dtype", "dtype", "transformers_version", "use_cache", "initializer_range", "attention_dropout", "pretraining_tp",
        "_name_or_path", "return_dict", "unk_token_id", "auto_map", "id2label", "label2id", "_attn_implementation", "attn_implementation", "_commit_hash",
        "max_sequence_length", "is_llama_config", "tokenizer_class", "torchscript", "output_attentions", "output_hidden_states", "use_return_dict", "problem_type",
        "finetuning_task", "num_labels", "task_specific_params", "embd_pdrop", "resid_pdrop", "cache_implementation",
        // How text is generated: requests and generation_config.json say that.
        "do_sample", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
        "num_beams", "num_beam_groups", "diversity_penalty", "early_stopping", "max_length", "min_length", "num_return_sequences", "remove_invalid_values", "return_dict_in_generate",
    ];

    private readonly HashSet<string> _read = [];

    internal bool Has(string name) => json.ContainsKey(name);

    internal JsonNode? Node(string name)
    {
        _read.Add(name);
        return json[name];
    }

    internal T Get<T>(string name, T fallback) => Node(name) is { } node ? Value<T>(name, node) : fallback;

    internal T Required<T>(string name) => Node(name) is { } node ? Value<T>(name, node) : throw new RhoException($"{path}: {name} is missing");

    internal T? Optional<T>(string name) where T : struct => Node(name) is { } node ? Value<T>(name, node) : null;

    internal ValueList<T> List<T>(string name) => Node(name) is JsonArray values ? new ValueList<T>([.. values.Select(value => Value<T>(name, value!))]) : default;

    internal void Refuse(bool condition, string what)
    {
        if (condition) throw new RhoException($"{path}: {what} is not supported");
    }

    /// <summary>Reads a field that has one supported value.</summary>
    internal void Demand<T>(string name, T only)
    {
        var value = Get(name, only);
        Refuse(!EqualityComparer<T>.Default.Equals(value, only), $"{name} {json[name]?.ToJsonString()}");
    }

    internal void RefuseUnread()
    {
        foreach (var (name, value) in json)
            Refuse(!_read.Contains(name) && !s_withoutEffectOnLogits.Contains(name) && value is not null && value.GetValueKind() != JsonValueKind.False, $"the field {name}, which may change the result,");
    }

    /// <summary>What all architectures have. Fields that are absent have the defaults of Hugging Face's configuration class of the type.</summary>
    internal ModelConfig Common(int? keyValueHeads = null, int? headSize = null, int context = 2048, double epsilon = 1e-6, double theta = 10_000, bool tied = false)
    {
        var (heads, hidden) = (Required<int>("num_attention_heads"), Required<int>("hidden_size"));
        context = Get("max_position_embeddings", context);
        var rope = Node("rope_parameters") as JsonObject;
        var scaling = Node("rope_scaling") as JsonObject;
        return new ModelConfig
        {
            ModelType = Required<string>("model_type"),
            VocabularySize = Required<int>("vocab_size"),
            HiddenSize = hidden,
            IntermediateSize = Required<int>("intermediate_size"),
            Layers = Required<int>("num_hidden_layers"),
            Heads = heads,
            KeyValueHeads = Get("num_key_value_heads", keyValueHeads ?? heads),
            HeadSize = Get("head_dim", headSize ?? (heads > 0 ? hidden / heads : 0)),
            ContextLength = context,
            NormEpsilon = Get("rms_norm_eps", epsilon),
            RopeTheta = rope?["rope_theta"]?.GetValue<double>() ?? Get("rope_theta", theta),
            RopeScaling = ParseScaling(rope ?? scaling, context),
            TiedEmbeddings = Get("tie_word_embeddings", tied),
            BosTokenId = Node("bos_token_id") is JsonValue ? Optional<int>("bos_token_id") : null,
            EosTokenId = Node("eos_token_id") switch { JsonArray { Count: > 0 } many => Value<int>("eos_token_id", many[0]!), JsonValue => Optional<int>("eos_token_id"), _ => null },
            OtherEosTokenIds = Node("eos_token_id") is JsonArray { Count: > 1 } several ? new ValueList<int>([.. several.Skip(1).Select(id => Value<int>("eos_token_id", id!))]) : default,
        };
    }

    /// <summary>With a sliding window on the layers that layer_types says, or else on those of a rule.</summary>
    internal ModelConfig Windowed(ModelConfig config, int? window, Func<int, bool> slides)
    {
        var kinds = List<string>("layer_types");
        foreach (var kind in kinds) Refuse(kind is not ("full_attention" or "sliding_attention"), $"layer_types {kind}");
        Refuse(kinds.Distinct().Count() > 1 && kinds.Count != config.Layers, $"layer_types of {kinds.Count} layers, where num_hidden_layers is {config.Layers},");
        bool[] sliding = [.. Enumerable.Range(0, config.Layers).Select(layer => kinds.Count == 0 ? slides(layer) : kinds[Math.Min(layer, kinds.Count - 1)] == "sliding_attention")];
        if (window is null || !sliding.Contains(true)) return config;
        return config with { SlidingWindow = window, SlidingLayers = sliding.Contains(false) ? new ValueList<bool>(sliding) : default };
    }

    private T Value<T>(string name, JsonNode node)
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

    private static readonly HashSet<string> s_scalingFields =
    [
        "rope_type", "type", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor", "rope_theta",
        "short_factor", "long_factor",
    ];

    private RopeScaling? ParseScaling(JsonObject? scaling, int context)
    {
        if (scaling is null) return null;
        var type = (scaling["rope_type"] ?? scaling["type"])?.GetValue<string>() ?? "default";
        if (type == "su") type = "longrope"; // its first name
        foreach (var (name, value) in scaling) Refuse(value is not null && !s_scalingFields.Contains(name), $"rope_scaling.{name}");
        if (type == "default") return null;
        Refuse(type is not ("linear" or "dynamic" or "llama3" or "yarn" or "longrope"), $"rope_scaling of type {type} (supported: linear, dynamic, llama3, yarn, longrope)");
        double Number(string name, double fallback) => scaling[name]?.GetValue<double>() ?? fallback;
        ValueList<double> Numbers(string name) => scaling[name] is JsonArray values ? new ValueList<double>([.. values.Select(value => value!.GetValue<double>())]) : default;
        // longrope has the original context beside rope_scaling, and the factor between the two contexts.
        var original = Optional<int>("original_max_position_embeddings") ?? scaling["original_max_position_embeddings"]?.GetValue<int>() ?? context;
        return new RopeScaling(type, type == "longrope" ? (double)context / original : Number("factor", 1), Number("low_freq_factor", 1), Number("high_freq_factor", 4),
            original, Number("beta_fast", 32), Number("beta_slow", 1), scaling["attention_factor"]?.GetValue<double>())
        { ShortFactors = Numbers("short_factor"), LongFactors = Numbers("long_factor") };
    }
}
