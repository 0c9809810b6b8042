using System.Buffers.Binary;
using System.Text;

namespace Rho.Formats.Torch;

/// <summary>One stored entry of a zip file: where its bytes lie in the file.</summary>
internal readonly record struct ZipEntry(string Name, long Start, long Length);

/// <summary>
/// The directory of a zip file of stored (uncompressed) entries, as PyTorch writes them, zip64 included. Whatever it says lies inside
/// the file. <see cref="System.IO.Compression.ZipArchive"/> does not say where an entry's bytes lie, so it cannot serve for mapping.
/// </summary>
internal static unsafe class ZipDirectory
{
    private const uint EndSignature = 0x06054b50;
    private const uint End64Signature = 0x06064b50;
    private const uint Locator64Signature = 0x07064b50;
    private const uint EntrySignature = 0x02014b50;
    private const uint LocalSignature = 0x04034b50;
    private const int EndSize = 22;
    private const int LocatorSize = 20;

    /// <summary>Reads the directory of a file of <paramref name="length"/> bytes in memory.</summary>
    /// <exception cref="RhoException">It is no zip file, truncated, or an entry is compressed, encrypted or not inside the file.</exception>
    public static Dictionary<string, ZipEntry> Read(string path, byte* file, long length)
    {
        var reader = new Reader(path, file, length);
        var end = FindEnd(reader);
        long count = reader.UInt16(end + 10);
        long size = reader.UInt32(end + 12);
        long start = reader.UInt32(end + 16);
        if (end >= LocatorSize && reader.UInt32(end - LocatorSize) == Locator64Signature)
        {
            var end64 = reader.Int64(end - LocatorSize + 8);
            if (reader.UInt32(end64) != End64Signature) throw reader.Bad("its zip64 directory is damaged");
            count = reader.Int64(end64 + 32);
            size = reader.Int64(end64 + 40);
            start = reader.Int64(end64 + 48);
        }

        reader.Check(start, size);
        var entries = new Dictionary<string, ZipEntry>(StringComparer.Ordinal);
        var position = start;
        for (long i = 0; i < count; i++)
        {
            var entry = ReadEntry(reader, ref position);
            if (position > start + size) throw reader.Bad("its directory is longer than it says");
            if (!entries.TryAdd(entry.Name, entry)) throw reader.Bad($"it has two entries named {entry.Name}");
        }

        return entries;
    }

    private static long FindEnd(Reader reader)
    {
        // A comment of up to 65,535 bytes may follow.
        for (var position = reader.Length - EndSize; position >= Math.Max(0, reader.Length - EndSize - ushort.MaxValue); position--)
        {
            if (reader.UInt32(position) == EndSignature && position + EndSize + reader.UInt16(position + 20) == reader.Length) return position;
        }

        throw reader.Bad("it has no zip directory at its end");
    }

    private static ZipEntry ReadEntry(Reader reader, ref long position)
    {
        if (reader.UInt32(position) != EntrySignature) throw reader.Bad("its directory is damaged");
        var flags = reader.UInt16(position + 8);
        var method = reader.UInt16(position + 10);
        long stored = reader.UInt32(position + 20);
        long length = reader.UInt32(position + 24);
        var nameLength = reader.UInt16(position + 28);
        var extraLength = reader.UInt16(position + 30);
        var commentLength = reader.UInt16(position + 32);
        long header = reader.UInt32(position + 42);
        var name = Encoding.UTF8.GetString(reader.Bytes(position + 46, nameLength));

        var extra = position + 46 + nameLength;
        position = extra + extraLength + commentLength;
        for (var end = extra + extraLength; extra + 4 <= end;)
        {
            var (id, fieldLength) = (reader.UInt16(extra), reader.UInt16(extra + 2));
            var (field, fieldEnd) = (extra + 4, extra + 4 + fieldLength);
            if (fieldEnd > end) throw reader.Bad($"the entry {name} is damaged");
            extra = fieldEnd;
            if (id != 1) continue;

            // zip64: those of these numbers that did not fit into 32 bits, in this order.
            if (length == uint.MaxValue) (length, field) = (reader.Int64(field), field + 8);
            if (stored == uint.MaxValue) (stored, field) = (reader.Int64(field), field + 8);
            if (header == uint.MaxValue) (header, field) = (reader.Int64(field), field + 8);
            if (field > fieldEnd) throw reader.Bad($"the entry {name} is damaged");
        }

        if ((flags & 1) != 0) throw reader.Bad($"the entry {name} is encrypted");
        if (method != 0 || stored != length) throw reader.Bad($"the entry {name} is compressed; PyTorch stores tensors as they are");
        if (reader.UInt32(header) != LocalSignature) throw reader.Bad($"the entry {name} is damaged");

        // Name and extra of the local header may differ in length from those of the directory.
        var start = header + 30 + reader.UInt16(header + 26) + reader.UInt16(header + 28);
        reader.Check(start, length);
        return new ZipEntry(name, start, length);
    }

    private readonly struct Reader(string path, byte* file, long length)
    {
        public long Length => length;

        public RhoException Bad(string what) => new($"{path}: not a file that PyTorch saved, or damaged: {what}");

        public void Check(long start, long count)
        {
            if (start < 0 || count < 0 || start > length || count > length - start) throw Bad("it is truncated");
        }

        public ReadOnlySpan<byte> Bytes(long start, int count)
        {
            Check(start, count);
            return new ReadOnlySpan<byte>(file + start, count);
        }

        public ushort UInt16(long start) => BinaryPrimitives.ReadUInt16LittleEndian(Bytes(start, 2));

        public uint UInt32(long start) => BinaryPrimitives.ReadUInt32LittleEndian(Bytes(start, 4));

        public long Int64(long start) => BinaryPrimitives.ReadInt64LittleEndian(Bytes(start, 8));
    }
}
