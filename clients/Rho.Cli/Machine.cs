using System.Runtime.InteropServices;

namespace Rho.Cli;

/// <summary>The processor that this runs on.</summary>
internal static class Machine
{
    public static string Processor => CpuInfo("model name") ?? RuntimeInformation.ProcessArchitecture.ToString();

    /// <summary>Instruction sets by the kernel's names, such as avx512_bf16.</summary>
    public static IReadOnlyList<string> ProcessorFeatures => CpuInfo("flags")?.Split(' ') ?? [];

    private static string? CpuInfo(string field) => File.Exists("/proc/cpuinfo")
        ? File.ReadLines("/proc/cpuinfo").FirstOrDefault(line => line.StartsWith(field, StringComparison.Ordinal))?.Split(':', 2)[1].Trim()
        : null;
}
