using System.Buffers.Binary;
using System.Diagnostics;
using System.Runtime.InteropServices;
using Rho.Formats;
using Rho.Tokenization;

namespace Rho.Data;

/// <summary>
/// Builds a corpus from text files, in two stages. (1) Files are read, cut into records, tokenized on all cores, and checked for
/// duplicates; the documents go into one token store per source, in the folder ".build" of the corpus. (2) Documents are drawn from the
/// stores in their final order and packed into shards. corpus.json comes last. Memory is bounded whatever the input's size (but for 11
/// to 22 bytes per document for finding duplicates); the disk needs room for the tokens twice.
/// A build that was stopped is continued when the same one is started again: reading at the last checkpoint, packing at the last
/// finished shard, with a result that is the same byte for byte.
/// Each document is encoded with what the tokenizer puts around a text and ends with the end token.
/// </summary>
public static class CorpusBuilder
{
    /// <summary>The folder inside the corpus that the held-out corpus gets.</summary>
    public const string HeldOutFolder = "heldout";

    /// <summary>Builds, or continues a build.</summary>
    /// <exception cref="RhoException">
    /// An option or input file is wrong, there are too many bad records, the disk is full, or the folder holds something else. The
    /// message names file and line. What was done up to the last checkpoint is kept where there is one.
    /// </exception>
    /// <exception cref="OperationCanceledException">The build was stopped and can be continued.</exception>
    public static Task<Corpus> BuildAsync(
        CorpusOptions options, Tokenizer tokenizer, IProgress<CorpusProgress>? progress = null, CancellationToken cancellation = default)
        => BuildAsync(options, tokenizer, progress, new BuildTuning(), cancellation);

    internal static async Task<Corpus> BuildAsync(
        CorpusOptions options, Tokenizer tokenizer, IProgress<CorpusProgress>? progress, BuildTuning tuning, CancellationToken cancellation)
    {
        Check(options, tokenizer);
        var files = options.Sources.Select(InputFiles.Find).ToArray();
        using var build = CorpusBuild.Begin(options, files, tokenizer, progress, tuning);
        await build.TokenizeAsync(cancellation);
        return await Task.Run(() => build.Pack(cancellation), cancellation);
    }

    private static void Check(CorpusOptions options, Tokenizer tokenizer)
    {
        static void Require(bool condition, string otherwise)
        {
            if (!condition) throw new RhoException(otherwise);
        }

        Require(options.Sources.Count > 0, "a corpus needs at least one source");
        Require(options.SequenceLength is >= 2 and <= 1 << 24, $"sequence length {options.SequenceLength} is not possible: 2 to {1 << 24} tokens");
        Require(options.HeldOutShare is >= 0 and < 1, $"held-out share {options.HeldOutShare} is not possible: 0 to below 1");
        Require(options.ShardTokens is >= 1 and <= CorpusLayout.MaxShardTokens, $"{options.ShardTokens} tokens per shard are not possible: 1 to {CorpusLayout.MaxShardTokens}");
        Require(options.MaxBadRecords >= 0, $"a limit of {options.MaxBadRecords} bad records is not possible");
        Require(options.Workers >= 0, $"{options.Workers} workers are not possible");
        Require(tokenizer.EosId is not null, "the tokenizer has no end-of-text token, which a corpus needs to end its documents");
        Require(options.Sources.All(source => source.Weight is null) || options.Sources.All(source => source.Weight is not null), "either all sources of a mixture have a weight or none has");
        foreach (var source in options.Sources)
        {
            Require(source.Weight is null or > 0 and < double.PositiveInfinity, $"weight {source.Weight} is not possible: it is to be above 0");
            Require(source.Messages is null || source.Template is null, "a source has conversations (messages) or a template, not both");
            Require(source.Messages is null || tokenizer.ChatTemplate is not null, "the tokenizer has no chat template, which conversations (messages) need");
            Require(source.Epochs >= 1, $"{source.Epochs} epochs are not possible: at least 1");
            _ = TextRecipe.Of(source);
        }
    }
}

/// <summary>Steps of a build that tests make smaller.</summary>
internal sealed record BuildTuning
{
    /// <summary>Text between two checkpoints; null takes what suits the input.</summary>
    public long? CheckpointBytes { get; init; }

