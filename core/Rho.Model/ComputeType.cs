using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>The element type that products are computed in.</summary>
public enum ComputeType
{
    /// <summary>bfloat16 where the device computes it faster than float32, else float32.</summary>
    Auto,
    Float32,
    BFloat16,
}

public static class ComputeTypes
{
    public static ScalarType Resolve(this ComputeType compute, Device device) => compute switch
    {
        ComputeType.Float32 => ScalarType.Float32,
        ComputeType.BFloat16 => ScalarType.BFloat16,
        _ => device.type == TorchSharp.DeviceType.CUDA || s_cpuHasBFloat16.Value ? ScalarType.BFloat16 : ScalarType.Float32,
    };

    private static readonly Lazy<bool> s_cpuHasBFloat16 = new(() =>
        File.Exists("/proc/cpuinfo") && File.ReadLines("/proc/cpuinfo").FirstOrDefault(line => line.StartsWith("flags", StringComparison.Ordinal)) is { } flags
        && (flags.Contains(" avx512_bf16") || flags.Contains(" amx_bf16")));
}
