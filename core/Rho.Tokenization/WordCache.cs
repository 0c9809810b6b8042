using System.Runtime.InteropServices;

namespace Rho.Tokenization;

/// <summary>
/// What words were encoded to. Direct-mapped and bounded: a word replaces another one with the same slot. Threads share it
/// without locks, since entries never change and references are read and written whole.
/// </summary>
internal sealed class WordCache
{
    public const int LongestWord = 48;

    private const int SlotBits = 16;
    private readonly Entry?[] _slots = new Entry?[1 << SlotBits];

    public static uint Hash(ReadOnlySpan<char> word)
    {
        const ulong Multiplier = 0x9E3779B97F4A7C15;
        var hash = (ulong)word.Length * Multiplier;
        var bytes = MemoryMarshal.AsBytes(word);
        while (bytes.Length >= 8)
        {
            hash = (hash ^ MemoryMarshal.Read<ulong>(bytes)) * Multiplier;
            hash ^= hash >> 32;
            bytes = bytes[8..];
        }

        if (bytes.Length >= 4)
        {
            hash = (hash ^ MemoryMarshal.Read<uint>(bytes)) * Multiplier;
            hash ^= hash >> 32;
            bytes = bytes[4..];
        }

        if (bytes.Length >= 2) hash = (hash ^ MemoryMarshal.Read<ushort>(bytes)) * Multiplier;
        return (uint)(hash >> 32);
    }

    public bool TryGet(ReadOnlySpan<char> word, uint hash, out ReadOnlySpan<int> ids)
    {
        var entry = _slots[hash >> (32 - SlotBits)];
        if (entry is not null && entry.Hash == hash && word.SequenceEqual(entry.Word))
        {
            ids = entry.Ids;
            return true;
        }

        ids = default;
        return false;
    }

    public void Put(ReadOnlySpan<char> word, uint hash, ReadOnlySpan<int> ids) =>
        _slots[hash >> (32 - SlotBits)] = new Entry(word.ToString(), hash, ids.ToArray());

    private sealed class Entry(string word, uint hash, int[] ids)
    {
        public readonly string Word = word;
        public readonly uint Hash = hash;
        public readonly int[] Ids = ids;
    }
}
