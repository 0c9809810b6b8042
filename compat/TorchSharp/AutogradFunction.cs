using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using TorchSharp.Native;
using static TorchSharp.Native.NativeMethods;
using static TorchSharp.torch;
using static TorchSharp.torch.autograd;

namespace TorchSharp;

public static partial class torch
{
    public static partial class autograd
    {
        /// <summary>What a function's forward leaves for its backward.</summary>
        public class AutogradContext : IDisposable
        {
            private readonly Dictionary<string, object> _data = [];
            private List<Tensor?> _toSave = [];
            private nint _node;
            private bool _released;

            internal AutogradContext()
            {
            }

            internal List<Tensor> Dirty { get; private set; } = [];
            internal List<Tensor> NonDifferentiable { get; private set; } = [];

            /// <summary>Whether backward gets zeros for outputs that have no gradient; otherwise invalid tensors.</summary>
            public bool MaterializeGrads { get; private set; } = true;

            /// <summary>Inputs and outputs (or intermediate results) that backward needs; null stays null.</summary>
            public void save_for_backward(List<Tensor> tensors) => _toSave = [.. tensors];

            public void save_data(string key, object value) => _data[key] = value;

            public object get_data(string key) => _data.TryGetValue(key, out var value) ? value : null!;

            /// <summary>Inputs that forward changes in place. They must be among its outputs.</summary>
            public void mark_dirty(List<Tensor> tensors) => Dirty = [.. tensors];

            public void mark_non_differentiable(List<Tensor> tensors) => NonDifferentiable = [.. tensors];

            public void set_materialize_grads(bool value) => MaterializeGrads = value;

            /// <exception cref="ExternalException">A saved tensor was changed in place, or the graph was freed.</exception>
            public unsafe List<Tensor> get_saved_variables()
            {
                if (_node == 0)
                {
                    return _released ? throw new InvalidOperationException("The graph that held the saved tensors is gone.") : [];
                }

                long count;
                return [.. Interop.OwnList(rho_node_saved(_node, &count), &count, this)];
            }

            public void Dispose()
            {
                Dispose(true);
                GC.SuppressFinalize(this);
            }

            protected virtual void Dispose(bool disposing) => Release();

            internal unsafe void Save(nint pointer)
            {
                var handles = Interop.Handles(_toSave.Select(tensor => tensor is null || tensor.IsInvalid ? null : tensor));
                fixed (nint* tensors = handles) Interop.Check(rho_node_save(pointer, tensors, handles.Length), _toSave);
                _toSave = [];
                _node = rho_node_get(pointer);
            }

            internal void Release()
            {
                _node = 0;
                _released = true;
            }
        }

        /// <summary>An operation with its own gradient, derived from as SingleTensorFunction or MultiTensorFunction.</summary>
        public abstract class Function<T> where T : Function<T>, new()
        {
            private static readonly T Instance = new();

            public abstract string Name { get; }

            internal abstract List<Tensor> Forward(AutogradContext ctx, object[] vars);

            internal abstract List<Tensor> Backward(AutogradContext ctx, List<Tensor> grad_outputs);

            public static unsafe List<Tensor> apply_internal(params object[] vars)
            {
                var inputs = vars.OfType<Tensor>().Where(tensor => !tensor.IsInvalid).ToArray();
                var inputHandles = Interop.Handles(inputs);
                using var context = new ForwardPass();
                nint node = 0;
                if (is_grad_enabled() && inputs.Any(tensor => tensor.requires_grad))
                {
                    var isTensor = vars.Select(value => value is Tensor { IsInvalid: false }).ToArray();
                    node = context.Open(new FunctionNode(Instance.Name, context.Autograd, isTensor, Instance.Backward), inputHandles);
                }

                List<Tensor> outputs;
                using (no_grad()) outputs = Instance.Forward(context.Autograd, vars);

                var (outputHandles, fixedHandles, dirtyHandles) = (Interop.Handles(outputs), Interop.Handles(context.Autograd.NonDifferentiable), Interop.Handles(context.Autograd.Dirty));
                fixed (nint* i = inputHandles, o = outputHandles, f = fixedHandles, d = dirtyHandles)
                {
                    long count;
                    var list = rho_node_wrap(node, i, inputHandles.Length, o, outputHandles.Length, f, fixedHandles.Length, d, dirtyHandles.Length, context.Autograd.MaterializeGrads ? 1 : 0, &count);
                    List<Tensor> results = [.. Interop.OwnList(list, &count, inputs, outputs, context)];
                    if (node != 0) context.Autograd.Save(node);
                    return results;
                }
            }
        }

        public abstract class SingleTensorFunction<T> : Function<T> where T : SingleTensorFunction<T>, new()
        {
            public static Tensor apply(params object[] vars) => apply_internal(vars)[0];

            public abstract Tensor forward(AutogradContext ctx, params object[] vars);

            /// <returns>One gradient an argument of forward, null for what needs none or is no tensor.</returns>
            public abstract List<Tensor> backward(AutogradContext ctx, Tensor grad_output);

            internal sealed override List<Tensor> Forward(AutogradContext ctx, object[] vars) => [forward(ctx, vars)];

