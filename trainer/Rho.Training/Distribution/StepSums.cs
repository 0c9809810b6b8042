using Rho.Selection;

namespace Rho.Training;

/// <summary>What a step sums over its micro-batches and, with <see cref="Over"/>, over ranks, before anything is divided.</summary>
internal sealed record StepSums
{
    public required double WeightedLossSum { get; init; }

    public required double WeightSum { get; init; }

    public required SelectionStatistics Statistics { get; init; }

    /// <summary>Candidates and selected tokens by corpus.</summary>
    public required (long Candidates, long Selected)[] ByCorpus { get; init; }

    /// <summary>Tokens with a weight above 0: the selected, and those that the floor drew.</summary>
    public required long Trained { get; init; }

    public required int BatchesWithoutReference { get; init; }

    /// <summary>Load-balancing losses of the micro-batches, each times its weight.</summary>
    public double RouterBalanceSum { get; init; }

    /// <summary>Shares of the busiest experts of the micro-batches, each times its weight.</summary>
    public double BusiestExpertSum { get; init; }

    public StepSums Over(IRankGroup ranks)
    {
        if (ranks.Size == 1) return this;
        var s = Statistics;
        // Counts stay below 2^53, so doubles carry them exactly.
        double[] sums =
        [
            WeightedLossSum, WeightSum, BatchesWithoutReference, RouterBalanceSum, BusiestExpertSum, s.Candidates, s.Selected, s.LossSum, s.SelectedLossSum, s.Compared, s.NegativeExcess, s.ReferenceLossSum,
            .. Enumerable.Range(0, 3).Select(i => s.ExcessQuantiles.Count == 0 ? 0 : (double)s.ExcessQuantiles[i] * s.Compared),
            Trained,
            .. ByCorpus.SelectMany(count => new double[] { count.Candidates, count.Selected }),
        ];
        double[] lowest = [float.IsNaN(s.Threshold) ? double.PositiveInfinity : s.Threshold];
        ranks.Sum(sums);
        ranks.Lowest(lowest);
        var compared = (long)sums[9];
        return new StepSums
        {
            WeightedLossSum = sums[0],
            WeightSum = sums[1],
            BatchesWithoutReference = (int)sums[2],
            RouterBalanceSum = sums[3],
            BusiestExpertSum = sums[4],
            Statistics = new SelectionStatistics
            {
                Candidates = (long)sums[5],
                Selected = (long)sums[6],
                LossSum = sums[7],
                SelectedLossSum = sums[8],
                Compared = compared,
                NegativeExcess = (long)sums[10],
                ReferenceLossSum = sums[11],
                Threshold = double.IsPositiveInfinity(lowest[0]) ? float.NaN : (float)lowest[0],
                ExcessQuantiles = compared == 0 ? [] : [(float)(sums[12] / compared), (float)(sums[13] / compared), (float)(sums[14] / compared)],
            },
            Trained = (long)sums[15],
            ByCorpus = [.. sums[16..].Chunk(2).Select(pair => ((long)pair[0], (long)pair[1]))],
        };
    }
}
