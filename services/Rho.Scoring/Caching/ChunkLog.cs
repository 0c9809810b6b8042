using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;

namespace Rho.Scoring.Caching;

/// <summary>
/// The chunks of a shard that is being scored, in a file that only grows: records of a 24-byte header (magic, chunk, payload
/// bytes, 4 unused bytes, checksum) and the payload. A record torn by a crash ends the log; the next writer cuts it off. Readers may follow a log
/// while another process appends to it.
/// </summary>
internal sealed class ChunkLog(ScoreKey key, string path)
{
    private const int HeaderBytes = 24;
    private const uint Magic = 0x43_4F_48_52; // "RHOC"

    private readonly Lock _gate = new();
    private readonly Dictionary<int, long> _payloads = [];
    private long _end;

    public string Path => path;

    /// <summary>The chunk's payload, or null where the log does not hold it whole.</summary>
    public byte[]? Read(int chunk, out bool damaged)
    {
        damaged = false;
        using var file = Open();
        if (file is null) return null;
        lock (_gate)
        {
            Scan(file);
            if (!_payloads.TryGetValue(chunk, out var offset)) return null;
            if (ReadRecord(file, chunk, offset) is { } payload) return payload;

            // Damaged, or the file is not the one that was indexed.
            Forget();
            Scan(file);
            if (!_payloads.TryGetValue(chunk, out offset)) return null;
            payload = ReadRecord(file, chunk, offset);
            damaged = payload is null;
            return payload;
        }
    }

    /// <summary>The chunks that the log holds.</summary>
    public IReadOnlyCollection<int> Chunks()
    {
        using var file = Open();
        if (file is null) return [];
        lock (_gate)
        {
            Scan(file);
            return [.. _payloads.Keys];
        }
    }

    /// <summary>For the writer, before its first append: checks every record, and cuts off what a crash left half-written.</summary>
    /// <returns>How many records failed their checksum.</returns>
    public int Recover()
    {
        using var file = Open();
        lock (_gate)
        {
            Forget();
            if (file is null) return 0;
            Scan(file);
            var damaged = _payloads.Where(record => ReadRecord(file, record.Key, record.Value) is null).Select(record => record.Key).ToList();
            foreach (var chunk in damaged) _payloads.Remove(chunk);
            if (_end < RandomAccess.GetLength(file))
            {
                using var writable = File.OpenHandle(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite | FileShare.Delete);
                RandomAccess.SetLength(writable, _end);
            }

            return damaged.Count;
        }
    }

    /// <summary>Appends a chunk. Only the holder of the shard's lock does.</summary>
    public void Append(int chunk, ReadOnlySpan<byte> payload)
    {
        var record = new byte[HeaderBytes + payload.Length];
        WriteHeader(record, chunk, payload.Length, key.Checksum(chunk, payload));
        payload.CopyTo(record.AsSpan(HeaderBytes));
        using var file = File.OpenHandle(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.ReadWrite | FileShare.Delete);
        lock (_gate)
        {
            Scan(file);
            RandomAccess.Write(file, record, _end);
            _payloads[chunk] = _end + HeaderBytes;
            _end += record.Length;
        }
    }

    private void Forget()
    {
        _payloads.Clear();
        _end = 0;
    }

    private SafeFileHandle? Open()
    {
        try
        {
            return File.OpenHandle(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            return null;
        }
    }

    private void Scan(SafeFileHandle file)
    {
        var length = RandomAccess.GetLength(file);
        if (length < _end)
        {
            // Cut by a writer that recovered it, or begun anew.
            Forget();
        }

        Span<byte> header = stackalloc byte[HeaderBytes];
        while (_end + HeaderBytes <= length && RandomAccess.Read(file, header, _end) == HeaderBytes)
        {
            var chunk = BinaryPrimitives.ReadInt32LittleEndian(header[4..]);
            var bytes = BinaryPrimitives.ReadInt32LittleEndian(header[8..]);
            var isRecord = BinaryPrimitives.ReadUInt32LittleEndian(header) == Magic
                && chunk >= 0 && chunk < key.Grid.Chunks && bytes == key.PayloadBytes(chunk) && _end + HeaderBytes + bytes <= length;
            if (!isRecord) return;
            _payloads[chunk] = _end + HeaderBytes;
            _end += HeaderBytes + bytes;
        }
    }

    private byte[]? ReadRecord(SafeFileHandle file, int chunk, long offset)
    {
        Span<byte> header = stackalloc byte[HeaderBytes];
        Span<byte> expected = stackalloc byte[HeaderBytes];
        var payload = new byte[key.PayloadBytes(chunk)];
        if (RandomAccess.Read(file, header, offset - HeaderBytes) != HeaderBytes || RandomAccess.Read(file, payload, offset) != payload.Length) return null;
        WriteHeader(expected, chunk, payload.Length, key.Checksum(chunk, payload));
        return header.SequenceEqual(expected) ? payload : null;
    }

    private static void WriteHeader(Span<byte> header, int chunk, int payloadBytes, ulong checksum)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(header, Magic);
        BinaryPrimitives.WriteInt32LittleEndian(header[4..], chunk);
        BinaryPrimitives.WriteInt32LittleEndian(header[8..], payloadBytes);
        BinaryPrimitives.WriteInt32LittleEndian(header[12..], 0);
        BinaryPrimitives.WriteUInt64LittleEndian(header[16..], checksum);
    }
}