    public int BatchBytes { get; init; } = 256 << 10;

    public TimeSpan ReportInterval { get; init; } = TimeSpan.FromMilliseconds(100);
}

/// <summary>One build: the state of both stages.</summary>
internal sealed class CorpusBuild : IDisposable
{
    private const int MaxListedBadRecords = 20;
    private const long BucketBytes = 16 << 20;
    private const int StoreBufferBytes = 64 << 20;

    private readonly CorpusOptions _options;
    private readonly IReadOnlyList<InputFile>[] _files;
    private readonly Tokenizer _tokenizer;
    private readonly IProgress<CorpusProgress>? _progress;
    private readonly Stopwatch _clock = Stopwatch.StartNew();
    private readonly BuildTuning _tuning;
    private readonly long _checkpointBytes;
    private readonly string _workFolder;
    private readonly FileStream _lock;
    private readonly BuildState _state;
    private readonly long[][] _bytesBefore; // per source and file: input bytes before it, and behind the last one
    private readonly List<TokenStore> _stores = [];
    private readonly DuplicateFilter _duplicates = new();
    private readonly List<byte> _newHashes = [];
    private FileStream? _hashes;
    private bool _hasCheckpoint;
    private long _bytesSinceCheckpoint;
    private long _firstDone = -1;
    private TimeSpan _lastReport = TimeSpan.MinValue;

    private CorpusBuild(
        CorpusOptions options, IReadOnlyList<InputFile>[] files, Tokenizer tokenizer, IProgress<CorpusProgress>? progress, BuildTuning tuning, string workFolder, FileStream @lock, BuildState? state)
    {
        _options = options;
        _files = files;
        _tokenizer = tokenizer;
        _progress = progress;
        _tuning = tuning;
        _workFolder = workFolder;
        _lock = @lock;
        _hasCheckpoint = state is not null;
        _bytesBefore = new long[files.Length][];
        long sum = 0;
        for (var i = 0; i < files.Length; i++)
        {
            _bytesBefore[i] = new long[files[i].Count + 1];
            for (var j = 0; j < files[i].Count; j++) _bytesBefore[i][j + 1] = (sum += files[i][j].Length);
            _bytesBefore[i][0] = sum - files[i].Sum(file => file.Length);
        }

        // Rare enough that a checkpoint, which flushes every bucket, leaves chunks that are worth a read.
        _checkpointBytes = tuning.CheckpointBytes ?? Math.Clamp(sum / 256, 16L << 20, 1L << 30);

        _state = state ?? BuildState.Begin(BuildState.KeyOf(options, files, tokenizer), files.Length);
    }

    private string StatePath => Path.Combine(_workFolder, "state.json");

    private bool Narrow => TokenShard.TypeFor(_tokenizer.VocabularySize) == ElementType.U16;

