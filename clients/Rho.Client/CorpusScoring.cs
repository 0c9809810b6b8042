using System.Collections.Concurrent;
using System.Diagnostics;
using System.Text.Json;
using Rho.Formats;

namespace Rho.Client;

/// <summary>How far the scoring of a corpus has got.</summary>
/// <param name="TokensDone">Tokens whose losses are on disk or on their way to it, those of earlier runs included.</param>
/// <param name="TokensFromCache">Of those of this run, what scorers had in their cache.</param>
/// <param name="TokensPerSecond">Over the last seconds.</param>
/// <param name="TimeLeft">At that rate; null while there is none.</param>
public sealed record CorpusScoringProgress(
    long TokensDone, long TokensTotal, int ShardsDone, int Shards, long TokensFromCache, double TokensPerSecond, TimeSpan? TimeLeft);

/// <summary>A shard's file of losses in a folder of scores.</summary>
/// <param name="File">Name of the score file (see <see cref="ScoreFile"/>).</param>
/// <param name="CorpusFile">Name of the token shard in its corpus.</param>
/// <param name="ShardSha256">Hash of the token shard.</param>
public sealed record ScoresEntry(string File, string CorpusFile, long Sequences, string ShardSha256);

/// <summary>The content of scores.json, which is written last: a folder that has one holds the losses of a whole corpus.</summary>
public sealed record ScoresDescription
{
    public const string FileName = "scores.json";

    private const string CurrentFormat = "rho.scores.v1";

    private static readonly JsonSerializerOptions Json = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        RespectNullableAnnotations = true,
        RespectRequiredConstructorParameters = true,
        WriteIndented = true,
    };

    public string Format { get; init; } = CurrentFormat;

    /// <summary>Fingerprint of the reference.</summary>
    public required string Reference { get; init; }

    public required string TokenizerFingerprint { get; init; }

    /// <summary>"f16", "f32" or "log8".</summary>
    public required string Encoding { get; init; }

    /// <summary>Whether the files have the entropies of the reference's distributions too.</summary>
    public bool Entropy { get; init; }

    /// <summary>How many of the reference's most likely tokens the files have too; 0 for none.</summary>
    public int TopK { get; init; }

    public required int SequenceLength { get; init; }

    public required bool DocumentsSeeEachOther { get; init; }

    public required long Sequences { get; init; }

    public required IReadOnlyList<ScoresEntry> Shards { get; init; }

    /// <exception cref="NotFoundException">The folder has no scores.json: its scoring did not end.</exception>
    /// <exception cref="RhoException">scores.json is not valid.</exception>
    public static ScoresDescription Load(string directory)
    {
        var path = Path.Combine(directory, FileName);
        try
        {
            var description = JsonSerializer.Deserialize<ScoresDescription>(File.ReadAllText(path), Json) ?? throw new JsonException("it is null");
            return description.Format == CurrentFormat ? description : throw new RhoException($"{path}: format is \"{description.Format}\"; expected \"{CurrentFormat}\"");
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new NotFoundException($"{directory}: no scores: it has no {FileName} (a run that was interrupted is continued by the same command)");
        }
        catch (JsonException e)
        {
            throw new RhoException($"{path}: not a valid description of scores: {e.Message}", e);
        }
    }

    /// <summary>What a folder with scores of a corpus is to say.</summary>
    public static ScoresDescription Of(Corpus corpus, string reference, ScoreFormat format) => new()
    {
        Reference = reference,
        TokenizerFingerprint = corpus.TokenizerFingerprint,
        Encoding = LossCodec.Name(format.Encoding),
        Entropy = format.Entropy,
        TopK = format.TopK,
        SequenceLength = corpus.SequenceLength,
        DocumentsSeeEachOther = corpus.DocumentsSeeEachOther,
        Sequences = corpus.Sequences,
        Shards = [.. corpus.Shards.Select(shard => new ScoresEntry(shard.File, shard.File, shard.Sequences, shard.Sha256))],
    };

    /// <summary>Starts the file of a shard's scores.</summary>
    public ScoreFileWriter CreateFile(string directory, int index, TokenShard shard)
    {
        var metadata = new Dictionary<string, string>(StringComparer.Ordinal) { ["documents_see_each_other"] = Text(DocumentsSeeEachOther) };
        return ScoreFile.Create(Path.Combine(directory, Shards[index].File), Reference, shard.Sha256, LossCodec.Parse(Encoding), shard.Sequences, shard.Length, metadata, Entropy, TopK);
    }

    /// <summary>Shards without a file in a folder yet. A file of something else is an error: it is somebody's work.</summary>
    /// <exception cref="MismatchException">The folder holds scores of another reference or corpus.</exception>
    public IReadOnlyList<int> Missing(string directory)
    {
        var missing = new List<int>();
        for (var i = 0; i < Shards.Count; i++)
        {
            var entry = Shards[i];
            var path = Path.Combine(directory, entry.File);
            if (!File.Exists(path))
            {
                missing.Add(i);
                continue;
            }

            using var scores = ScoreFile.Open(path);
            var other = scores.ReferenceFingerprint != Reference ? $"of reference {scores.ReferenceFingerprint}, not {Reference}"
                : scores.ShardSha256 != entry.ShardSha256 ? "of another token shard"
                : LossCodec.Name(scores.Encoding) != Encoding ? $"in encoding {LossCodec.Name(scores.Encoding)}, not {Encoding}"
                : scores.Metadata.GetValueOrDefault("documents_see_each_other") != Text(DocumentsSeeEachOther) ? "made with another document mask"
                : scores.HasEntropies != Entropy ? (Entropy ? "without entropies" : "with entropies")
                : scores.TopK != TopK ? $"with the {scores.TopK} most likely tokens, not {TopK}"
                : null;
            if (other is not null) throw new MismatchException($"{path}: it holds scores {other}; choose another folder, or delete it");
        }

        return missing;
    }

    /// <summary>Writes scores.json, when all files are there.</summary>
    public void Save(string directory)
    {
        AtomicFile.WriteText(Path.Combine(directory, FileName), JsonSerializer.Serialize(this, Json) + "\n");
        AtomicFile.FlushDirectory(directory);
    }

    private static string Text(bool value) => value ? "true" : "false";
}

