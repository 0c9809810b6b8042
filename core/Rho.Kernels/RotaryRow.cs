using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Rho.Kernels;

/// <summary>Rotary position embedding of one head's numbers (Su et al., RoFormer) in the half-split layout.</summary>
public static unsafe class RotaryRow
{
    /// <summary>
    /// Turns the first <paramref name="rotated"/> numbers, (x1, x2) to (x1 cos - x2 sin, x2 cos + x1 sin) with x2 half of them after x1, and
    /// copies the others; all times <paramref name="scale"/>. From and to may be the same.
    /// </summary>
    /// <param name="size">of the head; any</param>
    /// <param name="cos">of the row's position. [rotated / 2]</param>
    /// <param name="sin">of the row's position. [rotated / 2]</param>
    /// <param name="direction">1, or -1 to turn back</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    public static void Turn<TFrom, TTo>(void* from, void* to, int size, int rotated, float* cos, float* sin, float scale = 1, float direction = 1)
        where TFrom : struct, INumberFormat where TTo : struct, IWritableFormat
    {
        var (half, factor, way) = (rotated / 2, Vector512.Create(scale), Vector512.Create(direction));
        var i = 0;
        for (; i + 16 <= half; i += 16)
        {
            var (x1, x2) = (TFrom.Load(from, i), TFrom.Load(from, half + i));
            var (c, s) = (Vector512.Load(cos + i), Vector512.Load(sin + i) * way);
            TTo.Store(((x1 * c) - (x2 * s)) * factor, to, i);
            TTo.Store(((x2 * c) + (x1 * s)) * factor, to, half + i);
        }

        for (; i < half; i++)
        {
            var (x1, x2, s) = (TFrom.Get(from, i), TFrom.Get(from, half + i), sin[i] * direction);
            TTo.Set(((x1 * cos[i]) - (x2 * s)) * scale, to, i);
            TTo.Set(((x2 * cos[i]) + (x1 * s)) * scale, to, half + i);
        }

        for (i = rotated; i + 16 <= size; i += 16) TTo.Store(TFrom.Load(from, i) * factor, to, i);
        for (; i < size; i++) TTo.Set(TFrom.Get(from, i) * scale, to, i);
    }
}