            internal sealed override List<Tensor> Backward(AutogradContext ctx, List<Tensor> grad_outputs) => backward(ctx, grad_outputs[0]);
        }

        public abstract class MultiTensorFunction<T> : Function<T> where T : MultiTensorFunction<T>, new()
        {
            public static List<Tensor> apply(params object[] vars) => apply_internal(vars);

            public abstract List<Tensor> forward(AutogradContext ctx, params object[] vars);

            /// <returns>One gradient an argument of forward, null for what needs none or is no tensor.</returns>
            public abstract List<Tensor> backward(AutogradContext ctx, List<Tensor> grad_outputs);

            internal sealed override List<Tensor> Forward(AutogradContext ctx, object[] vars) => forward(ctx, vars);

            internal sealed override List<Tensor> Backward(AutogradContext ctx, List<Tensor> grad_outputs) => backward(ctx, grad_outputs);
        }
    }
}

/// <summary>The functions that native nodes call.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct FunctionCallbacks
{
    internal delegate* unmanaged<nint, nint*, long, nint*, long, byte**, nint> Backward;
    internal delegate* unmanaged<nint, void> Release;
    internal delegate* unmanaged<byte*, void> ReleaseMessage;
}

/// <summary>One application of a function that is part of a graph; the native node keeps it alive.</summary>
internal sealed unsafe class FunctionNode(string name, AutogradContext context, bool[] isTensor, Func<AutogradContext, List<Tensor>, List<Tensor>> backward)
{
    static FunctionNode()
    {
        var callbacks = new FunctionCallbacks { Backward = &RunBackward, Release = &Release, ReleaseMessage = &ReleaseMessage };
        rho_function_callbacks(&callbacks);
    }

    internal string Name => name;

    internal AutogradContext Context => context;

    private void Run(Span<nint> grads, Span<nint> results)
    {
        // Whatever backward makes and does not hand over dies here, also when it throws.
        using var scope = NewDisposeScope();
        var arguments = new List<Tensor>(grads.Length);
        foreach (ref var grad in grads)
        {
            arguments.Add(grad == 0 ? Tensor.Invalid() : new Tensor(grad));
            grad = 0;
        }

        var gradients = backward(context, arguments);
        var count = gradients.Count;
        while (count > isTensor.Length && gradients[count - 1] is null or { IsInvalid: true }) count--;
        if (count != isTensor.Length)
        {
            throw new NotImplementedException($"Function {name} returned an incorrect number of gradients (expected {isTensor.Length}, got {gradients.Count})");
        }

        var next = 0;
        for (var i = 0; i < count; i++)
        {
            var gradient = gradients[i];
            var defined = gradient is { IsInvalid: false };
            if (!isTensor[i])
            {
                if (defined) throw new NotImplementedException($"Function {name} returned a gradient at position {i + 1}, but the corresponding forward input was not a tensor");
                continue;
            }

            if (defined)
            {
                results[next] = rho_share(gradient!.Handle);
                GC.KeepAlive(gradient);
                if (results[next] == 0) Interop.ThrowLastError();
            }

            next++;
        }
    }

    [UnmanagedCallersOnly]
    private static nint RunBackward(nint state, nint* grads, long gradCount, nint* results, long resultCount, byte** message)
    {
        var gradSpan = new Span<nint>(grads, checked((int)gradCount));
        try
        {
            var node = (FunctionNode)GCHandle.FromIntPtr(state).Target!;
            node.Run(gradSpan, new Span<nint>(results, checked((int)resultCount)));
            return 0;
        }
        catch (Exception error)
        {
            // Crosses libtorch as a C++ exception and is thrown again, as it is, where backward was called.
            foreach (var grad in gradSpan)
            {
                if (grad != 0) rho_free(grad);
            }

            *message = (byte*)Marshal.StringToCoTaskMemUTF8(error.Message);
            return GCHandle.ToIntPtr(GCHandle.Alloc(error));
        }
    }

    [UnmanagedCallersOnly]
    private static void Release(nint handle)
    {
        var target = GCHandle.FromIntPtr(handle);
        if (target.Target is FunctionNode node) node.Context.Release();
        target.Free();
    }

    [UnmanagedCallersOnly]
    private static void ReleaseMessage(byte* message) => Marshal.FreeCoTaskMem((nint)message);
}

/// <summary>Holds the native node while forward runs; after that the graph does.</summary>
internal sealed unsafe class ForwardPass : IDisposable
{
    private nint _node;

    internal AutogradContext Autograd { get; } = new();

    internal nint Open(FunctionNode node, nint[] inputs)
    {
        var state = GCHandle.ToIntPtr(GCHandle.Alloc(node));
        var nameBytes = System.Text.Encoding.UTF8.GetBytes(node.Name + '\0');
        fixed (byte* name = nameBytes)
        fixed (nint* handles = inputs)
        {
            _node = rho_node_new(state, name, handles, inputs.Length);
        }

        if (_node == 0) Interop.ThrowLastError();
        return _node;
    }

    public void Dispose()
    {
        if (_node != 0) rho_node_free(_node);
        _node = 0;
    }
}
