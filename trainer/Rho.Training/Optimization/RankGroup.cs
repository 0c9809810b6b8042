using Rho.Selection;
using static TorchSharp.torch;

namespace Rho.Training;

/// <summary>The processes that train one model together, each on its share of the micro-batches.</summary>
internal interface IRankGroup
{
    int Rank { get; }

    int Size { get; }

    /// <summary>Adds up over ranks what a step summed: loss, weight, statistics, counts and, in place, gradients.</summary>
    (double LossSum, double WeightSum, SelectionStatistics Statistics) Sum(
        double lossSum, double weightSum, SelectionStatistics statistics, (long Candidates, long Selected)[] byCorpus, Tensor gradients);

    /// <summary>Selects over the tokens of all ranks as one batch, and returns the weights of this rank's own.</summary>
    float[] SelectTogether(ITokenSelector selector, double ratio, int length, ulong seed, float[] current, float[]? reference, int[]? words);
}

/// <summary>One process by itself.</summary>
internal sealed class SingleRank : IRankGroup
{
    public int Rank => 0;

    public int Size => 1;

    public (double LossSum, double WeightSum, SelectionStatistics Statistics) Sum(
        double lossSum, double weightSum, SelectionStatistics statistics, (long Candidates, long Selected)[] byCorpus, Tensor gradients) =>
        (lossSum, weightSum, statistics);

    public float[] SelectTogether(ITokenSelector selector, double ratio, int length, ulong seed, float[] current, float[]? reference, int[]? words)
    {
        var weights = new float[current.Length];
        var losses = new TokenLosses { Current = current, Reference = reference, Words = words, Length = length, Seed = seed };
        selector.Select(losses, ratio, weights);
        return weights;
    }
}