    public static CorpusBuild Begin(
        CorpusOptions options, IReadOnlyList<InputFile>[] files, Tokenizer tokenizer, IProgress<CorpusProgress>? progress, BuildTuning tuning)
    {
        var directory = options.Directory;
        if (File.Exists(Path.Combine(directory, Corpus.FileName))) throw new RhoException($"{directory}: already holds a corpus; name another folder, or delete this one");
        var work = Path.Combine(directory, ".build");
        var state = BuildState.Load(Path.Combine(work, "state.json"), BuildState.KeyOf(options, files, tokenizer));
        if (state is null && Directory.Exists(directory) && Directory.EnumerateFileSystemEntries(directory).Any(entry => Path.GetFileName(entry) != ".build"))
            throw new RhoException($"{directory}: is not empty and holds no interrupted build; name a new folder");
        FileStream @lock;
        try
        {
            Directory.CreateDirectory(work);
            @lock = new FileStream(Path.Combine(work, "lock"), FileMode.OpenOrCreate, FileAccess.Write, FileShare.None, 1, FileOptions.DeleteOnClose);
        }
        catch (IOException e) when (File.Exists(Path.Combine(work, "lock")))
        {
            throw new RhoException($"{directory}: another process is building this corpus", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw DiskError.Translate(directory, e);
        }

        // Shards that were being written when a build was killed.
        foreach (var rest in Directory.EnumerateFiles(directory, "shard-*.tmp", SearchOption.AllDirectories)) File.Delete(rest);
        var build = new CorpusBuild(options, files, tokenizer, progress, tuning, work, @lock, state);
        try
        {
            build.OpenStores();
            return build;
        }
        catch
        {
            build.Dispose();
            throw;
        }
    }

    /// <summary>Stage 1: text files to token stores.</summary>
    public async Task TokenizeAsync(CancellationToken cancellation)
    {
        if (_state.Tokenized) return;
        var workers = _options.Workers > 0 ? _options.Workers : Environment.ProcessorCount;
        var pipeline = new TokenizingPipeline(_options.Sources, _files, _tokenizer, workers, _tuning.BatchBytes);
        await pipeline.RunAsync(_state.Source, _state.File, _state.Records, Handle, cancellation);
        if (_state.Sources.Sum(source => source.Documents) == 0)
            throw new RhoException($"no documents for training came out of {_files.Sum(source => source.Count)} files{(_state.Sources.Sum(s => s.HeldOutDocuments) > 0 ? ": all are held out" : "")}");
        for (var i = 0; i < _files.Length; i++)
            if (_options.Sources[i].Weight is not null && _state.Sources[i].Documents == 0) throw new RhoException($"source {NameOf(i)} has no documents, so the mixture cannot have its weight of {_options.Sources[i].Weight}");
        _state.Tokenized = true;
        Checkpoint();
        _firstDone = -1;
    }

    /// <summary>Stage 2: token stores to shards and corpus.json.</summary>
    public Corpus Pack(CancellationToken cancellation)
    {
        try
        {
            _clock.Restart();
            var heldOut = PackHeldOut(cancellation);
            var mixture = new DocumentMixture(_options.Sources, _stores, _state.Sources, _options.ShuffleSeed);
            var writer = new CorpusWriter(_options.Directory, Layout());
            long documents = 0, expected = mixture.ExpectedTokens;
            foreach (var document in mixture.Read())
            {
                cancellation.ThrowIfCancellationRequested();
                writer.Add(document.Span);
                Report(CorpusStage.Packing, writer.Tokens, expected, ++documents, writer.Tokens, last: false);
            }

            var corpus = writer.Complete(padding => MakeReport(padding, mixture, heldOut));
            Report(CorpusStage.Packing, writer.Tokens, writer.Tokens, documents, writer.Tokens, last: true);
            CloseFiles();
            Directory.Delete(_workFolder, recursive: true);
            return corpus;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw DiskError.Translate(_options.Directory, e);
        }
    }

    public void Dispose()
    {
        CloseFiles();
        if (_hasCheckpoint || !Directory.Exists(_workFolder)) return;
        // Nothing to continue from: as if the build had not been started.
        Directory.Delete(_workFolder, recursive: true);
        if (!Directory.EnumerateFileSystemEntries(_options.Directory).Any()) Directory.Delete(_options.Directory);
    }

    private void OpenStores()
    {
        for (var i = 0; i < _files.Length; i++)
            _stores.Add(new TokenStore(Path.Combine(_workFolder, $"source-{i:D3}"), BucketsFor(_files[i]), Narrow, _state.StoreLengths[i], StoreBufferBytes / _files.Length));
        if (!_options.RemoveDuplicates || _state.Tokenized) return;
        var path = Path.Combine(_workFolder, "hashes");
        try
        {
            _hashes = new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read, bufferSize: 0);
            if (_hashes.Length < _state.HashesLength) throw new RhoException($"{path}: is shorter than the interrupted build left it; delete {_workFolder} to start anew");
            _hashes.SetLength(_state.HashesLength);
            var hashes = new byte[DocumentBatch.HashBytes << 12];
            for (int read; (read = _hashes.ReadAtLeast(hashes, hashes.Length, throwOnEndOfStream: false)) > 0;)
                for (var i = 0; i < read; i += DocumentBatch.HashBytes) _duplicates.Add(hashes.AsSpan(i, DocumentBatch.HashBytes));
        }
        catch (IOException e)
        {
            throw DiskError.Translate(path, e);
        }
    }

