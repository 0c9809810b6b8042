using System.Buffers.Binary;
using System.IO.MemoryMappedFiles;
using Microsoft.Win32.SafeHandles;

namespace Rho.Formats;

/// <summary>
/// A safetensors file, mapped into memory and checked wholly when opened: whatever its header says afterwards lies inside the file,
/// aligned to its element size. Safe to read from several threads; pointers and spans die with <see cref="Dispose"/>.
/// </summary>
public sealed unsafe class SafetensorsFile : ITensorFile
{
    private readonly SafeFileHandle _file;
    private readonly long _dataStart;
    private readonly MemoryMappedFile _map;
    private readonly MemoryMappedViewAccessor _view;
    private byte* _data;

    private SafetensorsFile(string path, SafeFileHandle file, long dataStart, MemoryMappedFile map, MemoryMappedViewAccessor view, SafetensorsHeader header, byte* data)
    {
        _file = file;
        _dataStart = dataStart;
        Path = path;
        Metadata = header.Metadata;
        Tensors = header.Tensors;
        _map = map;
        _view = view;
        _data = data;
    }

    public string Path { get; }

    /// <summary>The header's __metadata__; empty where there is none.</summary>
    public IReadOnlyDictionary<string, string> Metadata { get; }

    public IReadOnlyDictionary<string, TensorEntry> Tensors { get; }

    /// <summary>Maps a file and checks its header.</summary>
    /// <exception cref="NotFoundException">There is no such file.</exception>
    /// <exception cref="RhoException">The file cannot be read or is not a valid safetensors file; the message names tensor and fault.</exception>
    public static SafetensorsFile Open(string path)
    {
        var file = FileMap.OpenHandle(path);
        MemoryMappedFile? map = null;
        MemoryMappedViewAccessor? view = null;
        try
        {
            var fileLength = RandomAccess.GetLength(file);
            Span<byte> length = stackalloc byte[8];
            if (RandomAccess.Read(file, length, 0) < 8)
                throw new RhoException($"{path}: not a valid safetensors file: it has {fileLength} bytes, fewer than the 8 of a header's length");
            var headerLength = BinaryPrimitives.ReadInt64LittleEndian(length);
            if (headerLength is < 2 or > SafetensorsHeader.MaxBytes)
                throw new RhoException($"{path}: not a valid safetensors file: its first 8 bytes announce a header of {(ulong)headerLength} bytes; 2 to {SafetensorsHeader.MaxBytes} are possible");
            if (headerLength > fileLength - 8)
                throw new RhoException($"{path}: not a valid safetensors file: the header of {headerLength} bytes does not fit into the file's {fileLength}: it is truncated");
            var json = new byte[headerLength];
            FileMap.ReadExactly(path, file, json, 8);
            var header = SafetensorsHeader.Parse(path, json, fileLength - 8 - headerLength);
            // Aligned within the data is not enough: the data must start aligned too. Old writers did not pad the header.
            var unaligned = header.Tensors.Values.FirstOrDefault(t => t.ByteLength > 0 && (8 + headerLength + t.Offset) % t.Type.Size() != 0);
            if (unaligned is not null)
                throw new RhoException($"{path}: tensor \"{unaligned.Name}\" is misaligned: its data starts at byte {8 + headerLength + unaligned.Offset} of the file; save it again with a current safetensors version");
            map = MemoryMappedFile.CreateFromFile(file, mapName: null, 0, MemoryMappedFileAccess.Read, HandleInheritability.None, leaveOpen: true);
            view = map.CreateViewAccessor(0, 0, MemoryMappedFileAccess.Read);
            byte* start = null;
            view.SafeMemoryMappedViewHandle.AcquirePointer(ref start);
            return new SafetensorsFile(path, file, 8 + headerLength, map, view, header, start + view.PointerOffset + 8 + headerLength);
        }
        catch
        {
            view?.Dispose();
            map?.Dispose();
            file.Dispose();
            throw;
        }
    }

    /// <summary>The named tensor's description.</summary>
    /// <exception cref="RhoException">The file has no such tensor.</exception>
    public TensorEntry Tensor(string name)
        => Tensors.TryGetValue(name, out var entry)
            ? entry
            : throw new RhoException($"{Path}: has no tensor \"{name}\"; it has {(Tensors.Count == 0 ? "none" : string.Join(", ", Tensors.Keys.Order(StringComparer.Ordinal).Take(8)) + (Tensors.Count > 8 ? ", ..." : ""))}");

    /// <summary>Address of the tensor's first byte. Valid until the file is disposed.</summary>
    /// <exception cref="RhoException">The file has no such tensor.</exception>
    public byte* Pointer(string name)
    {
        ObjectDisposedException.ThrowIf(_data is null, this);
        return _data + Tensor(name).Offset;
    }

    /// <summary>Bytes of a tensor from <paramref name="start"/> on; without <paramref name="length"/> all that follow.</summary>
    /// <exception cref="RhoException">The file has no such tensor.</exception>
    /// <exception cref="ArgumentOutOfRangeException">The range is not inside the tensor, or more than a span can hold (2 GiB).</exception>
    public ReadOnlySpan<byte> Bytes(string name, long start = 0, int? length = null)
    {
        var total = Tensor(name).ByteLength;
        ArgumentOutOfRangeException.ThrowIfNegative(start);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(start, total);
        var count = length ?? (total - start <= int.MaxValue
            ? (int)(total - start)
            : throw new ArgumentOutOfRangeException(nameof(length), $"{total - start} bytes do not fit into one span; read them in parts"));
        ArgumentOutOfRangeException.ThrowIfNegative(count, nameof(length));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, total - start, nameof(length));
        return new ReadOnlySpan<byte>(Pointer(name) + start, count);
    }

    /// <summary>Copies part of a tensor without the file's pages becoming part of this process, as pages that are looked at through <see cref="Bytes"/> do.</summary>
    /// <exception cref="RhoException">The file has no such tensor, or cannot be read any more.</exception>
    public void Read(string name, long start, Span<byte> target)
    {
        var tensor = Tensor(name);
        ArgumentOutOfRangeException.ThrowIfNegative(start);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(target.Length, tensor.ByteLength - start, nameof(start));
        FileMap.ReadExactly(Path, _file, target, _dataStart + tensor.Offset + start);
    }

    public void Dispose()
    {
        if (_data is null) return;
        _data = null;
        _view.SafeMemoryMappedViewHandle.ReleasePointer();
        _view.Dispose();
        _map.Dispose();
        _file.Dispose();
    }
}
