using System.Buffers.Binary;
using System.Runtime.InteropServices;

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
    private readonly MemoryStream[] _buffers; // the last one is for what is held out
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
        _buffers = new MemoryStream[buckets + 1];
        for (var i = 0; i <= buckets; i++) _buffers[i] = new MemoryStream();
        _chunkBytes = Math.Clamp(bufferBytes / (buckets + 1), 4 << 10, 256 << 10);
        try
        {
            _file = new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.Read, 1 << 16);
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

    /// <param name="bucket">From 0 to below <see cref="Buckets"/>, or <see cref="HeldOut"/>.</param>
    public void Add(int bucket, ReadOnlySpan<int> document)
    {
        var buffer = _buffers[bucket == HeldOut ? Buckets : bucket];
        Span<byte> bytes = stackalloc byte[4];
        BinaryPrimitives.WriteInt32LittleEndian(bytes, document.Length);
        buffer.Write(bytes);
        if (_narrow)
        {
            foreach (var token in document)
            {
                BinaryPrimitives.WriteUInt16LittleEndian(bytes, (ushort)token);
                buffer.Write(bytes[..2]);
            }
        }
        else
        {
            buffer.Write(MemoryMarshal.AsBytes(document));
        }

        if (buffer.Length >= _chunkBytes) WriteChunk(bucket, buffer);
    }

    /// <summary>Writes what is buffered; afterwards <see cref="Length"/> bytes hold all documents added, also after a power cut.</summary>
    public void Flush()
    {
        for (var i = 0; i <= Buckets; i++)
            if (_buffers[i].Length > 0) WriteChunk(i == Buckets ? HeldOut : i, _buffers[i]);
        try
        {
            _file.Flush(flushToDisk: true);
        }
        catch (IOException e)
        {
            throw DiskError.Translate(_path, e);
        }
    }

    /// <summary>Documents that are held out, in the order added.</summary>
    public IEnumerable<int[]> ReadHeldOut() => Read(_chunks.Where(chunk => chunk.Bucket == HeldOut).Select(chunk => (new[] { chunk }, default(StableRandom?))));

    /// <summary>The other documents: in the order added without a seed, otherwise permuted.</summary>
    public IEnumerable<int[]> Read(ulong? seed)
    {
        if (seed is null) return Read(_chunks.Where(chunk => chunk.Bucket != HeldOut).Select(chunk => (new[] { chunk }, default(StableRandom?))));
        var buckets = _chunks.Where(chunk => chunk.Bucket != HeldOut).GroupBy(chunk => chunk.Bucket).OrderBy(group => group.Key).Select(group => group.ToArray()).ToArray();
        new StableRandom(seed.Value).Shuffle(buckets.AsSpan());
        return Read(buckets.Select(bucket => (bucket, (StableRandom?)new StableRandom(StableRandom.Mix(seed.Value, (ulong)bucket[0].Bucket + 1)))));
    }

    public void Dispose() => _file.Dispose();

    private IEnumerable<int[]> Read(IEnumerable<(Chunk[] Chunks, StableRandom? Order)> units)
    {
        byte[] bytes = [];
        var documents = new List<(int Offset, int Count)>();
        foreach (var (chunks, order) in units)
        {
            var total = checked((int)chunks.Sum(chunk => (long)chunk.Bytes));
            if (bytes.Length < total) bytes = new byte[total];
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
                    filled += 4 + count * (_narrow ? 2 : 4);
                }
            }

            order?.Shuffle(CollectionsMarshal.AsSpan(documents));
            foreach (var (offset, count) in documents)
            {
                var tokens = new int[count];
                if (_narrow) LossCodec.Widen(MemoryMarshal.Cast<byte, ushort>(bytes.AsSpan(offset, count * 2)), tokens);
                else MemoryMarshal.Cast<byte, int>(bytes.AsSpan(offset, count * 4)).CopyTo(tokens);
                yield return tokens;
            }
        }
    }

    private void WriteChunk(int bucket, MemoryStream buffer)
    {
        var header = new byte[HeaderBytes];
        BinaryPrimitives.WriteInt32LittleEndian(header, bucket);
        BinaryPrimitives.WriteInt32LittleEndian(header.AsSpan(4), (int)buffer.Length);
        try
        {
            _file.Position = Length;
            _file.Write(header);
            _file.Write(buffer.GetBuffer().AsSpan(0, (int)buffer.Length));
        }
        catch (IOException e)
        {
            throw DiskError.Translate(_path, e);
        }

        _chunks.Add(new Chunk(bucket, Length + HeaderBytes, (int)buffer.Length));
        Length += HeaderBytes + buffer.Length;
        buffer.SetLength(0);
        if (buffer.Capacity > 4 * _chunkBytes) buffer.Capacity = 0;
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
