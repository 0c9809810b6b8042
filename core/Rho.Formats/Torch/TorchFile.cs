using System.IO.MemoryMappedFiles;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace Rho.Formats.Torch;

/// <summary>
/// A dictionary of tensors as torch.save writes it (pytorch_model.bin): a zip file with a pickle that names tensors and one stored
/// entry for every storage. Nothing of the pickle is executed; anything but tensors, containers and numbers is refused by the name
/// of what was met. Tensors are read from their place in the file, also those that share a storage or are not contiguous.
/// </summary>
public sealed unsafe class TorchFile : ITensorFile
{
    private const long LongestPickle = 256 << 20;

    private readonly Dictionary<string, TensorEntry> _tensors = new(StringComparer.Ordinal);
    private readonly Dictionary<string, TorchView> _views = new(StringComparer.Ordinal);
    private readonly SafeFileHandle _file;
    private readonly MemoryMappedFile _map;
    private readonly MemoryMappedViewAccessor _view;
    private byte* _start;

    private TorchFile(string path, SafeFileHandle file)
    {
        Path = path;
        _file = file;
        _map = MemoryMappedFile.CreateFromFile(file, mapName: null, 0, MemoryMappedFileAccess.Read, HandleInheritability.None, leaveOpen: true);
        _view = _map.CreateViewAccessor(0, 0, MemoryMappedFileAccess.Read);
        byte* start = null;
        _view.SafeMemoryMappedViewHandle.AcquirePointer(ref start);
        _start = start + _view.PointerOffset;
    }

    public string Path { get; }

    public IReadOnlyDictionary<string, TensorEntry> Tensors => _tensors;

    /// <summary>Maps a file and reads its directory and its pickle.</summary>
    /// <exception cref="NotFoundException">There is no such file.</exception>
    /// <exception cref="RhoException">It is not a dictionary of tensors that PyTorch saved, damaged, or holds something else as well.</exception>
    public static TorchFile Open(string path)
    {
        var handle = FileMap.OpenHandle(path);
        TorchFile? file = null;
        try
        {
            if (RandomAccess.GetLength(handle) == 0) throw new RhoException($"{path}: the file is empty");
            file = new TorchFile(path, handle);
            file.ReadDirectory(RandomAccess.GetLength(handle));
            return file;
        }
        catch
        {
            file?.Dispose();
            handle.Dispose();
            throw;
        }
    }

    public void Read(string name, long start, Span<byte> target)
    {
        ObjectDisposedException.ThrowIf(_start is null, this);
        var entry = _tensors.TryGetValue(name, out var found) ? found : throw new RhoException($"{Path}: has no tensor \"{name}\"");
        var size = entry.Type.Size();
        ArgumentOutOfRangeException.ThrowIfNegative(start);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(target.Length, entry.ByteLength - start, nameof(start));
        ArgumentOutOfRangeException.ThrowIfNotEqual(start % size, 0, nameof(start));
        ArgumentOutOfRangeException.ThrowIfNotEqual(target.Length % size, 0, nameof(target));
        var view = _views[name];
        if (IsContiguous(view)) FileMap.ReadExactly(Path, _file, target, entry.Offset + start);
        else Gather(view, _start + entry.Offset, start / size, size, target);
    }

    public void Dispose()
    {
        if (_start is null) return;
        _start = null;
        _view.SafeMemoryMappedViewHandle.ReleasePointer();
        _view.Dispose();
        _map.Dispose();
        _file.Dispose();
    }

    private void ReadDirectory(long length)
    {
        if (length >= 2 && _start[0] == 0x80 && _start[1] <= 5)
            throw new RhoException($"{Path}: saved in PyTorch's format from before version 1.6, which is not supported; load it with PyTorch and save it again");
        var entries = ZipDirectory.Read(Path, _start, length);
        var pickles = entries.Keys.Where(name => name.EndsWith("/data.pkl", StringComparison.Ordinal) && name.Count(c => c == '/') == 1).ToList();
        if (pickles is not [var pickle]) throw new RhoException($"{Path}: not a file that PyTorch saved: it has {pickles.Count} entries named data.pkl instead of one");
        var prefix = pickle[..^"data.pkl".Length];
        if (entries.TryGetValue(prefix + "byteorder", out var order) && !Bytes(order, 16).SequenceEqual("little"u8))
            throw new RhoException($"{Path}: saved with byte order {Encoding.UTF8.GetString(Bytes(order, 16))}; only little is supported");
        if (entries[pickle].Length > LongestPickle) throw new RhoException($"{Path}: {pickle} has {entries[pickle].Length} bytes, at most {LongestPickle} are read");

        if (TensorUnpickler.Read($"{Path}: {pickle}", Bytes(entries[pickle], LongestPickle).ToArray()) is not Dictionary<object, object?> root)
            throw new RhoException($"{Path}: holds no dictionary of tensors");
        foreach (var (key, value) in root)
        {
            if (key is not string name || value is not TorchView view) throw new RhoException($"{Path}: under \"{key}\" there is no tensor; only a plain dictionary of tensors is read");
            Add(name, view, entries, prefix);
        }
    }

    private void Add(string name, TorchView view, Dictionary<string, ZipEntry> entries, string prefix)
    {
        var storage = view.Storage;
        if (!entries.TryGetValue($"{prefix}data/{storage.Key}", out var data)) throw new RhoException($"{Path}: the tensor \"{name}\" is in storage {storage.Key}, which is missing");
        var size = storage.Type.Size();
        if (storage.Elements > data.Length / size)
            throw new RhoException($"{Path}: the tensor \"{name}\" is in storage {storage.Key} of {storage.Elements} elements, of which the file has {data.Length / size}");
        var bytes = SafetensorsHeader.ByteLength(storage.Type, view.Shape)!.Value;
        _tensors.Add(name, new TensorEntry(name, storage.Type, view.Shape, data.Start + (bytes == 0 ? 0 : view.Offset * size), bytes));
        _views.Add(name, view);
    }

    private ReadOnlySpan<byte> Bytes(ZipEntry entry, long most) => new(_start + entry.Start, (int)Math.Min(entry.Length, most));

    private static bool IsContiguous(TorchView view)
    {
        long expected = 1;
        for (var i = view.Shape.Length - 1; i >= 0; i--)
        {
            if (view.Shape[i] != 1 && view.Strides[i] != expected) return false;
            expected *= view.Shape[i];
        }

        return true;
    }

    /// <summary>Elements from number <paramref name="first"/> on in row-major order, each from where the strides say.</summary>
    private static void Gather(TorchView view, byte* origin, long first, int size, Span<byte> target)
    {
        var index = new long[view.Shape.Length];
        for (var i = index.Length - 1; i >= 0; i--) (first, index[i]) = Math.DivRem(first, view.Shape[i]);
        long position = 0;
        for (var i = 0; i < index.Length; i++) position += index[i] * view.Strides[i];
        for (var at = 0; at < target.Length; at += size)
        {
            new ReadOnlySpan<byte>(origin + (position * size), size).CopyTo(target[at..]);
            for (var i = index.Length - 1; i >= 0; i--)
            {
                position += view.Strides[i];
                if (++index[i] < view.Shape[i]) break;
                position -= view.Shape[i] * view.Strides[i];
                index[i] = 0;
            }
        }
    }
}
