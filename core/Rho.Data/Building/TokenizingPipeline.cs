using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using System.Threading.Channels;
using Rho.Tokenization;

namespace Rho.Data;

/// <summary>What became of a document: tokens, or a fault.</summary>
/// <param name="Tokens">How many, with the end token; 0 for one without text.</param>
/// <param name="Bytes">Its text in UTF-8.</param>
/// <param name="Cut">The next document continues it.</param>
internal readonly record struct DocumentResult(long Line, int Tokens, int Bytes, bool Cut, string? Fault);

/// <summary>Some records of a file on their way from the reader through a tokenizing thread to the consumer.</summary>
internal sealed class DocumentBatch
{
    public const int HashBytes = 16;

    private readonly List<byte> _bytes = [];
    private readonly List<(int Start, int Length, long Line, bool Cut, string? Fault)> _records = [];

    public int Source { get; private set; }

    public int File { get; private set; }

    public string[]? Columns { get; private set; }

    /// <summary>Records of the file up to the last one of this batch.</summary>
    public long RecordsRead { get; set; }

    /// <summary>Bytes of the file, as on disk, that were read so far.</summary>
    public long FilePosition { get; set; }

    public bool EndsFile { get; set; }

    public int Bytes => _bytes.Count;

    public TaskCompletionSource Done { get; private set; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Results in the order of the input; their tokens and hashes (of the text) follow one another in the other lists.</summary>
    public List<DocumentResult> Documents { get; } = [];

    public List<int> Tokens { get; } = [];

    public List<byte> Hashes { get; } = [];

    public void Begin(int source, int file)
    {
        (Source, File, Columns, RecordsRead, FilePosition, EndsFile) = (source, file, null, 0, 0, false);
        Done = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        _bytes.Clear();
        _records.Clear();
        Documents.Clear();
        Tokens.Clear();
        Hashes.Clear();
        // One with a huge document is not to keep its memory for ever.
        if (_bytes.Capacity > 1 << 20) _bytes.Capacity = 0;
        if (Tokens.Capacity > 1 << 20) Tokens.Capacity = 0;
    }

    public void Add(RecordReader reader)
    {
        _records.Add((_bytes.Count, reader.Record.Length, reader.Line, reader.Cut, reader.Fault));
        _bytes.AddRange(reader.Record);
        Columns = reader.Columns;
    }

    public int Records => _records.Count;

    public ReadOnlySpan<byte> Record(int index, out long line, out bool cut, out string? fault)
    {
        (var start, var length, line, cut, fault) = _records[index];
        return CollectionsMarshal.AsSpan(_bytes).Slice(start, length);
    }
}

/// <summary>
/// Reads files and tokenizes their documents on several threads. One thread reads, the workers make texts and tokens, the caller gets
/// batches in the order of the input, so results do not depend on how many workers there are. At most <see cref="MaxBytesInFlight"/>
/// of text is on its way at once.
/// </summary>
internal sealed class TokenizingPipeline(IReadOnlyList<CorpusSource> sources, IReadOnlyList<IReadOnlyList<InputFile>> files, Tokenizer tokenizer, int workers, int batchBytes)
{
    public const long MaxBytesInFlight = 64 << 20;

    private readonly ConcurrentBag<DocumentBatch> _free = [];
    private readonly SemaphoreSlim _released = new(0);
    private long _inFlight;

