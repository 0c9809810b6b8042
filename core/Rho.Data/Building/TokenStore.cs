using System.Buffers;
using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Rho.Formats;

namespace Rho.Data;

/// <summary>
/// Tokenized documents of one source between the two stages of a build: a file of chunks, each with whole documents of one bucket.
/// Shuffling draws a bucket for each document, reads one bucket at a time and permutes inside it, so it needs memory for one bucket.
/// Layout: chunks of (int32 bucket, int32 bytes, documents); a document is an int32 count and its tokens, U16 or int32.
/// </summary>
internal sealed class TokenStore : IDisposable
{
    public const int HeldOut = -1;

    private const int HeaderBytes = 8;

    private readonly string _path;
    private readonly FileStream _file;
    private readonly bool _narrow;
    private readonly ArrayBufferWriter<byte>[] _buffers; // the last one is for what is held out
    private readonly int _chunkBytes;
    private readonly List<Chunk> _chunks = [];

    /// <param name="length">Bytes of the file that count, the rest being from a build that was interrupted; 0 starts anew.</param>
    /// <param name="bufferBytes">Memory for documents that are not written yet, roughly.</param>
    /// <exception cref="RhoException">The file cannot be written, or is shorter than it was.</exception>
    public TokenStore(string path, int buckets, bool narrow, long length, int bufferBytes)
    {
        _path = path;
        _narrow = narrow;
        Buckets = buckets;
        _buffers = new ArrayBufferWriter<byte>[buckets + 1];
        for (var i = 0; i <= buckets; i++) _buffers[i] = new ArrayBufferWriter<byte>();
        _chunkBytes = Math.Clamp(bufferBytes / (buckets + 1), 4 << 10, 256 << 10);
        try
        {
            _file = new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read, bufferSize: 0); // chunks are large, and nothing is left to be written when it is closed
            if (_file.Length < length) throw new RhoException($"{path}: is shorter than the interrupted build left it; delete its folder to start anew");
            _file.SetLength(length);
            Scan();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _file?.Dispose();
            throw DiskError.Translate(path, e);
        }
    }

    public int Buckets { get; }

    public long Length { get; private set; }

    private int TokenBytes => _narrow ? 2 : 4;

    /// <param name="bucket">From 0 to below <see cref="Buckets"/>, or <see cref="HeldOut"/>.</param>
    public void Add(int bucket, ReadOnlySpan<int> document)
    {
        var buffer = _buffers[bucket == HeldOut ? Buckets : bucket];
        var bytes = buffer.GetSpan(4 + document.Length * TokenBytes);
        BinaryPrimitives.WriteInt32LittleEndian(bytes, document.Length);
        if (_narrow)
        {
            var narrow = MemoryMarshal.Cast<byte, ushort>(bytes.Slice(4, document.Length * TokenBytes));
            for (var i = 0; i < narrow.Length; i++) narrow[i] = (ushort)document[i];
        }
        else
        {
            MemoryMarshal.AsBytes(document).CopyTo(bytes[4..]);
        }

        buffer.Advance(4 + document.Length * TokenBytes);
        if (buffer.WrittenCount >= _chunkBytes) WriteChunk(bucket);
    }

    /// <summary>Writes what is buffered; afterwards <see cref="Length"/> bytes hold all documents added, also after a power cut.</summary>
    public void Flush()
    {
        for (var i = 0; i <= Buckets; i++)
            if (_buffers[i].WrittenCount > 0) WriteChunk(i == Buckets ? HeldOut : i);
        try
        {
            _file.Flush(flushToDisk: true);
        }
        catch (IOException e)
        {
            throw DiskError.Translate(_path, e);
        }
    }

    /// <summary>Documents that are held out, in the order added. Each is valid until the next one is asked for.</summary>
    public IEnumerable<ReadOnlyMemory<int>> ReadHeldOut() => Read(_chunks.Where(chunk => chunk.Bucket == HeldOut).Select(chunk => (new[] { chunk }, default(StableRandom?))));

    /// <summary>The other documents: in the order added without a seed, otherwise permuted. Each is valid until the next one is asked for.</summary>
    public IEnumerable<ReadOnlyMemory<int>> Read(ulong? seed)
    {
        if (seed is null) return Read(_chunks.Where(chunk => chunk.Bucket != HeldOut).Select(chunk => (new[] { chunk }, default(StableRandom?))));
        var buckets = _chunks.Where(chunk => chunk.Bucket != HeldOut).GroupBy(chunk => chunk.Bucket).OrderBy(group => group.Key).Select(group => group.ToArray()).ToArray();
        new StableRandom(seed.Value).Shuffle(buckets.AsSpan());
        return Read(buckets.Select(bucket => (bucket, (StableRandom?)new StableRandom(StableRandom.Mix(seed.Value, (ulong)bucket[0].Bucket + 1)))));
    }

    public void Dispose() => _file.Dispose();

    private IEnumerable<ReadOnlyMemory<int>> Read(IEnumerable<(Chunk[] Chunks, StableRandom? Order)> units)
    {
        byte[] bytes = [];
        int[] tokens = [];
        var documents = new List<(int Offset, int Count)>();
        foreach (var (chunks, order) in units)
        {
            var total = checked((int)chunks.Sum(chunk => (long)chunk.Bytes));
            // Buckets are about equal: the first one's array, a bit larger, does for the others.
            if (bytes.Length < total) bytes = new byte[total + total / 4];
            documents.Clear();
            var filled = 0;
            foreach (var chunk in chunks)
            {
                _file.Position = chunk.Offset;
                _file.ReadExactly(bytes, filled, chunk.Bytes);
                for (var end = filled + chunk.Bytes; filled < end;)
                {
                    var count = BinaryPrimitives.ReadInt32LittleEndian(bytes.AsSpan(filled));
                    documents.Add((filled + 4, count));
                    filled += 4 + count * TokenBytes;
                }
            }

            order?.Shuffle(CollectionsMarshal.AsSpan(documents));
            foreach (var (offset, count) in documents)
            {
                if (tokens.Length < count) tokens = new int[2 * count];
                if (_narrow) PackedTokens.Widen(MemoryMarshal.Cast<byte, ushort>(bytes.AsSpan(offset, count * 2)), tokens);
                else MemoryMarshal.Cast<byte, int>(bytes.AsSpan(offset, count * 4)).CopyTo(tokens);
                yield return tokens.AsMemory(0, count);
            }
        }
    }

    private void WriteChunk(int bucket)
    {
        ref var buffer = ref _buffers[bucket == HeldOut ? Buckets : bucket];
        var header = new byte[HeaderBytes];
        BinaryPrimitives.WriteInt32LittleEndian(header, bucket);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(4), buffer.WrittenCount);
        try
        {
            _file.Position = Length;
            _file.Write(header);
            _file.Write(buffer.WrittenSpan);
        }
        catch (IOException e)
        {
            throw DiskError.Translate(_path, e);
        }

        _chunks.Add(new Chunk(bucket, Length + HeaderBytes, buffer.WrittenCount));
        Length += HeaderBytes + buffer.WrittenCount;
        // One that held a huge document is not to keep its memory for ever.
        if (buffer.Capacity > 4 * _chunkBytes) buffer = new ArrayBufferWriter<byte>();
        else buffer.ResetWrittenCount();
    }

    private void Scan()
    {
        var header = new byte[HeaderBytes];
        while (Length < _file.Length)
        {
            _file.Position = Length;
            _file.ReadExactly(header);
            var chunk = new Chunk(BinaryPrimitives.ReadInt32LittleEndian(header), Length + HeaderBytes, BinaryPrimitives.ReadInt32LittleEndian(header.AsSpan(4)));
            if (chunk.Bucket < HeldOut || chunk.Bucket >= Buckets || chunk.Bytes < 0 || chunk.Offset + chunk.Bytes > _file.Length)
                throw new RhoException($"{_path}: is damaged at byte {Length}; delete its folder to start anew");
            _chunks.Add(chunk);
            Length = chunk.Offset + chunk.Bytes;
        }
    }

    private readonly record struct Chunk(int Bucket, long Offset, int Bytes);
}

/// <summary>Random numbers that are the same in every version of .NET: SplitMix64 (Steele, Lea, Flood 2014).</summary>
internal sealed class StableRandom(ulong seed)
{
    private ulong _state = seed;

    /// <summary>A seed made of two numbers.</summary>
    public static ulong Mix(ulong seed, ulong number) => Scramble(Scramble(seed) + number * 0x9E37_79B9_7F4A_7C15);

    public ulong Next() => Scramble(_state += 0x9E37_79B9_7F4A_7C15);

    /// <summary>Fisher-Yates.</summary>
    public void Shuffle<T>(Span<T> items)
    {
        for (var i = items.Length - 1; i > 0; i--)
        {
            // The high part of a 128-bit product: 0 to i, with a bias below 2^-32.
            var j = (int)Math.BigMul(Next(), (ulong)i + 1, out _);
            (items[i], items[j]) = (items[j], items[i]);
        }
    }

    private static ulong Scramble(ulong z)
    {
        z = (z ^ (z >> 30)) * 0xBF58_476D_1CE4_E5B9;
        z = (z ^ (z >> 27)) * 0x94D0_49BB_1331_11EB;
        return z ^ (z >> 31);
    }
}
