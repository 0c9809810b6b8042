using System.Buffers;
using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace Rho.Scoring.Shards;

/// <summary>Consecutive tokens of a shard as they arrive.</summary>
/// <param name="FirstToken">Index in the shard, sequence * length + position.</param>
/// <param name="Tokens">[n] ids in the shard's element type, little-endian.</param>
/// <param name="Layout">[n] one of <see cref="TokenLayout"/> per token, or empty: all 0.</param>
[StructLayout(LayoutKind.Auto)]
public readonly record struct TokenBlock(long FirstToken, ReadOnlyMemory<byte> Tokens, ReadOnlyMemory<byte> Layout);

/// <summary>What a layout byte says of its token.</summary>
public static class TokenLayout
{
    public const byte GoesOn = 0;
    public const byte BeginsDocument = 1;
    public const byte Padding = 2;

    /// <summary>Numbers a sequence's documents 0, 1, 2, ...; padding is -1.</summary>
    public static void ToDocuments(ReadOnlySpan<byte> layout, Span<int> documents)
    {
        var number = 0;
        for (var t = 0; t < layout.Length; t++)
        {
            if (layout[t] == BeginsDocument) number++;
            documents[t] = layout[t] == Padding ? -1 : number;
        }
    }

    /// <summary>The first position with an impossible byte, or -1.</summary>
    /// <param name="firstPosition">Position in its sequence of the first byte.</param>
    public static int FirstInvalid(ReadOnlySpan<byte> layout, int firstPosition, int length)
    {
        var invalid = layout.IndexOfAnyExceptInRange(GoesOn, Padding);
        var limit = invalid < 0 ? layout.Length : invalid;
        for (var t = (length - firstPosition) % length; t < limit; t += length)
            if (layout[t] == BeginsDocument)
                return t;
        return invalid;
    }
}

/// <summary>
/// A shard's tokens between their arrival and their scoring: on disk, so that memory does not grow with the shard, and hashed, so that
/// nothing is scored or cached under a hash that is not its own. Where the hashes of the shard's chunks are known, only the chunks
/// that are needed have to come; otherwise all of the shard. The file has no name and goes with the process.
/// </summary>
internal sealed class TokenSpool : IDisposable
{
    private const int MaxRanges = 3000; // of one message

    private readonly ShardRequest _request;
    private readonly int _vocabularySize;
    private readonly byte[]? _known;
    private readonly bool[] _held;
    private readonly SafeFileHandle _file;
    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
    private readonly IncrementalHash _layoutHash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
    private bool _hasLayout;
    private List<SequenceRange> _expected;
    private int _range;

    /// <param name="chunkHashes">Of the shard's chunks, as <see cref="ChunkHashes"/> of a spool that saw all of it; null: this one is to.</param>
    public TokenSpool(string directory, ShardRequest request, int vocabularySize, byte[]? chunkHashes = null)
    {
        _known = chunkHashes;
        _held = new bool[request.Grid.Chunks];
        _expected = chunkHashes is null ? [new SequenceRange(0, request.Grid.Sequences)] : [];
        _request = request;
        _vocabularySize = vocabularySize;
        var path = Path.Combine(directory, $"rho-tokens-{Guid.NewGuid():N}");
        try
        {
            _file = File.OpenHandle(path, FileMode.CreateNew, FileAccess.ReadWrite, FileShare.None);
            File.Delete(path);
            // The layout follows the tokens; where nothing is written the file reads as zeros and takes no room.
            RandomAccess.SetLength(_file, request.Grid.Tokens * (request.BytesPerId + 1));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _file?.Dispose();
            throw new UnavailableException($"the scorer cannot keep tokens in {directory}: {e.Message}");
        }

        var type = request.BytesPerId == sizeof(ushort) ? "U16" : "U32";
        _hash.AppendData(Encoding.ASCII.GetBytes($"{type} {request.Grid.Sequences} {request.Grid.Length}\n"));
    }

    /// <summary>Index in the shard of the token that comes next.</summary>
    public long Next { get; private set; }

    /// <summary>Whether all that is expected has arrived.</summary>
    public bool IsComplete => _range == _expected.Count || Next == End && _range == _expected.Count - 1;

    /// <summary>SHA-256 of each chunk's bytes, [chunks * 32], once all of the shard is verified; null where only parts of it come.</summary>
    public byte[]? ChunkHashes { get; private set; }

    private long End => _expected[_range].End * _request.Grid.Length;

    /// <summary>Whether the tokens of a chunk are here, verified.</summary>
    public bool Holds(int chunk) => Volatile.Read(ref _held[chunk]);

