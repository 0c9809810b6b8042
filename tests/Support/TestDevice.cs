using Rho.Torch;
using static TorchSharp.torch;

namespace Rho.TestSupport;

/// <summary>What golden numbers are met on: the device that RHO_TEST_DEVICE names, else the CPU (tests/gpu/run.sh sets it).</summary>
internal static class TestDevice
{
    public static Device Device { get; } = Devices.Resolve(Environment.GetEnvironmentVariable("RHO_TEST_DEVICE") ?? "cpu");
}
