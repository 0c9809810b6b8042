using System.Buffers;
using System.Runtime.Intrinsics;
using Rho.Model.Scoring;
using static TorchSharp.torch;

namespace Rho.Model.Cpu;

/// <summary>
/// Rotary embedding and causal grouped-query attention for scoring, over pieces of sequences of any lengths. Keys are taken in tiles and
/// their softmaxes merged (Dao et al., FlashAttention), so that the memory of a piece does not grow with what its sequence had before.
/// P tokens, N heads, K key-value heads, H head size.
/// </summary>
internal static unsafe class PieceAttention
{
    private const int Rows = 8;

    /// <summary>Keys of a tile: with their values they stay in a core's second-level cache.</summary>
    private const int TileKeys = 512;

    /// <summary>Queries that share a tile once it is loaded; the unit that threads share out.</summary>
    private const int UnitQueries = 256;

    internal static bool Fits(PieceContext context, Tensor qkv, Tensor? earlier) =>
        context.Spec.HeadSize % 32 == 0 && context.Angles.Size % 32 == 0 && Work.Fits(qkv) && (earlier is null || Work.Fits(earlier));

    /// <param name="qkv">[P, N + 2 K, H]</param>
    /// <param name="earlier">Keys and values of the sequence that an earlier pass began, not rotated; null where there is none. [tokens, 2 K, H]</param>
    /// <param name="attended">[P, N, H], written</param>
    internal static void Attend(PieceContext context, Tensor qkv, Tensor? earlier, Tensor attended)
    {
        var units = new List<Unit>();
        foreach (var piece in context.Pass.Pieces)
        {
            for (var first = 0; first < piece.Count; first += UnitQueries)
            {
                for (var group = 0; group < context.Spec.KeyValueHeads; group++)
                    units.Add(new Unit(context, piece, group, first, Math.Min(UnitQueries, piece.Count - first)));
            }
        }

        // The longest ones first: what is left for the end is short.
        if (context.Pass.Pieces.Count == 1) units.Reverse();
        var (q, e, o) = ((nint)Work.Pointer(qkv), earlier is null ? 0 : (nint)Work.Pointer(earlier), (nint)Work.Pointer(attended));
        var options = new ParallelOptions { MaxDegreeOfParallelism = get_num_threads() };
        if (qkv.dtype == ScalarType.Float32) Parallel.For(0, units.Count, options, i => Attend<Float32>(units[i], (void*)q, (void*)e, (void*)o));
        else Parallel.For(0, units.Count, options, i => Attend<BFloat16>(units[i], (void*)q, (void*)e, (void*)o));
    }

    /// <summary>Some queries of a piece, for the heads of one key-value head.</summary>
    private readonly record struct Unit(PieceContext Context, SequencePiece Piece, int Group, int FirstQuery, int Queries)
    {
        internal Architectures.AttentionSpec Spec => Context.Spec;
        internal int Head => Spec.HeadSize;
        internal int PerGroup => Spec.PerGroup;
        internal int Columns => Spec.Columns;

        /// <summary>Position of a query in its sequence.</summary>
        internal int Position(int query) => Piece.Position + FirstQuery + query;

        /// <summary>The earliest position that a query sees. It never falls within a sequence.</summary>
        internal int First(int query) => Context.First(Piece, FirstQuery + query);

        /// <summary>Index of a query's row of qkv.</summary>
        internal long Row(int query) => Piece.Start + FirstQuery + query;
    }

