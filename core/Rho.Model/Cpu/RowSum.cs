using static TorchSharp.torch;

namespace Rho.Model.Cpu;

/// <summary>Rows of one matrix added to chosen rows of another; libtorch's index_add_ calls a whole operation for each row.</summary>
internal static unsafe class RowSum
{
    /// <summary>Columns that a thread takes at a time: several rows may add to one, so threads share out columns and not rows.</summary>
    private const int Strip = 64;

    internal static bool Fits(Tensor sum, Tensor part) => Work.Fits(sum) && Work.Fits(part) && sum.size(1) % 16 == 0 && sum.is_contiguous() && part.is_contiguous();

    /// <summary>sum[rows[i]] += part[i], in the order of i. [N, D], [n] of int64, [n, D]</summary>
    internal static void Add(Tensor sum, Tensor rows, Tensor part)
    {
        switch (sum.dtype, part.dtype)
        {
            case (ScalarType.Float32, ScalarType.Float32): Add<Float32, Float32>(sum, rows, part); break;
            case (ScalarType.Float32, _): Add<Float32, BFloat16>(sum, rows, part); break;
            case (_, ScalarType.Float32): Add<BFloat16, Float32>(sum, rows, part); break;
            default: Add<BFloat16, BFloat16>(sum, rows, part); break;
        }
    }

    private static void Add<TSum, TPart>(Tensor sum, Tensor rows, Tensor part) where TSum : struct, IElement where TPart : struct, IElement
    {
        var (ps, pr, pp) = (FlatMemory.Address(sum), FlatMemory.Address(rows), FlatMemory.Address(part));
        var (count, width) = (rows.NumberOfElements, sum.size(1));
        Work.Over((width + Strip - 1) / Strip, (first, end) =>
        {
            for (long i = 0; i < count; i++)
            {
                var (to, from) = (((long*)pr)[i] * width, i * width);
                for (var column = first * Strip; column < Math.Min(end * Strip, width); column += 16)
                    TSum.Store(TSum.Load((void*)ps, to + column) + TPart.Load((void*)pp, from + column), (void*)ps, to + column);
            }
        });
    }
}
