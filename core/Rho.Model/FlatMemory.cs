using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>Where a tensor's elements lie, on whatever device and however many they are: a span has at most 2^31 bytes.</summary>
public static class FlatMemory
{
    /// <summary>The address of a contiguous tensor's first element, in its device's memory; good while the tensor lives.</summary>
    public static nint Address(Tensor tensor)
    {
        if (!tensor.is_contiguous()) throw new ArgumentException("an address says where everything is in contiguous tensors only", nameof(tensor));
        return First(tensor);
    }

    /// <summary>The address of the first element, wherever the others are.</summary>
    internal static nint First(Tensor tensor) => new Memory(tensor).First + (nint)(tensor.storage_offset() * tensor.ElementSize);

    // A storage shows its address to derived classes alone.
    private sealed class Memory(Tensor tensor) : Storage(tensor)
    {
        internal nint First => data_ptr();

        public override int element_size() => (int)_tensor.ElementSize;
    }
}
