using System.Runtime.InteropServices;

namespace Rho.Kernels;

/// <summary>
/// The C library's heap, in which a step's activations lie. Freed in another order than made, they leave holes that the next step's do
/// not fit: without a trim between steps a run's peak is a tenth above what a step needs.
/// </summary>
public static unsafe class NativeHeap
{
    // Only the GNU C library has it.
    private static readonly delegate* unmanaged<nuint, int> MallocTrim =
        OperatingSystem.IsLinux() && NativeLibrary.TryLoad("libc.so.6", out var library) && NativeLibrary.TryGetExport(library, "malloc_trim", out var address)
            ? (delegate* unmanaged<nuint, int>)address : null;

    /// <summary>Gives the pages of freed blocks back to the system.</summary>
    public static void Trim()
    {
        if (MallocTrim is not null) MallocTrim(0);
    }
}
