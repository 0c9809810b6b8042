using System.Buffers;
using System.Runtime.Intrinsics;

namespace Rho.Kernels;

/// <summary>Some of many rows, in order, or all.</summary>
/// <param name="Rows">ascending; null for all</param>
public readonly record struct ChosenRows(long[]? Rows)
{
    /// <summary>Which row the i-th of these is.</summary>
    public long At(int i) => Rows is null ? i : Rows[i];

    /// <summary>Which of these are in first .. end.</summary>
    public (int From, int To) Between(long first, long end) => Rows is null ? ((int)first, (int)end) : (Find(first), Find(end));

    private int Find(long row) => Array.BinarySearch(Rows!, row) is var at && at < 0 ? ~at : at;
}

/// <summary>
/// The backward of attention over sequences of one length: probabilities are computed again from the saved log-sum-exps. With P the
/// probabilities: dV = P^T dO; dP = dO V^T; dS = P (dP - rowsum(dO O)); dQ = dS K; dK = dS^T Q. A cap c tanh(s / c) = u on the scores makes that
/// dS (1 - (u / c)^2). B sequences, T tokens, N heads, K key-value heads, H head size.
/// </summary>
/// <param name="Sequences">B</param>
/// <param name="Length">T</param>
/// <param name="Moved">the rows at which there is a gradient</param>
/// <param name="Seen">the rows that these see</param>
public sealed unsafe record AttentionGradient(AttentionShape Shape, int Sequences, int Length, ChosenRows Moved, ChosenRows Seen)
{
    private const int Rows = AttentionShape.Rows;

    private int Head => Shape.HeadSize;

    /// <summary>Tokens rounded up to whole tiles.</summary>
    private int Padded => (Length + 31) & ~31;

    /// <param name="qkv">[B * T, N + 2 K, H]</param>
    /// <param name="output">what was attended. [B * T, N, H]</param>
    /// <param name="logSums">[B * T, N]</param>
    /// <param name="gradient">of it. [moved, N, H]</param>
    /// <param name="queries">gradients of queries, [moved, N, H], written; with keysValues null those of keys and values too, [moved, N + 2 K, H], and may be qkv</param>
    /// <param name="keysValues">gradients of keys and values, [seen, 2 K, H], written; null where the moved rows are the seen ones</param>
    public void Backward<T>(void* qkv, void* output, float* logSums, void* gradient, void* queries, void* keysValues, int threads) where T : struct, IWritableFormat =>
        Parallel.For(0, Sequences * Shape.KeyValueHeads, new ParallelOptions { MaxDegreeOfParallelism = threads }, i =>
            Group<T>(i / Shape.KeyValueHeads, i % Shape.KeyValueHeads, qkv, output, logSums, gradient, queries, keysValues));