/// <summary>Scores whole corpora over all scorers of a client into a folder of score files.</summary>
public static class CorpusScoring
{
    private static readonly TimeSpan ReportInterval = TimeSpan.FromMilliseconds(250);

    /// <summary>
    /// Scores a corpus: several shards at a time, one score file per shard with what the client's options ask for, which appears when it is whole, and scores.json at the
    /// end. Files that are there already are kept, so a run that was interrupted goes on where it was.
    /// </summary>
    /// <param name="streams">Streams open at a time; 0: two per scorer. Where there are few shards, several streams share one.</param>
    /// <exception cref="MismatchException">The corpus is of another tokenizer than the reference's, or the folder holds scores of another reference or corpus.</exception>
    /// <exception cref="RhoException">What <see cref="ScorerClient.ScoreShardAsync"/> and the corpus throw.</exception>
    public static async Task<ScoresDescription> RunAsync(
        Corpus corpus, ScorerClient client, string directory, IProgress<CorpusScoringProgress>? progress = null, int streams = 0, CancellationToken cancellation = default)
    {
        var reference = await client.DescribeAsync(cancellation).ConfigureAwait(false);
        if (reference.TokenizerFingerprint != corpus.TokenizerFingerprint)
        {
            throw new MismatchException(
                $"{corpus.Directory}: its tokens are of tokenizer {corpus.TokenizerFingerprint}, the reference reads tokenizer {reference.TokenizerFingerprint}; "
                + "build the corpus with the reference's tokenizer");
        }

        var description = ScoresDescription.Of(corpus, reference.Fingerprint, new ScoreFormat(client.Encoding, client.Entropy, client.TopK));
        Directory.CreateDirectory(directory);
        var missing = description.Missing(directory);
        if (streams == 0) streams = 2 * await client.CountScorersAsync(cancellation).ConfigureAwait(false);

        var meter = new Meter(corpus, missing, progress);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var reporting = meter.RunAsync(ReportInterval, stop.Token);
        try
        {
            var parts = Parts(corpus, missing, streams, reference.SegmentSequences(corpus.SequenceLength));
            var files = new ConcurrentDictionary<int, Lazy<ShardInWork>>();
            try
            {
                await Parallel.ForEachAsync(parts, new ParallelOptions { MaxDegreeOfParallelism = streams, CancellationToken = cancellation }, async (part, token) =>
                {
                    var shard = files.GetOrAdd(part.Shard, index => new Lazy<ShardInWork>(() =>
                        new ShardInWork(corpus, index, description, directory, parts.Count(other => other.Shard == index)))).Value;
                    await foreach (var block in client.ScoreShardEncodedAsync(shard.Tokens, corpus.DocumentsSeeEachOther, part.First, part.End, token).ConfigureAwait(false))
                    {
                        shard.File.Write(block.FirstSequence, block.Scores);
                        meter.Add((long)block.Sequences * corpus.SequenceLength, block.FromCache);
                    }

                    if (!shard.PartDone()) return;
                    meter.ShardDone();
                    files.TryRemove(part.Shard, out _);
                }).ConfigureAwait(false);
            }
            finally
            {
                foreach (var left in files.Values.Where(file => file.IsValueCreated)) left.Value.Dispose();
            }
        }
        finally
        {
            await stop.CancelAsync().ConfigureAwait(false);
            await reporting.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }

        description.Save(directory);
        meter.Report();
        return description;
    }

