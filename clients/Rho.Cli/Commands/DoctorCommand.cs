using System.CommandLine;
using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Rho.Cli.Commands;

/// <summary>rho doctor: what this process finds on the machine.</summary>
internal static class DoctorCommand
{
    private static readonly string[] Features = ["avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8"];

    public static Command Create()
    {
        var command = new ExampleCommand("doctor", "Show what was found on this machine: libtorch, BLAS, processor, GPU, Redis; and what is missing.", "rho doctor");
        command.SetAction(_ =>
        {
            Row("processor", $"{Machine.Processor}, {Environment.ProcessorCount} cores usable");
            Row("features", string.Join(' ', Features.Intersect(Machine.ProcessorFeatures)) is { Length: > 0 } found ? found : $"none of {string.Join(' ', Features)}");
            Row("memory", $"{GC.GetGCMemoryInfo().TotalAvailableMemoryBytes >> 20} MiB");
            Row("GPU", FirstLine("nvidia-smi", "--query-gpu=name,memory.total,driver_version --format=csv,noheader") ?? "none (nvidia-smi not found)");
            Row("Redis", FirstLine("redis-server", "--version") ?? "missing: sudo apt-get install redis-server (scores are cached in folders without it)");
        });
        return command;
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
