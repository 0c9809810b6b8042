using System.Globalization;
using static TorchSharp.torch;

namespace Rho.Torch;

/// <summary>Devices by the names that options take: auto, cpu, cuda or cuda:N.</summary>
public static class Devices
{
    /// <summary>The names, for help and messages.</summary>
    public const string Names = "auto, cpu, cuda or cuda:N";

    /// <summary>Whether the name is one of those; says nothing of what this machine has.</summary>
    public static bool IsName(string name) => name is "auto" or "cpu" || TryParseCuda(name, out _);

    /// <summary>The device of that name; auto is the first GPU where there is one. Loads libtorch.</summary>
    /// <exception cref="RhoException">The name is none, this machine lacks the device, or libtorch cannot be loaded.</exception>
    public static Device Resolve(string name)
    {
        LibTorch.Load();
        if (name == "cpu") return CPU;
        if (name == "auto") return cuda.is_available() ? CUDA : CPU;
        if (!TryParseCuda(name, out var index)) throw new RhoException($"device '{name}' is not known; expected {Names}");
        var count = cuda.is_available() ? cuda.device_count() : 0;
        if (count == 0) throw new RhoException($"device {name}: libtorch finds no GPU; use cpu (rho doctor says which libtorch this is)");
        if (index >= count) throw new RhoException($"device {name}: libtorch finds {count} GPUs, cuda:0 to cuda:{count - 1}");
        return new Device(TorchSharp.DeviceType.CUDA, index);
    }

    private static bool TryParseCuda(string name, out int index)
    {
        index = 0;
        return name == "cuda" || (name.StartsWith("cuda:", StringComparison.Ordinal) && int.TryParse(name.AsSpan(5), NumberStyles.None, CultureInfo.InvariantCulture, out index));
    }
}