    /// <summary>
    /// What has to be appended and verified so that chunks can be read: ranges, or none for all of the shard. Null: nothing. There may be
    /// more of it than one message holds: then it is asked for again.
    /// </summary>
    /// <param name="chunks">In ascending order.</param>
    public IReadOnlyList<SequenceRange>? Expect(IEnumerable<int> chunks)
    {
        var lacking = new List<SequenceRange>();
        foreach (var chunk in chunks)
        {
            if (Holds(chunk)) continue;
            var first = _request.Grid.FirstSequence(chunk);
            var end = first + _request.Grid.SequencesIn(chunk);
            if (lacking.Count > 0 && lacking[^1].End == first) lacking[^1] = lacking[^1] with { End = end };
            else lacking.Add(new SequenceRange(first, end));
        }

        if (lacking.Count == 0) return null;
        if (_known is null) return [];
        if (lacking.Count > MaxRanges) lacking.RemoveRange(MaxRanges, lacking.Count - MaxRanges);
        (_expected, _range, Next) = (lacking, 0, lacking[0].First * _request.Grid.Length);
        return lacking;
    }

    /// <exception cref="RhoException">The block is not the next one, or a token is not in the vocabulary.</exception>
    public void Append(in TokenBlock block)
    {
        var width = _request.BytesPerId;
        var count = block.Tokens.Length / width;
        if (block.FirstToken != Next)
            throw new RhoException($"token block begins at token {block.FirstToken}; expected {Next}");
        if (count == 0 || block.Tokens.Length % width != 0)
            throw new RhoException($"token block at token {Next} has {block.Tokens.Length} bytes; expected a multiple of {width} above 0");
        if (count > End - Next)
            throw new RhoException($"token block at token {Next} goes past the {(_known is null ? "shard's end" : "range asked for")}: {count} tokens, {End - Next} are left");
        if (block.Layout.Length != 0 && block.Layout.Length != count)
            throw new RhoException($"token block at token {Next} has {count} tokens and {block.Layout.Length} layout bytes; expected as many, or none");
        CheckIds(block.Tokens.Span);
        var length = _request.Grid.Length;
        if (TokenLayout.FirstInvalid(block.Layout.Span, (int)(Next % length), length) is >= 0 and var at)
            throw new RhoException($"layout byte {block.Layout.Span[at]} {Place(Next + at)} is not possible there");

        if (_known is null)
        {
            _hash.AppendData(block.Tokens.Span);
            AppendLayout(block.Layout.Span, count);
        }

        try
        {
            RandomAccess.Write(_file, block.Tokens.Span, Next * width);
            if (block.Layout.Length > 0) RandomAccess.Write(_file, block.Layout.Span, _request.Grid.Tokens * width + Next);
        }
        catch (IOException e)
        {
            throw new UnavailableException($"the scorer cannot keep the shard's tokens: {e.Message}");
        }

        Next += count;
        if (Next < End || _range == _expected.Count - 1) return;
        _range++;
        Next = _expected[_range].First * length;
    }

    /// <summary>Checks what was expected and has arrived.</summary>
    /// <exception cref="CorruptDataException">The tokens or their layout do not have the announced hash.</exception>
    public void Verify()
    {
        if (_known is null) VerifyWhole();
        var hashes = _known ?? new byte[_held.Length * SHA256.HashSizeInBytes];
        Span<byte> hash = stackalloc byte[SHA256.HashSizeInBytes];
        foreach (var (first, end) in _expected)
        {
            for (var chunk = _request.Grid.ChunkOf(first); chunk < _held.Length && _request.Grid.FirstSequence(chunk) < end; chunk++)
            {
                Hash(chunk, hash);
                var known = hashes.AsSpan(VerifiedShards.Of(chunk));
                if (_known is null) hash.CopyTo(known);
                else if (!hash.SequenceEqual(known))
                    throw new CorruptDataException($"tokens or layout of sequences {_request.Grid.FirstSequence(chunk)} to {_request.Grid.FirstSequence(chunk) + _request.Grid.SequencesIn(chunk) - 1} are not those of shard {_request.Sha256}: the shard file was changed or damaged");
                Volatile.Write(ref _held[chunk], true);
            }
        }

        if (_known is null) ChunkHashes = hashes;
    }

    /// <summary>Reads the tokens of a chunk and, where the shard has a layout, their documents.</summary>
    /// <param name="tokens">At least as long as the chunk.</param>
    /// <param name="documents">As <paramref name="tokens"/>, or empty where <see cref="ShardRequest.LayoutSha256"/> is.</param>
    public void Read(int chunk, Span<int> tokens, Span<int> documents)
    {
        var grid = _request.Grid;
        var count = grid.TokensIn(chunk);
        var first = grid.FirstSequence(chunk) * grid.Length;
        var buffer = ArrayPool<byte>.Shared.Rent(count * _request.BytesPerId);
        try
        {
            var bytes = buffer.AsSpan(0, count * _request.BytesPerId);
            ReadExactly(bytes, first * _request.BytesPerId);
            Widen(bytes, tokens[..count]);
            if (documents.IsEmpty) return;
            bytes = buffer.AsSpan(0, count);
            ReadExactly(bytes, grid.Tokens * _request.BytesPerId + first);
            for (var start = 0; start < count; start += grid.Length)
                TokenLayout.ToDocuments(bytes.Slice(start, grid.Length), documents.Slice(start, grid.Length));
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    public void Dispose()
    {
        _file.Dispose();
        _hash.Dispose();
        _layoutHash.Dispose();
    }

    private void VerifyWhole()
    {
        var hash = Convert.ToHexStringLower(_hash.GetHashAndReset());
        if (hash != _request.Sha256)
            throw new CorruptDataException($"the shard's tokens have SHA-256 {hash}, but {_request.Sha256} was announced: the shard file was changed or damaged");
        var layout = _hasLayout ? Convert.ToHexStringLower(_layoutHash.GetHashAndReset()) : "";
        if (layout != _request.LayoutSha256)
            throw new CorruptDataException($"the shard's layout has SHA-256 '{layout}', but '{_request.LayoutSha256}' was announced");
    }

    /// <summary>SHA-256 of a chunk's bytes as they are in the file: tokens, and layout where the shard has one.</summary>
    private void Hash(int chunk, Span<byte> hash)
    {
        var (first, count) = (_request.Grid.FirstToken(chunk), _request.Grid.TokensIn(chunk));
        var (tokens, layout) = (count * _request.BytesPerId, _request.LayoutSha256.Length > 0 ? count : 0);
        var buffer = ArrayPool<byte>.Shared.Rent(tokens + layout);
        try
        {
            var bytes = buffer.AsSpan(0, tokens + layout);
            ReadExactly(bytes[..tokens], first * _request.BytesPerId);
            ReadExactly(bytes[tokens..], _request.Grid.Tokens * _request.BytesPerId + first);
            SHA256.HashData(bytes, hash);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private void ReadExactly(Span<byte> bytes, long offset)
    {
        if (RandomAccess.Read(_file, bytes, offset) != bytes.Length)
            throw new UnavailableException("the scorer's spool file is shorter than what was written to it");
    }

    private void Widen(ReadOnlySpan<byte> bytes, Span<int> tokens)
    {
        if (_request.BytesPerId == sizeof(uint))
        {
            MemoryMarshal.Cast<byte, int>(bytes).CopyTo(tokens);
            return;
        }

        var narrow = MemoryMarshal.Cast<byte, ushort>(bytes);
        for (var i = 0; i < narrow.Length; i++) tokens[i] = narrow[i];
    }

    private void AppendLayout(ReadOnlySpan<byte> layout, int count)
    {
        // A layout of zeros is no layout; the zeros before the first other byte are hashed once that one comes.
        if (!_hasLayout && layout.IndexOfAnyExcept(TokenLayout.GoesOn) < 0) return;
        if (!_hasLayout)
        {
            _hasLayout = true;
            AppendZeros(Next);
        }

        if (layout.IsEmpty) AppendZeros(count);
        else _layoutHash.AppendData(layout);
    }

    private void AppendZeros(long count)
    {
        Span<byte> zeros = stackalloc byte[4096];
        zeros.Clear();
        for (; count > 0; count -= zeros.Length) _layoutHash.AppendData(zeros[..(int)Math.Min(count, zeros.Length)]);
    }

    private void CheckIds(ReadOnlySpan<byte> bytes)
    {
        if (_request.BytesPerId == sizeof(ushort))
        {
            if (_vocabularySize > ushort.MaxValue) return;
            var ids = MemoryMarshal.Cast<byte, ushort>(bytes);
            if (ids.IndexOfAnyExceptInRange((ushort)0, (ushort)(_vocabularySize - 1)) is >= 0 and var at) throw Outside(ids[at], at);
        }
        else
        {
            var ids = MemoryMarshal.Cast<byte, uint>(bytes);
            if (ids.IndexOfAnyExceptInRange(0u, (uint)(_vocabularySize - 1)) is >= 0 and var at) throw Outside(ids[at], at);
        }
    }

    private RhoException Outside(uint id, int at) =>
        new($"token id {id} {Place(Next + at)} is not in the reference's vocabulary of {_vocabularySize}");

    private string Place(long token) => $"in sequence {token / _request.Grid.Length} at position {token % _request.Grid.Length}";
}
