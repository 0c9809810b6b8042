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
/// A shard's tokens between their arrival and their scoring: on disk, so that memory does not grow with the shard, and hashed on
/// the way, so that nothing is scored or cached under a hash that is not its own. The file has no name and goes with the process.
/// </summary>
internal sealed class TokenSpool : IDisposable
{
    private readonly ShardRequest _request;
    private readonly int _vocabularySize;
    private readonly SafeFileHandle _file;
    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
    private readonly IncrementalHash _layoutHash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
    private bool _hasLayout;

    public TokenSpool(string directory, ShardRequest request, int vocabularySize)
    {
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

    /// <summary>Tokens that have arrived.</summary>
    public long Received { get; private set; }

    public bool IsComplete => Received == _request.Grid.Tokens;

    /// <exception cref="RhoException">The block is not the next one, or a token is not in the vocabulary.</exception>
    public void Append(in TokenBlock block)
    {
        var width = _request.BytesPerId;
        var count = block.Tokens.Length / width;
        if (block.FirstToken != Received)
            throw new RhoException($"token block begins at token {block.FirstToken}; expected {Received}");
        if (count == 0 || block.Tokens.Length % width != 0)
            throw new RhoException($"token block at token {Received} has {block.Tokens.Length} bytes; expected a multiple of {width} above 0");
        if (count > _request.Grid.Tokens - Received)
            throw new RhoException($"token block at token {Received} goes past the shard's end: {count} tokens, {_request.Grid.Tokens - Received} are left");
        if (block.Layout.Length != 0 && block.Layout.Length != count)
            throw new RhoException($"token block at token {Received} has {count} tokens and {block.Layout.Length} layout bytes; expected as many, or none");
        CheckIds(block.Tokens.Span);
        var length = _request.Grid.Length;
        if (TokenLayout.FirstInvalid(block.Layout.Span, (int)(Received % length), length) is >= 0 and var at)
            throw new RhoException($"layout byte {block.Layout.Span[at]} {Place(Received + at)} is not possible there");

        _hash.AppendData(block.Tokens.Span);
        AppendLayout(block.Layout.Span, count);
        try
        {
            RandomAccess.Write(_file, block.Tokens.Span, Received * width);
            if (block.Layout.Length > 0) RandomAccess.Write(_file, block.Layout.Span, _request.Grid.Tokens * width + Received);
        }
        catch (IOException e)
        {
            throw new UnavailableException($"the scorer cannot keep the shard's tokens: {e.Message}");
        }

        Received += count;
    }

    /// <exception cref="CorruptDataException">The tokens or their layout do not have the announced hash.</exception>
    public void Verify()
    {
        var hash = Convert.ToHexStringLower(_hash.GetHashAndReset());
        if (hash != _request.Sha256)
            throw new CorruptDataException($"the shard's tokens have SHA-256 {hash}, but {_request.Sha256} was announced: the shard file was changed or damaged");
        var layout = _hasLayout ? Convert.ToHexStringLower(_layoutHash.GetHashAndReset()) : "";
        if (layout != _request.LayoutSha256)
            throw new CorruptDataException($"the shard's layout has SHA-256 '{layout}', but '{_request.LayoutSha256}' was announced");
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
            AppendZeros(Received);
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
        new($"token id {id} {Place(Received + at)} is not in the reference's vocabulary of {_vocabularySize}");

    private string Place(long token) => $"in sequence {token / _request.Grid.Length} at position {token % _request.Grid.Length}";
}
