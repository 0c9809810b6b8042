using Rho.Formats;
using Rho.Protocol.Scoring.V1;

namespace Rho.Client;

internal static class WireScores
{
    /// <summary>Tokens that scores are of; null where their parts are not all of so many.</summary>
    public static int? Tokens(this Scores scores, ScorerClientOptions options)
    {
        var tokens = scores.Losses.Length / LossCodec.BytesPerLoss(options.Encoding);
        var agree = scores.Losses.Length == tokens * LossCodec.BytesPerLoss(options.Encoding)
            && scores.Entropies.Length == (options.Entropy ? tokens * sizeof(ushort) : 0)
            && scores.TopIds.Length == tokens * options.TopK * sizeof(uint)
            && scores.TopLogProbabilities.Length == tokens * options.TopK * sizeof(ushort);
        return agree ? tokens : null;
    }
}