    /// <summary>
    /// Whole shards where there are many; otherwise parts of them that scorers lease on their own, so that all streams have work to
    /// the end. A scorer that meets a shard asks for all of it once, and for no more than a part's tokens from then on.
    /// </summary>
    private static List<Part> Parts(Corpus corpus, IReadOnlyList<int> missing, int streams, long segment)
    {
        const int partsPerStream = 4;
        var perShard = missing.Count == 0 ? 1 : (partsPerStream * streams + missing.Count - 1) / missing.Count;
        var parts = new List<Part>();
        foreach (var index in missing)
        {
            var sequences = corpus.Shards[index].Sequences;
            var segments = (sequences + segment - 1) / segment;
            var size = perShard == 1 ? sequences : segment * Math.Max(1, (segments + perShard - 1) / perShard);
            long first = 0;
            do parts.Add(new Part(index, first, Math.Min(sequences, first + size)));
            while ((first += size) < sequences);
        }

        return parts;
    }

    private sealed record Part(int Shard, long First, long End);

    /// <summary>A shard some parts of which are in work, and its file of losses, which appears with the last part.</summary>
    private sealed class ShardInWork : IDisposable
    {
        private int _partsLeft;

        public ShardInWork(Corpus corpus, int index, ScoresDescription description, string directory, int parts)
        {
            _partsLeft = parts;
            Tokens = corpus.OpenShard(index);
            try
            {
                File = description.CreateFile(directory, index, Tokens);
            }
            catch
            {
                Tokens.Dispose();
                throw;
            }
        }

        public TokenShard Tokens { get; }

        public ScoreFileWriter File { get; }

        /// <summary>Counts a part; with the last one the file appears.</summary>
        public bool PartDone()
        {
            if (Interlocked.Decrement(ref _partsLeft) > 0) return false;
            File.Complete();
            Dispose();
            return true;
        }

        public void Dispose()
        {
            File.Dispose();
            Tokens.Dispose();
        }
    }

    /// <summary>Counts tokens and reports them at intervals.</summary>
    private sealed class Meter(Corpus corpus, IReadOnlyList<int> missing, IProgress<CorpusScoringProgress>? progress)
    {
        private readonly Queue<(long At, long Tokens)> _recent = new();
        private readonly long _total = corpus.Sequences * corpus.SequenceLength;
        private readonly long _before = (corpus.Sequences - missing.Sum(index => corpus.Shards[index].Sequences)) * corpus.SequenceLength;
        private long _tokens;
        private long _cached;
        private int _shards;

        public void Add(long tokens, bool fromCache)
        {
            Interlocked.Add(ref _tokens, tokens);
            if (fromCache) Interlocked.Add(ref _cached, tokens);
        }

        public void ShardDone() => Interlocked.Increment(ref _shards);

        public async Task RunAsync(TimeSpan interval, CancellationToken cancellation)
        {
            if (progress is null) return;
            using var timer = new PeriodicTimer(interval);
            do Report();
            while (await timer.WaitForNextTickAsync(cancellation).ConfigureAwait(false));
        }

        public void Report()
        {
            if (progress is null) return;
            var now = Stopwatch.GetTimestamp();
            var tokens = Interlocked.Read(ref _tokens);
            _recent.Enqueue((now, tokens));
            while (_recent.Count > 2 && Stopwatch.GetElapsedTime(_recent.Peek().At, now) > TimeSpan.FromSeconds(10)) _recent.Dequeue();
            var (at, then) = _recent.Peek();
            var seconds = Stopwatch.GetElapsedTime(at, now).TotalSeconds;
            var rate = seconds > 0 ? (tokens - then) / seconds : 0;
            var left = _total - _before - tokens;
            progress.Report(new CorpusScoringProgress(
                _before + tokens, _total, corpus.Shards.Count - missing.Count + Volatile.Read(ref _shards), corpus.Shards.Count, Interlocked.Read(ref _cached), rate,
                left == 0 ? TimeSpan.Zero : rate > 0 ? TimeSpan.FromSeconds(left / rate) : null));
        }
    }
}
