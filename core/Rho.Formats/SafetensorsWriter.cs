using Microsoft.Win32.SafeHandles;

namespace Rho.Formats;

/// <summary>
/// Writes a safetensors file: all tensors are declared first, then their bytes come in any order and from any thread. The file
/// appears under its name when <see cref="Complete"/> returns, with everything in it; disposed before that, it leaves nothing.
/// Tensors are laid out with larger elements first, otherwise in the order declared.
/// </summary>
public sealed class SafetensorsWriter : IDisposable
{
    private readonly string _path;
    private readonly string _temporary;
    private readonly SafeFileHandle _file;
    private readonly long _dataStart;
    private readonly Dictionary<string, Progress> _tensors;
    private bool _done;

    private SafetensorsWriter(string path, string temporary, SafeFileHandle file, long dataStart, Dictionary<string, Progress> tensors)
    {
        _path = path;
        _temporary = temporary;
        _file = file;
        _dataStart = dataStart;
        _tensors = tensors;
    }

    /// <summary>Declares the tensors, takes the file's whole size from the disk and writes the header.</summary>
    /// <exception cref="RhoException">The folder cannot be written to, the disk is full, or a declaration is wrong.</exception>
    public static SafetensorsWriter Create(
        string path, IEnumerable<(string Name, ElementType Type, long[] Shape)> tensors, IReadOnlyDictionary<string, string>? metadata = null)
    {
        var entries = new List<TensorEntry>();
        var progress = new Dictionary<string, Progress>(StringComparer.Ordinal);
        long offset = 0;
        foreach (var (name, type, shape) in tensors.OrderByDescending(tensor => tensor.Type.Size()))
        {
            if (name == "__metadata__") throw new RhoException($"{path}: a tensor cannot be named __metadata__");
            var bytes = SafetensorsHeader.ByteLength(type, shape) is { } length && length <= long.MaxValue / 2 - offset
                ? length
                : throw new RhoException($"{path}: tensor \"{name}\": shape [{string.Join(", ", shape)}] is not possible");
            var entry = new TensorEntry(name, type, shape, offset, bytes);
            if (!progress.TryAdd(name, new Progress(entry))) throw new RhoException($"{path}: tensor \"{name}\" is declared twice");
            entries.Add(entry);
            offset += bytes;
        }

        var header = SafetensorsHeader.Serialize(entries, metadata);
        if (header.Length - 8 > SafetensorsHeader.MaxBytes)
            throw new RhoException($"{path}: {entries.Count} tensors need a header of {header.Length - 8} bytes; safetensors allows {SafetensorsHeader.MaxBytes}");
        var temporary = AtomicFile.TemporaryPath(path);
        SafeFileHandle? file = null;
        try
        {
            // A full disk is reported now rather than after an hour of writing; and before preallocation, which takes what is left from others until it fails.
            var (needed, free) = (header.Length + offset, DiskError.FreeSpace(path));
            if (free < needed) throw new RhoException($"{path}: the disk is full: it has {free / 1e6:N0} MB left, and {needed / 1e6:N0} MB are needed");
            file = File.OpenHandle(temporary, FileMode.CreateNew, FileAccess.Write, FileShare.None, FileOptions.None, needed);
            RandomAccess.SetLength(file, needed);
            RandomAccess.Write(file, header, 0);
            return new SafetensorsWriter(path, temporary, file, header.Length, progress);
        }
        catch (Exception e)
        {
            file?.Dispose();
            DeleteTemporary(temporary);
            if (e is IOException or UnauthorizedAccessException) throw DiskError.Translate(path, e, header.Length + offset);
            throw;
        }
    }

    /// <summary>Writes bytes of a tensor, which start <paramref name="byteOffset"/> bytes into it. Each byte is to be written once.</summary>
    /// <exception cref="RhoException">Writing failed, such as on a full disk.</exception>
    /// <exception cref="ArgumentOutOfRangeException">The bytes do not lie inside the tensor.</exception>
    public void Write(string name, long byteOffset, ReadOnlySpan<byte> bytes)
    {
        ObjectDisposedException.ThrowIf(_done, this);
        if (!_tensors.TryGetValue(name, out var tensor)) throw new ArgumentException($"{_path}: tensor \"{name}\" was not declared", nameof(name));
        ArgumentOutOfRangeException.ThrowIfNegative(byteOffset);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(bytes.Length, tensor.Entry.ByteLength - byteOffset, nameof(bytes));
        try
        {
            RandomAccess.Write(_file, bytes, _dataStart + tensor.Entry.Offset + byteOffset);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw DiskError.Translate(_path, e);
        }

        Interlocked.Add(ref tensor.Written, bytes.Length);
    }

    /// <summary>Flushes the file to disk and gives it its name.</summary>
    /// <exception cref="InvalidOperationException">Bytes of a tensor are missing or were written twice.</exception>
    /// <exception cref="RhoException">Writing failed, such as on a full disk.</exception>
    public void Complete()
    {
        ObjectDisposedException.ThrowIf(_done, this);
        if (_tensors.Values.FirstOrDefault(t => t.Written != t.Entry.ByteLength) is { } unfinished)
            throw new InvalidOperationException($"{_path}: {unfinished.Written} bytes were written of tensor \"{unfinished.Entry.Name}\", which has {unfinished.Entry.ByteLength}");
        try
        {
            RandomAccess.FlushToDisk(_file);
            _file.Dispose();
            File.Move(_temporary, _path, overwrite: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw DiskError.Translate(_path, e);
        }

        _done = true;
        AtomicFile.FlushDirectory(Path.GetDirectoryName(Path.GetFullPath(_path))!);
    }

    public void Dispose()
    {
        if (_done) return;
        _done = true;
        _file.Dispose();
        DeleteTemporary(_temporary);
    }

    private static void DeleteTemporary(string path)
    {
        if (File.Exists(path)) File.Delete(path);
    }

    private sealed class Progress(TensorEntry entry)
    {
        public long Written;

        public TensorEntry Entry { get; } = entry;
    }
}
