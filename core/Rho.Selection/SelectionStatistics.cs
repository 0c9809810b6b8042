using System.Buffers;

namespace Rho.Selection;

/// <summary>What a selection did to a batch. Sums add over micro-batches and ranks; losses in nats.</summary>
public sealed record SelectionStatistics
{
    public long Candidates { get; init; }
    public long Selected { get; init; }
    public double LossSum { get; init; }
    /// <summary>Sum of losses over tokens with a weight above 0, each counted once.</summary>
    public double SelectedLossSum { get; init; }
    /// <summary>Candidates with a reference loss, and how many of them the model already predicts better than the reference.</summary>
    public long Compared { get; init; }
    public long NegativeExcess { get; init; }
    public double ReferenceLossSum { get; init; }
    /// <summary>The lowest excess loss among the selected: the threshold at rank k of a selection by excess loss. NaN without a reference.</summary>
    public float Threshold { get; init; } = float.NaN;
    /// <summary>Excess losses at the 10th, 50th and 90th percent of the candidates; empty without a reference.</summary>
    public IReadOnlyList<float> ExcessQuantiles { get; init; } = [];

    public double MeanLoss => LossSum / Candidates;
    public double MeanSelectedLoss => SelectedLossSum / Selected;
    public double MeanUnselectedLoss => (LossSum - SelectedLossSum) / (Candidates - Selected);
    public double NegativeExcessShare => (double)NegativeExcess / Compared;

    /// <summary>Measures a selection. Reference losses may be empty.</summary>
    public static SelectionStatistics Measure(ReadOnlySpan<float> current, ReadOnlySpan<float> reference, ReadOnlySpan<float> weights)
    {
        long candidates = 0, selected = 0, compared = 0, negative = 0;
        double sum = 0, selectedSum = 0, referenceSum = 0;
        var threshold = float.PositiveInfinity;
        var excess = ArrayPool<float>.Shared.Rent(Math.Max(1, current.Length));
        try
        {
            for (var i = 0; i < current.Length; i++)
            {
                var loss = current[i];
                if (float.IsNaN(loss)) continue;
                candidates++;
                sum += loss;
                if (weights[i] > 0)
                {
                    selected++;
                    selectedSum += loss;
                }

                if (reference.IsEmpty || float.IsNaN(reference[i])) continue;
                var difference = loss - reference[i];
                if (float.IsNaN(difference)) continue;
                excess[compared++] = difference;
                referenceSum += reference[i];
                if (difference < 0) negative++;
                if (weights[i] > 0 && difference < threshold) threshold = difference;
            }

            return new SelectionStatistics
            {
                Candidates = candidates,
                Selected = selected,
                LossSum = sum,
                SelectedLossSum = selectedSum,
                Compared = compared,
                NegativeExcess = negative,
                ReferenceLossSum = referenceSum,
                Threshold = float.IsPositiveInfinity(threshold) ? float.NaN : threshold,
                ExcessQuantiles = compared == 0 ? [] : Quantiles(excess.AsSpan(0, (int)compared)),
            };
        }
        finally
        {
            ArrayPool<float>.Shared.Return(excess);
        }
    }

    private static float[] Quantiles(ReadOnlySpan<float> excess)
    {
        var quantiles = new float[3];
        ReadOnlySpan<double> shares = [0.9, 0.5, 0.1];
        for (var i = 0; i < 3; i++) quantiles[i] = TopK.Value(excess, TopK.Count(shares[i], excess.Length));
        return quantiles;
    }

    /// <summary>The two as one: sums added, the lower threshold, and quantiles averaged by their counts (a summary, not exact quantiles of the union).</summary>
    public SelectionStatistics Add(SelectionStatistics other)
    {
        var total = Compared + other.Compared;
        return new SelectionStatistics
        {
            Candidates = Candidates + other.Candidates,
            Selected = Selected + other.Selected,
            LossSum = LossSum + other.LossSum,
            SelectedLossSum = SelectedLossSum + other.SelectedLossSum,
            Compared = total,
            NegativeExcess = NegativeExcess + other.NegativeExcess,
            ReferenceLossSum = ReferenceLossSum + other.ReferenceLossSum,
            Threshold = float.IsNaN(Threshold) ? other.Threshold : float.IsNaN(other.Threshold) ? Threshold : Math.Min(Threshold, other.Threshold),
            ExcessQuantiles = ExcessQuantiles.Count == 0 ? other.ExcessQuantiles
                : other.ExcessQuantiles.Count == 0 ? ExcessQuantiles
                : ExcessQuantiles.Zip(other.ExcessQuantiles, (a, b) => (float)(((double)a * Compared + (double)b * other.Compared) / total)).ToArray(),
        };
    }
}