    /// <summary>Hands over all batches behind the given position, in order. A batch is reused when the handler returns.</summary>
    public async Task RunAsync(int source, int file, long records, Action<DocumentBatch> handle, CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var work = Channel.CreateBounded<DocumentBatch>(new BoundedChannelOptions(2 * workers) { SingleWriter = true });
        var ordered = Channel.CreateBounded<DocumentBatch>(new BoundedChannelOptions(4 * workers + 4) { SingleWriter = true, SingleReader = true });
        var tasks = new List<Task> { Task.Run(() => ReadAsync(source, file, records, work.Writer, ordered.Writer, stop.Token), CancellationToken.None) };
        for (var i = 0; i < workers; i++) tasks.Add(Task.Run(() => WorkAsync(work.Reader, stop.Token), CancellationToken.None));
        try
        {
            await foreach (var batch in ordered.Reader.ReadAllAsync(stop.Token))
            {
                await batch.Done.Task.WaitAsync(stop.Token);
                handle(batch);
                Interlocked.Add(ref _inFlight, -batch.Bytes);
                _released.Release();
                _free.Add(batch);
            }
        }
        finally
        {
            await stop.CancelAsync();
            // What went wrong in them came through the channel or the batch already.
            await Task.WhenAll(tasks).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    private async Task ReadAsync(int firstSource, int firstFile, long skip, ChannelWriter<DocumentBatch> work, ChannelWriter<DocumentBatch> ordered, CancellationToken cancellation)
    {
        try
        {
            for (var source = firstSource; source < sources.Count; source++, firstFile = 0)
            {
                for (var file = firstFile; file < files[source].Count; file++, skip = 0)
                    await ReadFileAsync(source, file, skip, work, ordered, cancellation);
            }

            work.Complete();
            ordered.Complete();
        }
        catch (Exception e)
        {
            work.TryComplete();
            ordered.TryComplete(e);
        }
    }

    private async Task ReadFileAsync(int source, int file, long skip, ChannelWriter<DocumentBatch> work, ChannelWriter<DocumentBatch> ordered, CancellationToken cancellation)
    {
        var input = files[source][file];
        var (stream, content) = Decompression.Open(input.Path);
        using var reader = RecordReader.Open(input.Path, input.Format, sources[source].Separator, content);
        var batch = Rent(source, file);
        long records = 0;
        while (reader.Read())
        {
            cancellation.ThrowIfCancellationRequested();
            if (++records <= skip) continue;
            batch.Add(reader);
            if (batch.Bytes < batchBytes && batch.Records < 4096) continue;
            await SendAsync(ends: false);
            batch = Rent(source, file);
        }

        await SendAsync(ends: true);

        async ValueTask SendAsync(bool ends)
        {
            (batch.RecordsRead, batch.FilePosition, batch.EndsFile) = (records, stream.Position, ends);
            while (Volatile.Read(ref _inFlight) > MaxBytesInFlight) await _released.WaitAsync(cancellation);
            Interlocked.Add(ref _inFlight, batch.Bytes);
            await ordered.WriteAsync(batch, cancellation);
            await work.WriteAsync(batch, cancellation);
        }
    }

    private DocumentBatch Rent(int source, int file)
    {
        var batch = _free.TryTake(out var used) ? used : new DocumentBatch();
        batch.Begin(source, file);
        return batch;
    }

    private async Task WorkAsync(ChannelReader<DocumentBatch> work, CancellationToken cancellation)
    {
        var worker = new BatchTokenizer(sources, files, tokenizer);
        await foreach (var batch in work.ReadAllAsync(cancellation))
        {
            try
            {
                worker.Run(batch);
                batch.Done.SetResult();
            }
            catch (Exception e)
            {
                batch.Done.SetException(e);
            }
        }
    }
}

/// <summary>Makes tokens of a batch's records; one per thread.</summary>
internal sealed class BatchTokenizer(IReadOnlyList<CorpusSource> sources, IReadOnlyList<IReadOnlyList<InputFile>> files, Tokenizer tokenizer)
{
    private readonly int _end = tokenizer.EosId!.Value;
    private InputFile? _file;
    private RecordText? _text;
    private char[] _characters = [];

    public void Run(DocumentBatch batch)
    {
        var file = files[batch.Source][batch.File];
        if (_text is null || !ReferenceEquals(_file, file)) _text = RecordText.For(file, sources[batch.Source], batch.Columns, tokenizer.ChatTemplate);
        _file = file;
        for (var i = 0; i < batch.Records; i++)
        {
            var record = batch.Record(i, out var line, out var cut, out var fault);
            fault ??= _text.Make(record);
            if (fault is not null)
            {
                batch.Documents.Add(new DocumentResult(line, 0, 0, false, fault));
                continue;
            }

            var rest = _text.Text;
            do
            {
                var part = rest[..RecordReader.CutPoint(rest, RecordReader.MaxDocumentBytes)];
                rest = rest[part.Length..];
                Add(batch, line, part, cut || !rest.IsEmpty, addSpecialTokens: sources[batch.Source].Messages is null);
            }
            while (!rest.IsEmpty);
        }
    }

    private void Add(DocumentBatch batch, long line, ReadOnlySpan<byte> text, bool cut, bool addSpecialTokens)
    {
        var before = batch.Tokens.Count;
        if (text.IndexOfAnyExcept(" \t\r\n"u8) >= 0)
        {
            var most = Encoding.UTF8.GetMaxCharCount(text.Length);
            if (_characters.Length < most) _characters = new char[Math.Max(most, Math.Min(2 * _characters.Length, 1 << 20))];
            tokenizer.Encode(_characters.AsSpan(0, Encoding.UTF8.GetChars(text, _characters)), batch.Tokens, addSpecialTokens);
            if (batch.Tokens.Count > before && batch.Tokens[^1] != _end) batch.Tokens.Add(_end);
        }

        batch.Documents.Add(new DocumentResult(line, batch.Tokens.Count - before, text.Length, cut, Fault: null));
        Span<byte> hash = stackalloc byte[SHA256.HashSizeInBytes];
        SHA256.HashData(text, hash);
        batch.Hashes.AddRange(hash[..DocumentBatch.HashBytes]);
    }
}
