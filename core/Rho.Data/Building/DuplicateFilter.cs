using System.Buffers.Binary;

namespace Rho.Data;

/// <summary>
/// Remembers which contents were there, by 76 bits of their SHA-256: two different ones among 25 million are taken for equal with a
/// chance of 4e-9. Takes 11 to 22 bytes of memory per document, in segments so that growing never doubles all of it at once.
/// </summary>
internal sealed class DuplicateFilter
{
    private const int SegmentBits = 12;

    private readonly ulong[]?[] _segments = new ulong[1 << SegmentBits][];
    private readonly int[] _counts = new int[1 << SegmentBits];

    /// <summary>True if the content is new.</summary>
    /// <param name="hash">Its SHA-256, or the first 16 bytes of it.</param>
    public bool Add(ReadOnlySpan<byte> hash)
    {
        var key = BinaryPrimitives.ReadUInt64LittleEndian(hash);
        if (key == 0) key = 1; // 0 marks a free slot
        var index = BinaryPrimitives.ReadUInt16LittleEndian(hash[8..]) & ((1 << SegmentBits) - 1);
        ref var segment = ref _segments[index];
        segment ??= new ulong[16];
        if (_counts[index] >= segment.Length / 4 * 3)
        {
            var larger = new ulong[segment.Length * 2];
            foreach (var old in segment)
                if (old != 0) Insert(larger, old);
            segment = larger;
        }

        if (!Insert(segment, key)) return false;
        _counts[index]++;
        return true;
    }

    private static bool Insert(ulong[] slots, ulong key)
    {
        for (var at = (int)(key & (ulong)(slots.Length - 1)); ; at = (at + 1) & (slots.Length - 1))
        {
            if (slots[at] == key) return false;
            if (slots[at] != 0) continue;
            slots[at] = key;
            return true;
        }
    }
}
