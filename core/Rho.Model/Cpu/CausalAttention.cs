using System.Buffers;
using System.Runtime.Intrinsics;
using static TorchSharp.torch;

namespace Rho.Model.Cpu;

/// <summary>
/// Rotary embedding and causal grouped-query attention over the fused query-key-value rows, without a matrix of scores in memory: eight
/// query rows at a time see only the keys they may see; the backward recomputes the probabilities from the saved log-sum-exps
/// (Dao et al., FlashAttention). B sequences, T tokens, N heads, K key-value heads, H head size.
/// </summary>
internal sealed unsafe class CausalAttention : CpuFunction<CausalAttention>
{
    private const int Rows = 8;

    internal static bool Fits(ModelConfig config, Tensor qkv) => config.HeadSize % 32 == 0 && Work.Fits(qkv);

    /// <summary>qkv [B, T, N + 2 K, H], config, context; returns [B, T, N, H].</summary>
    public override Tensor forward(autograd.AutogradContext ctx, params object[] vars)
    {
        var (qkv, config, context) = (((Tensor)vars[0]).contiguous(), (ModelConfig)vars[1], (AttentionContext)vars[2]);
        var output = empty([qkv.size(0), qkv.size(1), config.Heads, config.HeadSize], qkv.dtype);
        var logSums = empty([qkv.size(0), config.Heads, qkv.size(1)], ScalarType.Float32);
        ctx.save_for_backward([qkv, output, logSums]);
        ctx.save_data("shape", new Shape(config, context, (int)qkv.size(0), (int)qkv.size(1)));
        var shape = (Shape)ctx.get_data("shape");
        var (q, o, l) = ((nint)Work.Pointer(qkv), (nint)Work.Pointer(output), (nint)Work.Pointer(logSums));
        if (qkv.dtype == ScalarType.Float32) shape.EachGroup((b, g) => Forward<Float32>(shape, b, g, (void*)q, (void*)o, (float*)l));
        else shape.EachGroup((b, g) => Forward<BFloat16>(shape, b, g, (void*)q, (void*)o, (float*)l));
        return output;
    }

    protected override List<Tensor?> Gradients(autograd.AutogradContext ctx, Tensor gradient)
    {
        var saved = ctx.get_saved_variables();
        var (qkv, output, logSums) = (saved[0], saved[1], saved[2]);
        var result = empty_like(qkv);
        var shape = (Shape)ctx.get_data("shape");
        var (q, o, l, g, d) = ((nint)Work.Pointer(qkv), (nint)Work.Pointer(output), (nint)Work.Pointer(logSums), (nint)Work.Pointer(gradient), (nint)Work.Pointer(result));
        if (qkv.dtype == ScalarType.Float32) shape.EachGroup((b, group) => Backward<Float32>(shape, b, group, (void*)q, (void*)o, (float*)l, (void*)g, (void*)d));
        else shape.EachGroup((b, group) => Backward<BFloat16>(shape, b, group, (void*)q, (void*)o, (float*)l, (void*)g, (void*)d));
        return [result, null, null];
    }

    private sealed record Shape(ModelConfig Config, AttentionContext Context, int Sequences, int Length)
    {
        internal int Head => Config.HeadSize;
        internal int Columns => Config.Heads + (2 * Config.KeyValueHeads);

        /// <summary>Tokens rounded up to whole tiles.</summary>
        internal int Padded => (Length + 31) & ~31;

        /// <summary>The earliest position that a query sees.</summary>
        internal int First(int sequence, int position) => Context.FirstSeen is { } first ? first[(sequence * Length) + position] : 0;

        internal void EachGroup(Action<int, int> body)
        {
            var groups = Config.KeyValueHeads;
            Parallel.For(0, Sequences * groups, new ParallelOptions { MaxDegreeOfParallelism = get_num_threads() }, i => body(i / groups, i % groups));
        }
    }

