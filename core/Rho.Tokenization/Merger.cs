namespace Rho.Tokenization;

/// <summary>
/// Byte-pair merging of a row of symbols: the pair of lowest rank first, among equals the leftmost. Short rows by scanning,
/// long ones with a heap over a linked list, O(n log n). One per thread.
/// </summary>
internal sealed class Merger
{
    private const int ScanLimit = 24;

    [ThreadStatic]
    private static Merger? _ofThread;

    private int[] _ranks = new int[64];
    private int[] _next = [];
    private int[] _previous = [];
    private ulong[] _heap = [];
    private int _heapCount;

    public static Merger OfThread => _ofThread ??= new Merger();

    /// <summary>Merges in place; <paramref name="lengths"/>, when not empty, holds each symbol's extent and is summed along.</summary>
    /// <returns>How many symbols are left, at the front.</returns>
    public int Merge(MergeTable table, Span<int> symbols, Span<int> lengths)
    {
        if (symbols.Length < 2) return symbols.Length;
        return symbols.Length <= ScanLimit ? Scan(table, symbols, lengths) : Queue(table, symbols, lengths);
    }

    private int Scan(MergeTable table, Span<int> symbols, Span<int> lengths)
    {
        var ranks = _ranks.AsSpan(0, ScanLimit);
        var count = symbols.Length;
        for (var i = 0; i + 1 < count; i++) table.TryGet(symbols[i], symbols[i + 1], out ranks[i], out _);
        while (count > 1)
        {
            var best = 0;
            for (var i = 1; i + 1 < count; i++)
            {
                if (ranks[i] < ranks[best]) best = i;
            }

            if (ranks[best] == int.MaxValue) break;
            table.TryGet(symbols[best], symbols[best + 1], out _, out symbols[best]);
            if (!lengths.IsEmpty)
            {
                lengths[best] += lengths[best + 1];
                lengths[(best + 2)..count].CopyTo(lengths[(best + 1)..]);
            }

            symbols[(best + 2)..count].CopyTo(symbols[(best + 1)..]);
            if (best + 2 < count) ranks[(best + 2)..count].CopyTo(ranks[(best + 1)..]);
            count--;
            if (best > 0) table.TryGet(symbols[best - 1], symbols[best], out ranks[best - 1], out _);
            ranks[best] = int.MaxValue;
            if (best + 1 < count) table.TryGet(symbols[best], symbols[best + 1], out ranks[best], out _);
        }

        return count;
    }

    private int Queue(MergeTable table, Span<int> symbols, Span<int> lengths)
    {
        var count = symbols.Length;
        if (_next.Length < count)
        {
            _next = new int[count];
            _previous = new int[count];
            _heap = new ulong[count];
        }

        var next = _next.AsSpan(0, count);
        var previous = _previous.AsSpan(0, count);
        _heapCount = 0;
        for (var i = 0; i < count; i++)
        {
            next[i] = i + 1;
            previous[i] = i - 1;
            if (i + 1 < count && table.TryGet(symbols[i], symbols[i + 1], out var rank, out _)) _heap[_heapCount++] = Key(rank, i);
        }

        for (var i = _heapCount / 2 - 1; i >= 0; i--) SiftDown(i);

        while (_heapCount > 0)
        {
            var top = Pop();
            var left = (int)(uint)top;
            var right = next[left];
            // An entry is stale when a neighbour's merge changed the pair: the pair of today has another rank, or none.
            if (symbols[left] < 0 || right >= count) continue;
            if (!table.TryGet(symbols[left], symbols[right], out var rank, out var merged) || rank != (int)(top >> 32)) continue;

            symbols[left] = merged;
            symbols[right] = -1;
            if (!lengths.IsEmpty) lengths[left] += lengths[right];
            next[left] = next[right];
            if (next[left] < count)
            {
                previous[next[left]] = left;
                if (table.TryGet(merged, symbols[next[left]], out rank, out _)) Push(Key(rank, left));
            }

            var before = previous[left];
            if (before >= 0 && table.TryGet(symbols[before], merged, out rank, out _)) Push(Key(rank, before));
        }

        var kept = 0;
        for (var i = 0; i < count; i = next[i])
        {
            symbols[kept] = symbols[i];
            if (!lengths.IsEmpty) lengths[kept] = lengths[i];
            kept++;
        }

        if (count > 1 << 20)
        {
            // Arrays for one enormous text are not worth keeping.
            _next = [];
            _previous = [];
            _heap = [];
        }

        return kept;
    }

    private static ulong Key(int rank, int position) => (ulong)(uint)rank << 32 | (uint)position;

    private void Push(ulong key)
    {
        if (_heapCount == _heap.Length) Array.Resize(ref _heap, _heap.Length * 2);
        var heap = _heap;
        var child = _heapCount++;
        while (child > 0)
        {
            var parent = (child - 1) / 2;
            if (heap[parent] <= key) break;
            heap[child] = heap[parent];
            child = parent;
        }

        heap[child] = key;
    }

    private ulong Pop()
    {
        var top = _heap[0];
        var last = _heap[--_heapCount];
        if (_heapCount > 0)
        {
            _heap[0] = last;
            SiftDown(0);
        }

        return top;
    }

    private void SiftDown(int parent)
    {
        var heap = _heap;
        var count = _heapCount;
        var key = heap[parent];
        while (true)
        {
            var child = parent * 2 + 1;
            if (child >= count) break;
            if (child + 1 < count && heap[child + 1] < heap[child]) child++;
            if (heap[child] >= key) break;
            heap[parent] = heap[child];
            parent = child;
        }

        heap[parent] = key;
    }
}
