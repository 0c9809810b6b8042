using System.Buffers;
using System.Runtime.Intrinsics;
using Rho.Model.Training;
using static TorchSharp.torch;

namespace Rho.Model.Cpu;

/// <summary>
/// Rotary embedding and causal grouped-query attention over the fused query-key-value rows, without a matrix of scores in memory: eight
/// query rows at a time see only the keys they may see; the backward recomputes the probabilities from the saved log-sum-exps
/// (Dao et al., FlashAttention). B sequences, T tokens, N heads, K key-value heads, H head size.
/// </summary>
internal static unsafe class CausalAttention
{
    private const int Rows = 8;

    internal static bool Fits(AttentionRows rows, Tensor qkv) => rows.Spec.HeadSize % 32 == 0 && rows.Angles.Size % 32 == 0 && Work.Fits(qkv);

    /// <param name="qkv">[B * T, (N + 2 K) * H]</param>
    /// <returns>[B * T, N * H], and the log-sum-exps of the scores, [B, N, T] float32</returns>
    internal static (Tensor Attended, Tensor LogSums) Forward(AttentionRows rows, Tensor qkv)
    {
        var output = empty([qkv.size(0), rows.Spec.Queries], qkv.dtype);
        var logSums = empty([rows.Sequences, rows.Spec.Heads, rows.Length], ScalarType.Float32);
        var shape = new Shape(rows);
        var (q, o, l) = ((nint)Work.Pointer(qkv), (nint)Work.Pointer(output), (nint)Work.Pointer(logSums));
        if (qkv.dtype == ScalarType.Float32) shape.EachGroup((b, g) => Forward<Float32>(shape, b, g, (void*)q, (void*)o, (float*)l));
        else shape.EachGroup((b, g) => Forward<BFloat16>(shape, b, g, (void*)q, (void*)o, (float*)l));
        return (output, logSums);
    }

    /// <param name="qkv">freed where the gradients take its place</param>
    /// <param name="gradient">of what was attended. [moved, N * H]</param>
    /// <param name="moved">the rows of the gradient</param>
    /// <param name="seen">the rows that these see</param>
    /// <returns>The gradients of queries, [moved, N * H], and of keys and values, [seen, 2 K * H]; where the rows are the same, both in one. [moved, (N + 2 K) * H]</returns>
    internal static (Tensor Queries, Tensor? KeysValues) Backward(AttentionRows rows, Value qkv, Tensor output, Tensor logSums, Tensor gradient, RowSet moved, RowSet seen)
    {
        var (shape, spec, kept) = (new Shape(rows), rows.Spec, qkv.Kept);
        // A head's numbers of a row are read before its gradient is written: where rows are all, the gradients need no memory of their own.
        var together = moved.IsAll ? qkv.Take(moved) : ReferenceEquals(moved, seen) ? empty([moved.Count, spec.Columns * spec.HeadSize], kept.dtype) : null;
        var (queries, keysValues) = together is null ? (empty([moved.Count, spec.Queries], kept.dtype), empty([seen.Count, spec.KeysValues], kept.dtype)) : (together, null);
        var given = gradient.contiguous();
        var pointers = new Gradients(moved, seen, (nint)Work.Pointer(given), (nint)Work.Pointer(queries), keysValues is null ? 0 : (nint)Work.Pointer(keysValues));
        var (q, o, l) = ((nint)Work.Pointer(kept), (nint)Work.Pointer(output), (nint)Work.Pointer(logSums));
        if (kept.dtype == ScalarType.Float32) shape.EachGroup((b, group) => Backward<Float32>(shape, b, group, (void*)q, (void*)o, (float*)l, pointers));
        else shape.EachGroup((b, group) => Backward<BFloat16>(shape, b, group, (void*)q, (void*)o, (float*)l, pointers));
        return (queries, keysValues);
    }

    /// <summary>Where gradients lie: given at rows of Moved, found of queries there and of keys and values at rows of Seen; KeysValues is 0 where they are beside the queries.</summary>
    private sealed record Gradients(RowSet Moved, RowSet Seen, nint Given, nint Queries, nint KeysValues)
    {
        internal long QueryAt(Shape s, long i, int n) => (i * (KeysValues == 0 ? s.Columns : s.Spec.Heads) + n) * s.Head;

        internal (nint Memory, long At) KeyValueAt(Shape s, long i, int column) => KeysValues == 0
            ? (Queries, ((i * s.Columns) + s.Spec.Heads + column) * s.Head)
            : (KeysValues, ((i * 2 * s.Spec.KeyValueHeads) + column) * s.Head);
    }

