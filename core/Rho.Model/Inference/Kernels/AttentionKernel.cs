using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Rho.Model.Inference.Kernels;

/// <summary>
/// softmax(q K^T / sqrt(H)) V of query rows that share one key-value head, over a block-wise cache. A block holds
/// <see cref="BlockTokens"/> positions of one head: keys transposed [H][16], then values [16][H], so that neither product needs a
/// sum over lanes. A row's result depends on its own keys and values alone, not on the rows beside it.
/// </summary>
// H head size padded to 16, L positions that a row sees.
internal static unsafe class AttentionKernel<TFormat> where TFormat : struct, IWritableFormat
{
    public const int BlockTokens = 16;
    public const int RowTile = 4;

    /// <summary>
    /// Forgets the values of a block that is to be used anew: those of positions not yet written are multiplied by a weight of 0, which
    /// would turn another sequence's infinity into NaN.
    /// </summary>
    public static void Clear(byte* block, int H) => new Span<byte>(block + TFormat.RowBytes(H * BlockTokens), (int)TFormat.RowBytes(H * BlockTokens)).Clear();

    /// <summary>Writes one position's key and value (size numbers each; padding up to H stays zero).</summary>
    public static void Write(byte* block, int H, int slot, float* key, float* value, int size)
    {
        var values = block + TFormat.RowBytes(H * BlockTokens);
        for (var d = 0; d < size; d++)
        {
            TFormat.StoreOne(block, (d * BlockTokens) + slot, key[d]);
            TFormat.StoreOne(values, (slot * H) + d, value[d]);
        }
    }

