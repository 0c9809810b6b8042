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

    public required int BatchesWithoutReference { get; init; }

    public StepSums Over(IRankGroup ranks)
    {
        if (ranks.Size == 1) return this;
        var s = Statistics;
        // Counts stay below 2^53, so doubles carry them exactly.
        double[] sums =
        [
            WeightedLossSum, WeightSum, BatchesWithoutReference, s.Candidates, s.Selected, s.LossSum, s.SelectedLossSum, s.Compared, s.NegativeExcess, s.ReferenceLossSum,
            .. Enumerable.Range(0, 3).Select(i => s.ExcessQuantiles.Count == 0 ? 0 : (double)s.ExcessQuantiles[i] * s.Compared),
            .. ByCorpus.SelectMany(count => new double[] { count.Candidates, count.Selected }),
        ];
        double[] lowest = [float.IsNaN(s.Threshold) ? double.PositiveInfinity : s.Threshold];
        ranks.Sum(sums);
        ranks.Lowest(lowest);
        var compared = (long)sums[7];
        return new StepSums
        {
            WeightedLossSum = sums[0],
            WeightSum = sums[1],
            BatchesWithoutReference = (int)sums[2],
            Statistics = new SelectionStatistics
            {
                Candidates = (long)sums[3],
                Selected = (long)sums[4],
                LossSum = sums[5],
                SelectedLossSum = sums[6],
                Compared = compared,
                NegativeExcess = (long)sums[8],
                ReferenceLossSum = sums[9],
                Threshold = double.IsPositiveInfinity(lowest[0]) ? float.NaN : (float)lowest[0],
                ExcessQuantiles = compared == 0 ? [] : [(float)(sums[10] / compared), (float)(sums[11] / compared), (float)(sums[12] / compared)],
            },
            ByCorpus = [.. sums[13..].Chunk(2).Select(pair => ((long)pair[0], (long)pair[1]))],
        };
    }
}
