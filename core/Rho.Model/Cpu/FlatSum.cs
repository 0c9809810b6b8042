using System.Runtime.Intrinsics;
using static TorchSharp.torch;

namespace Rho.Model.Cpu;

/// <summary>Sums of flat buffers of different element types without a converted copy of either.</summary>
internal static unsafe class FlatSum
{
    /// <summary>sum += part; part = 0. Both [n]; sum float32, part bfloat16.</summary>
    internal static void AddAndClear(Tensor sum, Tensor part)
    {
        var (ps, pp) = ((nint)Pointer(sum), (nint)Pointer(part));
        var count = sum.NumberOfElements;
        Work.Over(count / 16, (first, end) =>
        {
            for (var i = first * 16; i < end * 16; i += 16)
            {
                Float32.Store(Float32.Load((void*)ps, i) + BFloat16.Load((void*)pp, i), (void*)ps, i);
                BFloat16.Store(Vector512<float>.Zero, (void*)pp, i);
            }
        });
        for (var i = count / 16 * 16; i < count; i++)
        {
            ((float*)ps)[i] += BFloat16.Get((void*)pp, i);
            BFloat16.Set(0, (void*)pp, i);
        }
    }

    /// <summary>The memory of a flat buffer, which may be larger than a span.</summary>
    private static void* Pointer(Tensor flat)
    {
        using var first = flat.narrow(0, 0, 1);
        return Work.Pointer(first);
    }
}
