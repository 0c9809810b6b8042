using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace TorchSharp;

/// <summary>The C interface of native/rho_torch.cpp.</summary>
internal static unsafe partial class Native
{
    private const string Library = "RhoTorch";

    static Native()
    {
        NativeLibrary.SetDllImportResolver(typeof(Native).Assembly, Resolve);
        rt_set_callbacks(&torch.autograd.ManagedFunction.Backward, &torch.autograd.ManagedFunction.Release);
    }

    private static nint Resolve(string name, Assembly assembly, DllImportSearchPath? path)
    {
        if (name != Library) return 0;
        var file = Path.Combine(AppContext.BaseDirectory, "libRhoTorch.so");
        try
        {
            return NativeLibrary.Load(file);
        }
        catch (DllNotFoundException error)
        {
            throw new DllNotFoundException($"libtorch could not be loaded through {file}: {error.Message.Split('\n')[0]}. Run ./rho setup, which installs libtorch and builds this library.", error);
        }
    }

    internal enum Kind { None, Tensor, Int, Double, Bool, IntList, TensorList, OptionalTensorList, Device, Generator, String }

    [StructLayout(LayoutKind.Sequential)]
    internal struct Argument
    {
        public Kind Kind;
        public int Count;
        public long Integer;
        public double Real;
        public nint Pointer;
    }

    internal static ExternalException Error() => new(Marshal.PtrToStringUTF8(rt_error()));

    internal static void Check(int result)
    {
        if (result < 0) throw Error();
    }

    [LibraryImport(Library)] internal static partial nint rt_error();
    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)] internal static partial void rt_set_error(string message);
    [LibraryImport(Library)] internal static partial nint rt_version();
    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)] internal static partial nint rt_find(string name, string overload);
    [LibraryImport(Library)] internal static partial int rt_call(nint operation, Argument* arguments, int count, nint* results, int capacity);
    [LibraryImport(Library)] internal static partial void rt_free(nint tensor);
    [LibraryImport(Library)] internal static partial nint rt_alias(nint tensor);
    [LibraryImport(Library), SuppressGCTransition] internal static partial long rt_dim(nint tensor);
    [LibraryImport(Library), SuppressGCTransition] internal static partial long rt_numel(nint tensor);
    [LibraryImport(Library), SuppressGCTransition] internal static partial long rt_element_size(nint tensor);
    [LibraryImport(Library), SuppressGCTransition] internal static partial sbyte rt_dtype(nint tensor);
    [LibraryImport(Library), SuppressGCTransition] internal static partial long rt_device(nint tensor);
    [LibraryImport(Library), SuppressGCTransition] internal static partial void rt_sizes(nint tensor, long* sizes);
    [LibraryImport(Library), SuppressGCTransition] internal static partial void rt_strides(nint tensor, long* strides);
    [LibraryImport(Library), SuppressGCTransition] internal static partial int rt_is_contiguous(nint tensor);
    [LibraryImport(Library)] internal static partial nint rt_data(nint tensor);
    [LibraryImport(Library), SuppressGCTransition] internal static partial int rt_requires_grad(nint tensor);
    [LibraryImport(Library), SuppressGCTransition] internal static partial int rt_is_leaf(nint tensor);
    [LibraryImport(Library)] internal static partial int rt_set_requires_grad(nint tensor, int on);
    [LibraryImport(Library)] internal static partial int rt_retain_grad(nint tensor);
    [LibraryImport(Library)] internal static partial nint rt_grad(nint tensor);
    [LibraryImport(Library)] internal static partial int rt_set_grad(nint tensor, nint gradient);
    [LibraryImport(Library)] internal static partial int rt_item(nint tensor, double* real, long* integer);
    [LibraryImport(Library)] internal static partial nint rt_from_bytes(void* bytes, long length, long* sizes, int dim, sbyte dtype);
    [LibraryImport(Library)] internal static partial int rt_backward(nint* tensors, int count, nint* gradients, int retain, int create, nint* inputs, int inputCount);
    [LibraryImport(Library)] internal static partial int rt_autograd_grad(nint* outputs, int count, nint* inputs, int inputCount, nint* gradients, int retain, int create, int allowUnused, nint* results);
    [LibraryImport(Library)] internal static partial void rt_set_callbacks(delegate* unmanaged[Cdecl]<nint, nint*, int, nint*, int, int> backward, delegate* unmanaged[Cdecl]<nint, void> release);
    [LibraryImport(Library)] internal static partial int rt_attach(nint context, nint* inputs, int inputCount, nint* outputs, int outputCount);
    [LibraryImport(Library)] internal static partial int rt_set_grad_mode(int on);
    [LibraryImport(Library)] internal static partial int rt_grad_mode();
    [LibraryImport(Library)] internal static partial nint rt_inference_enter(int on);
    [LibraryImport(Library)] internal static partial void rt_inference_leave(nint guard);
    [LibraryImport(Library)] internal static partial int rt_inference_mode();
    [LibraryImport(Library)] internal static partial int rt_threads();
    [LibraryImport(Library)] internal static partial void rt_set_threads(int count);
    [LibraryImport(Library)] internal static partial int rt_set_interop_threads(int count);
    [LibraryImport(Library)] internal static partial int rt_cuda_devices();
    [LibraryImport(Library)] internal static partial int rt_cuda_synchronize(long index);
    [LibraryImport(Library)] internal static partial nint rt_generator(long device, ulong seed);
    [LibraryImport(Library)] internal static partial void rt_generator_free(nint generator);
    [LibraryImport(Library)] internal static partial void rt_generator_seed(nint generator, ulong seed);
    [LibraryImport(Library)] internal static partial ulong rt_generator_initial_seed(nint generator);
    [LibraryImport(Library)] internal static partial nint rt_generator_state(nint generator);
    [LibraryImport(Library)] internal static partial int rt_generator_set_state(nint generator, nint state);
    [LibraryImport(Library)] internal static partial nint rt_manual_seed(long seed);
}
