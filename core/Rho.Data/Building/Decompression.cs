using System.IO.Compression;
using System.Runtime.InteropServices;

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
            if (start.SequenceEqual<byte>([0x28, 0xB5, 0x2F, 0xFD])) return (file, new ZstdReadStream(file));
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
/// Reads gzip, also of several members. .NET's GZipStream takes a file that ends early for a whole one; so a last member of known
/// content is put behind the file, and only if it comes out again was everything before it complete.
/// </summary>
internal sealed class GzipReadStream : ReadOnlyStream
{
    private static readonly byte[] Mark = "the whole file was read: 6f1d9c"u8.ToArray();
    private static readonly byte[] MarkMember = Compress(Mark);

    private readonly GZipStream _gzip;
    private readonly byte[] _buffer = new byte[1 << 16];
    private int _start, _end;
    private bool _ended;

    public GzipReadStream(Stream file) => _gzip = new GZipStream(new Appended(file, MarkMember), CompressionMode.Decompress);

    /// <exception cref="InvalidDataException">The data are damaged or end early.</exception>
    public override int Read(Span<byte> buffer)
    {
        // The last bytes are held back until more come: they may be the mark.
        while (!_ended && _end - _start <= Mark.Length)
        {
            _buffer.AsSpan(_start, _end - _start).CopyTo(_buffer);
            (_start, _end) = (0, _end - _start);
            int read;
            try
            {
                read = _gzip.Read(_buffer, _end, _buffer.Length - _end);
            }
            catch (InvalidDataException e)
            {
                throw new InvalidDataException("the gzip data are damaged or end early", e);
            }

            _end += read;
            if (read > 0) continue;
            if (!_buffer.AsSpan(_start, _end - _start).EndsWith(Mark)) throw new InvalidDataException("the gzip data end early: the file is truncated");
            _end -= Mark.Length;
            _ended = true;
        }

        var count = Math.Min(buffer.Length, _end - _start - (_ended ? 0 : Mark.Length));
        _buffer.AsSpan(_start, count).CopyTo(buffer);
        _start += count;
        return count;
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

    private sealed class Appended(Stream first, byte[] second) : ReadOnlyStream
    {
        private int _position;

        public override int Read(Span<byte> buffer)
        {
            if (_position == 0 && first.Read(buffer) is var read and > 0) return read;
            var count = Math.Min(buffer.Length, second.Length - _position);
            second.AsSpan(_position, count).CopyTo(buffer);
            _position += count;
            return count;
        }

        protected override void Dispose(bool disposing)
        {
            if (disposing) first.Dispose();
            base.Dispose(disposing);
        }
    }
}

/// <summary>Reads Zstandard, also of several frames, through the system's libzstd.</summary>
internal sealed unsafe partial class ZstdReadStream : ReadOnlyStream
{
    private readonly Stream _file;
    private readonly byte[] _input = new byte[1 << 17];
    private IntPtr _decoder;
    private nuint _start, _end;
    private bool _insideFrame;

    static ZstdReadStream() => NativeLibrary.SetDllImportResolver(typeof(ZstdReadStream).Assembly, (name, _, _) =>
    {
        if (name != "zstd") return IntPtr.Zero;
        foreach (var candidate in (string[])["libzstd.so.1", "libzstd.1.dylib", "libzstd.dll", "zstd.dll"])
            if (NativeLibrary.TryLoad(candidate, out var library)) return library;
        return IntPtr.Zero;
    });

    /// <exception cref="RhoException">There is no libzstd.</exception>
    public ZstdReadStream(Stream file)
    {
        _file = file;
        try
        {
            _decoder = CreateDecoder();
        }
        catch (DllNotFoundException e)
        {
            throw new RhoException("files compressed with zstd need libzstd (Debian and Ubuntu: apt-get install libzstd1)", e);
        }
    }

    /// <exception cref="InvalidDataException">The data are damaged or end early.</exception>
    public override int Read(Span<byte> buffer)
    {
        if (buffer.IsEmpty) return 0;
        ObjectDisposedException.ThrowIf(_decoder == IntPtr.Zero, this);
        fixed (byte* input = _input, output = buffer)
        {
            while (true)
            {
                // Call also without new input: the decoder may hold output that did not fit before.
                var from = new Buffer { Pointer = input, Size = _end, Position = _start };
                var to = new Buffer { Pointer = output, Size = (nuint)buffer.Length };
                if (_insideFrame || _start < _end)
                {
                    var result = Decompress(_decoder, ref to, ref from);
                    if (IsError(result) != 0) throw new InvalidDataException($"the zstd data are damaged: {Marshal.PtrToStringUTF8(ErrorName(result))}");
                    _insideFrame = result != 0;
                    _start = from.Position;
                    if (to.Position > 0) return (int)to.Position;
                    if (_start < _end) continue;
                }

                var read = _file.Read(_input);
                if (read == 0) return _insideFrame ? throw new InvalidDataException("the zstd data end early: the file is truncated") : 0;
                (_start, _end) = (0, (nuint)read);
            }
        }
    }

    protected override void Dispose(bool disposing)
    {
        if (_decoder != IntPtr.Zero) _ = FreeDecoder(_decoder);
        _decoder = IntPtr.Zero;
        if (disposing) _file.Dispose();
        base.Dispose(disposing);
    }

    [LibraryImport("zstd", EntryPoint = "ZSTD_createDStream")]
    private static partial IntPtr CreateDecoder();

    [LibraryImport("zstd", EntryPoint = "ZSTD_freeDStream")]
    private static partial nuint FreeDecoder(IntPtr decoder);

    [LibraryImport("zstd", EntryPoint = "ZSTD_decompressStream")]
    private static partial nuint Decompress(IntPtr decoder, ref Buffer output, ref Buffer input);

    [LibraryImport("zstd", EntryPoint = "ZSTD_isError")]
    private static partial uint IsError(nuint result);

    [LibraryImport("zstd", EntryPoint = "ZSTD_getErrorName")]
    private static partial IntPtr ErrorName(nuint result);

    /// <summary>ZSTD_inBuffer and ZSTD_outBuffer, which are laid out alike.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct Buffer
    {
        public byte* Pointer;
        public nuint Size;
        public nuint Position;
    }
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
