using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

public static partial class torch
{
    /// <summary>The memory that a tensor, or several views, lie in.</summary>
    public abstract class Storage
    {
        protected Tensor _tensor;
        protected IntPtr _tensor_data_ptr;

        protected Storage(Tensor tensor)
        {
            _tensor = tensor;
            _tensor_data_ptr = rho_data(tensor.Handle) - (nint)(tensor.storage_offset() * tensor.element_size());
        }

        public abstract int element_size();

        /// <summary>The first byte, on the tensor's device.</summary>
        protected IntPtr data_ptr() => _tensor_data_ptr;
    }
}
