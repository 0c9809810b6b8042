using System.Numerics;

namespace Rho.Tokenization;

/// <summary>Which pairs of symbols merge, in which order (rank) and into what. Open addressing, two arrays, no objects.</summary>
internal sealed class MergeTable
{
    private const ulong Empty = ulong.MaxValue;
    private readonly ulong[] _keys;
    private readonly ulong[] _values;
    private readonly int _shift;

    public MergeTable(int capacity)
    {
        var size = BitOperations.RoundUpToPowerOf2((uint)Math.Max(16, capacity * 2));
        _keys = new ulong[size];
        _values = new ulong[size];
        _shift = 64 - BitOperations.Log2(size);
        Array.Fill(_keys, Empty);
    }

    public int Count { get; private set; }

    /// <summary>Adds a merge, or replaces the one of the same pair.</summary>
    public void Set(int left, int right, int rank, int merged)
    {
        var key = Key(left, right);
        var slot = Slot(key);
        while (_keys[slot] != Empty && _keys[slot] != key) slot = (slot + 1) & (_keys.Length - 1);
        if (_keys[slot] == Empty) Count++;
        _keys[slot] = key;
        _values[slot] = (ulong)(uint)rank << 32 | (uint)merged;
    }

    public bool TryGet(int left, int right, out int rank, out int merged)
    {
        var key = Key(left, right);
        var keys = _keys;
        var slot = Slot(key);
        while (true)
        {
            var found = keys[slot];
            if (found == key)
            {
                rank = (int)(_values[slot] >> 32);
                merged = (int)_values[slot];
                return true;
            }

            if (found == Empty)
            {
                rank = int.MaxValue;
                merged = -1;
                return false;
            }

            slot = (slot + 1) & (keys.Length - 1);
        }
    }

    private static ulong Key(int left, int right) => (ulong)(uint)left << 32 | (uint)right;

    private int Slot(ulong key) => (int)(key * 0x9E3779B97F4A7C15 >> _shift);
}
