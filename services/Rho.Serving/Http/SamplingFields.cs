using System.Globalization;
using System.Text.Json;
using Rho.Serving.Constraints;
using Rho.Serving.Engine;
using Rho.Serving.Models;

namespace Rho.Serving.Http;

/// <summary>The sampling fields that completions and chat completions share, OpenAI's and those that vLLM's users know.</summary>
internal static class SamplingFields
{
    /// <summary>Takes the fields; max_tokens and log-probabilities differ between the two and are given.</summary>
    public static SamplingSettings Read(JsonFields fields, int? maxTokens, int? logProbabilities, ServedModel model)
    {
        var choices = fields.Whole("n") ?? 1;
        if (fields.Whole("best_of") is { } bestOf && bestOf != choices)
            throw new InvalidFieldException("best_of", $"choosing among more continuations than are returned is not supported; leave it out, or give n's value ({choices})");
        var defaults = new SamplingSettings();
        return new SamplingSettings
        {
            MaxTokens = maxTokens,
            MinTokens = fields.Whole("min_tokens") ?? 0,
            Temperature = fields.Number("temperature") ?? defaults.Temperature,
            TopP = fields.Number("top_p") ?? defaults.TopP,
            TopK = TopK(fields),
            MinP = fields.Number("min_p") ?? defaults.MinP,
            Seed = Seed(fields),
            PresencePenalty = fields.Number("presence_penalty") ?? 0,
            FrequencyPenalty = fields.Number("frequency_penalty") ?? 0,
            RepetitionPenalty = fields.Number("repetition_penalty") ?? 1,
            LogitBias = LogitBias(fields),
            Stop = Stop(fields),
            StopTokens = fields.Many("stop_token_ids", JsonFields.Whole) ?? [],
            IgnoreEos = fields.Flag("ignore_eos") ?? false,
            Choices = choices,
            LogProbabilities = logProbabilities,
            Constraint = Constraint(fields, model),
        };
    }

    /// <summary>response_format as OpenAI has it, or structured_outputs or guided_* as vLLM has them; one at most.</summary>
    private static TextConstraint? Constraint(JsonFields fields, ServedModel model)
    {
        var constraints = new List<TextConstraint?> { ResponseFormat(fields, model) };
        constraints.AddRange(Guided(fields, model, "guided_", ""));
        if (fields.Object("structured_outputs") is { } structured)
        {
            constraints.AddRange(Guided(structured, model, "", "structured_outputs."));
            if (structured.Flag("json_object") ?? false) constraints.Add(model.Constraints.JsonObject("structured_outputs.json_object"));
            structured.Refuse("grammar", "grammars are not supported: use json, regex or choice");
            structured.Skip(NeutralFields.StructuredOutputs);
            structured.End();
        }

        var given = constraints.OfType<TextConstraint>().ToList();
        return given.Count <= 1 ? given.FirstOrDefault() : throw new InvalidFieldException("response_format", "more than one constraint is given; one is the most");
    }

    private static IEnumerable<TextConstraint> Guided(JsonFields fields, ServedModel model, string prefix, string path)
    {
        if (fields.Take(prefix + "json") is { } schema)
            yield return model.Constraints.JsonSchema(schema.ValueKind == JsonValueKind.String ? schema.GetString()! : schema.GetRawText(), $"{path}{prefix}json");
        if (fields.Text(prefix + "regex") is { } regex) yield return model.Constraints.Regex(regex, $"{path}{prefix}regex");
        if (fields.Many(prefix + "choice", JsonFields.Text) is not { } choices) yield break;
        if (choices.Count == 0) throw new InvalidFieldException($"{path}{prefix}choice", "it is empty; at least one text is needed");
        yield return model.Constraints.Regex(string.Join('|', choices.Select(RegexEscape)), $"{path}{prefix}choice");
    }

    private static TextConstraint? ResponseFormat(JsonFields fields, ServedModel model) =>
        fields.Object("response_format") is { } format ? Format(format, model, "response_format", nested: true) : null;

    /// <summary>The form of an answer: text, json_object or json_schema.</summary>
    /// <param name="nested">Whether the schema stands in a member "json_schema", as in chat completions; else beside "type", as in responses.</param>
    public static TextConstraint? Format(JsonFields format, ServedModel model, string path, bool nested)
    {
        TextConstraint? constraint = null;
        switch (format.Text("type"))
        {
            case "text":
                break;
            case "json_object":
                constraint = model.Constraints.JsonObject(path);
                break;
            case "json_schema":
                var named = nested ? format.Object("json_schema") ?? throw new InvalidFieldException($"{path}.json_schema", "it is missing") : format;
                var place = nested ? $"{path}.json_schema.schema" : $"{path}.schema";
                named.Text("name");
                named.Text("description");
                named.Flag("strict");
                var schema = named.Take("schema") ?? throw new InvalidFieldException(place, "it is missing");
                named.End();
                constraint = model.Constraints.JsonSchema(schema.GetRawText(), place);
                break;
            default:
                throw new InvalidFieldException($"{path}.type", "it is none of text, json_object, json_schema");
        }

        format.End();
        return constraint;
    }

    private static string RegexEscape(string text) => string.Concat(text.Select(c => "\\^$.|?*+()[]{}".Contains(c) ? $"\\{c}" : $"{c}"));

    /// <summary>-1 says "all" in vLLM, as 0 does.</summary>
    private static int TopK(JsonFields fields) => fields.Whole("top_k") switch
    {
        null or -1 => 0,
        { } k => k,
    };

    private static ulong? Seed(JsonFields fields)
    {
        if (fields.Take("seed") is not { } value) return null;
        if (value.ValueKind == JsonValueKind.Number)
        {
            if (value.TryGetInt64(out var signed)) return (ulong)signed;
            if (value.TryGetUInt64(out var unsigned)) return unsigned;
        }

        throw JsonFields.Wrong("seed", "a whole number of at most 64 bits", value);
    }

    private static List<string> Stop(JsonFields fields)
    {
        if (fields.Take("stop") is not { } value) return [];
        return value.ValueKind == JsonValueKind.Array
            ? [.. value.EnumerateArray().Select((text, i) => JsonFields.Text(text, $"stop[{i}]"))]
            : [JsonFields.Text(value, "stop")];
    }

    private static Dictionary<int, float> LogitBias(JsonFields fields)
    {
        var biases = new Dictionary<int, float>();
        if (fields.Take("logit_bias") is not { } value) return biases;
        if (value.ValueKind != JsonValueKind.Object) throw JsonFields.Wrong("logit_bias", "an object of token ids and numbers", value);
        foreach (var entry in value.EnumerateObject())
        {
            if (!int.TryParse(entry.Name, NumberStyles.None, CultureInfo.InvariantCulture, out var token)) throw new InvalidFieldException("logit_bias", $"'{entry.Name}' is not a token id");
            if (entry.Value.ValueKind != JsonValueKind.Number) throw JsonFields.Wrong($"logit_bias.{entry.Name}", "a number", entry.Value);
            biases[token] = entry.Value.GetSingle();
        }

        return biases;
    }
}
