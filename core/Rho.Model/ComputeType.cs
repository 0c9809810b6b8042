using System.Runtime.Intrinsics.X86;
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

    /// <summary>Products in bfloat16 are faster only with instructions for them: without, libtorch computes the same with float32's, and slower than float32 itself.</summary>
    private static readonly Lazy<bool> s_cpuHasBFloat16 = new(() =>
    {
        // CPUID leaf 7, subleaf 1, EAX bit 5 is AVX512_BF16; processors with AMX_BF16 have it too. Whether the system lets AVX-512 be used, .NET knows.
        const int leaf = 7, avx512BFloat16 = 1 << 5;
        return Avx512BW.IsSupported && X86Base.CpuId(leaf, 0).Eax >= 1 && (X86Base.CpuId(leaf, 1).Eax & avx512BFloat16) != 0;
    });
}
