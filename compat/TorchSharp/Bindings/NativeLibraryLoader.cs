using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace TorchSharp.Native;

/// <summary>Finds libRhoTorch beside the assembly, and says what to install when it or libtorch is missing.</summary>
internal static class NativeLibraryLoader
{
    [ModuleInitializer]
    internal static void Register() =>
        NativeLibrary.SetDllImportResolver(typeof(NativeLibraryLoader).Assembly, Resolve);

    private static unsafe nint Resolve(string name, Assembly assembly, DllImportSearchPath? searchPath)
    {
        if (!string.Equals(name, NativeMethods.Library, StringComparison.Ordinal)) return 0;

        // OpenMP's threads spin while they wait, which halves the speed of machines with few cores. It reads this when
        // libtorch is loaded; a value that is set stays.
        fixed (byte* variable = "OMP_WAIT_POLICY\0"u8, value = "PASSIVE\0"u8) _ = setenv(variable, value, overwrite: 0);

        var folder = Path.GetDirectoryName(assembly.Location);
        var path = Path.Combine(string.IsNullOrEmpty(folder) ? AppContext.BaseDirectory : folder, "libRhoTorch.so");
        try
        {
            return NativeLibrary.Load(path);
        }
        catch (DllNotFoundException error)
        {
            throw new DllNotFoundException(
                File.Exists(path)
                    ? $"{path} cannot be loaded, most likely because libtorch is missing. Install it (Debian: apt install libtorch-dev libopenblas0-openmp) and run ./rho setup. {Reason(error)}"
                    : $"{path} is missing. Run ./rho setup, which builds it on the system's libtorch, and build again.",
                error);
        }
    }

    // The first line says which file was to be loaded, the next why that failed.
    private static string Reason(DllNotFoundException error) =>
        error.Message.Split('\n', StringSplitOptions.RemoveEmptyEntries).Skip(1).FirstOrDefault() ?? error.Message;

    [DllImport("libc")]
    private static extern unsafe int setenv(byte* name, byte* value, int overwrite);
}
