using static TorchSharp.torch;

namespace Rho.Model.Cpu;

/// <summary>Sums of buffers of different element types without a converted copy of either.</summary>
internal static unsafe class FlatSum
{
    /// <summary>sum += part. Both contiguous, of one size; sum float32, part bfloat16.</summary>
    internal static void Add(Tensor sum, Tensor part)
    {
        var (ps, pp) = (FlatMemory.Address(sum), FlatMemory.Address(part));
        var count = sum.NumberOfElements;
        Work.Over(count / 16, (first, end) =>
        {
            for (var i = first * 16; i < end * 16; i += 16)
                Float32.Store(Float32.Load((void*)ps, i) + BFloat16.Load((void*)pp, i), (void*)ps, i);
        });
        for (var i = count / 16 * 16; i < count; i++) ((float*)ps)[i] += BFloat16.Get((void*)pp, i);
    }
}
