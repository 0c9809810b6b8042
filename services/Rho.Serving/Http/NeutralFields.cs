using System.Text.Json;

namespace Rho.Serving.Http;

/// <summary>
/// A field that clients send by habit and that has no effect here, with the values for which that changes no answer. Any other value
/// would be taken for one that has an effect, and is refused.
/// </summary>
/// <param name="Kind">Any value of this kind changes nothing; null where only <paramref name="Values"/> do.</param>
/// <param name="Values">JSON texts.</param>
internal sealed record NeutralField(string Name, JsonValueKind? Kind, params string[] Values)
{
    private readonly JsonElement[] _values = [.. Values.Select(value => JsonElement.Parse(value))];

    /// <summary>For errors and for the documentation.</summary>
    public string Accepted => Kind switch
    {
        JsonValueKind.String => "a string",
        JsonValueKind.Object => "an object",
        _ => string.Join(" or ", Values),
    };

    public bool Accepts(JsonElement value) => value.ValueKind == Kind || Array.Exists(_values, known => JsonElement.DeepEquals(known, value));
}

/// <summary>The tables of such fields; null counts as absent everywhere.</summary>
internal static class NeutralFields
{
    /// <summary>Of completions, chat completions and responses.</summary>
    public static readonly IReadOnlyList<NeutralField> Shared =
    [
        Any("user", JsonValueKind.String),
        Any("metadata", JsonValueKind.Object),
        Any("safety_identifier", JsonValueKind.String),
        Any("prompt_cache_key", JsonValueKind.String),
        Any("prompt_cache_retention", JsonValueKind.String),
        Only("store", "false"),
        Only("service_tier", "\"auto\"", "\"default\""),
    ];

    /// <summary>Of completions and chat completions: what vLLM's and older clients add.</summary>
    public static readonly IReadOnlyList<NeutralField> Sampling =
    [
        Only("skip_special_tokens", "true"),
        Only("spaces_between_special_tokens", "true"),
        Only("include_stop_str_in_output", "false"),
        Only("use_beam_search", "false"),
        Only("length_penalty", "1"),
        Only("early_stopping", "false"),
        Only("bad_words", "[]"),
        Only("logits_processors", "[]"),
        Any("guided_decoding_backend", JsonValueKind.String),
    ];

    public static readonly IReadOnlyList<NeutralField> Completion = [Only("suffix", "\"\"")];

    public static readonly IReadOnlyList<NeutralField> Chat =
    [
        Only("functions", "[]"),
        Only("function_call", "\"none\"", "\"auto\""),
        Only("modalities", "[\"text\"]"),
        Only("reasoning_effort", "\"none\""),
        Only("include_reasoning", "true", "false"),
        Only("verbosity", "\"medium\""),
        Only("echo", "false"),
        Only("mm_processor_kwargs", "{}"),
    ];

    public static readonly IReadOnlyList<NeutralField> Response =
    [
        Only("background", "false"),
        Only("include", "[]"),
        Only("truncation", "\"disabled\""),
        Only("top_logprobs", "0"),
        Only("reasoning", "{}", "{\"effort\": \"none\"}", "{\"effort\": null, \"summary\": null}"),
    ];

    /// <summary>Of the items of a response's input, which clients send back as they got them.</summary>
    public static readonly IReadOnlyList<NeutralField> InputItem =
    [
        Any("id", JsonValueKind.String),
        Only("status", "\"completed\"", "\"incomplete\"", "\"in_progress\""),
        Only("phase", "\"final_answer\"", "\"commentary\""),
    ];

    public static readonly IReadOnlyList<NeutralField> TextOptions = [Only("verbosity", "\"medium\"")];

    public static readonly IReadOnlyList<NeutralField> StreamOptions = [Only("include_obfuscation", "true", "false")];

    public static readonly IReadOnlyList<NeutralField> Message =
    [
        Only("annotations", "[]"),
        Only("refusal", "\"\""),
        Only("type", "\"text\"", "\"message\""),
        Any("cache_control", JsonValueKind.Object),
    ];

    public static readonly IReadOnlyList<NeutralField> ContentPart =
    [
        Only("annotations", "[]"),
        Only("logprobs", "[]"),
        Any("cache_control", JsonValueKind.Object),
    ];

    public static readonly IReadOnlyList<NeutralField> StructuredOutputs =
    [
        Only("disable_any_whitespace", "false"),
        Only("disable_additional_properties", "false"),
    ];

    private static NeutralField Any(string name, JsonValueKind kind) => new(name, kind);

    private static NeutralField Only(string name, params string[] values) => new(name, null, values);
}
