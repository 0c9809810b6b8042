using System.Buffers.Binary;
using System.IO.Compression;
using ZstdSharp.Unsafe;

namespace Rho.Data;

/// <summary>Opens text files, plain or compressed, told by their first bytes.</summary>
internal static class Decompression
{
    /// <exception cref="RhoException">The file cannot be opened.</exception>
    public static (FileStream File, Stream Content) Open(string path)
    {
        FileStream file;
        try
        {
            file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read | FileShare.Delete, 1 << 18, FileOptions.SequentialScan);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new RhoException($"{path}: cannot be read: {e.Message}", e);
        }

        try
        {
            Span<byte> start = stackalloc byte[4];
            start = start[..file.ReadAtLeast(start, 4, throwOnEndOfStream: false)];
            file.Position = 0;
            if (start.StartsWith<byte>([0x1F, 0x8B])) return (file, new GzipReadStream(file));
            // A frame of data, or one to skip (RFC 8878), with which pzstd and writers of seekable files begin.
            if (start.Length == 4 && BinaryPrimitives.ReadUInt32LittleEndian(start) is 0xFD2FB528 or (>= 0x184D2A50 and <= 0x184D2A5F)) return (file, new ZstdReadStream(file));
            return (file, file);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }
}

/// <summary>
/// Reads gzip, also of several members and with zero bytes behind them, which are padding as for gzip itself. .NET's GZipStream takes a
/// file that ends early for a whole one; so a last member of known content is put behind the file, and only if it comes out again, or
/// the decoder is done with nothing but zeros left, was everything before it complete.
/// </summary>
internal sealed class GzipReadStream : ReadOnlyStream
{
    private static readonly byte[] Mark = "the whole file was read: 6f1d9c"u8.ToArray();
    private static readonly byte[] MarkMember = Compress(Mark);

    private readonly Appended _input;
    private readonly GZipStream _gzip;
    private readonly byte[] _buffer = new byte[1 << 16];
    private int _start, _end;
    private bool _ended;

    /// <param name="file">Can seek; read from its begin.</param>
    public GzipReadStream(Stream file)
    {
        _input = new Appended(file, MarkMember);
        _gzip = new GZipStream(_input, CompressionMode.Decompress);
    }

    /// <exception cref="InvalidDataException">The data are damaged, end early, or something else follows them.</exception>
    public override int Read(Span<byte> buffer)
    {
        // The last bytes are held back until more come: they may be the mark.
        while (!_ended && _end - _start <= Mark.Length)
        {
            _buffer.AsSpan(_start, _end - _start).CopyTo(_buffer);
            (_start, _end) = (0, _end - _start);
            var read = Decompress();
            _end += read;
            if (read > 0) continue;
            if (_buffer.AsSpan(_start, _end - _start).EndsWith(Mark)) _end -= Mark.Length;
            else CheckPadding();
            _ended = true;
        }

        var count = Math.Min(buffer.Length, _end - _start - (_ended ? 0 : Mark.Length));
        _buffer.AsSpan(_start, count).CopyTo(buffer);
        _start += count;
        return count;
    }

    private int Decompress()
    {
        try
        {
            return _gzip.Read(_buffer, _end, _buffer.Length - _end);
        }
        catch (InvalidDataException e)
        {
            throw new InvalidDataException($"the gzip data are damaged or end early, before byte {_input.Handed:N0}", e);
        }
    }

