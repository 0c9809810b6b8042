using System.Runtime.Intrinsics;

namespace Rho.Model.Cpu;

/// <summary>One head's numbers of one token, and rows of scores: what attention does to them outside its products.</summary>
internal static unsafe class HeadRow
{
    /// <summary>Loads a row of <paramref name="head"/> numbers, scaled, the first ones rotated: (x1, x2) to (x1 cos - x2 sin, x2 cos + x1 sin)</summary>
    /// <param name="cos">of the row's position. [rotated / 2]</param>
    /// <param name="sin">of the row's position. [rotated / 2]</param>
    internal static void Load<T>(void* source, long at, int head, int rotated, float* cos, float* sin, float scale, float* to) where T : struct, IElement
    {
        var (half, factor) = (rotated / 2, Vector512.Create(scale));
        for (var h = 0; h < half; h += 16)
        {
            var (x1, x2) = (T.Load(source, at + h), T.Load(source, at + half + h));
            var (c, z) = (Vector512.Load(cos + h), Vector512.Load(sin + h));
            (((x1 * c) - (x2 * z)) * factor).Store(to + h);
            (((x2 * c) + (x1 * z)) * factor).Store(to + half + h);
        }

        for (var h = rotated; h < head; h += 16) (T.Load(source, at + h) * factor).Store(to + h);
    }

    /// <summary>Scores s become cap * tanh(s / cap) in from .. end.</summary>
    internal static void Cap(float* row, int from, int end, float cap)
    {
        for (var j = from; j < end; j += 16) (Activations.Tanh(Vector512.Load(row + j) * (1 / cap)) * cap).Store(row + j);
    }

    /// <summary>Eight rows [8, head] to columns [head, 8], which are <paramref name="stride"/> apart.</summary>
    internal static void Transpose(float* rows, int head, float* columns, long stride)
    {
        for (var h = 0; h < head; h++)
        {
            Vector256.Create(rows[h], rows[head + h], rows[(2 * head) + h], rows[(3 * head) + h], rows[(4 * head) + h], rows[(5 * head) + h], rows[(6 * head) + h], rows[(7 * head) + h])
                .Store(columns + (h * stride));
        }
    }

    /// <summary>Minus infinity in from .. end outside first .. last.</summary>
    internal static void Mask(float* row, int from, int end, int first, int last)
    {
        for (var j = from; j < first; j++) row[j] = float.NegativeInfinity;
        for (var j = last + 1; j < end; j++) row[j] = float.NegativeInfinity;
    }

    /// <summary>exp(x - highest) over first .. last, zero elsewhere in from .. end; returns the highest and the exponentials' sum.</summary>
    internal static (float Highest, float Sum) Exponentials(float* row, int from, int end, int first, int last)
    {
        Mask(row, from, end, first, last);
        var high = Vector512.Create(float.NegativeInfinity);
        for (var j = from; j < end; j += 16) high = Vector512.Max(high, Vector512.Load(row + j));
        var max = float.NegativeInfinity;
        for (var lane = 0; lane < 16; lane++) max = Math.Max(max, high[lane]);
        var (offset, sum) = (Vector512.Create(max), Vector512<float>.Zero);
        for (var j = from; j < end; j += 16)
        {
            var e = Vector512.Exp(Vector512.Load(row + j) - offset);
            e.Store(row + j);
            sum += e;
        }

        return (max, Vector512.Sum(sum));
    }
}
