namespace Rho.Training;

/// <summary>How a token's loss went over a series of checkpoints (Rho-1, section 2.1): high or low at the start, high or low at the end.</summary>
public enum TokenClass
{
    /// <summary>Stays hard.</summary>
    HighToHigh,
    /// <summary>Gets harder.</summary>
    LowToHigh,
    /// <summary>Is learnt.</summary>
    HighToLow,
    /// <summary>Was known.</summary>
    LowToLow,
}

/// <summary>The paper's classification of tokens by their loss trajectories (Rho-1, appendix D.1).</summary>
public static class TokenDynamics
{
    /// <summary>
    /// Fits a line to each token's losses l_0 ... l_n by least squares; its change over the series is slope * n. A change below
    /// -threshold is H→L, above threshold L→H; the rest is L→L where the last loss is at most the mean of last losses, else H→H.
    /// </summary>
    /// <param name="losses">[checkpoint][token] in nats, all of one length; at least two checkpoints.</param>
    /// <param name="threshold">In nats; 0.2 in the paper.</param>
    public static TokenClass[] Classify(IReadOnlyList<float[]> losses, double threshold = 0.2)
    {
        if (losses.Count < 2) throw new RhoException($"token dynamics need at least two checkpoints, not {losses.Count}");
        var (tokens, n) = (losses[0].Length, losses.Count - 1);
        double last = 0;
        foreach (var loss in losses[n]) last += loss;
        last /= tokens;

        var middle = n / 2.0;
        var spread = Enumerable.Range(0, n + 1).Sum(x => (x - middle) * (x - middle));
        var classes = new TokenClass[tokens];
        for (var i = 0; i < tokens; i++)
        {
            double slope = 0;
            for (var x = 0; x <= n; x++) slope += (x - middle) * losses[x][i];
            var change = slope / spread * n;
            classes[i] = change < -threshold ? TokenClass.HighToLow
                : change > threshold ? TokenClass.LowToHigh
                : losses[n][i] <= last ? TokenClass.LowToLow
                : TokenClass.HighToHigh;
        }

        return classes;
    }
}
