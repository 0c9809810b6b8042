using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;

namespace Rho.Formats;

/// <summary>
/// A run of tokens of one document inside one sequence of a shard. Tokens that no piece covers are padding.
/// A document that crosses a sequence's end has a piece in each sequence; <see cref="Document"/> numbers documents over the whole corpus.
/// </summary>
[StructLayout(LayoutKind.Auto)]
public readonly record struct Piece(long Sequence, int Start, int Length, long Document);

/// <summary>
/// A file of token sequences of equal length: tensor <c>tokens</c>, U16 or U32 [sequences, length], and tensor <c>documents</c>, I64
/// [pieces, 4], whose rows (sequence, start, length, document) are ordered by sequence and start and do not overlap. Without
/// <c>documents</c>, as other programs may write it, each sequence is one document and there is no padding. A tensor <c>loss_mask</c>, U8 or
/// BOOL [sequences, length], may say which tokens' losses count: 0 where one does not. Read-only and safe to use from several threads.
/// </summary>
public sealed class TokenShard : IDisposable
{
    internal const string Format = "rho.tokens.v1";

    /// <summary>Name of the tensor with the loss mask.</summary>
    public const string LossMask = "loss_mask";

    /// <summary>Small enough that the arrays for it are not of the large kind, which are collected late.</summary>
    private const int StepElements = 1 << 15;

    private readonly SafetensorsFile _file;
    private readonly bool _hasPieces;
    private readonly long _pieces;
    private readonly Lazy<string> _sha256;
    private readonly Lazy<string> _documentsSha256;

    private TokenShard(SafetensorsFile file, TensorEntry tokens)
    {
        _file = file;
        TokenType = tokens.Type;
        Sequences = tokens.Shape[0];
        Length = (int)tokens.Shape[1];
        _hasPieces = file.Tensors.TryGetValue("documents", out var documents);
        _pieces = _hasPieces ? documents!.Shape[0] : Sequences;
        _sha256 = new Lazy<string>(ComputeSha256);
        _documentsSha256 = new Lazy<string>(ComputeDocumentsSha256);
    }

    public string Path => _file.Path;

    /// <summary>U16 or U32.</summary>
    public ElementType TokenType { get; }

    public long Sequences { get; }

    /// <summary>Tokens of each sequence.</summary>
    public int Length { get; }

    /// <summary>Whether the shard says which tokens' losses count.</summary>
    public bool HasLossMask => _file.Tensors.ContainsKey(LossMask);

    /// <summary>
    /// The shard's identity, 64 lower-case hexadecimal digits: SHA-256 over the ASCII line <c>"TYPE SEQUENCES LENGTH\n"</c> (such as
    /// "U16 8192 512\n") and the tokens' bytes as stored, little-endian. Computed once, when first asked for. In Python:
    /// <c>hashlib.sha256(b"U16 %d %d\n" % t.shape + t.tobytes()).hexdigest()</c>.
    /// </summary>
    public string Sha256 => _sha256.Value;

    /// <summary>
    /// SHA-256 over what the document mask and padding depend on: for each piece, sequence, start, length and the number of its
    /// document within the sequence, as four little-endian I64. Two shards of the same tokens can differ here, and then differ in the
    /// losses of documents that do not see each other.
    /// </summary>
    public string DocumentsSha256 => _documentsSha256.Value;

