using TorchSharp.Native;
using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

public static partial class torch
{
    public static partial class autograd
    {
        /// <summary>Gradients of the outputs' sum, weighted by <paramref name="grad_outputs"/>, with respect to the inputs.</summary>
        /// <returns>One tensor an input; null where an input was not used and that is allowed.</returns>
        public static unsafe IList<Tensor> grad(IList<Tensor> outputs, IList<Tensor> inputs, IList<Tensor>? grad_outputs = null, bool retain_graph = false, bool create_graph = false, bool allow_unused = false)
        {
            var (outputHandles, inputHandles, gradHandles) = (Interop.Handles(outputs), Interop.Handles(inputs), Interop.Handles(grad_outputs));
            fixed (nint* o = outputHandles, i = inputHandles, g = gradHandles)
            {
                long count;
                var list = rho_grad_of(o, outputHandles.Length, i, inputHandles.Length, g, gradHandles.Length, retain_graph ? 1 : 0, create_graph ? 1 : 0, allow_unused ? 1 : 0, &count);
                return new List<Tensor>(Interop.OwnList(list, &count, outputs, inputs, grad_outputs));
            }
        }

        /// <summary>Adds the gradients of the tensors' sum to the leaves' <see cref="Tensor.grad"/>.</summary>
        public static unsafe void backward(IList<Tensor> tensors, IList<Tensor>? grad_tensors = null, bool? retain_graph = null, bool create_graph = false, IList<Tensor>? inputs = null)
        {
            var (handles, gradHandles, inputHandles) = (Interop.Handles(tensors), Interop.Handles(grad_tensors), Interop.Handles(inputs));
            fixed (nint* t = handles, g = gradHandles, i = inputHandles)
            {
                var status = rho_backward(t, handles.Length, g, gradHandles.Length, (retain_graph ?? create_graph) ? 1 : 0, create_graph ? 1 : 0, i, inputHandles.Length);
                Interop.Check(status, tensors, grad_tensors, inputs);
            }
        }

        public static void backward(Tensor tensor, IList<Tensor>? grad_tensors = null, bool? retain_graph = null, bool create_graph = false, IList<Tensor>? inputs = null) =>
            backward((IList<Tensor>)[tensor], grad_tensors, retain_graph, create_graph, inputs);

        public static void backward(Tensor tensor, Tensor grad_tensor, bool? retain_graph = null, bool create_graph = false, IList<Tensor>? inputs = null) =>
            backward((IList<Tensor>)[tensor], (IList<Tensor>)[grad_tensor], retain_graph, create_graph, inputs);

        public static AnomalyMode detect_anomaly(bool check_nan = true) => new(true, check_nan);

        public static AnomalyMode set_detect_anomaly(bool mode, bool check_nan = true) => new(mode, check_nan);
    }
}
