namespace Rho.Data;

/// <summary>
/// The order in which documents of several sources go into a corpus. With weights, or with shuffling, the next document always comes
/// from the source that has given least for its share, so that the shares hold from beginning to end; otherwise sources follow one
/// another.
/// </summary>
internal sealed class DocumentMixture(IReadOnlyList<CorpusSource> sources, IReadOnlyList<TokenStore> stores, IReadOnlyList<SourceCounts> counts, long? shuffleSeed)
{
    private readonly long[] _given = new long[sources.Count];

    /// <summary>Tokens that each source has given.</summary>
    public IReadOnlyList<long> Given => _given;

    /// <summary>Tokens that the mixture will have, up to a document.</summary>
    public long ExpectedTokens
        => !Weighted
            ? sources.Zip(counts, (source, count) => count.Tokens * source.Epochs).Sum()
            : (long)(sources.Sum(source => source.Weight!.Value) * sources.Zip(counts, (source, count) => count.Tokens * source.Epochs / source.Weight!.Value).Min());

    private bool Weighted => sources[0].Weight is not null;

    /// <summary>The documents; each is valid until the next one is asked for.</summary>
    public IEnumerable<ReadOnlyMemory<int>> Read()
    {
        var open = Enumerable.Range(0, sources.Count).Where(i => counts[i].Documents > 0).Select(i => (Index: i, Share: ShareOf(i), Documents: ReadSource(i).GetEnumerator())).ToList();
        while (open.Count > 0)
        {
            var next = shuffleSeed is null && !Weighted ? open[0] : open.MinBy(source => _given[source.Index] / source.Share);
            if (next.Documents.MoveNext())
            {
                _given[next.Index] += next.Documents.Current.Length;
                yield return next.Documents.Current;
            }
            else if (Weighted)
            {
                yield break;
            }
            else
            {
                open.Remove(next);
            }
        }
    }

    // Shuffled without weights, sources are spread evenly over the whole.
    private double ShareOf(int source) => sources[source].Weight ?? (double)counts[source].Tokens * sources[source].Epochs;

    private IEnumerable<ReadOnlyMemory<int>> ReadSource(int source)
    {
        for (var epoch = 0; epoch < sources[source].Epochs; epoch++)
        {
            ulong? seed = shuffleSeed is { } value ? StableRandom.Mix(StableRandom.Mix((ulong)value, (ulong)source), (ulong)epoch) : null;
            foreach (var document in stores[source].Read(seed)) yield return document;
        }
    }
}
