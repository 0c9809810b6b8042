using System.Runtime.InteropServices;
using Rho.Formats;

namespace Rho.Data;

/// <summary>What a corpus is to be like; see <see cref="CorpusDescription"/> and <see cref="CorpusOptions"/> for the fields.</summary>
public sealed record CorpusLayout
{
    public const int MaxShardTokens = 64 << 20;

    public required string TokenizerFingerprint { get; init; }

    public required int VocabularySize { get; init; }

    public int? EndToken { get; init; }

    public required int SequenceLength { get; init; }

    public bool DocumentsSeeEachOther { get; init; } = true;

    public bool DocumentsCrossSequences { get; init; } = true;

    public int ShardTokens { get; init; } = 4 << 20;
}

/// <summary>
/// Packs tokenized documents into sequences and these into shards, with memory for one shard. The folder becomes a corpus when
/// <see cref="Complete"/> writes corpus.json. A shard that is there already, from a run that was interrupted, is kept if it is the same.
/// </summary>
public sealed class CorpusWriter
{
    /// <summary>Sequences that wait for a document that fits, where documents do not cross sequences.</summary>
    private const int MaxOpen = 64;

    private readonly string _directory;
    private readonly CorpusLayout _layout;
    private readonly int[] _tokens;
    private readonly List<Piece> _pieces = [];
    private readonly List<ShardEntry> _shards = [];
    private readonly List<OpenSequence> _open = [];
    private int _filled; // sequences of the shard at hand that are done
    private int _used; // tokens of the sequence at hand, where documents cross sequences
    private long _documents, _tokenCount;

    /// <exception cref="RhoException">A value of the layout is impossible, or the folder cannot be made.</exception>
    public CorpusWriter(string directory, CorpusLayout layout)
    {
        if (layout.SequenceLength is < 2 or > 1 << 24) throw new RhoException($"sequence length {layout.SequenceLength} is not possible: 2 to {1 << 24} tokens");
        if (layout.ShardTokens is < 1 or > CorpusLayout.MaxShardTokens) throw new RhoException($"{layout.ShardTokens} tokens per shard are not possible: 1 to {CorpusLayout.MaxShardTokens}");
        _directory = directory;
        _layout = layout;
        _tokens = new int[Math.Max(1, layout.ShardTokens / layout.SequenceLength) * layout.SequenceLength];
        try
        {
            Directory.CreateDirectory(directory);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw DiskError.Translate(directory, e);
        }
    }

    /// <summary>Tokens added so far.</summary>
    public long Tokens => _tokenCount;

    private int Length => _layout.SequenceLength;

    /// <summary>Adds a document: its tokens with the one that ends it. Documents are numbered in the order added.</summary>
    public void Add(ReadOnlySpan<int> document)
    {
        if (document.IsEmpty) throw new ArgumentException("a document has at least one token", nameof(document));
        if (_layout.DocumentsCrossSequences) AddAcross(document);
        else AddInside(document);
        _documents++;
        _tokenCount += document.Length;
    }

    /// <summary>Writes the last shard and corpus.json.</summary>
    /// <param name="report">Is given the corpus's padding, which only the writer knows; null for none.</param>
    public Corpus Complete(Func<long, CorpusReport>? report = null)
    {
        foreach (var sequence in _open) Close(sequence);
        if (_used > 0) EndSequence();
        WriteShard();
        var sequences = _shards.Sum(shard => shard.Sequences);
        Corpus.Save(_directory, new CorpusDescription
        {
            TokenizerFingerprint = _layout.TokenizerFingerprint,
            VocabularySize = _layout.VocabularySize,
            EndToken = _layout.EndToken,
            SequenceLength = Length,
            DocumentsSeeEachOther = _layout.DocumentsSeeEachOther,
            DocumentsCrossSequences = _layout.DocumentsCrossSequences,
            Sequences = sequences,
            Tokens = _tokenCount,
            Documents = _documents,
            Shards = _shards,
            Report = report?.Invoke(sequences * Length - _tokenCount),
        });
        return Corpus.Open(_directory);
    }

    private void AddAcross(ReadOnlySpan<int> document)
    {
        while (!document.IsEmpty)
        {
            var count = Math.Min(document.Length, Length - _used);
            document[..count].CopyTo(_tokens.AsSpan(_filled * Length + _used));
            _pieces.Add(new Piece(_filled, _used, count, _documents));
            document = document[count..];
            _used += count;
            if (_used == Length) EndSequence();
        }
    }

    private void AddInside(ReadOnlySpan<int> document)
    {
        for (; document.Length > Length; document = document[Length..]) Place(document[..Length]);
        Place(document);
    }

    // Best fit: the open sequence in which least stays free, the oldest of equals.
    private void Place(ReadOnlySpan<int> tokens)
    {
        OpenSequence? best = null;
        foreach (var sequence in _open)
            if (Length - sequence.Used >= tokens.Length && (best is null || sequence.Used > best.Used)) best = sequence;
        if (best is null)
        {
            if (_open.Count == MaxOpen)
            {
                var fullest = _open.MaxBy(sequence => sequence.Used)!;
                Close(fullest);
                _open.Remove(fullest);
            }

            _open.Add(best = new OpenSequence(Length));
        }

        tokens.CopyTo(best.Tokens.AsSpan(best.Used));
        best.Pieces.Add((best.Used, tokens.Length, _documents));
        best.Used += tokens.Length;
        if (best.Used < Length) return;
        Close(best);
        _open.Remove(best);
    }

    private void Close(OpenSequence sequence)
    {
        sequence.Tokens.CopyTo(_tokens.AsSpan(_filled * Length));
        foreach (var (start, length, document) in sequence.Pieces) _pieces.Add(new Piece(_filled, start, length, document));
        EndSequence();
    }

    private void EndSequence()
    {
        _used = 0;
        if (++_filled * Length == _tokens.Length) WriteShard();
    }

    private void WriteShard()
    {
        if (_filled == 0) return;
        var name = $"shard-{_shards.Count:D5}.safetensors";
        var path = Path.Combine(_directory, name);
        var tokens = _tokens.AsSpan(0, _filled * Length);
        if (!IsOnDisk(path, tokens))
        {
            TokenShard.Write(
                path, tokens, Length, _layout.VocabularySize, CollectionsMarshal.AsSpan(_pieces),
                new Dictionary<string, string>(StringComparer.Ordinal) { ["tokenizer"] = _layout.TokenizerFingerprint });
        }

        using (var shard = TokenShard.Open(path)) _shards.Add(new ShardEntry(name, _filled, shard.Sha256));
        _tokens.AsSpan().Clear();
        _pieces.Clear();
        _filled = 0;
    }

    private bool IsOnDisk(string path, ReadOnlySpan<int> tokens)
    {
        if (!File.Exists(path)) return false;
        using var shard = TokenShard.Open(path);
        if (shard.Length != Length || shard.Sequences != _filled) return false;
        var there = new int[tokens.Length];
        shard.Read(0, there);
        return tokens.SequenceEqual(there) && shard.Pieces(0, _filled).AsSpan().SequenceEqual(CollectionsMarshal.AsSpan(_pieces));
    }

    private sealed class OpenSequence(int length)
    {
        public int[] Tokens { get; } = new int[length];

        public List<(int Start, int Length, long Document)> Pieces { get; } = [];

        public int Used { get; set; }
    }
}
