using Rho.Protocol.Inference.V1;
using Rho.Serving.Engine;
using Rho.Serving.Models;

namespace Rho.Serving.Rpc;

internal static class SamplingMapping
{
    /// <summary>The settings that a message asks for; what is absent keeps its default.</summary>
    public static SamplingSettings ToSettings(SamplingParameters message, ServedModel model)
    {
        var defaults = new SamplingSettings();
        return new SamplingSettings
        {
            MaxTokens = message.HasMaxTokens ? Whole(message.MaxTokens, "max_tokens") : null,
            MinTokens = message.HasMinTokens ? Whole(message.MinTokens, "min_tokens") : 0,
            Temperature = message.HasTemperature ? message.Temperature : defaults.Temperature,
            TopP = message.HasTopP ? message.TopP : defaults.TopP,
            TopK = message.HasTopK ? Whole(message.TopK, "top_k") : defaults.TopK,
            MinP = message.HasMinP ? message.MinP : defaults.MinP,
            Seed = message.HasSeed ? message.Seed : null,
            PresencePenalty = message.PresencePenalty,
            FrequencyPenalty = message.FrequencyPenalty,
            RepetitionPenalty = message.HasRepetitionPenalty ? message.RepetitionPenalty : defaults.RepetitionPenalty,
            LogitBias = message.LogitBias,
            Stop = message.Stop,
            StopTokens = message.StopTokens,
            IgnoreEos = message.IgnoreEos,
            Choices = message.HasN ? Whole(message.N, "n") : 1,
            LogProbabilities = message.HasLogProbabilities ? Whole(message.LogProbabilities, "log_probabilities") : null,
            Constraint = message.ConstraintCase switch
            {
                SamplingParameters.ConstraintOneofCase.JsonSchema => model.Constraints.JsonSchema(message.JsonSchema, "json_schema"),
                SamplingParameters.ConstraintOneofCase.Regex => model.Constraints.Regex(message.Regex, "regex"),
                _ => null,
            },
        };
    }

    private static int Whole(uint value, string field) => value <= int.MaxValue ? (int)value : throw new InvalidFieldException(field, $"{value} is too large");
}
