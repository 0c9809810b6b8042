using Rho.Formats;
using Wire = Rho.Protocol.Scoring.V1;

namespace Rho.Client;

/// <summary>Between the messages of scoring.proto and scores.</summary>
internal static class WireScores
{
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
