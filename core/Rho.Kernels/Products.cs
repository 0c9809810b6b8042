using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Rho.Kernels;

/// <summary>The small products of attention, eight rows at a time: sixteen sums stay in registers while one operand streams by.</summary>
internal static unsafe class Products
{
    /// <summary>c[r, j] = sum_k a[r, k] b[k, j] for 8 rows, k from .. end, and columns j first .. last in tiles of 32; on top of c where it says so.</summary>
    /// <param name="aRow">numbers from a row of a to the next; columns are <paramref name="aColumn"/> apart</param>
    /// <param name="bRow">numbers from a row of b to the next</param>
    /// <param name="cRow">numbers from a row of c to the next</param>
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    internal static void Add(float* a, nint aRow, nint aColumn, int from, int end, float* b, nint bRow, int first, int last, float* c, nint cRow, bool accumulate = false)
    {
        float* a0 = a, a1 = a0 + aRow, a2 = a1 + aRow, a3 = a2 + aRow, a4 = a3 + aRow, a5 = a4 + aRow, a6 = a5 + aRow, a7 = a6 + aRow;
        for (var j = first; j < last; j += 32)
        {
            float* to = c + j, low = to + (4 * cRow);
            Four left = default, right = default, lowLeft = default, lowRight = default;
            if (accumulate)
            {
                left = Four.Load<Float32>(to, to + cRow, to + (2 * cRow), to + (3 * cRow), 0);
                right = Four.Load<Float32>(to, to + cRow, to + (2 * cRow), to + (3 * cRow), 16);
                lowLeft = Four.Load<Float32>(low, low + cRow, low + (2 * cRow), low + (3 * cRow), 0);
                lowRight = Four.Load<Float32>(low, low + cRow, low + (2 * cRow), low + (3 * cRow), 16);
            }

            var x = b + (from * bRow) + j;
            for (nint k = from, at = from * aColumn; k < end; k++, at += aColumn, x += bRow)
            {
                var (x0, x1) = (Vector512.Load(x), Vector512.Load(x + 16));
                left.Add(a0, a1, a2, a3, at, x0);
                right.Add(a0, a1, a2, a3, at, x1);
                lowLeft.Add(a4, a5, a6, a7, at, x0);
                lowRight.Add(a4, a5, a6, a7, at, x1);
            }

            left.Store(to, cRow);
            right.Store(to + 16, cRow);
            lowLeft.Store(low, cRow);
            lowRight.Store(low + 16, cRow);
        }
    }
}