    /// <summary>So many buckets that one of them has about 16 MiB of tokens: text shrinks to about half as tokens, and grows fivefold when unpacked.</summary>
    private int BucketsFor(IReadOnlyList<InputFile> files)
    {
        if (_options.ShuffleSeed is null) return 1;
        var text = files.Sum(file => file.Path.EndsWith(".gz", StringComparison.Ordinal) || file.Path.EndsWith(".zst", StringComparison.Ordinal) ? 5 * file.Length : file.Length);
        return (int)Math.Clamp(text / (Narrow ? 2 : 1) / BucketBytes + 1, 1, 4096);
    }

    private void Handle(DocumentBatch batch)
    {
        var file = _files[batch.Source][batch.File];
        if ((batch.Source, batch.File) != (_state.Source, _state.File)) _state.FileDocuments = 0;
        (_state.Source, _state.File, _state.Records) = (batch.Source, batch.File, batch.RecordsRead);
        var tokens = CollectionsMarshal.AsSpan(batch.Tokens);
        var hashes = CollectionsMarshal.AsSpan(batch.Hashes);
        foreach (var document in batch.Documents)
        {
            if (document.Fault is not null)
            {
                AddBad(file, document);
                continue;
            }

            Add(batch.Source, document, tokens[..document.Tokens], hashes[..DocumentBatch.HashBytes]);
            tokens = tokens[document.Tokens..];
            hashes = hashes[DocumentBatch.HashBytes..];
        }

        if (batch.EndsFile)
        {
            if (file.Named && _state.FileDocuments == 0)
                throw new RhoException(_state.Bad.Find(bad => bad.File == file.Path) is { } bad ? $"{file.Path}: none of its records can be read; line {bad.Line}: {bad.Reason}" : $"{file.Path}: there is no text in the file");
        }

        _bytesSinceCheckpoint += batch.Bytes;
        if (_bytesSinceCheckpoint >= _checkpointBytes) Checkpoint();
        ReportReading(batch);
    }

    private void Add(int source, DocumentResult document, ReadOnlySpan<int> tokens, ReadOnlySpan<byte> hash)
    {
        var counts = _state.Sources[source];
        if (document.Cut) counts.Cut++;
        if (tokens.IsEmpty)
        {
            counts.Empty++;
            return;
        }

        _state.FileDocuments++;
        if (_options.RemoveDuplicates)
        {
            if (!_duplicates.Add(hash))
            {
                counts.Duplicates++;
                return;
            }

            _newHashes.AddRange(hash);
            if (_newHashes.Count >= 1 << 16) WriteHashes(flushToDisk: false);
        }

        if (_options.HeldOutShare > 0 && BinaryPrimitives.ReadUInt64LittleEndian(hash) < _options.HeldOutShare * 18446744073709551616.0)
        {
            counts.HeldOutDocuments++;
            counts.HeldOutTokens += tokens.Length;
            _stores[source].Add(TokenStore.HeldOut, tokens);
            return;
        }

        var store = _stores[source];
        var bucket = store.Buckets == 1 ? 0 : (int)(StableRandom.Mix(StableRandom.Mix((ulong)_options.ShuffleSeed!.Value, (ulong)source), (ulong)counts.Documents) % (ulong)store.Buckets);
        store.Add(bucket, tokens);
        counts.Documents++;
        counts.Tokens += tokens.Length;
        counts.Bytes += document.Bytes;
        counts.Longest = Math.Max(counts.Longest, tokens.Length);
    }

    private void AddBad(InputFile file, DocumentResult document)
    {
        _state.BadRecords++;
        if (_state.Bad.Count < MaxListedBadRecords) _state.Bad.Add(new BadRecord(file.Path, document.Line, document.Fault!));
        if (_state.BadRecords <= _options.MaxBadRecords) return;
        var earlier = _state.BadRecords - 1;
        throw new RhoException($"{file.Path}:{document.Line}: {document.Fault}" +
            (earlier == 0 ? " (no bad record is to be skipped)" : $" (bad record {_state.BadRecords}, and only {_options.MaxBadRecords} are to be skipped; the first was {_state.Bad[0].File}:{_state.Bad[0].Line}: {_state.Bad[0].Reason})"));
    }

    private void Checkpoint()
    {
        for (var i = 0; i <= _state.Source; i++)
        {
            _stores[i].Flush();
            _state.StoreLengths[i] = _stores[i].Length;
        }

        if (_hashes is not null)
        {
            WriteHashes(flushToDisk: true);
            _state.HashesLength = _hashes.Length;
        }

        _state.Save(StatePath);
        _hasCheckpoint = true;
        _bytesSinceCheckpoint = 0;
    }

