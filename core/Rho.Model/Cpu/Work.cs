using static TorchSharp.torch;

namespace Rho.Model.Cpu;

/// <summary>Work over rows on all of libtorch's threads. A row's result does not depend on how rows are shared out.</summary>
internal static unsafe class Work
{
    internal delegate void Range(long first, long end);

    /// <summary>Calls <paramref name="body"/> with ranges that together cover 0 .. count.</summary>
    internal static void Over(long count, Range body)
    {
        var threads = get_num_threads();
        if (threads <= 1 || count < 2)
        {
            if (count > 0) body(0, count);
            return;
        }

        // More parts than threads, so that a thread that starts late costs little.
        var parts = (int)Math.Min(count, threads * 4L);
        Parallel.For(0, parts, new ParallelOptions { MaxDegreeOfParallelism = threads }, part => body(count * part / parts, count * (part + 1) / parts));
    }

    /// <summary>The first element of a contiguous CPU tensor.</summary>
    internal static void* Pointer(Tensor tensor)
    {
        if (!tensor.is_contiguous()) throw new ArgumentException("kernels take contiguous tensors");
        return System.Runtime.CompilerServices.Unsafe.AsPointer(ref System.Runtime.InteropServices.MemoryMarshal.GetReference(tensor.bytes));
    }

    /// <summary>Whether kernels can take the tensor as it is.</summary>
    internal static bool Fits(Tensor tensor) =>
        tensor.device_type == TorchSharp.DeviceType.CPU && tensor.dtype is ScalarType.Float32 or ScalarType.BFloat16 && tensor.NumberOfElements * tensor.ElementSize <= int.MaxValue;
}
