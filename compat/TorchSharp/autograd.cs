using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using static TorchSharp.Native;

namespace TorchSharp;

public static partial class torch
{
    public static unsafe class autograd
    {
        public static void backward(Tensor tensor, IList<Tensor>? grad_tensors = null, bool? retain_graph = null, bool create_graph = false, IList<Tensor>? inputs = null) =>
            backward([tensor], grad_tensors, retain_graph, create_graph, inputs);

        public static void backward(Tensor tensor, Tensor grad_tensor, bool? retain_graph = null, bool create_graph = false, IList<Tensor>? inputs = null) =>
            backward([tensor], [grad_tensor], retain_graph, create_graph, inputs);

        public static void backward(IList<Tensor> tensors, IList<Tensor>? grad_tensors = null, bool? retain_graph = null, bool create_graph = false, IList<Tensor>? inputs = null)
        {
            int result;
            fixed (nint* t = Handles(tensors))
            fixed (nint* g = grad_tensors is null ? null : Handles(grad_tensors))
            fixed (nint* i = Handles(inputs ?? []))
                result = rt_backward(t, tensors.Count, g, retain_graph ?? create_graph ? 1 : 0, create_graph ? 1 : 0, i, inputs?.Count ?? 0);
            ManagedFunction.Rethrow();
            Check(result);
        }

        public static IList<Tensor> grad(IList<Tensor> outputs, IList<Tensor> inputs, IList<Tensor>? grad_outputs = null, bool retain_graph = false, bool create_graph = false, bool allow_unused = false)
        {
            var results = new nint[inputs.Count];
            int result;
            fixed (nint* o = Handles(outputs))
            fixed (nint* i = Handles(inputs))
            fixed (nint* g = grad_outputs is null ? null : Handles(grad_outputs))
            fixed (nint* r = results)
                result = rt_autograd_grad(o, outputs.Count, i, inputs.Count, g, retain_graph ? 1 : 0, create_graph ? 1 : 0, allow_unused ? 1 : 0, r);
            ManagedFunction.Rethrow();
            Check(result);
            return Array.ConvertAll(results, handle => handle == 0 ? null! : new Tensor(handle));
        }

        private static nint[] Handles(IList<Tensor> tensors) => [.. tensors.Select(tensor => tensor.Handle)];

        /// <summary>What a function keeps from its forward for its backward; it lives as long as the graph.</summary>
        public sealed class AutogradContext : IDisposable
        {
            private readonly Dictionary<string, object> _data = [];
            private List<Tensor> _saved = [];

            internal AutogradContext() { }

            public List<Tensor> saved_variables => _saved;

            /// <summary>Keeps references of its own, outside dispose scopes and without history, so that no graph keeps itself alive.</summary>
            public void save_for_backward(List<Tensor> tensors) =>
                _saved = [.. tensors.Select(tensor => tensor.detach().DetachFromDisposeScope())];

            public void save_data(string key, object value) => _data[key] = value;
            public object get_data(string key) => _data[key];

            public void Dispose()
            {
                foreach (var tensor in _saved) tensor.Dispose();
                _saved = [];
            }
        }

        internal abstract class ManagedFunction : IDisposable
        {
            [ThreadStatic] private static Exception? t_failure;

            internal AutogradContext Context { get; } = new();

            internal abstract List<Tensor?> Run(List<Tensor?> gradients);

            public void Dispose() => Context.Dispose();

            internal static void Rethrow()
            {
                var failure = t_failure;
                t_failure = null;
                if (failure is not null) System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(failure);
            }

            internal static List<Tensor> Apply(ManagedFunction function, object[] vars, Func<AutogradContext, List<Tensor>> forward)
            {
                List<Tensor> outputs;
                using (no_grad()) outputs = forward(function.Context);
                var inputs = vars.Select(v => v is Tensor tensor ? tensor.Handle : 0).ToArray();
                var handle = GCHandle.Alloc(function);
                int attached;
                fixed (nint* i = inputs)
                fixed (nint* o = Handles(outputs))
                    attached = rt_attach(GCHandle.ToIntPtr(handle), i, inputs.Length, o, outputs.Count);
                if (attached == 1) return outputs;
                handle.Free();
                function.Dispose();
                Check(attached);
                return outputs;
            }

            [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
            internal static int Backward(nint context, nint* gradients, int count, nint* results, int capacity)
            {
                try
                {
                    using var scope = NewDisposeScope();
                    List<Tensor?> incoming = [];
                    for (var i = 0; i < count; i++) incoming.Add(gradients[i] == 0 ? null : new Tensor(gradients[i]));
                    List<Tensor?> outgoing;
                    using (no_grad()) outgoing = ((ManagedFunction)GCHandle.FromIntPtr(context).Target!).Run(incoming);
                    if (outgoing.Count > capacity) throw new InvalidOperationException($"backward returned {outgoing.Count} gradients for {capacity} arguments");
                    for (var i = 0; i < outgoing.Count; i++) results[i] = outgoing[i] is { } tensor ? rt_alias(tensor.Handle) : 0;
                    return 0;
                }
                catch (Exception error)
                {
                    // It may not cross native frames: kept for the caller of backward().
                    t_failure = error;
                    rt_set_error(error.Message);
                    return 1;
                }
            }

            [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
            internal static void Release(nint context)
            {
                var handle = GCHandle.FromIntPtr(context);
                ((ManagedFunction)handle.Target!).Dispose();
                handle.Free();
            }
        }

        public abstract class Function<T>
        {
            public abstract string Name { get; }
        }

        /// <summary>A function of tensors to one tensor with a backward of its own; backward returns one gradient (or null) per argument of apply.</summary>
        public abstract class SingleTensorFunction<T> : Function<T> where T : SingleTensorFunction<T>, new()
        {
            public abstract Tensor forward(AutogradContext ctx, params object[] vars);
            public abstract List<Tensor> backward(AutogradContext ctx, Tensor grad_output);

            public static Tensor apply(params object[] vars)
            {
                var function = new T();
                return ManagedFunction.Apply(new Node(function), vars, context => [function.forward(context, vars)])[0];
            }

            private sealed class Node(SingleTensorFunction<T> function) : ManagedFunction
            {
                internal override List<Tensor?> Run(List<Tensor?> gradients) => gradients[0] is { } gradient ? [.. function.backward(Context, gradient)] : [];
            }
        }

        /// <summary>A function of tensors to several tensors with a backward of its own.</summary>
        public abstract class MultiTensorFunction<T> : Function<T> where T : MultiTensorFunction<T>, new()
        {
            public abstract List<Tensor> forward(AutogradContext ctx, params object[] vars);
            public abstract List<Tensor> backward(AutogradContext ctx, List<Tensor> grad_outputs);

            public static List<Tensor> apply(params object[] vars)
            {
                var function = new T();
                return ManagedFunction.Apply(new Node(function), vars, context => function.forward(context, vars));
            }

            private sealed class Node(MultiTensorFunction<T> function) : ManagedFunction
            {
                internal override List<Tensor?> Run(List<Tensor?> gradients) => [.. function.backward(Context, gradients!)];
            }
        }
    }
}