    private static void Attend<T>(Unit unit, void* qkv, void* earlier, void* attended) where T : struct, IElement
    {
        var (head, perGroup, queries) = (unit.Head, unit.PerGroup, unit.Queries);
        var slots = perGroup * queries;
        var pool = ArrayPool<float>.Shared.Rent((2 * TileKeys * head) + (Rows * (TileKeys + (2 * head))) + (slots * (head + 2)));
        try
        {
            fixed (float* scratch = pool)
            fixed (float* cos = unit.Context.Angles.Cos, sin = unit.Context.Angles.Sin)
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
                    // The row of queries serves as the keys' place before they are transposed.
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

                Store<T>(unit, sums, totals, attended);
            }
        }
        finally
        {
            ArrayPool<float>.Shared.Return(pool);
        }
    }

    /// <summary>Adds what eight queries get from a tile: to sums [8, H] of values weighted by exp(score - highest), and to the weights' totals.</summary>
    private static void AttendRows<T>(
        Unit unit, void* qkv, int n, int i, int tile, int count, float* cos, float* sin, float* keysT, float* values, float* query, float* scores, float* mixed,
        float* sums, float* highest, float* totals) where T : struct, IElement
    {
        var head = unit.Head;
        var rows = Math.Min(Rows, unit.Queries - i);
        var from = Math.Max(0, unit.First(i) - tile) & ~31;
        var end = (Math.Min(count, unit.Position(i) + rows - tile) + 31) & ~31;
        if (end <= from) return;
        var (scale, cap, rotated) = ((float)unit.Spec.Scale, (float)(unit.Spec.SoftCap ?? 0), unit.Context.Angles.Size);
        for (var r = 0; r < Rows; r++)
        {
            if (r >= rows)
            {
                new Span<float>(query + (r * head), head).Clear();
                continue;
            }

            var at = ((unit.Row(i + r) * unit.Columns) + (unit.Group * unit.PerGroup) + n) * head;
            long angle = (long)unit.Position(i + r) * (rotated / 2);
            HeadRow.Load<T>(qkv, at, head, rotated, cos + angle, sin + angle, scale, query + (r * head));
        }

        AttentionProducts.Scores(query, head, keysT, TileKeys, scores, from, end);
        var old = stackalloc float[Rows];
        var added = stackalloc float[Rows];
        for (var r = 0; r < Rows; r++)
        {
            var row = scores + (r * TileKeys);
            var (first, last) = (unit.First(Math.Min(i + r, unit.Queries - 1)) - tile, Math.Min(count - 1, unit.Position(i + r) - tile));
            (old[r], added[r]) = (1f, 0f);
            if (r >= rows || last < first)
            {
                new Span<float>(row + from, end - from).Clear();
                continue;
            }

            if (cap > 0) HeadRow.Cap(row, from, end, cap);
            var (high, total) = HeadRow.Exponentials(row, from, end, Math.Max(from, first), last);
            (old[r], added[r]) = high > highest[r] ? (MathF.Exp(highest[r] - high), 1f) : (1f, MathF.Exp(high - highest[r]));
            highest[r] = Math.Max(high, highest[r]);
            totals[r] = (totals[r] * old[r]) + (total * added[r]);
        }

        AttentionProducts.Mix(scores, TileKeys, from, end, values, head, mixed);
        for (var r = 0; r < rows; r++)
        {
            var (before, now) = (Vector512.Create(old[r]), Vector512.Create(added[r]));
            for (var h = r * head; h < (r + 1) * head; h += 16)
                Vector512.FusedMultiplyAdd(Vector512.Load(sums + h), before, Vector512.Load(mixed + h) * now).Store(sums + h);
        }
    }

    private static void Store<T>(Unit unit, float* sums, float* totals, void* attended) where T : struct, IElement
    {
        var head = unit.Head;
        for (var n = 0; n < unit.PerGroup; n++)
        {
            for (var i = 0; i < unit.Queries; i++)
            {
                var slot = (n * unit.Queries) + i;
                var inverse = Vector512.Create(1 / totals[slot]);
                var to = ((unit.Row(i) * unit.Spec.Heads) + (unit.Group * unit.PerGroup) + n) * head;
                for (var h = 0; h < head; h += 16) T.Store(Vector512.Load(sums + ((long)slot * head) + h) * inverse, attended, to + h);
            }
        }
    }

    /// <summary>Where a key-value row lies: in the pass, or among the earlier ones. <paramref name="column"/> counts key heads, then value heads.</summary>
    private static void* Source(in Unit unit, void* qkv, void* earlier, int position, int column, out long at)
    {
        var spec = unit.Spec;
        var inPass = position - unit.Piece.Position;
        at = inPass >= 0
            ? (((long)(unit.Piece.Start + inPass) * unit.Columns) + spec.Heads + column) * unit.Head
            : (((long)position * 2 * spec.KeyValueHeads) + column) * unit.Head;
        return inPass >= 0 ? qkv : earlier;
    }

    /// <summary>Columns [H, keys] of a tile, rotated, zero beyond its keys up to a multiple of 32.</summary>
    private static void LoadKeys<T>(in Unit unit, void* qkv, void* earlier, int tile, int count, float* cos, float* sin, float* rows, float* columns) where T : struct, IElement
    {
        var (head, half) = (unit.Head, unit.Context.Angles.Size / 2);
        var padded = (count + 31) & ~31;
        for (var j = 0; j < padded; j += Rows)
        {
            for (var r = 0; r < Rows; r++)
            {
                if (j + r >= count)
                {
                    new Span<float>(rows + (r * head), head).Clear();
                    continue;
                }

                var source = Source(unit, qkv, earlier, tile + j + r, unit.Group, out var at);
                long angle = (long)(tile + j + r) * half;
                HeadRow.Load<T>(source, at, head, 2 * half, cos + angle, sin + angle, 1, rows + (r * head));
            }

            HeadRow.Transpose(rows, head, columns + j, TileKeys);
        }
    }

    /// <summary>Rows [keys, H] of a tile, zero beyond its keys up to a multiple of 32.</summary>
    private static void LoadValues<T>(in Unit unit, void* qkv, void* earlier, int tile, int count, float* rows) where T : struct, IElement
    {
        var head = unit.Head;
        for (var j = 0; j < count; j++)
        {
            var source = Source(unit, qkv, earlier, tile + j, unit.Spec.KeyValueHeads + unit.Group, out var at);
            for (var h = 0; h < head; h += 16) T.Load(source, at + h).Store(rows + (j * head) + h);
        }

        new Span<float>(rows + (count * head), (((count + 31) & ~31) - count) * head).Clear();
    }
}
