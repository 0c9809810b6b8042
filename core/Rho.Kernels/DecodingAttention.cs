using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Rho.Kernels;

/// <summary>
/// softmax(cap(Q K^T)) V of query rows that share one key-value head, over a block-wise cache. A block holds
/// <see cref="BlockTokens"/> positions of one head: keys transposed [H][16], then values [16][H], so that neither product needs a
/// sum over lanes. A row's result depends on its own keys and values alone, not on the rows beside it.
/// </summary>
// H head size padded to 16, L positions that a row sees.
public static unsafe class DecodingAttention<TFormat> where TFormat : struct, IWritableFormat
{
    public const int BlockTokens = 16;

    public static long BlockBytes(int H) => 2 * TFormat.RowBytes(H * BlockTokens);

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
            TFormat.Set(key[d], block, (d * BlockTokens) + slot);
            TFormat.Set(value[d], values, (slot * H) + d);
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
        var (longest, earliest) = (0, int.MaxValue);
        for (var r = 0; r < rows; r++) (longest, earliest) = (Math.Max(longest, visible[r]), Math.Min(earliest, first[r]));
        var firstBlock = earliest / BlockTokens;
        var seen = blocks + firstBlock;
        var count = ((longest + BlockTokens - 1) / BlockTokens) - firstBlock;
        // Scores of row r begin at scores + r * stride, the first block's first position at 0.
        var stride = (count + 1) / 2 * 2 * BlockTokens;
        if (rows == 1) Scores1(queries[0], seen, count, H, scores);
        else Scores4(queries[0], queries[1], queries[rows > 2 ? 2 : 1], queries[rows > 3 ? 3 : 1], seen, count, H, scores, stride);

        if (cap > 0) Softmax.Cap(scores, rows * stride, cap);
        var scale = stackalloc float[4];
        for (var r = 0; r < rows; r++)
            scale[r] = 1 / Softmax.Exponentials(scores + (r * stride), 0, stride, first[r] - (firstBlock * BlockTokens), visible[r] - 1 - (firstBlock * BlockTokens)).Sum;

        for (var d = 0; d < H; d += 64)
        {
            for (var r = 0; r < rows; r++)
            {
                var p = scores + (r * stride);
                if (rows - r >= 2 && H - d >= 64)
                {
                    Values2(p, p + stride, scale[r], scale[r + 1], seen, count, H, d, outputs[r] + d, outputs[r + 1] + d);
                    r++;
                }
                else
                {
                    Values1(p, scale[r], seen, count, H, d, Math.Min(64, H - d), outputs[r] + d);
                }
            }
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Scores1(float* q, byte** blocks, int count, int H, float* scores)
    {
        for (var b = 0; b < count; b += 4)
        {
            // Blocks past the end repeat the last one; their scores are not stored.
            byte* k0 = blocks[b], k1 = blocks[Math.Min(b + 1, count - 1)], k2 = blocks[Math.Min(b + 2, count - 1)], k3 = blocks[Math.Min(b + 3, count - 1)];
            Four sums = default;
            for (nint d = 0; d < H; d++) sums.Add(Four.Load<TFormat>(k0, k1, k2, k3, d * BlockTokens), Vector512.Create(q[d]));
            var target = scores + (b * BlockTokens);
            sums.A.Store(target);
            if (b + 1 < count) sums.B.Store(target + 16);
            if (b + 2 < count) sums.C.Store(target + 32);
            if (b + 3 < count) sums.D.Store(target + 48);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Scores4(float* q0, float* q1, float* q2, float* q3, byte** blocks, int count, int H, float* scores, int stride)
    {
        for (var b = 0; b < count; b += 2)
        {
            byte* k0 = blocks[b], k1 = blocks[Math.Min(b + 1, count - 1)];
            Four low = default, high = default;
            for (nint d = 0; d < H; d++)
            {
                low.Add(q0, q1, q2, q3, d, TFormat.Load(k0, d * BlockTokens));
                high.Add(q0, q1, q2, q3, d, TFormat.Load(k1, d * BlockTokens));
            }

            // The stride has room for an even number of blocks.
            low.Store(scores + (b * BlockTokens), stride);
            high.Store(scores + (b * BlockTokens) + 16, stride);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Values1(float* p, float scale, byte** blocks, int count, int H, int d, int width, float* output)
    {
        Four sums = default;
        for (var b = 0; b < count; b++, p += BlockTokens)
        {
            var values = blocks[b] + TFormat.RowBytes(H * BlockTokens);
            for (var t = 0; t < BlockTokens; t++)
            {
                nint row = (t * H) + d;
                var weight = Vector512.Create(p[t]);
                sums.A = Vector512.FusedMultiplyAdd(TFormat.Load(values, row), weight, sums.A);
                if (width > 16) sums.B = Vector512.FusedMultiplyAdd(TFormat.Load(values, row + 16), weight, sums.B);
                if (width > 32) sums.C = Vector512.FusedMultiplyAdd(TFormat.Load(values, row + 32), weight, sums.C);
                if (width > 48) sums.D = Vector512.FusedMultiplyAdd(TFormat.Load(values, row + 48), weight, sums.D);
            }
        }

        (sums.A * scale).Store(output);
        if (width > 16) (sums.B * scale).Store(output + 16);
        if (width > 32) (sums.C * scale).Store(output + 32);
        if (width > 48) (sums.D * scale).Store(output + 48);
    }

    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private static void Values2(float* p, float* s, float pScale, float sScale, byte** blocks, int count, int H, int d, float* pOutput, float* sOutput)
    {
        Four a = default, b = default;
        for (var i = 0; i < count; i++, p += BlockTokens, s += BlockTokens)
        {
            var values = blocks[i] + TFormat.RowBytes((H * BlockTokens) + d);
            for (var t = 0; t < BlockTokens; t++, values += TFormat.RowBytes(H))
            {
                var row = Four.Load<TFormat>(values, values + TFormat.RowBytes(16), values + TFormat.RowBytes(32), values + TFormat.RowBytes(48), 0);
                a.Add(row, Vector512.Create(p[t]));
                b.Add(row, Vector512.Create(s[t]));
            }
        }

        a.Scaled(pScale).Store(pOutput, 16);
        b.Scaled(sScale).Store(sOutput, 16);
    }
}