    private static void Forward<T>(Shape s, int b, int g, void* qkv, void* output, float* logSums) where T : struct, IElement
    {
        var (head, padded) = (s.Head, s.Padded);
        var pool = ArrayPool<float>.Shared.Rent((2 * padded * head) + (Rows * (padded + (2 * head))));
        try
        {
            fixed (float* scratch = pool)
            fixed (float* cos = s.Context.Cos, sin = s.Context.Sin)
            {
                float* keysT = scratch, values = keysT + (padded * head), scores = values + (padded * head), query = scores + (Rows * padded), mixed = query + (Rows * head);
                // The row of queries serves as the key's place before it is transposed.
                LoadTransposed<T>(s, qkv, b, s.Config.Heads + g, cos, sin, query, keysT);
                LoadRows<T>(s, qkv, b, s.Config.Heads + s.Config.KeyValueHeads + g, values);
                var perGroup = s.Config.Heads / s.Config.KeyValueHeads;
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

                            logSums[((((long)b * s.Config.Heads) + n) * s.Length) + i + r] = Softmax(row, from, end, s.First(b, i + r), i + r);
                        }

                        AttentionProducts.Mix(scores, padded, from, end, values, head, mixed);
                        for (var r = 0; r < Rows && i + r < s.Length; r++)
                        {
                            var to = ((((long)b * s.Length) + i + r) * s.Config.Heads + n) * head;
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

    // With P the probabilities: dV = P^T dO; dP = dO V^T; dS = P (dP - rowsum(dO O)); dQ = dS K; dK = dS^T Q.
    // Queries whose output has no gradient add nothing: in the last block those are the ones that are not selected.
    private static void Backward<T>(Shape s, int b, int g, void* qkv, void* output, float* logSums, void* gradient, void* result) where T : struct, IElement
    {
        var (head, padded) = (s.Head, s.Padded);
        var tile = padded * head;
        var size = (5 * tile) + (Rows * ((2 * padded) + (3 * head)));
        var pool = ArrayPool<float>.Shared.Rent(size);
        var positions = ArrayPool<int>.Shared.Rent(s.Length);
        Array.Clear(pool, 0, size);
        try
        {
            fixed (float* scratch = pool)
            fixed (float* cos = s.Context.Cos, sin = s.Context.Sin)
            {
                float* keys = scratch, keysT = keys + tile, valuesT = keysT + tile, keyGradient = valuesT + tile, valueGradient = keyGradient + tile;
                float* p = valueGradient + tile, ds = p + (Rows * padded), query = ds + (Rows * padded), dOut = query + (Rows * head), dQuery = dOut + (Rows * head);
                LoadTransposed<T>(s, qkv, b, s.Config.Heads + g, cos, sin, query, keysT);
                Transpose(keysT, keys, padded, head);
                LoadTransposed<T>(s, qkv, b, s.Config.Heads + s.Config.KeyValueHeads + g, null, null, query, valuesT);
                var scale = (float)(1 / Math.Sqrt(head));
                var dots = stackalloc float[Rows];
                var perGroup = s.Config.Heads / s.Config.KeyValueHeads;
                for (var n = g * perGroup; n < (g + 1) * perGroup; n++)
                {
                    var moved = WithGradient<T>(s, b, n, gradient, result, positions);
                    for (var i = 0; i < moved.Length; i += Rows)
                    {
                        var at = moved.Slice(i, Math.Min(Rows, moved.Length - i));
                        for (var r = 0; r < at.Length; r++) LoadRow<T>(s, qkv, b, at[r], n, cos, sin, scale, query + (r * head));
                        new Span<float>(query + (at.Length * head), (Rows - at.Length) * head).Clear();
                        var (from, end) = (s.First(b, at[0]) & ~31, Math.Min(padded, (at[^1] + 32) & ~31));
                        AttentionProducts.Scores(query, head, keysT, padded, p, from, end);
                        for (var r = 0; r < Rows; r++)
                        {
                            var row = p + (r * padded);
                            if (r >= at.Length)
                            {
                                new Span<float>(row + from, end - from).Clear();
                                new Span<float>(dOut + (r * head), head).Clear();
                                continue;
                            }

                            var start = OutputAt(s, b, at[r], n);
                            var dot = Vector512<float>.Zero;
                            for (var h = 0; h < head; h += 16)
                            {
                                var d = T.Load(gradient, start + h);
                                d.Store(dOut + (r * head) + h);
                                dot = Vector512.FusedMultiplyAdd(d, T.Load(output, start + h), dot);
                            }

                            dots[r] = Vector512.Sum(dot);
                            HeadRow.Mask(row, from, end, s.First(b, at[r]), at[r]);
                            var logSum = Vector512.Create(logSums[((((long)b * s.Config.Heads) + n) * s.Length) + at[r]]);
                            for (var j = from; j < end; j += 16) Vector512.Exp(Vector512.Load(row + j) - logSum).Store(row + j);
                        }

                        AttentionProducts.Spread(p, padded, from, end, dOut, head, valueGradient);
                        AttentionProducts.Scores(dOut, head, valuesT, padded, ds, from, end);
                        for (var r = 0; r < Rows; r++)
                        {
                            var dot = Vector512.Create(dots[r]);
                            for (var j = from; j < end; j += 16)
                                (Vector512.Load(p + (r * padded) + j) * (Vector512.Load(ds + (r * padded) + j) - dot)).Store(ds + (r * padded) + j);
                        }

                        AttentionProducts.Mix(ds, padded, from, end, keys, head, dQuery);
                        AttentionProducts.Spread(ds, padded, from, end, query, head, keyGradient);
                        for (var r = 0; r < at.Length; r++)
                            StoreRotatedBack<T>(s, dQuery + (r * head), scale, cos, sin, result, b, at[r], n);
                    }
                }

                for (var t = 0; t < s.Length; t++)
                {
                    StoreRotatedBack<T>(s, keyGradient + (t * head), 1, cos, sin, result, b, t, s.Config.Heads + g);
                    StoreRotatedBack<T>(s, valueGradient + (t * head), 1, null, null, result, b, t, s.Config.Heads + s.Config.KeyValueHeads + g);
                }
            }
        }
        finally
        {
            ArrayPool<float>.Shared.Return(pool);
            ArrayPool<int>.Shared.Return(positions);
        }
    }

    /// <summary>The positions at which a head's output has a gradient, in order; at the others the query's gradient is set to zero.</summary>
    private static ReadOnlySpan<int> WithGradient<T>(Shape s, int b, int n, void* gradient, void* result, int[] positions) where T : struct, IElement
    {
        var count = 0;
        for (var t = 0; t < s.Length; t++)
        {
            var (start, h) = (OutputAt(s, b, t, n), 0);
            while (h < s.Head && T.Load(gradient, start + h) == Vector512<float>.Zero) h += 16;
            if (h < s.Head)
            {
                positions[count++] = t;
                continue;
            }

            var to = At(s, b, t, n);
            for (h = 0; h < s.Head; h += 16) T.Store(Vector512<float>.Zero, result, to + h);
        }

        return positions.AsSpan(0, count);
    }

    /// <summary>Softmax over first .. last, zero elsewhere; returns the log-sum-exp.</summary>
    private static float Softmax(float* row, int from, int end, int first, int last)
    {
        var (max, total) = HeadRow.Exponentials(row, from, end, first, last);
        var inverse = Vector512.Create(1 / total);
        for (var j = from; j < end; j += 16) (Vector512.Load(row + j) * inverse).Store(row + j);
        return max + MathF.Log(total);
    }

    private static long OutputAt(Shape s, int b, int t, int n) => ((((long)b * s.Length) + t) * s.Config.Heads + n) * s.Head;

    private static long At(Shape s, int b, int t, int column) => ((((long)b * s.Length) + t) * s.Columns + column) * s.Head;

    /// <summary>One head's row, rotated where there are tables.</summary>
    private static void LoadRow<T>(Shape s, void* qkv, int b, int t, int column, float* cos, float* sin, float scale, float* to) where T : struct, IElement
    {
        var angle = t * (s.Head / 2);
        HeadRow.Load<T>(qkv, At(s, b, t, column), s.Head, cos == null ? null : cos + angle, cos == null ? null : sin + angle, scale, to);
    }

    private static void StoreRotatedBack<T>(Shape s, float* row, float scale, float* cos, float* sin, void* result, int b, int t, int column) where T : struct, IElement
    {
        var (at, half, factor) = (At(s, b, t, column), s.Head / 2, Vector512.Create(scale));
        for (var h = 0; h < half; h += 16)
        {
            var (y1, y2) = (Vector512.Load(row + h) * factor, Vector512.Load(row + half + h) * factor);
            if (cos != null)
            {
                var (c, z) = (Vector512.Load(cos + (t * half) + h), Vector512.Load(sin + (t * half) + h));
                (y1, y2) = ((y1 * c) + (y2 * z), (y2 * c) - (y1 * z));
            }

            T.Store(y1, result, at + h);
            T.Store(y2, result, at + half + h);
        }
    }

    private static void LoadQueries<T>(Shape s, void* qkv, int b, int n, int i, float* cos, float* sin, float* query) where T : struct, IElement
    {
        var scale = (float)(1 / Math.Sqrt(s.Head));
        for (var r = 0; r < Rows; r++)
        {
            if (i + r < s.Length) LoadRow<T>(s, qkv, b, i + r, n, cos, sin, scale, query + (r * s.Head));
            else new Span<float>(query + (r * s.Head), s.Head).Clear();
        }
    }

    /// <summary>Rows [T, H] of one head, zero beyond the sequence.</summary>
    private static void LoadRows<T>(Shape s, void* qkv, int b, int column, float* rows) where T : struct, IElement
    {
        for (var t = 0; t < s.Length; t++) LoadRow<T>(s, qkv, b, t, column, null, null, 1, rows + (t * s.Head));
        new Span<float>(rows + (s.Length * s.Head), (s.Padded - s.Length) * s.Head).Clear();
    }

    /// <summary>Columns [H, T] of one head, zero beyond the sequence.</summary>
    private static void LoadTransposed<T>(Shape s, void* qkv, int b, int column, float* cos, float* sin, float* row, float* columns) where T : struct, IElement
    {
        var padded = s.Padded;
        for (var t = 0; t < padded; t += Rows)
        {
            for (var r = 0; r < Rows; r++)
            {
                if (t + r < s.Length) LoadRow<T>(s, qkv, b, t + r, column, cos, sin, 1, row + (r * s.Head));
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