    private void Group<T>(int b, int group, void* qkv, void* output, float* logSums, void* gradient, void* queries, void* keysValues) where T : struct, IWritableFormat
    {
        var (head, padded, columns, offset) = (Head, Padded, Shape.Columns, (long)b * Length);
        var tile = padded * head;
        var size = (5 * tile) + (Rows * ((3 * padded) + (3 * head)));
        var pool = ArrayPool<float>.Shared.Rent(size);
        Array.Clear(pool, 0, size);
        try
        {
            fixed (float* scratch = pool, cos = Shape.Cos, sin = Shape.Sin)
            {
                float* keys = scratch, keysT = keys + tile, valuesT = keysT + tile, keyGradient = valuesT + tile, valueGradient = keyGradient + tile;
                float* p = valueGradient + tile, ds = p + (Rows * padded), capped = ds + (Rows * padded);
                float* query = capped + (Rows * padded), dOut = query + (Rows * head), dQuery = dOut + (Rows * head);
                var tokens = T.RowBytes(columns * head);
                var kept = (byte*)qkv + ((nint)offset * tokens);
                for (var t = 0; t < padded; t += Rows)
                {
                    // The queries' place serves for the values before they are transposed.
                    var loaded = Math.Clamp(Length - t, 0, Rows);
                    for (var r = 0; r < loaded; r++)
                    {
                        var row = kept + ((t + r) * tokens);
                        Shape.Load<T>(row + T.RowBytes((Shape.Heads + group) * head), t + r, Shape.Rotated, cos, sin, 1, keys + ((t + r) * head));
                        Shape.Load<T>(row + T.RowBytes((Shape.Heads + Shape.KeyValueHeads + group) * head), t + r, 0, null, null, 1, query + (r * head));
                    }

                    new Span<float>(query + (loaded * head), (Rows - loaded) * head).Clear();
                    AttentionShape.Transpose(keys + (t * head), head, keysT + t, padded);
                    AttentionShape.Transpose(query, head, valuesT + t, padded);
                }

                var dots = stackalloc float[Rows];
                var at = stackalloc int[Rows];
                var (begin, stop) = Moved.Between(offset, offset + Length);
                for (var n = group * Shape.PerGroup; n < (group + 1) * Shape.PerGroup; n++)
                {
                    for (var i = begin; i < stop; i += Rows)
                    {
                        var rows = Math.Min(Rows, stop - i);
                        for (var r = 0; r < rows; r++)
                        {
                            at[r] = (int)(Moved.At(i + r) - offset);
                            Shape.Load<T>(kept + (at[r] * tokens) + T.RowBytes(n * head), at[r], Shape.Rotated, cos, sin, Shape.Scale, query + (r * head));
                        }

                        new Span<float>(query + (rows * head), (Rows - rows) * head).Clear();
                        var (from, end) = (Shape.First(offset + at[0]) & ~31, Math.Min(padded, (at[rows - 1] + 32) & ~31));
                        Products.Add(query, head, 1, 0, head, keysT, padded, from, end, p, padded);
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

                            var result = ((offset + at[r]) * Shape.Heads) + n;
                            dots[r] = Load<T>((byte*)gradient + T.RowBytes((((long)(i + r) * Shape.Heads) + n) * head), (byte*)output + T.RowBytes(result * head), dOut + (r * head));
                            if (Shape.Cap > 0)
                            {
                                Softmax.Cap(row + from, end - from, Shape.Cap);
                                new Span<float>(row + from, end - from).CopyTo(new Span<float>(capped + (r * padded) + from, end - from));
                            }

                            Softmax.Mask(row, from, end, Shape.First(offset + at[r]), at[r]);
                            var logSum = Vector512.Create(logSums[result]);
                            for (var j = from; j < end; j += 16) VectorMath.Exp(Vector512.Load(row + j) - logSum).Store(row + j);
                        }

                        Spread(p, padded, from, end, dOut, valueGradient);
                        Products.Add(dOut, head, 1, 0, head, valuesT, padded, from, end, ds, padded);
                        for (var r = 0; r < Rows; r++)
                        {
                            var (dot, row) = (Vector512.Create(dots[r]), r * padded);
                            for (var j = row + from; j < row + end; j += 16) (Vector512.Load(p + j) * (Vector512.Load(ds + j) - dot)).Store(ds + j);
                            if (Shape.Cap > 0 && r < rows) Uncap(ds + row, capped + row, from, end, Shape.Cap);
                        }

                        Products.Add(ds, padded, 1, from, end, keys, head, 0, head, dQuery, head);
                        Spread(ds, padded, from, end, query, keyGradient);
                        for (var r = 0; r < rows; r++)
                        {
                            var to = (((long)(i + r) * (keysValues is null ? columns : Shape.Heads)) + n) * head;
                            Store<T>(dQuery + (r * head), at[r], Shape.Rotated, cos, sin, Shape.Scale, (byte*)queries + T.RowBytes(to));
                        }
                    }
                }

                (begin, stop) = Seen.Between(offset, offset + Length);
                for (var i = begin; i < stop; i++)
                {
                    var t = (int)(Seen.At(i) - offset);
                    var to = keysValues is null
                        ? (byte*)queries + T.RowBytes((((long)i * columns) + Shape.Heads + group) * head)
                        : (byte*)keysValues + T.RowBytes((((long)i * 2 * Shape.KeyValueHeads) + group) * head);
                    Store<T>(keyGradient + (t * head), t, Shape.Rotated, cos, sin, 1, to);
                    Store<T>(valueGradient + (t * head), t, 0, null, null, 1, to + T.RowBytes(Shape.KeyValueHeads * head));
                }
            }
        }
        finally
        {
            ArrayPool<float>.Shared.Return(pool);
        }
    }

    /// <summary>y[j, h] += sum_r p[r, j] x[r, h] for 8 rows and the columns from .. end of p.</summary>
    private void Spread(float* p, int stride, int from, int end, float* x, float* y)
    {
        for (var j = from; j < end; j += Rows) Products.Add(p + j, 1, stride, 0, Rows, x, Head, 0, Head, y + ((long)j * Head), Head, accumulate: true);
    }

    /// <summary>A row of the given gradient; returns its product with the output's.</summary>
    private float Load<T>(void* gradient, void* output, float* to) where T : struct, INumberFormat
    {
        var dot = Vector512<float>.Zero;
        for (var h = 0; h < Head; h += 16)
        {
            var d = T.Load(gradient, h);
            d.Store(to + h);
            dot = Vector512.FusedMultiplyAdd(d, T.Load(output, h), dot);
        }

        return Vector512.Sum(dot);
    }

    /// <summary>A row of a gradient, turned back.</summary>
    private void Store<T>(float* row, int position, int rotated, float* cos, float* sin, float scale, void* to) where T : struct, IWritableFormat
    {
        var angle = (long)position * (rotated / 2);
        RotaryRow.Turn<Float32, T>(row, to, Head, rotated, cos + angle, sin + angle, scale, -1);
    }

    private static void Uncap(float* ds, float* capped, int from, int end, float cap)
    {
        for (var j = from; j < end; j += 16)
        {
            var share = Vector512.Load(capped + j) * (1 / cap);
            (Vector512.Load(ds + j) * (Vector512<float>.One - (share * share))).Store(ds + j);
        }
    }
}