    private sealed class Shape(AttentionRows rows)
    {
        internal Architectures.AttentionSpec Spec { get; } = rows.Spec;
        internal float[] Cos { get; } = rows.Angles.Cos;
        internal float[] Sin { get; } = rows.Angles.Sin;
        internal int Rotated { get; } = rows.Angles.Size;
        internal int Length { get; } = rows.Length;
        internal int Head => Spec.HeadSize;
        internal int Columns => Spec.Columns;
        internal float Scale { get; } = (float)rows.Spec.Scale;

        /// <summary>0 for none.</summary>
        internal float Cap { get; } = (float)(rows.Spec.SoftCap ?? 0);

        /// <summary>Tokens rounded up to whole tiles.</summary>
        internal int Padded => (Length + 31) & ~31;

        /// <summary>The earliest position that a query sees.</summary>
        internal int First(int sequence, int position) => rows.First(sequence, position);

        internal void EachGroup(Action<int, int> body)
        {
            var groups = Spec.KeyValueHeads;
            Parallel.For(0, rows.Sequences * groups, new ParallelOptions { MaxDegreeOfParallelism = get_num_threads() }, i => body(i / groups, i % groups));
        }
    }

    private static void Forward<T>(Shape s, int b, int g, void* qkv, void* output, float* logSums) where T : struct, IElement
    {
        var (head, padded) = (s.Head, s.Padded);
        var pool = ArrayPool<float>.Shared.Rent((2 * padded * head) + (Rows * (padded + (2 * head))));
        try
        {
            fixed (float* scratch = pool)
            fixed (float* cos = s.Cos, sin = s.Sin)
            {
                float* keysT = scratch, values = keysT + (padded * head), scores = values + (padded * head), query = scores + (Rows * padded), mixed = query + (Rows * head);
                // The row of queries serves as the key's place before it is transposed.
                LoadTransposed<T>(s, qkv, b, s.Spec.Heads + g, s.Rotated, cos, sin, query, keysT);
                LoadRows<T>(s, qkv, b, s.Spec.Heads + s.Spec.KeyValueHeads + g, values);
                var perGroup = s.Spec.PerGroup;
                for (var n = g * perGroup; n < (g + 1) * perGroup; n++)
                {
                    for (var i = 0; i < s.Length; i += Rows)
                    {
                        LoadQueries<T>(s, qkv, b, n, i, cos, sin, query);
                        var (from, end) = (s.First(b, i) & ~31, Math.Min(padded, (i + Rows + 31) & ~31));
                        AttentionProducts.Scores(query, head, keysT, padded, scores, from, end);
                        for (var r = 0; r < Rows; r++)
                        {
                            var row = scores + (r * padded);
                            if (i + r >= s.Length)
                            {
                                new Span<float>(row + from, end - from).Clear();
                                continue;
                            }

                            if (s.Cap > 0) HeadRow.Cap(row, from, end, s.Cap);
                            logSums[((((long)b * s.Spec.Heads) + n) * s.Length) + i + r] = Softmax(row, from, end, s.First(b, i + r), i + r);
                        }

                        AttentionProducts.Mix(scores, padded, from, end, values, head, mixed);
                        for (var r = 0; r < Rows && i + r < s.Length; r++)
                        {
                            var to = ((((long)b * s.Length) + i + r) * s.Spec.Heads + n) * head;
                            for (var h = 0; h < head; h += 16) T.Store(Vector512.Load(mixed + (r * head) + h), output, to + h);
                        }
                    }
                }
            }
        }
        finally
        {
            ArrayPool<float>.Shared.Return(pool);
        }
    }

