using System.CommandLine;
using System.Diagnostics;
using System.Runtime.InteropServices;
using TorchSharp;

namespace Rho.Cli.Commands;

/// <summary>rho doctor: what this process finds on the machine.</summary>
internal static class DoctorCommand
{
    private static readonly string[] Features = ["avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8"];

    private static readonly string[] BlasNames = ["libopenblas", "libmkl_rt", "libmkl_core", "libblis", "libblas", "libarmpl"];

    public static Command Create()
    {
        var command = new ExampleCommand("doctor", "Show what was found on this machine: libtorch, BLAS, processor, GPU, Redis; and what is missing.", "rho doctor");
        command.SetAction(_ =>
        {
            Row("processor", $"{Machine.Processor}, {Environment.ProcessorCount} cores usable");
            Row("features", string.Join(' ', Features.Intersect(Machine.ProcessorFeatures)) is { Length: > 0 } found ? found : $"none of {string.Join(' ', Features)}");
            Row("memory", $"{GC.GetGCMemoryInfo().TotalAvailableMemoryBytes >> 20} MiB");
            Row("libtorch", Libtorch());
            Row("BLAS", Blas());
            Row("GPU", FirstLine("nvidia-smi", "--query-gpu=name,memory.total,driver_version --format=csv,noheader") ?? "none (nvidia-smi not found)");
            Row("Redis", FirstLine("redis-server", "--version") ?? "missing: sudo apt-get install redis-server (scores are cached in folders without it)");
        });
        return command;
    }

    private static string Libtorch()
    {
        try
        {
            using var a = torch.ones(64, 64);
            using var product = torch.mm(a, a);
            return $"{torch.__version__}, {torch.get_num_threads()} threads{(torch.cuda.is_available() ? $", {torch.cuda.device_count()} CUDA devices" : "")}";
        }
        catch (Exception exception) when (exception is DllNotFoundException or TypeInitializationException or ExternalException)
        {
            return $"missing: {(exception.InnerException ?? exception).Message.Split('\n')[0]} (./rho setup)";
        }
    }

    /// <summary>The library that multiplies matrices: by what libtorch has brought into this process.</summary>
    private static string Blas()
    {
        if (!File.Exists("/proc/self/maps")) return "not known on this system";
        var loaded = File.ReadLines("/proc/self/maps")
            .Select(line => line[(line.LastIndexOf(' ') + 1)..])
            .Where(path => BlasNames.Any(name => Path.GetFileName(path).StartsWith(name, StringComparison.Ordinal)))
            .Distinct(StringComparer.Ordinal)
            .ToList();
        if (loaded.Count == 0) return "part of libtorch, or none loaded";
        var slow = loaded.TrueForAll(path => Path.GetFileName(path).StartsWith("libblas", StringComparison.Ordinal) && !path.Contains("openblas", StringComparison.Ordinal));
        return string.Join(' ', loaded) + (slow ? ": the slow reference BLAS; sudo apt-get install libopenblas0-openmp" : "");
    }

    private static void Row(string name, string value) => Console.WriteLine($"{name,-12} {value}");

    /// <summary>The first line a program prints, or null where it is not there or fails.</summary>
    private static string? FirstLine(string program, string arguments)
    {
        try
        {
            using var process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false })!;
            var line = process.StandardOutput.ReadLine();
            process.WaitForExit(5000);
            return string.IsNullOrWhiteSpace(line) ? null : line;
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return null;
        }
    }
}
