using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using static TorchSharp.Native;

namespace TorchSharp;

public static partial class torch
{
    /// <summary>A tensor of libtorch. It owns one native reference, given back by Dispose, by its dispose scope, or at the latest by the finalizer.</summary>
    public partial class Tensor : IDisposable
    {
        private nint _handle;
        private readonly DisposeScopeManager _manager = DisposeScopeManager.ForThread;

        internal Tensor(nint handle)
        {
            _handle = handle;
            _manager.Register(this);
        }

        internal static Tensor FromHandle(nint handle) => handle == 0 ? throw Error() : new Tensor(handle);

        ~Tensor() => Dispose(false);

        internal DisposeScope? OwningDisposeScope { get; set; }

        public bool IsInvalid => _handle == 0;

        public nint Handle => _handle != 0 ? _handle : throw new ObjectDisposedException(nameof(Tensor), "Tensor is already disposed");

        public void Dispose()
        {
            Dispose(true);
            GC.SuppressFinalize(this);
        }

        protected virtual void Dispose(bool disposing)
        {
            var handle = Interlocked.Exchange(ref _handle, 0);
            if (handle == 0) return;
            rt_free(handle);
            if (!disposing) return;
            if (OwningDisposeScope is { } scope) scope.MarkAsDisposed(this);
            else _manager.Tensors.DisposedOutsideScopeCount++;
        }

        public Tensor MoveToOuterDisposeScope()
        {
            OwningDisposeScope?.MoveToOuter(this);
            return this;
        }

        public Tensor MoveToOtherDisposeScope(DisposeScope other)
        {
            if (OwningDisposeScope is { } scope) scope.MoveToOther(other, this);
            else other.Attach(this);
            return this;
        }

        public Tensor DetachFromDisposeScope()
        {
            OwningDisposeScope?.Detach(this);
            return this;
        }

        public long Dimensions => rt_dim(Handle);
        public long ndim => Dimensions;
        public long NumberOfElements => rt_numel(Handle);
        public long numel() => NumberOfElements;
        public long ElementSize => rt_element_size(Handle);
        public long element_size() => ElementSize;
        public ScalarType dtype => (ScalarType)rt_dtype(Handle);
        public bool is_leaf => rt_is_leaf(Handle) != 0;
        public bool is_cuda => device_type == DeviceType.CUDA;
        public DeviceType device_type => (DeviceType)(rt_device(Handle) >> 8);
        public int device_index => (sbyte)(rt_device(Handle) & 0xff);
        public Device device => new(device_type, device_index);
        public bool is_contiguous() => rt_is_contiguous(Handle) != 0;

        public unsafe long[] shape
        {
            get
            {
                var sizes = new long[Dimensions];
                fixed (long* p = sizes) rt_sizes(Handle, p);
                return sizes;
            }
        }

        public long[] size() => shape;
        public long size(int dim) => shape[dim < 0 ? dim + (int)Dimensions : dim];

        public unsafe long[] stride()
        {
            var strides = new long[Dimensions];
            fixed (long* p = strides) rt_strides(Handle, p);
            return strides;
        }

        public long stride(int dim) => stride()[dim < 0 ? dim + (int)Dimensions : dim];

        public bool requires_grad
        {
            get => rt_requires_grad(Handle) != 0;
            set => Check(rt_set_requires_grad(Handle, value ? 1 : 0));
        }

        public Tensor requires_grad_(bool requires_grad = true)
        {
            this.requires_grad = requires_grad;
            return this;
        }

        public void retain_grad() => Check(rt_retain_grad(Handle));

        public Tensor? grad
        {
            get => rt_grad(Handle) is var handle and not 0 ? new Tensor(handle) : null;
            set => Check(rt_set_grad(Handle, value?.Handle ?? 0));
        }

        public void backward() => autograd.backward(this, (IList<Tensor>?)null);

        public void backward(IList<Tensor>? grad_tensors = null, bool retain_graph = false, bool create_graph = false, IList<Tensor>? inputs = null) =>
            autograd.backward(this, grad_tensors, retain_graph, create_graph, inputs);

        /// <summary>The elements' memory of a contiguous CPU tensor, without a copy.</summary>
        public unsafe Span<byte> bytes
        {
            get
            {
                if (device_type != DeviceType.CPU) throw new InvalidOperationException("Reading data from non-CPU memory is not supported. Move or copy the tensor to the cpu before reading.");
                if (!is_contiguous()) throw new NotImplementedException("Bytes() called on non-contiguous tensor.");
                return new Span<byte>((void*)DataPointer, checked((int)(NumberOfElements * ElementSize)));
            }
            set
            {
                if (value.Length != NumberOfElements * ElementSize) throw new ArgumentException("Mismatched data sizes in Tensor.set_bytes().");
                value.CopyTo(bytes);
            }
        }

        internal nint DataPointer
        {
            get
            {
                var pointer = rt_data(Handle);
                return pointer != 0 || NumberOfElements == 0 ? pointer : throw Error();
            }
        }

        public Utils.TensorAccessor<T> data<T>() where T : unmanaged
        {
            if (device_type != DeviceType.CPU) throw new InvalidOperationException("Reading data from non-CPU memory is not supported. Move or copy the tensor to the cpu before reading.");
            var expected = ElementTypes.Of<T>();
            if (expected != dtype) throw new ArgumentException($"{typeof(T).Name} is not compatible with {dtype}");
            return new Utils.TensorAccessor<T>(this);
        }

        public unsafe T item<T>() where T : unmanaged
        {
            double real = 0;
            long integer = 0;
            Check(rt_item(Handle, &real, &integer));
            var expected = ElementTypes.Of<T>();
            if (expected != dtype) throw new ArgumentException($"{typeof(T).Name} is not compatible with {dtype}");
            object value = expected switch
            {
                ScalarType.Float32 => (float)real,
                ScalarType.Float64 => real,
                ScalarType.Float16 => (Half)real,
                ScalarType.Int64 => integer,
                ScalarType.Int32 => (int)integer,
                ScalarType.Int16 => (short)integer,
                ScalarType.Byte => (byte)integer,
                ScalarType.Int8 => (sbyte)integer,
                _ => integer != 0,
            };
            return (T)value;
        }

        public override string ToString() => $"[{string.Join("x", shape)}], type = {dtype}, device = {device}";
    }

    internal static class ElementTypes
    {
        internal static ScalarType Of<T>() => Of(typeof(T));

        internal static ScalarType Of(Type type) => type switch
        {
            _ when type == typeof(float) => ScalarType.Float32,
            _ when type == typeof(double) => ScalarType.Float64,
            _ when type == typeof(Half) => ScalarType.Float16,
            _ when type == typeof(long) => ScalarType.Int64,
            _ when type == typeof(int) => ScalarType.Int32,
            _ when type == typeof(short) => ScalarType.Int16,
            _ when type == typeof(byte) => ScalarType.Byte,
            _ when type == typeof(sbyte) => ScalarType.Int8,
            _ when type == typeof(bool) => ScalarType.Bool,
            _ => throw new ArgumentException($"tensors have no elements of type {type.Name}"),
        };
    }
}
