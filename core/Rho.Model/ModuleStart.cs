using System.Runtime.CompilerServices;
using Rho.Torch;

namespace Rho.Model;

/// <summary>Whatever is used of this library first, libtorch is loaded before it, by path.</summary>
internal static class ModuleStart
{
#pragma warning disable CA2255 // a library's users need not know that libtorch has to be loaded before TorchSharp's first use
    [ModuleInitializer]
#pragma warning restore CA2255
    internal static void LoadLibTorch() => LibTorch.Load();
}
