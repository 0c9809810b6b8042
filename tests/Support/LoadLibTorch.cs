using System.Runtime.CompilerServices;

namespace Rho.Torch;

/// <summary>Tests use TorchSharp before anything of Rho; libtorch is loaded by path all the same.</summary>
internal static class LoadLibTorch
{
    [ModuleInitializer]
    internal static void Load() => LibTorch.Load();
}