    /// <summary>The mark did not come. A decoder that asks for more is inside a member; one that does not is done, and has seen that no member follows.</summary>
    private void CheckPadding()
    {
        var calls = _input.Calls;
        _ = Decompress();
        if (_input.Calls > calls) throw new InvalidDataException($"the gzip data end early, at byte {_input.Handed:N0}: the file is truncated");
        if (!_input.InPadding) throw new InvalidDataException($"something that is not gzip follows the compressed data, before byte {_input.Handed:N0}");
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing) _gzip.Dispose();
        base.Dispose(disposing);
    }

    private static byte[] Compress(byte[] content)
    {
        using var stream = new MemoryStream();
        using (var gzip = new GZipStream(stream, CompressionLevel.Fastest, leaveOpen: true)) gzip.Write(content);
        return stream.ToArray();
    }

    /// <summary>A file and bytes behind it. The first of the zeros at its end come one by one: the decoder then stops behind the last one that belongs to it.</summary>
    private sealed class Appended : ReadOnlyStream
    {
        private readonly Stream _first;
        private readonly byte[] _second;
        private readonly long _length, _padding;
        private int _position;

        public Appended(Stream first, byte[] second)
        {
            (_first, _second, _length) = (first, second, first.Length);
            _padding = _length - ZerosAtEnd(first);
            first.Position = 0;
        }

        /// <summary>Bytes of the file that were given.</summary>
        public long Handed { get; private set; }

        public int Calls { get; private set; }

        /// <summary>Whether some of the zeros at the file's end were given.</summary>
        public bool InPadding => Handed > _padding;

        public override int Read(Span<byte> buffer)
        {
            Calls++;
            // A member ends with at most eight zeros (checksum and length of nothing).
            var most = Handed < _padding ? _padding - Handed : Handed < _padding + 16 ? 1 : _length - Handed;
            if (Handed < _length && _first.Read(buffer[..(int)Math.Min(buffer.Length, most)]) is var read and > 0)
            {
                Handed += read;
                return read;
            }

            var count = Math.Min(buffer.Length, _second.Length - _position);
            _second.AsSpan(_position, count).CopyTo(buffer);
            _position += count;
            return count;
        }

        protected override void Dispose(bool disposing)
        {
            if (disposing) _first.Dispose();
            base.Dispose(disposing);
        }

        private static long ZerosAtEnd(Stream file)
        {
            var block = new byte[4096];
            for (var end = file.Length; end > 0;)
            {
                var part = block.AsSpan(0, (int)Math.Min(block.Length, end));
                file.Position = end - part.Length;
                file.ReadExactly(part);
                var last = part.LastIndexOfAnyExcept((byte)0);
                if (last >= 0) return file.Length - (end - part.Length + last + 1);
                end -= part.Length;
            }

            return file.Length;
        }
    }
}

/// <summary>Reads Zstandard, also of several frames and frames to skip. Windows of more than 128 MiB are refused, as by zstd itself.</summary>
internal sealed unsafe class ZstdReadStream(Stream file) : ReadOnlyStream
{
    private readonly byte[] _input = new byte[1 << 17];
    private ZSTD_DCtx_s* _decoder = Methods.ZSTD_createDStream();
    private int _start, _end;
    private long _read;
    private bool _insideFrame;

    /// <exception cref="InvalidDataException">The data are damaged or end early.</exception>
    public override int Read(Span<byte> buffer)
    {
        if (buffer.IsEmpty) return 0;
        ObjectDisposedException.ThrowIf(_decoder is null, this);
        fixed (byte* input = _input, output = buffer)
        {
            while (true)
            {
                // Call also without new input: the decoder may hold output that did not fit before.
                if (_insideFrame || _start < _end)
                {
                    var from = new ZSTD_inBuffer_s { src = input, size = (nuint)_end, pos = (nuint)_start };
                    var to = new ZSTD_outBuffer_s { dst = output, size = (nuint)buffer.Length };
                    var result = Methods.ZSTD_decompressStream(_decoder, &to, &from);
                    _start = (int)from.pos;
                    if (Methods.ZSTD_isError(result)) throw new InvalidDataException(Reason(result));
                    _insideFrame = result != 0;
                    if (to.pos > 0) return (int)to.pos;
                    if (_start < _end) continue;
                }

                var read = file.Read(_input);
                if (read == 0) return _insideFrame ? throw new InvalidDataException($"the zstd data end early, at byte {_read:N0}: the file is truncated") : 0;
                (_start, _end) = (0, read);
                _read += read;
            }
        }
    }

    protected override void Dispose(bool disposing)
    {
        if (_decoder is not null) _ = Methods.ZSTD_freeDStream(_decoder);
        _decoder = null;
        if (disposing) file.Dispose();
        base.Dispose(disposing);
    }

    private string Reason(nuint result) => Methods.ZSTD_getErrorCode(result) == ZSTD_ErrorCode.ZSTD_error_frameParameter_windowTooLarge
        ? "the zstd data need more than 128 MiB to be read; compress them again without --long, or with --long=27"
        : $"the zstd data are damaged, near byte {_read - _end + _start:N0}: {Methods.ZSTD_getErrorName(result)}";
}

/// <summary>What a stream that is only read forward has to say.</summary>
internal abstract class ReadOnlyStream : Stream
{
    public override bool CanRead => true;

    public override bool CanSeek => false;

    public override bool CanWrite => false;

    public override long Length => throw new NotSupportedException();

    public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

    public abstract override int Read(Span<byte> buffer);

    public override int Read(byte[] buffer, int offset, int count) => Read(buffer.AsSpan(offset, count));

    public override void Flush() { }

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();
}
