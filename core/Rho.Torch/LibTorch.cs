using System.Runtime.InteropServices;

namespace Rho.Torch;

/// <summary>
/// The libtorch of this process: loaded by path, so that no other one of the system is taken, with the environment that suits it set before.
/// </summary>
/// <remarks>
/// TorchSharp opens "torch_cpu" by name at its first use, and the dynamic linker gives it what is loaded already. Its own library needs
/// libtorch, libtorch_cpu and libc10 alone, so the folder decides between a CPU and a CUDA build.
/// </remarks>
public static class LibTorch
{
    /// <summary>Names a folder with another libtorch, such as that of a CUDA PyTorch (its torch/lib).</summary>
    public const string FolderVariable = "RHO_LIBTORCH";

    private static readonly Version s_builtFor = new(2, 10);

    private static readonly Lazy<(string Folder, Version Version)> s_loaded = new(LoadLibraries);

    /// <summary>The folder it was loaded from. Loads it if need be.</summary>
    /// <exception cref="RhoException">As <see cref="Load"/>.</exception>
    public static string Folder => s_loaded.Value.Folder;

    /// <summary>The version that the library itself states; TorchSharp's <c>__version__</c> is a constant of its build.</summary>
    /// <exception cref="RhoException">As <see cref="Load"/>.</exception>
    public static Version Version => s_loaded.Value.Version;

    /// <summary>Loads libtorch and TorchSharp's library, once; to be called before TorchSharp's first use.</summary>
    /// <exception cref="RhoException">It is missing, cannot be loaded, or has another version than TorchSharp was built for.</exception>
    public static void Load() => _ = s_loaded.Value;

    /// <summary>Versions that TorchSharp's Linux library names but loads without; the build marks them, see <see cref="ElfVersionNeeds"/>.</summary>
    /// <exception cref="RhoException">The library is not there.</exception>
    public static IReadOnlyList<string> WeakVersions =>
        OperatingSystem.IsLinux() ? [.. ElfVersionNeeds.Read(TorchSharpLibrary).Where(need => need.IsWeak).Select(need => need.Version)] : [];

    private static string TorchSharpLibrary => FindInSearchPath(FileName("LibTorchSharp"))
        ?? throw new RhoException($"{FileName("LibTorchSharp")} is missing beside the program: {AppContext.BaseDirectory}");

    private static (string Folder, Version Version) LoadLibraries()
    {
        if (OperatingSystem.IsLinux() && RuntimeInformation.ProcessArchitecture != Architecture.X64)
            throw new RhoException("TorchSharp has no native library for Linux on Arm; Rho runs on linux-x64, osx-arm64 and win-x64");

        NativeEnvironment.SetDefaults();
        var folder = FindFolder();
        // On macOS torch_cpu asks for Homebrew's libomp by its full path. The one that comes with it bears that name: loaded already, it is taken.
        if (OperatingSystem.IsMacOS() && File.Exists(Path.Combine(folder, "libomp.dylib"))) LoadByPath(Path.Combine(folder, "libomp.dylib"));
        nint torchCpu = 0;
        foreach (var name in (string[])["c10", "torch_cpu", "torch"])
        {
            var library = LoadByPath(Path.Combine(folder, FileName(name)));
            if (name == "torch_cpu") torchCpu = library;
        }

        var version = ReadVersion(torchCpu);
        if (version.Major != s_builtFor.Major || version.Minor != s_builtFor.Minor)
            throw new RhoException($"{folder} has libtorch {(version.Major == 0 ? "before 2.9" : version)}; this program needs {s_builtFor}");

        LoadByPath(TorchSharpLibrary);
        return (folder, version);
    }

    private static string FindFolder()
    {
        var file = FileName("torch_cpu");
        if (Environment.GetEnvironmentVariable(FolderVariable) is { Length: > 0 } named)
            return File.Exists(Path.Combine(named, file)) ? Path.GetFullPath(named) : throw new RhoException($"{FolderVariable} is {named}, which has no {file}; name the folder that has it, such as torch/lib of a PyTorch");

        return Path.GetDirectoryName(FindInSearchPath(file)) ?? throw new RhoException($"{file} is missing beside the program ({AppContext.BaseDirectory}); {FolderVariable} can name a folder that has it");
    }

    /// <summary>A native file in the folders that the program's own list of dependencies names, or beside it.</summary>
    private static string? FindInSearchPath(string file) =>
        $"{AppContext.GetData("NATIVE_DLL_SEARCH_DIRECTORIES")}"
            .Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries)
            .Append(AppContext.BaseDirectory)
            .Select(folder => Path.Combine(folder, file))
            .FirstOrDefault(File.Exists);

    private static nint LoadByPath(string path)
    {
        try
        {
            return NativeLibrary.Load(path);
        }
        catch (Exception exception) when (exception is DllNotFoundException or BadImageFormatException)
        {
            throw new RhoException($"{Path.GetFileName(path)} cannot be loaded: {LinkerMessage(exception.Message, path)}", exception);
        }
    }

    /// <summary>Of .NET's many lines about a library, the dynamic linker's one that says what is missing.</summary>
    private static string LinkerMessage(string message, string path) =>
        message.Split('\n').FirstOrDefault(line => line.StartsWith(path, StringComparison.Ordinal) || line.Contains("version `", StringComparison.Ordinal) || line.Contains("cannot open", StringComparison.Ordinal))?.Trim()
        ?? message.Split('\n')[0].Trim();

    /// <summary>From libtorch's stable C interface: major, minor and patch in the highest three bytes (since 2.9).</summary>
    private static unsafe Version ReadVersion(nint torchCpu)
    {
        if (!NativeLibrary.TryGetExport(torchCpu, "aoti_torch_abi_version", out var function)) return new Version(0, 0);
        var packed = ((delegate* unmanaged<ulong>)function)();
        return new Version((byte)(packed >> 56), (byte)(packed >> 48), (byte)(packed >> 40));
    }

    private static string FileName(string library) =>
        OperatingSystem.IsWindows() ? $"{library}.dll" : OperatingSystem.IsMacOS() ? $"lib{library}.dylib" : $"lib{library}.so";
}
