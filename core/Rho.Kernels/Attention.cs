using System.Buffers;
using System.Runtime.Intrinsics;

namespace Rho.Kernels;

/// <summary>Tokens of one sequence that lie together.</summary>
/// <param name="Start">row of the first</param>
/// <param name="Position">of the first in its sequence; those before it lie elsewhere</param>
public readonly record struct Piece(int Start, int Position, int Count);

/// <summary>
/// Rotary embedding and causal grouped-query attention over fused query-key-value rows, of pieces of sequences of any lengths. Eight query
/// rows at a time see only the keys they may see, which are taken in tiles whose softmaxes are merged (Dao et al., FlashAttention): the memory of
/// a piece does not grow with what its sequence had before. P rows, N heads, K key-value heads, H head size.
/// </summary>
public static unsafe class Attention
{
    private const int Rows = AttentionShape.Rows;

    /// <summary>Keys of a tile: with their values they stay in a core's second-level cache.</summary>
    private const int TileKeys = 512;

    /// <summary>Queries that share a tile once it is loaded; the unit that threads share out.</summary>
    private const int UnitQueries = 256;

    /// <param name="qkv">[P, N + 2 K, H]</param>
    /// <param name="earlier">Keys and values of the sequence that the first piece goes on with, not rotated; null where there is none. [tokens, 2 K, H]</param>
    /// <param name="attended">[P, N, H], written</param>
    /// <param name="logSums">log-sum-exps of the scores, for the gradient; [P, N], written, or null</param>
    public static void Forward<T>(AttentionShape shape, IReadOnlyList<Piece> pieces, void* qkv, void* earlier, void* attended, float* logSums, int threads) where T : struct, IWritableFormat
    {
        var units = new List<Unit>();
        foreach (var piece in pieces)
        {
            for (var first = 0; first < piece.Count; first += UnitQueries)
            {
                for (var group = 0; group < shape.KeyValueHeads; group++) units.Add(new Unit(shape, piece, group, first, Math.Min(UnitQueries, piece.Count - first)));
            }
        }

        // The longest ones first: what is left for the end is short.
        if (pieces.Count == 1) units.Reverse();
        Parallel.For(0, units.Count, new ParallelOptions { MaxDegreeOfParallelism = threads }, i => Attend<T>(units[i], qkv, earlier, attended, logSums));
    }

    /// <summary>Some queries of a piece, for the heads of one key-value head.</summary>
    private readonly record struct Unit(AttentionShape Shape, Piece Piece, int Group, int FirstQuery, int Queries)
    {
        internal int Head => Shape.HeadSize;

        /// <summary>Position of a query in its sequence.</summary>
        internal int Position(int query) => Piece.Position + FirstQuery + query;

        /// <summary>Index of a query's row of qkv.</summary>
        internal long Row(int query) => Piece.Start + FirstQuery + query;

        internal int First(int query) => Shape.First(Row(query));

        /// <summary>Where a key-value row lies: in the pass, or among the earlier ones. <paramref name="column"/> counts key heads, then value heads.</summary>
        internal void* KeyValue<T>(void* qkv, void* earlier, int position, int column) where T : struct, INumberFormat
        {
            var inPass = position - Piece.Position;
            return inPass >= 0
                ? (byte*)qkv + T.RowBytes((((long)(Piece.Start + inPass) * Shape.Columns) + Shape.Heads + column) * Head)
                : (byte*)earlier + T.RowBytes((((long)position * 2 * Shape.KeyValueHeads) + column) * Head);
        }
    }

    private static void Attend<T>(Unit unit, void* qkv, void* earlier, void* attended, float* logSums) where T : struct, IWritableFormat
    {
        var (head, perGroup, queries) = (unit.Head, unit.Shape.PerGroup, unit.Queries);
        var slots = perGroup * queries;
        var pool = ArrayPool<float>.Shared.Rent((2 * TileKeys * head) + (Rows * (TileKeys + (2 * head))) + (slots * (head + 2)));
        try
        {
            fixed (float* scratch = pool, cos = unit.Shape.Cos, sin = unit.Shape.Sin)
            {
                float* keysT = scratch, values = keysT + (TileKeys * head), scores = values + (TileKeys * head), query = scores + (Rows * TileKeys), mixed = query + (Rows * head);
                float* sums = mixed + (Rows * head), highest = sums + (slots * head), totals = highest + slots;
                new Span<float>(sums, slots * head).Clear();
                new Span<float>(highest, slots).Fill(float.NegativeInfinity);
                new Span<float>(totals, slots).Clear();
                var keys = unit.Position(queries);
                for (var tile = unit.First(0) / TileKeys * TileKeys; tile < keys; tile += TileKeys)
                {
                    var count = Math.Min(TileKeys, keys - tile);
                    // The rows of queries serve as the keys' place before they are transposed.
                    LoadKeys<T>(unit, qkv, earlier, tile, count, cos, sin, query, keysT);
                    LoadValues<T>(unit, qkv, earlier, tile, count, values);
                    for (var n = 0; n < perGroup; n++)
                    {
                        for (var i = 0; i < queries; i += Rows)
                        {
                            var slot = (n * queries) + i;
                            AttendRows<T>(unit, qkv, n, i, tile, count, cos, sin, keysT, values, query, scores, mixed, sums + ((long)slot * head), highest + slot, totals + slot);
                        }
                    }
                }

                Store<T>(unit, sums, highest, totals, attended, logSums);
            }
        }
        finally
        {
            ArrayPool<float>.Shared.Return(pool);
        }
    }