    /// <summary>Maps a shard and checks it: types, shapes and pieces.</summary>
    /// <exception cref="RhoException">The file is missing or not a token shard; the message names file and fault.</exception>
    public static TokenShard Open(string path)
    {
        var file = SafetensorsFile.Open(path);
        try
        {
            var tokens = file.Tensor("tokens");
            if (tokens.Type is not (ElementType.U16 or ElementType.U32) || tokens.Shape.Length != 2 || tokens.Shape[1] is < 1 or > 1 << 24)
                throw new RhoException($"{path}: not a token shard: tensor {tokens} is to be U16 or U32 [sequences, length] with a length from 1 to {1 << 24}");
            var shard = new TokenShard(file, tokens);
            if (shard._hasPieces) shard.CheckPieces(file.Tensor("documents"));
            if (shard.HasLossMask && file.Tensor(LossMask) is var mask && (mask.Type is not (ElementType.U8 or ElementType.Bool) || !mask.Shape.AsSpan().SequenceEqual(tokens.Shape)))
                throw new RhoException($"{path}: not a token shard: tensor {mask} is to be U8 or BOOL of the shape of {tokens}");
            return shard;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Writes a shard, which appears whole or not at all. Tokens are stored as U16 where the vocabulary fits, otherwise as U32.
    /// </summary>
    /// <param name="path">The file.</param>
    /// <param name="tokens">Sequences one after another, [sequences * length].</param>
    /// <param name="length">Tokens of each sequence.</param>
    /// <param name="vocabularySize">Every token is to be below it.</param>
    /// <param name="pieces">Ordered by sequence and start; their documents number from 0 over the whole corpus.</param>
    /// <param name="metadata">Goes into the header beside the format's name.</param>
    public static void Write(
        string path, ReadOnlySpan<int> tokens, int length, int vocabularySize, ReadOnlySpan<Piece> pieces, IReadOnlyDictionary<string, string>? metadata = null)
    {
        if (tokens.Length % length != 0) throw new ArgumentException($"{tokens.Length} tokens are no whole number of sequences of {length}", nameof(tokens));
        foreach (var token in tokens)
            if ((uint)token >= (uint)vocabularySize) throw new RhoException($"{path}: token {token} is not in the vocabulary of {vocabularySize}");

        var all = new Dictionary<string, string>(metadata ?? new Dictionary<string, string>(StringComparer.Ordinal), StringComparer.Ordinal) { ["format"] = Format };
        var type = TypeFor(vocabularySize);
        using var writer = SafetensorsWriter.Create(
            path, [("documents", ElementType.I64, [pieces.Length, 4]), ("tokens", type, [tokens.Length / length, length])], all);
        if (type == ElementType.U32)
        {
            // By parts: the bytes of a large shard do not fit into one span.
            for (var start = 0; start < tokens.Length; start += 1 << 24)
                writer.Write("tokens", 4L * start, MemoryMarshal.AsBytes(tokens.Slice(start, Math.Min(1 << 24, tokens.Length - start))));
        }
        else
        {
            var narrow = new ushort[Math.Min(tokens.Length, StepElements)];
            for (var start = 0; start < tokens.Length; start += narrow.Length)
            {
                var part = tokens.Slice(start, Math.Min(narrow.Length, tokens.Length - start));
                for (var i = 0; i < part.Length; i++) narrow[i] = (ushort)part[i];
                writer.Write("tokens", 2L * start, MemoryMarshal.AsBytes(narrow.AsSpan(0, part.Length)));
            }
        }

        var rows = new long[Math.Min(pieces.Length, StepElements / 16) * 4];
        for (var start = 0; start < pieces.Length; start += StepElements / 16)
        {
            var part = pieces.Slice(start, Math.Min(StepElements / 16, pieces.Length - start));
            for (var i = 0; i < part.Length; i++)
            {
                rows[i * 4] = part[i].Sequence;
                rows[i * 4 + 1] = part[i].Start;
                rows[i * 4 + 2] = part[i].Length;
                rows[i * 4 + 3] = part[i].Document;
            }

            writer.Write("documents", 32L * start, MemoryMarshal.AsBytes(rows.AsSpan(0, part.Length * 4)));
        }

        writer.Complete();
    }

    /// <summary>The element type in which tokens of such a vocabulary are stored.</summary>
    public static ElementType TypeFor(int vocabularySize) => vocabularySize <= 1 << 16 ? ElementType.U16 : ElementType.U32;

    /// <summary>Reads whole sequences as 32-bit token ids; padding reads as stored (0).</summary>
    /// <param name="firstSequence">Of this shard.</param>
    /// <param name="tokens">[sequences * Length]: its length says how many sequences.</param>
    public void Read(long firstSequence, Span<int> tokens)
    {
        var count = SequenceCount(tokens.Length, nameof(tokens));
        var bytes = TokenBytes(firstSequence, count);
        if (TokenType == ElementType.U32) MemoryMarshal.Cast<byte, int>(bytes).CopyTo(tokens);
        else PackedTokens.Widen(MemoryMarshal.Cast<byte, ushort>(bytes), tokens);
    }

    /// <summary>The tokens' bytes of whole sequences as stored: little-endian, of type <see cref="TokenType"/>.</summary>
    public ReadOnlySpan<byte> TokenBytes(long firstSequence, int count)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(firstSequence);
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, Sequences - firstSequence);
        var row = (long)Length * TokenType.Size();
        return _file.Bytes("tokens", firstSequence * row, checked((int)(count * row)));
    }

