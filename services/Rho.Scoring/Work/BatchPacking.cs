namespace Rho.Scoring.Work;

/// <summary>Sequences of different lengths into padded batches of a token budget.</summary>
internal static class BatchPacking
{
    /// <summary>A sequence joins a batch only while it is at least this share of the batch's longest: the rest would be padding.</summary>
    private const double LeastFill = 0.8;

    /// <summary>
    /// Longest first: each batch takes the next sequences in order of length while their padded size stays inside the budget and
    /// they are not much shorter than its first. A sequence above the budget is a batch of its own.
    /// </summary>
    public static List<List<ScoringWork>> Pack(IEnumerable<ScoringWork> works, int budget)
    {
        var batches = new List<List<ScoringWork>>();
        List<ScoringWork> batch = [];
        var rows = 0;
        foreach (var work in works.OrderByDescending(work => work.Length))
        {
            var longest = batch.Count == 0 ? work.Length : batch[0].Length;
            var fits = batch.Count == 0
                || ((long)(rows + work.Sequences) * longest <= budget && work.Length >= LeastFill * longest && work.MayShareBatch);
            if (!fits)
            {
                batches.Add(batch);
                batch = [];
                rows = 0;
            }

            batch.Add(work);
            rows += work.Sequences;
        }

        if (batch.Count > 0) batches.Add(batch);
        return batches;
    }
}