    private void WriteHashes(bool flushToDisk)
    {
        try
        {
            _hashes!.Write(CollectionsMarshal.AsSpan(_newHashes));
            if (flushToDisk) _hashes.Flush(flushToDisk: true);
        }
        catch (IOException e)
        {
            throw DiskError.Translate(_hashes!.Name, e);
        }

        _newHashes.Clear();
    }

    private HeldOutDocuments? PackHeldOut(CancellationToken cancellation)
    {
        if (_options.HeldOutShare == 0) return null;
        var result = new HeldOutDocuments(_state.Sources.Sum(source => source.HeldOutDocuments), _state.Sources.Sum(source => source.HeldOutTokens));
        if (result.Documents == 0) return result;
        var writer = new CorpusWriter(Path.Combine(_options.Directory, CorpusBuilder.HeldOutFolder), Layout());
        foreach (var store in _stores)
        {
            foreach (var document in store.ReadHeldOut())
            {
                cancellation.ThrowIfCancellationRequested();
                writer.Add(document.Span);
            }
        }

        writer.Complete();
        return result;
    }

    private CorpusLayout Layout() => new()
    {
        TokenizerFingerprint = _tokenizer.Fingerprint,
        VocabularySize = _tokenizer.VocabularySize,
        EndToken = _tokenizer.EosId,
        SequenceLength = _options.SequenceLength,
        DocumentsSeeEachOther = _options.DocumentsSeeEachOther,
        DocumentsCrossSequences = _options.DocumentsCrossSequences,
        ShardTokens = _options.ShardTokens,
    };

    private CorpusReport MakeReport(long padding, DocumentMixture mixture, HeldOutDocuments? heldOut) => new()
    {
        Documents = _state.Sources.Sum(source => source.Documents),
        Tokens = _state.Sources.Sum(source => source.Tokens),
        Bytes = _state.Sources.Sum(source => source.Bytes),
        LongestDocument = _state.Sources.Max(source => source.Longest),
        PaddingTokens = padding,
        Dropped = new DroppedDocuments(_state.Sources.Sum(source => source.Duplicates), _state.Sources.Sum(source => source.Empty), _state.BadRecords),
        CutDocuments = _state.Sources.Sum(source => source.Cut),
        BadRecords = _state.Bad,
        HeldOut = heldOut,
        Sources = [.. _state.Sources.Select((counts, i) => new SourceReport(
            NameOf(i), _files[i].Count, counts.Documents, counts.Tokens, counts.Bytes, _options.Sources[i].Epochs, mixture.Given[i],
            counts.Tokens == 0 ? 0 : Math.Round((double)mixture.Given[i] / counts.Tokens, 4), _options.Sources[i].Weight))],
    };

    private string NameOf(int source) => _options.Sources[source].Name ?? _options.Sources[source].Paths[0];

    private void ReportReading(DocumentBatch batch)
    {
        var (done, total) = (_bytesBefore[batch.Source][batch.File] + batch.FilePosition, _bytesBefore[^1][^1]);
        Report(CorpusStage.Tokenizing, done, total, _state.Sources.Sum(source => source.Documents), _state.Sources.Sum(source => source.Tokens), last: done == total);
    }

    private void Report(CorpusStage stage, long done, long total, long documents, long tokens, bool last)
    {
        if (_progress is null) return;
        if (_firstDone < 0) (_firstDone, _lastReport) = (done, TimeSpan.MinValue);
        var now = _clock.Elapsed;
        if (!last && _lastReport != TimeSpan.MinValue && now - _lastReport < _tuning.ReportInterval) return;
        _lastReport = now;
        var rate = now > TimeSpan.Zero ? (done - _firstDone) / now.TotalSeconds : 0;
        TimeSpan? remaining = last ? TimeSpan.Zero : rate > 0 ? TimeSpan.FromSeconds(Math.Max(0, total - done) / rate) : null;
        _progress.Report(new CorpusProgress(stage, done, total, documents, tokens, _state.BadRecords, rate, remaining));
    }

    private void CloseFiles()
    {
        foreach (var store in _stores) store.Dispose();
        _hashes?.Dispose();
        _lock.Dispose();
    }
}