    /// <summary>The pieces of <paramref name="count"/> sequences, ordered by sequence and start.</summary>
    public Piece[] Pieces(long firstSequence, int count)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(firstSequence);
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, Sequences - firstSequence);
        var begin = FirstPieceOf(firstSequence);
        var pieces = new Piece[checked((int)(FirstPieceOf(firstSequence + count) - begin))];
        for (var i = 0; i < pieces.Length; i++) pieces[i] = PieceAt(begin + i);
        return pieces;
    }

    /// <summary>Per token the number of its document within its sequence, 0, 1, 2, ... in order of appearance, or -1 for padding.</summary>
    /// <param name="firstSequence">Of this shard.</param>
    /// <param name="documentOf">[sequences * Length]: its length says how many sequences.</param>
    public void ReadDocuments(long firstSequence, Span<int> documentOf)
    {
        var count = SequenceCount(documentOf.Length, nameof(documentOf));
        ArgumentOutOfRangeException.ThrowIfNegative(firstSequence);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, Sequences - firstSequence);
        documentOf.Fill(-1);
        var end = FirstPieceOf(firstSequence + count);
        var last = default(Piece);
        var number = 0;
        for (var i = FirstPieceOf(firstSequence); i < end; i++)
        {
            var piece = PieceAt(i);
            number = NumberInSequence(piece, last, number);
            documentOf.Slice((int)(piece.Sequence - firstSequence) * Length + piece.Start, piece.Length).Fill(number);
            last = piece;
        }
    }

    /// <summary>The loss mask of whole sequences, [count * Length]: 0 where a token's loss does not count; of a shard that has one.</summary>
    /// <exception cref="RhoException">The shard has none.</exception>
    public ReadOnlySpan<byte> ReadLossMask(long firstSequence, int count)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(firstSequence);
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, Sequences - firstSequence);
        return _file.Bytes(LossMask, firstSequence * Length, checked(count * Length));
    }

    public void Dispose() => _file.Dispose();

    /// <summary>The largest token id of the shard, or -1 for a shard without tokens.</summary>
    internal long LargestToken()
    {
        long largest = -1;
        for (long sequence = 0, step = StepSequences; sequence < Sequences; sequence += step)
        {
            var bytes = TokenBytes(sequence, (int)Math.Min(step, Sequences - sequence));
            largest = Math.Max(largest, TokenType == ElementType.U16
                ? PackedTokens.Max(MemoryMarshal.Cast<byte, ushort>(bytes))
                : PackedTokens.Max(MemoryMarshal.Cast<byte, uint>(bytes)));
        }

        return largest;
    }

    /// <summary>Tokens that are not padding.</summary>
    internal long CoveredTokens()
    {
        long sum = 0;
        for (long i = 0; i < _pieces; i++) sum += PieceAt(i).Length;
        return sum;
    }

    private long StepSequences => Math.Max(1, (1 << 22) / Length);

    private int SequenceCount(int tokens, string parameter)
        => tokens % Length == 0 ? tokens / Length : throw new ArgumentException($"{tokens} is no multiple of the sequence length {Length}", parameter);

    // The mapped rows are read in place: a shard of short documents has more of them than an array should hold.
    private unsafe Piece PieceAt(long index)
    {
        if (!_hasPieces) return new Piece(index, 0, Length, index);
        var row = (long*)_file.Pointer("documents") + index * 4;
        return new Piece(row[0], (int)row[1], (int)row[2], row[3]);
    }

    private long FirstPieceOf(long sequence)
    {
        if (!_hasPieces) return sequence;
        long low = 0, high = _pieces;
        while (low < high)
        {
            var middle = (low + high) / 2;
            if (PieceAt(middle).Sequence < sequence) low = middle + 1;
            else high = middle;
        }

        return low;
    }

    private static int NumberInSequence(Piece piece, Piece last, int lastNumber)
        => last.Length == 0 || piece.Sequence != last.Sequence ? 0 : piece.Document == last.Document ? lastNumber : lastNumber + 1;

    private unsafe void CheckPieces(TensorEntry documents)
    {
        if (documents.Type != ElementType.I64 || documents.Shape.Length != 2 || documents.Shape[1] != 4)
            throw new RhoException($"{Path}: not a token shard: tensor {documents} is to be I64 [pieces, 4]");
        var rows = (long*)_file.Pointer("documents");
        long lastSequence = 0, lastEnd = 0;
        for (long i = 0; i < _pieces; i++, rows += 4)
        {
            var (sequence, start, length, document) = (rows[0], rows[1], rows[2], rows[3]);
            var inside = sequence >= 0 && sequence < Sequences && start >= 0 && length >= 1 && length <= Length && start <= Length - length && document >= 0;
            var ordered = sequence > lastSequence || (sequence == lastSequence && start >= lastEnd);
            if (!inside || !ordered)
            {
                throw new RhoException($"{Path}: not a token shard: row {i} of documents, ({sequence}, {start}, {length}, {document}), " +
                    (inside ? "overlaps the row before it or is out of order" : $"does not lie inside {Sequences} sequences of {Length} tokens"));
            }

            (lastSequence, lastEnd) = (sequence, start + length);
        }
    }

    private string ComputeSha256()
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(Encoding.ASCII.GetBytes($"{TokenType.Name()} {Sequences} {Length}\n"));
        for (long sequence = 0, step = StepSequences; sequence < Sequences; sequence += step)
            hash.AppendData(TokenBytes(sequence, (int)Math.Min(step, Sequences - sequence)));
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    private string ComputeDocumentsSha256()
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var rows = new long[4096];
        var filled = 0;
        var last = default(Piece);
        var number = 0;
        for (long i = 0; i < _pieces; i++)
        {
            var piece = PieceAt(i);
            number = NumberInSequence(piece, last, number);
            last = piece;
            (rows[filled], rows[filled + 1], rows[filled + 2], rows[filled + 3]) = (piece.Sequence, piece.Start, piece.Length, number);
            filled += 4;
            if (filled < rows.Length) continue;
            hash.AppendData(MemoryMarshal.AsBytes(rows.AsSpan()));
            filled = 0;
        }

        hash.AppendData(MemoryMarshal.AsBytes(rows.AsSpan(0, filled)));
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }
}
