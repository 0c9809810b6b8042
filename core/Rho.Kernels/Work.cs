namespace Rho.Kernels;

/// <summary>Work over rows on several threads. A row's result does not depend on how rows are shared out.</summary>
internal static class Work
{
    internal delegate void Range(long first, long end);

    /// <summary>Calls <paramref name="body"/> with ranges that together cover 0 .. count.</summary>
    internal static void Over(long count, int threads, Range body)
    {
        if (threads <= 1 || count < 2)
        {
            if (count > 0) body(0, count);
            return;
        }

        // More parts than threads, so that a thread that starts late costs little.
        var parts = (int)Math.Min(count, threads * 4L);
        Parallel.For(0, parts, new ParallelOptions { MaxDegreeOfParallelism = threads }, part => body(count * part / parts, count * (part + 1) / parts));
    }
}
