using Rho.Formats;
using Wire = Rho.Protocol.Scoring.V1;

namespace Rho.Client;

/// <summary>Between the messages of scoring.proto and scores.</summary>
internal static class WireScores
{
    public static Wire.ScoreFormat ToWire(this ScoreFormat format) => new()
    {
        Encoding = format.Encoding switch
        {
            LossEncoding.F16 => Wire.LossEncoding.F16,
            LossEncoding.F32 => Wire.LossEncoding.F32,
            _ => Wire.LossEncoding.Log8,
        },
        Entropy = format.Entropy,
        TopK = format.TopK,
    };

    public static LossEncoding ToDomain(this Wire.LossEncoding encoding) => encoding switch
    {
        Wire.LossEncoding.F32 => LossEncoding.F32,
        Wire.LossEncoding.Log8 => LossEncoding.Log8,
        _ => LossEncoding.F16,
    };

    /// <exception cref="ReplicaFailedException">The parts are not all of one number of tokens.</exception>
    public static EncodedScores ToDomain(this Wire.Scores scores, ScoreFormat format, string address)
    {
        try
        {
            return new EncodedScores(format, scores.Losses.Memory, scores.Entropies.Memory, scores.TopIds.Memory, scores.TopLogProbabilities.Memory);
        }
        catch (ArgumentException e)
        {
            throw new ReplicaFailedException(address, $"sent scores whose parts do not fit: {e.Message}", retryAfter: null, isInternal: true, e);
        }
    }
}
