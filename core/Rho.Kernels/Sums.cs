namespace Rho.Kernels;

/// <summary>Sums of buffers of different number formats, without a converted copy of either.</summary>
public static unsafe class Sums
{
    /// <summary>Columns that a thread takes at a time: several rows may add to one, so threads share out columns and not rows.</summary>
    private const int Strip = 64;

    /// <summary>sum += part</summary>
    public static void Add<TPart>(float* sum, void* part, long count, int threads) where TPart : struct, INumberFormat
    {
        Work.Over(count / 16, threads, (first, end) =>
        {
            for (var i = first * 16; i < end * 16; i += 16) Float32.Store(Float32.Load(sum, i) + TPart.Load(part, i), sum, i);
        });
        for (var i = count / 16 * 16; i < count; i++) sum[i] += TPart.Get(part, i);
    }

    /// <summary>sum[rows[i]] += part[i], in the order of i. libtorch's index_add_ calls a whole operation for each row.</summary>
    /// <param name="sum">[.., width]</param>
    /// <param name="rows">[count]</param>
    /// <param name="part">[count, width]</param>
    /// <param name="width">a multiple of 16</param>
    public static void AddRows<TSum, TPart>(void* sum, long* rows, void* part, long count, long width, int threads)
        where TSum : struct, IWritableFormat where TPart : struct, INumberFormat =>
        Work.Over((width + Strip - 1) / Strip, threads, (first, end) =>
        {
            for (long i = 0; i < count; i++)
            {
                var (to, from) = (rows[i] * width, i * width);
                for (var column = first * Strip; column < Math.Min(end * Strip, width); column += 16)
                    TSum.Store(TSum.Load(sum, to + column) + TPart.Load(part, from + column), sum, to + column);
            }
        });
}
