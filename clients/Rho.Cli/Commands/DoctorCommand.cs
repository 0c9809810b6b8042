using System.CommandLine;
using System.Diagnostics;
using Rho.Torch;
using TorchSharp;

namespace Rho.Cli.Commands;

/// <summary>rho doctor: what this process finds on the machine.</summary>
internal static class DoctorCommand
{
    private static readonly string[] Features = ["avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8"];

    public static Command Create()
    {
        var command = new ExampleCommand("doctor", "Show what was found on this machine: libtorch, processor, GPU, Redis; and what is missing.", "rho doctor");
        command.SetAction(_ =>
        {
            Row("processor", $"{Machine.Processor}, {Environment.ProcessorCount} cores usable");
            Row("features", string.Join(' ', Features.Intersect(Machine.ProcessorFeatures)) is { Length: > 0 } found ? found : $"none of {string.Join(' ', Features)}");
            Row("memory", $"{GC.GetGCMemoryInfo().TotalAvailableMemoryBytes >> 20} MiB");
            var usable = TryLoad();
            Row("GPU", Gpu(usable));
            Row("Redis", FirstLine("redis-server", "--version") ?? "not here, and not needed: scorers cache in a folder; on several machines they share a Redis (rho scorer --redis HOST:PORT)");
            return usable ? 0 : 1;
        });
        return command;
    }

    /// <summary>Says which libtorch this is, or in one line why there is none.</summary>
    private static bool TryLoad()
    {
        try
        {
            Row("libtorch", $"{LibTorch.Version}, {torch.get_num_threads()} threads, from {LibTorch.Folder}");
            if (LibTorch.WeakVersions is { Count: > 0 } weak) Row("", $"TorchSharp's library is the copy that loads also where libstdc++ lacks {string.Join(", ", weak)}");
            return true;
        }
        catch (RhoException exception)
        {
            Row("libtorch", $"missing: {exception.Message}");
            return false;
        }
    }

    private static string Gpu(bool libtorchIsUsable)
    {
        var seen = FirstLine("nvidia-smi", "--query-gpu=name,memory.total,driver_version --format=csv,noheader");
        if (!libtorchIsUsable) return seen ?? "none (nvidia-smi not found)";
        if (torch.cuda.is_available()) return $"{torch.cuda.device_count()} CUDA devices{(seen is null ? "" : $": {seen}")}";
        return seen is null ? "none (nvidia-smi not found)" : $"{seen}: not used, as this libtorch is for processors; build with -p:Torch=cuda, or name a CUDA PyTorch's torch/lib in {LibTorch.FolderVariable}";
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