    /// <summary>Attention of up to four query rows.</summary>
    /// <param name="queries">Rows' queries, H floats each, already scaled.</param>
    /// <param name="outputs">Where each row's H floats go.</param>
    /// <param name="first">Per row: the first position it sees (above 0 for sliding windows).</param>
    /// <param name="visible">Per row: one past the last position it sees.</param>
    /// <param name="rows">1 to 4.</param>
    /// <param name="blocks">Addresses of the sequence's blocks for this layer and head.</param>
    /// <param name="cap">Scores s become cap * tanh(s / cap); 0 for none.</param>
    /// <param name="scores">Room for 4 * (positions rounded up to 32) floats.</param>
    public static void Attend(float** queries, float** outputs, int* first, int* visible, int rows, byte** blocks, int H, float cap, float* scores)
    {
        var longest = 0;
        var earliest = int.MaxValue;
        for (var r = 0; r < rows; r++)
        {
            longest = Math.Max(longest, visible[r]);
            earliest = Math.Min(earliest, first[r]);
        }

        var firstBlock = earliest / BlockTokens;
        var blockCount = (longest + BlockTokens - 1) / BlockTokens;
        // Scores of row r begin at scores + r * stride, the first block's first position at 0.
        var stride = (blockCount - firstBlock + 1) / 2 * 2 * BlockTokens;
        if (rows == 1)
            Scores1(queries[0], blocks, firstBlock, blockCount, H, scores);
        else
            Scores4(queries[0], queries[1], queries[rows > 2 ? 2 : 1], queries[rows > 3 ? 3 : 1], blocks, firstBlock, blockCount, H, scores, stride);

        if (cap > 0) VectorKernels.Cap(scores, rows * stride, cap);
        var scale = stackalloc float[RowTile];
        for (var r = 0; r < rows; r++)
            scale[r] = 1 / Softmax(scores + (r * stride), first[r] - (firstBlock * BlockTokens), visible[r] - (firstBlock * BlockTokens), stride);

        for (var d = 0; d < H; d += 64)
        {
            var width = Math.Min(64, H - d);
            for (var r = 0; r < rows; r++)
            {
                if (rows - r >= 2 && width == 64)
                {
                    Values2(scores + (r * stride), scores + ((r + 1) * stride), scale[r], scale[r + 1], blocks, firstBlock, blockCount, H, d, outputs[r] + d, outputs[r + 1] + d);
                    r++;
                }
                else
                {
                    Values1(scores + (r * stride), scale[r], blocks, firstBlock, blockCount, H, d, width, outputs[r] + d);
                }
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Scores1(float* q, byte** blocks, int firstBlock, int blockCount, int H, float* scores)
    {
        for (var b = firstBlock; b < blockCount; b += 4)
        {
            // Blocks past the end repeat the last one; their scores are overwritten or never read.
            byte* k0 = blocks[b], k1 = blocks[Math.Min(b + 1, blockCount - 1)], k2 = blocks[Math.Min(b + 2, blockCount - 1)], k3 = blocks[Math.Min(b + 3, blockCount - 1)];
            Vector512<float> a0 = default, a1 = default, a2 = default, a3 = default;
            for (nint d = 0; d < H; d++)
            {
                var v = Vector512.Create(q[d]);
                a0 = Vector512.FusedMultiplyAdd(TFormat.Load(k0, d * BlockTokens), v, a0);
                a1 = Vector512.FusedMultiplyAdd(TFormat.Load(k1, d * BlockTokens), v, a1);
                a2 = Vector512.FusedMultiplyAdd(TFormat.Load(k2, d * BlockTokens), v, a2);
                a3 = Vector512.FusedMultiplyAdd(TFormat.Load(k3, d * BlockTokens), v, a3);
            }

            var target = scores + ((b - firstBlock) * BlockTokens);
            a0.Store(target);
            if (b + 1 < blockCount) a1.Store(target + 16);
            if (b + 2 < blockCount) a2.Store(target + 32);
            if (b + 3 < blockCount) a3.Store(target + 48);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Scores4(float* q0, float* q1, float* q2, float* q3, byte** blocks, int firstBlock, int blockCount, int H, float* scores, int stride)
    {
        for (var b = firstBlock; b < blockCount; b += 2)
        {
            byte* k0 = blocks[b], k1 = blocks[Math.Min(b + 1, blockCount - 1)];
            Vector512<float> a0 = default, a1 = default, a2 = default, a3 = default, b0 = default, b1 = default, b2 = default, b3 = default;
            for (nint d = 0; d < H; d++)
            {
                Vector512<float> m = TFormat.Load(k0, d * BlockTokens), n = TFormat.Load(k1, d * BlockTokens);
                var v = Vector512.Create(q0[d]);
                a0 = Vector512.FusedMultiplyAdd(m, v, a0);
                b0 = Vector512.FusedMultiplyAdd(n, v, b0);
                v = Vector512.Create(q1[d]);
                a1 = Vector512.FusedMultiplyAdd(m, v, a1);
                b1 = Vector512.FusedMultiplyAdd(n, v, b1);
                v = Vector512.Create(q2[d]);
                a2 = Vector512.FusedMultiplyAdd(m, v, a2);
                b2 = Vector512.FusedMultiplyAdd(n, v, b2);
                v = Vector512.Create(q3[d]);
                a3 = Vector512.FusedMultiplyAdd(m, v, a3);
                b3 = Vector512.FusedMultiplyAdd(n, v, b3);
            }

            // The stride has room for an even number of blocks.
            var target = scores + ((b - firstBlock) * BlockTokens);
            a0.Store(target);
            b0.Store(target + 16);
            a1.Store(target + stride);
            b1.Store(target + stride + 16);
            a2.Store(target + (2 * stride));
            b2.Store(target + (2 * stride) + 16);
            a3.Store(target + (3 * stride));
            b3.Store(target + (3 * stride) + 16);
        }
    }

    /// <summary>Turns scores of positions [from, to) into exp(score - largest), all others into 0; returns the sum.</summary>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static float Softmax(float* scores, int from, int to, int length)
    {
        var indices = Vector512<int>.Indices;
        var largest = Vector512.Create(float.NegativeInfinity);
        for (var i = 0; i < length; i += 16)
        {
            var inside = Vector512.GreaterThanOrEqual(indices + Vector512.Create(i), Vector512.Create(from)) & Vector512.LessThan(indices + Vector512.Create(i), Vector512.Create(to));
            var v = Vector512.ConditionalSelect(inside.AsSingle(), Vector512.Load(scores + i), Vector512.Create(float.NegativeInfinity));
            v.Store(scores + i);
            largest = Vector512.Max(largest, v);
        }

        var half = Vector256.Max(largest.GetLower(), largest.GetUpper());
        var quarter = Vector128.Max(half.GetLower(), half.GetUpper());
        var shift = Vector512.Create(MathF.Max(MathF.Max(quarter[0], quarter[1]), MathF.Max(quarter[2], quarter[3])));
        var sums = Vector512<float>.Zero;
        for (var i = 0; i < length; i += 16)
        {
            var e = VectorKernels.Exp(Vector512.Load(scores + i) - shift);
            e.Store(scores + i);
            sums += e;
        }

        return Vector512.Sum(sums);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Values1(float* p, float scale, byte** blocks, int firstBlock, int blockCount, int H, int d, int width, float* output)
    {
        Vector512<float> a0 = default, a1 = default, a2 = default, a3 = default;
        for (var b = firstBlock; b < blockCount; b++, p += BlockTokens)
        {
            var values = blocks[b] + TFormat.RowBytes(H * BlockTokens);
            for (var t = 0; t < BlockTokens; t++)
            {
                nint row = (t * H) + d;
                var weight = Vector512.Create(p[t]);
                a0 = Vector512.FusedMultiplyAdd(TFormat.Load(values, row), weight, a0);
                if (width > 16) a1 = Vector512.FusedMultiplyAdd(TFormat.Load(values, row + 16), weight, a1);
                if (width > 32) a2 = Vector512.FusedMultiplyAdd(TFormat.Load(values, row + 32), weight, a2);
                if (width > 48) a3 = Vector512.FusedMultiplyAdd(TFormat.Load(values, row + 48), weight, a3);
            }
        }

        (a0 * scale).Store(output);
        if (width > 16) (a1 * scale).Store(output + 16);
        if (width > 32) (a2 * scale).Store(output + 32);
        if (width > 48) (a3 * scale).Store(output + 48);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Values2(
        float* p, float* s, float pScale, float sScale, byte** blocks, int firstBlock, int blockCount, int H, int d, float* pOutput, float* sOutput)
    {
        Vector512<float> a0 = default, a1 = default, a2 = default, a3 = default, b0 = default, b1 = default, b2 = default, b3 = default;
        for (var b = firstBlock; b < blockCount; b++, p += BlockTokens, s += BlockTokens)
        {
            var values = blocks[b] + TFormat.RowBytes(H * BlockTokens);
            for (var t = 0; t < BlockTokens; t++)
            {
                nint row = (t * H) + d;
                Vector512<float> u = Vector512.Create(p[t]), v = Vector512.Create(s[t]);
                var m = TFormat.Load(values, row);
                a0 = Vector512.FusedMultiplyAdd(m, u, a0);
                b0 = Vector512.FusedMultiplyAdd(m, v, b0);
                m = TFormat.Load(values, row + 16);
                a1 = Vector512.FusedMultiplyAdd(m, u, a1);
                b1 = Vector512.FusedMultiplyAdd(m, v, b1);
                m = TFormat.Load(values, row + 32);
                a2 = Vector512.FusedMultiplyAdd(m, u, a2);
                b2 = Vector512.FusedMultiplyAdd(m, v, b2);
                m = TFormat.Load(values, row + 48);
                a3 = Vector512.FusedMultiplyAdd(m, u, a3);
                b3 = Vector512.FusedMultiplyAdd(m, v, b3);
            }
        }

        (a0 * pScale).Store(pOutput);
        (a1 * pScale).Store(pOutput + 16);
        (a2 * pScale).Store(pOutput + 32);
        (a3 * pScale).Store(pOutput + 48);
        (b0 * sScale).Store(sOutput);
        (b1 * sScale).Store(sOutput + 16);
        (b2 * sScale).Store(sOutput + 32);
        (b3 * sScale).Store(sOutput + 48);
    }
}
