using Rho.Formats;
using Rho.Tokenization;

namespace Rho.Data;

/// <summary>A shard as it is on disk. Documents counts those of which the shard has a piece.</summary>
public sealed record ShardInspection(string File, long FileBytes, long Sequences, long Tokens, long Padding, long Documents);

/// <summary>A run of one document in a sequence, as text.</summary>
/// <param name="Document">Its number in the corpus.</param>
/// <param name="Start">Of the sequence's tokens.</param>
public sealed record SamplePiece(long Document, int Start, int Tokens, string Text);

/// <summary>How often a token occurs.</summary>
public sealed record TokenCount(int Token, long Count);

/// <summary>What the tokens of a corpus are like.</summary>
public sealed record CorpusInspection
{
    public required IReadOnlyList<ShardInspection> Shards { get; init; }

    /// <summary>
    /// Tokens per document: the median, the 90th percentile and the largest. Where documents do not cross sequences, one that is longer
    /// than a sequence counts as the several that it was cut into.
    /// </summary>
    public required (int Median, int Percentile90, int Largest) DocumentLengths { get; init; }

    /// <summary>Ids that occur at all.</summary>
    public required int TokensUsed { get; init; }

    /// <summary>Nats per token of a model that knows the tokens' frequencies only: what training has to get below.</summary>
    public required double UnigramEntropy { get; init; }

    /// <summary>The most frequent ids first.</summary>
    public required IReadOnlyList<TokenCount> MostFrequent { get; init; }
}

/// <summary>Looks into a corpus.</summary>
public static class CorpusInspector
{
    private const int ListedTokens = 20;

    /// <summary>Reads every shard once, checking hashes on the way.</summary>
    /// <param name="progress">Gets each shard when it was read.</param>
    /// <exception cref="RhoException">A shard is missing or damaged.</exception>
    public static CorpusInspection Inspect(Corpus corpus, IProgress<ShardInspection>? progress = null, CancellationToken cancellation = default)
    {
        var counts = new long[corpus.VocabularySize];
        var lengths = new SortedDictionary<int, long>();
        var shards = new List<ShardInspection>();
        var (document, documentLength) = (-1L, 0);
        for (var index = 0; index < corpus.Shards.Count; index++)
        {
            using var shard = corpus.OpenShard(index);
            var tokens = new int[shard.Length];
            long covered = 0, documents = 0, last = -1;
            for (long sequence = 0; sequence < shard.Sequences; sequence++)
            {
                cancellation.ThrowIfCancellationRequested();
                shard.Read(sequence, tokens);
                foreach (var piece in shard.Pieces(sequence, 1))
                {
                    foreach (var token in tokens.AsSpan(piece.Start, piece.Length)) counts[token]++;
                    covered += piece.Length;
                    if (piece.Document != last) documents++;
                    last = piece.Document;
                    if (piece.Document != document)
                    {
                        Count(lengths, documentLength);
                        (document, documentLength) = (piece.Document, 0);
                    }

                    documentLength += piece.Length;
                }
            }

            var entry = corpus.Shards[index];
            shards.Add(new ShardInspection(
                entry.File, new FileInfo(shard.Path).Length, shard.Sequences, covered, shard.Sequences * shard.Length - covered, documents));
            progress?.Report(shards[^1]);
        }

        Count(lengths, documentLength);
        var total = (double)counts.Sum();
        return new CorpusInspection
        {
            Shards = shards,
            DocumentLengths = (Quantile(lengths, 0.5), Quantile(lengths, 0.9), Quantile(lengths, 1)),
            TokensUsed = counts.Count(count => count > 0),
            UnigramEntropy = total == 0 ? 0 : counts.Sum(count => count == 0 ? 0 : -count / total * Math.Log(count / total)),
            MostFrequent = [.. counts.Select((count, token) => new TokenCount(token, count)).Where(count => count.Count > 0).OrderByDescending(count => count.Count).ThenBy(count => count.Token).Take(ListedTokens)],
        };
    }

    /// <summary>The text of a sequence, piece by piece; padding is left out.</summary>
    /// <param name="sequence">Counted over all shards.</param>
    /// <exception cref="MismatchException">The tokenizer is not the one that made the corpus.</exception>
    /// <exception cref="RhoException">There is no such sequence, or its shard is damaged.</exception>
    public static IReadOnlyList<SamplePiece> Sample(Corpus corpus, Tokenizer tokenizer, long sequence)
    {
        if (tokenizer.Fingerprint != corpus.TokenizerFingerprint)
            throw new MismatchException($"{corpus.Directory}: was made with tokenizer {corpus.TokenizerFingerprint}, not {tokenizer.Fingerprint}");
        if (sequence < 0 || sequence >= corpus.Sequences) throw new RhoException($"{corpus.Directory}: has no sequence {sequence}; it has {corpus.Sequences}");
        var index = 0;
        for (; sequence >= corpus.Shards[index].Sequences; index++) sequence -= corpus.Shards[index].Sequences;
        using var shard = corpus.OpenShard(index);
        var tokens = new int[shard.Length];
        shard.Read(sequence, tokens);
        return [.. shard.Pieces(sequence, 1).Select(piece => new SamplePiece(
            piece.Document, piece.Start, piece.Length, tokenizer.Decode(tokens.AsSpan(piece.Start, piece.Length))))];
    }

    private static void Count(SortedDictionary<int, long> lengths, int length)
    {
        if (length > 0) lengths[length] = lengths.GetValueOrDefault(length) + 1;
    }

    private static int Quantile(SortedDictionary<int, long> lengths, double share)
    {
        var rank = (long)Math.Ceiling(share * lengths.Values.Sum());
        foreach (var (length, count) in lengths)
        {
            rank -= count;
            if (rank <= 0) return length;
        }

        return 0;
    }
}
