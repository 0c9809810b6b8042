using System.Runtime.Intrinsics.X86;
using static TorchSharp.torch;

namespace Rho.Model.Tests;

public sealed class ComputeTypeTests
{
    [Fact]
    public void Auto_OnTheCpu_IsBFloat16WhereItHasInstructionsForIt()
    {
        var has = OperatingSystem.IsLinux() && Avx512BW.IsSupported
            && File.ReadLines("/proc/cpuinfo").First(line => line.StartsWith("flags", StringComparison.Ordinal)).Split(' ').Contains("avx512_bf16");
        if (OperatingSystem.IsLinux() || !X86Base.IsSupported) Assert.Equal(has ? ScalarType.BFloat16 : ScalarType.Float32, ComputeType.Auto.Resolve(CPU));
        Assert.Equal(ScalarType.Float32, ComputeType.Float32.Resolve(CPU));
        Assert.Equal(ScalarType.BFloat16, ComputeType.BFloat16.Resolve(CPU));
    }
}