    // With P the probabilities: dV = P^T dO; dP = dO V^T; dS = P (dP - rowsum(dO O)); dQ = dS K; dK = dS^T Q. A cap c tanh(s / c) = u on the
    // scores makes that dS (1 - (u / c)^2).
    private static void Backward<T>(Shape s, int b, int g, void* qkv, void* output, float* logSums, Gradients gradients) where T : struct, IElement
    {
        var (head, padded) = (s.Head, s.Padded);
        var tile = padded * head;
        var size = (5 * tile) + (Rows * ((3 * padded) + (3 * head)));
        var pool = ArrayPool<float>.Shared.Rent(size);
        Array.Clear(pool, 0, size);
        try
        {
            fixed (float* scratch = pool)
            fixed (float* cos = s.Cos, sin = s.Sin)
            {
                float* keys = scratch, keysT = keys + tile, valuesT = keysT + tile, keyGradient = valuesT + tile, valueGradient = keyGradient + tile;
                float* p = valueGradient + tile, ds = p + (Rows * padded), capped = ds + (Rows * padded), query = capped + (Rows * padded), dOut = query + (Rows * head), dQuery = dOut + (Rows * head);
                LoadTransposed<T>(s, qkv, b, s.Spec.Heads + g, s.Rotated, cos, sin, query, keysT);
                Transpose(keysT, keys, padded, head);
                LoadTransposed<T>(s, qkv, b, s.Spec.Heads + s.Spec.KeyValueHeads + g, 0, null, null, query, valuesT);
                var dots = stackalloc float[Rows];
                var at = stackalloc int[Rows];
                var perGroup = s.Spec.PerGroup;
                var (begin, stop) = gradients.Moved.Between((long)b * s.Length, (b + 1L) * s.Length);
                for (var n = g * perGroup; n < (g + 1) * perGroup; n++)
                {
                    for (var i = begin; i < stop; i += Rows)
                    {
                        var rows = Math.Min(Rows, stop - i);
                        for (var r = 0; r < rows; r++)
                        {
                            at[r] = (int)(gradients.Moved.At(i + r) - ((long)b * s.Length));
                            LoadRow<T>(s, qkv, b, at[r], n, s.Rotated, cos, sin, s.Scale, query + (r * head));
                        }

                        new Span<float>(query + (rows * head), (Rows - rows) * head).Clear();
                        var (from, end) = (s.First(b, at[0]) & ~31, Math.Min(padded, (at[rows - 1] + 32) & ~31));
                        AttentionProducts.Scores(query, head, keysT, padded, p, from, end);
                        for (var r = 0; r < Rows; r++)
                        {
                            var row = p + (r * padded);
                            if (r >= rows)
                            {
                                new Span<float>(row + from, end - from).Clear();
                                new Span<float>(dOut + (r * head), head).Clear();
                                dots[r] = 0;
                                continue;
                            }

                            var (start, given) = (OutputAt(s, b, at[r], n), (((long)(i + r) * s.Spec.Heads) + n) * head);
                            var dot = Vector512<float>.Zero;
                            for (var h = 0; h < head; h += 16)
                            {
                                var d = T.Load((void*)gradients.Given, given + h);
                                d.Store(dOut + (r * head) + h);
                                dot = Vector512.FusedMultiplyAdd(d, T.Load(output, start + h), dot);
                            }

                            dots[r] = Vector512.Sum(dot);
                            if (s.Cap > 0)
                            {
                                HeadRow.Cap(row, from, end, s.Cap);
                                new Span<float>(row + from, end - from).CopyTo(new Span<float>(capped + (r * padded) + from, end - from));
                            }

                            HeadRow.Mask(row, from, end, s.First(b, at[r]), at[r]);
                            var logSum = Vector512.Create(logSums[((((long)b * s.Spec.Heads) + n) * s.Length) + at[r]]);
                            for (var j = from; j < end; j += 16) Vector512.Exp(Vector512.Load(row + j) - logSum).Store(row + j);
                        }

                        AttentionProducts.Spread(p, padded, from, end, dOut, head, valueGradient);
                        AttentionProducts.Scores(dOut, head, valuesT, padded, ds, from, end);
                        for (var r = 0; r < Rows; r++)
                        {
                            var (dot, row) = (Vector512.Create(dots[r]), r * padded);
                            for (var j = from; j < end; j += 16)
                                (Vector512.Load(p + row + j) * (Vector512.Load(ds + row + j) - dot)).Store(ds + row + j);
                            if (s.Cap > 0 && r < rows) Uncap(ds + row, capped + row, from, end, s.Cap);
                        }

                        AttentionProducts.Mix(ds, padded, from, end, keys, head, dQuery);
                        AttentionProducts.Spread(ds, padded, from, end, query, head, keyGradient);
                        for (var r = 0; r < rows; r++)
                            StoreRotatedBack<T>(s, dQuery + (r * head), s.Scale, at[r], s.Rotated, cos, sin, (void*)gradients.Queries, gradients.QueryAt(s, i + r, n));
                    }
                }

                (begin, stop) = gradients.Seen.Between((long)b * s.Length, (b + 1L) * s.Length);
                for (var i = begin; i < stop; i++)
                {
                    var t = (int)(gradients.Seen.At(i) - ((long)b * s.Length));
                    var (memory, place) = gradients.KeyValueAt(s, i, g);
                    StoreRotatedBack<T>(s, keyGradient + (t * head), 1, t, s.Rotated, cos, sin, (void*)memory, place);
                    (memory, place) = gradients.KeyValueAt(s, i, s.Spec.KeyValueHeads + g);
                    StoreRotatedBack<T>(s, valueGradient + (t * head), 1, t, 0, null, null, (void*)memory, place);
                }
            }
        }
        finally
        {
            ArrayPool<float>.Shared.Return(pool);
        }
    }

