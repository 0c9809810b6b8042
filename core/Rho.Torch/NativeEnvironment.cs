using System.Runtime.InteropServices;

namespace Rho.Torch;

/// <summary>What libtorch and its OpenMP read from the environment when they load; what is set already stays.</summary>
/// <remarks>
/// Tried on an Intel Xeon with AVX-512 and left out, by processor time of a CLM step in pairs: MKL_DYNAMIC=FALSE changes nothing (0.90 to
/// 1.04), huge pages (THP_MEM_ALLOC_ENABLE=1) cost 3 to 5 % in bfloat16 and 12 to 23 % in float32. On AMD it was not measured.
/// </remarks>
internal static partial class NativeEnvironment
{
    public static void SetDefaults()
    {
        if (!OperatingSystem.IsLinux()) return;
        // Idle OpenMP threads must sleep: spinning ones halve the speed of a small machine.
        // .NET's own setter changes a copy of the environment that native code never sees.
        _ = SetVariable("OMP_WAIT_POLICY", "PASSIVE", overwrite: 0);
        // The processors that this process may use, which in a container are fewer than the machine has.
        _ = SetVariable("OMP_NUM_THREADS", $"{Environment.ProcessorCount}", overwrite: 0);
    }

    [LibraryImport("libc", EntryPoint = "setenv", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int SetVariable(string name, string value, int overwrite);
}
