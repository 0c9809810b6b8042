using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Rho.Kernels;

/// <summary>
/// The C library's heap, in which a step's activations lie. Its aligned blocks leave holes that the next step's do not fit (GNU's before
/// 2.38), so that without trims it grows by a tenth of a step's memory with each.
/// </summary>
public static unsafe class NativeHeap
{
    // Only the GNU C library has it.
    private static readonly delegate* unmanaged<nuint, int> MallocTrim =
        OperatingSystem.IsLinux() && NativeLibrary.TryLoad("libc.so.6", out var library) && NativeLibrary.TryGetExport(library, "malloc_trim", out var address)
            ? (delegate* unmanaged<nuint, int>)address : null;

    private static long s_last;

    /// <summary>
    /// Gives the pages of freed blocks back to the system, at most once a second: to touch them again is a sixth of the time of a step
    /// of a quarter of a second, and nothing beside one of two seconds.
    /// </summary>
    public static void Trim()
    {
        if (MallocTrim is null || Stopwatch.GetElapsedTime(Volatile.Read(ref s_last)) < TimeSpan.FromSeconds(1)) return;
        MallocTrim(0);
        Volatile.Write(ref s_last, Stopwatch.GetTimestamp());
    }
}