    private static void Uncap(float* ds, float* capped, int from, int end, float cap)
    {
        for (var j = from; j < end; j += 16)
        {
            var share = Vector512.Load(capped + j) * (1 / cap);
            (Vector512.Load(ds + j) * (Vector512<float>.One - (share * share))).Store(ds + j);
        }
    }

    /// <summary>Softmax over first .. last, zero elsewhere; returns the log-sum-exp.</summary>
    private static float Softmax(float* row, int from, int end, int first, int last)
    {
        var (max, total) = HeadRow.Exponentials(row, from, end, first, last);
        var inverse = Vector512.Create(1 / total);
        for (var j = from; j < end; j += 16) (Vector512.Load(row + j) * inverse).Store(row + j);
        return max + MathF.Log(total);
    }

    private static long OutputAt(Shape s, int b, int t, int n) => ((((long)b * s.Length) + t) * s.Spec.Heads + n) * s.Head;

    private static long At(Shape s, int b, int t, int column) => ((((long)b * s.Length) + t) * s.Columns + column) * s.Head;

    /// <summary>One head's row, its first numbers rotated.</summary>
    private static void LoadRow<T>(Shape s, void* qkv, int b, int t, int column, int rotated, float* cos, float* sin, float scale, float* to) where T : struct, IElement =>
        HeadRow.Load<T>(qkv, At(s, b, t, column), s.Head, rotated, cos + (t * (rotated / 2)), sin + (t * (rotated / 2)), scale, to);

    private static void StoreRotatedBack<T>(Shape s, float* row, float scale, int t, int rotated, float* cos, float* sin, void* result, long at) where T : struct, IElement
    {
        var (half, factor) = (rotated / 2, Vector512.Create(scale));
        for (var h = 0; h < half; h += 16)
        {
            var (y1, y2) = (Vector512.Load(row + h) * factor, Vector512.Load(row + half + h) * factor);
            var (c, z) = (Vector512.Load(cos + (t * half) + h), Vector512.Load(sin + (t * half) + h));
            T.Store((y1 * c) + (y2 * z), result, at + h);
            T.Store((y2 * c) - (y1 * z), result, at + half + h);
        }

        for (var h = rotated; h < s.Head; h += 16) T.Store(Vector512.Load(row + h) * factor, result, at + h);
    }

    private static void LoadQueries<T>(Shape s, void* qkv, int b, int n, int i, float* cos, float* sin, float* query) where T : struct, IElement
    {
        for (var r = 0; r < Rows; r++)
        {
            if (i + r < s.Length) LoadRow<T>(s, qkv, b, i + r, n, s.Rotated, cos, sin, s.Scale, query + (r * s.Head));
            else new Span<float>(query + (r * s.Head), s.Head).Clear();
        }
    }

    /// <summary>Rows [T, H] of one head, zero beyond the sequence.</summary>
    private static void LoadRows<T>(Shape s, void* qkv, int b, int column, float* rows) where T : struct, IElement
    {
        for (var t = 0; t < s.Length; t++) LoadRow<T>(s, qkv, b, t, column, 0, null, null, 1, rows + (t * s.Head));
        new Span<float>(rows + (s.Length * s.Head), (s.Padded - s.Length) * s.Head).Clear();
    }

    /// <summary>Columns [H, T] of one head, zero beyond the sequence.</summary>
    private static void LoadTransposed<T>(Shape s, void* qkv, int b, int column, int rotated, float* cos, float* sin, float* row, float* columns) where T : struct, IElement
    {
        var padded = s.Padded;
        for (var t = 0; t < padded; t += Rows)
        {
            for (var r = 0; r < Rows; r++)
            {
                if (t + r < s.Length) LoadRow<T>(s, qkv, b, t + r, column, rotated, cos, sin, 1, row + (r * s.Head));
                else new Span<float>(row + (r * s.Head), s.Head).Clear();
            }

            HeadRow.Transpose(row, s.Head, columns + t, padded);
        }
    }

    private static void Transpose(float* from, float* to, int columns, int rows)
    {
        for (var j = 0; j < columns; j++)
            for (var i = 0; i < rows; i++) to[((long)j * rows) + i] = from[((long)i * columns) + j];
    }
}