    /// <summary>Adds what eight queries get from a tile: to sums [8, H] of values weighted by exp(score - highest), and to the weights' totals.</summary>
    private static void AttendRows<T>(
        in Unit unit, void* qkv, int n, int i, int tile, int count, float* cos, float* sin, float* keysT, float* values, float* query, float* scores, float* mixed,
        float* sums, float* highest, float* totals) where T : struct, IWritableFormat
    {
        var (shape, head) = (unit.Shape, unit.Head);
        var rows = Math.Min(Rows, unit.Queries - i);
        var from = Math.Max(0, unit.First(i) - tile) & ~31;
        var end = (Math.Min(count, unit.Position(i) + rows - tile) + 31) & ~31;
        if (end <= from) return;
        for (var r = 0; r < rows; r++)
        {
            var at = ((unit.Row(i + r) * shape.Columns) + (unit.Group * shape.PerGroup) + n) * head;
            shape.Load<T>((byte*)qkv + T.RowBytes(at), unit.Position(i + r), shape.Rotated, cos, sin, shape.Scale, query + (r * head));
        }

        new Span<float>(query + (rows * head), (Rows - rows) * head).Clear();
        Products.Add(query, head, 1, 0, head, keysT, TileKeys, from, end, scores, TileKeys);
        var old = stackalloc float[Rows];
        var added = stackalloc float[Rows];
        for (var r = 0; r < Rows; r++)
        {
            var row = scores + (r * TileKeys);
            var last = Math.Min(count - 1, unit.Position(i + r) - tile);
            var first = unit.First(Math.Min(i + r, unit.Queries - 1)) - tile;
            (old[r], added[r]) = (1f, 0f);
            if (r >= rows || last < first)
            {
                new Span<float>(row + from, end - from).Clear();
                continue;
            }

            if (shape.Cap > 0) Softmax.Cap(row + from, end - from, shape.Cap);
            var (high, total) = Softmax.Exponentials(row, from, end, Math.Max(from, first), last);
            (old[r], added[r]) = high > highest[r] ? (MathF.Exp(highest[r] - high), 1f) : (1f, MathF.Exp(high - highest[r]));
            highest[r] = Math.Max(high, highest[r]);
            totals[r] = (totals[r] * old[r]) + (total * added[r]);
        }

        Products.Add(scores, TileKeys, 1, from, end, values, head, 0, head, mixed, head);
        for (var r = 0; r < rows; r++)
        {
            var (before, now) = (Vector512.Create(old[r]), Vector512.Create(added[r]));
            for (var h = r * head; h < (r + 1) * head; h += 16)
                Vector512.FusedMultiplyAdd(Vector512.Load(sums + h), before, Vector512.Load(mixed + h) * now).Store(sums + h);
        }
    }

    private static void Store<T>(in Unit unit, float* sums, float* highest, float* totals, void* attended, float* logSums) where T : struct, IWritableFormat
    {
        var head = unit.Head;
        for (var n = 0; n < unit.Shape.PerGroup; n++)
        {
            for (var i = 0; i < unit.Queries; i++)
            {
                var slot = (n * unit.Queries) + i;
                var inverse = Vector512.Create(1 / totals[slot]);
                var to = (unit.Row(i) * unit.Shape.Heads) + (unit.Group * unit.Shape.PerGroup) + n;
                for (var h = 0; h < head; h += 16) T.Store(Vector512.Load(sums + ((long)slot * head) + h) * inverse, attended, (to * head) + h);
                if (logSums is not null) logSums[to] = highest[slot] + MathF.Log(totals[slot]);
            }
        }
    }

    /// <summary>Columns [H, keys] of a tile, rotated, zero beyond its keys up to a multiple of 32.</summary>
    private static void LoadKeys<T>(in Unit unit, void* qkv, void* earlier, int tile, int count, float* cos, float* sin, float* rows, float* columns) where T : struct, INumberFormat
    {
        var head = unit.Head;
        for (var j = 0; j < count; j += Rows)
        {
            var loaded = Math.Min(Rows, count - j);
            for (var r = 0; r < loaded; r++)
                unit.Shape.Load<T>(unit.KeyValue<T>(qkv, earlier, tile + j + r, unit.Group), tile + j + r, unit.Shape.Rotated, cos, sin, 1, rows + (r * head));
            new Span<float>(rows + (loaded * head), (Rows - loaded) * head).Clear();
            AttentionShape.Transpose(rows, head, columns + j, TileKeys);
        }

        var (from, end) = ((count + 7) & ~7, (count + 31) & ~31);
        for (var h = 0; h < head && from < end; h++) new Span<float>(columns + (h * TileKeys) + from, end - from).Clear();
    }

    /// <summary>Rows [keys, H] of a tile, zero beyond its keys up to a multiple of 32.</summary>
    private static void LoadValues<T>(in Unit unit, void* qkv, void* earlier, int tile, int count, float* rows) where T : struct, INumberFormat
    {
        var (shape, head) = (unit.Shape, unit.Head);
        for (var j = 0; j < count; j++) shape.Load<T>(unit.KeyValue<T>(qkv, earlier, tile + j, shape.KeyValueHeads + unit.Group), 0, 0, null, null, 1, rows + (j * head));
        new Span<float>(rows + (count * head), (((count + 31) & ~31) - count) * head).Clear();
    }
}
