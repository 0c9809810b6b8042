using System.Runtime.CompilerServices;
using System.Text;
using TorchSharp.Native;
using TorchSharp.Utils;
using static TorchSharp.Native.Interop;
using static TorchSharp.Native.NativeMethods;
using static TorchSharp.torch;

namespace TorchSharp;

public static partial class torch
{
    /// <summary>
    /// A tensor of libtorch. Each object owns one reference, until it is disposed, its dispose scope is, or it is
    /// finalized. In-place operations return the object itself; everything else returns a new one, views included.
    /// Failures of libtorch are thrown as <see cref="System.Runtime.InteropServices.ExternalException"/>, use after
    /// disposal as <see cref="ObjectDisposedException"/>.
    /// </summary>
    public partial class Tensor : IDisposable
    {
        private static long _totalCount;
        private static long _peakCount;

        private nint _handle;

        internal Tensor(nint handle)
        {
            _handle = handle;
            Count();
            DisposeScopeManager.ThreadSingleton.Register(this);
        }

        /// <summary>Takes over what <paramref name="other"/> owns, and its place in its dispose scope.</summary>
        private protected Tensor(Tensor other)
        {
            _handle = other.Handle;
            other._handle = 0;
            GC.SuppressFinalize(other);
            var scope = other.OwningDisposeScope;
            if (scope is null) return;
            scope.Remove(other);
            scope.Add(this);
        }

        private Tensor() => GC.SuppressFinalize(this);

        ~Tensor() => Dispose(false);

        /// <summary>Of this process, not yet disposed or finalized.</summary>
        public static long TotalCount => Interlocked.Read(ref _totalCount);

        public static long PeakCount => Interlocked.Read(ref _peakCount);

        /// <summary>Is in no dispose scope when null.</summary>
        internal DisposeScope? OwningDisposeScope { get; set; }

        internal int PlaceInScope { get; set; }

        /// <summary>A label for people; libtorch does not see it.</summary>
        public string? name { get; set; }

        /// <exception cref="ObjectDisposedException">The tensor was disposed.</exception>
        public IntPtr Handle
        {
            [MethodImpl(MethodImplOptions.AggressiveInlining)]
            get
            {
                var handle = _handle;
                if (handle == 0) ThrowDisposed();
                return handle;
            }
        }

        public bool IsInvalid => _handle == 0;

        /// <summary>Takes over a reference made by native code.</summary>
        public static Tensor UnsafeCreateTensor(IntPtr handle) => new(handle);

        /// <summary>What stands for an undefined tensor.</summary>
        internal static Tensor Invalid() => new();

        /// <summary>Gives the reference away: the caller frees it.</summary>
        public IntPtr DecoupleFromNativeHandle()
        {
            var handle = Handle;
            GC.SuppressFinalize(this);
            OwningDisposeScope?.Remove(this);
            DisposeScopeManager.ThreadSingleton.Disposing(this);
            Interlocked.Decrement(ref _totalCount);
            _handle = 0;
            return handle;
        }

        public void Dispose()
        {
            Dispose(true);
            GC.SuppressFinalize(this);
        }

        protected virtual void Dispose(bool disposing)
        {
            var handle = Interlocked.Exchange(ref _handle, 0);
            if (handle == 0) return;
            DisposeScopeManager.ThreadSingleton.Disposing(this);
            OwningDisposeScope?.Remove(this);
            Interlocked.Decrement(ref _totalCount);
            rho_free(handle);
        }

        public Tensor MoveToOuterDisposeScope()
        {
            OwningDisposeScope?.MoveToOuter(this);
            return this;
        }

        public Tensor DetachFromDisposeScope()
        {
            OwningDisposeScope?.Detach(this);
            return this;
        }

        public Tensor MoveToOtherDisposeScope(Tensor other) => MoveToOtherDisposeScope(other.OwningDisposeScope);

        public Tensor MoveToOtherDisposeScope(DisposeScope? other)
        {
            if (OwningDisposeScope is null) other?.Attach(this);
            else OwningDisposeScope.MoveToOther(other, this);
            return this;
        }

        public long ndim => Kept(rho_dim(Handle));
        public long Dimensions => Kept(rho_dim(Handle));
        public long dim() => Kept(rho_dim(Handle));
        public long NumberOfElements => Kept(rho_numel(Handle));
        public long numel() => Kept(rho_numel(Handle));
        public long ElementSize => Kept(rho_element_size(Handle));
        public long element_size() => Kept(rho_element_size(Handle));
        public ScalarType dtype => (ScalarType)Kept(rho_dtype(Handle));
        public DeviceType device_type => (DeviceType)Kept(rho_device_type(Handle));
        public int device_index => Kept(rho_device_index(Handle));
        public Device device => device_type == DeviceType.CPU ? CPU : new Device(device_type, device_index);
        public bool is_cuda => device_type == DeviceType.CUDA;
        public bool is_meta => device_type == DeviceType.META;
        public bool is_leaf => Kept(rho_is_leaf(Handle)) != 0;
        public bool is_sparse => Kept(rho_is_sparse(Handle)) != 0;
        public bool is_cpu() => device_type == DeviceType.CPU;
        public bool is_floating_point() => torch.is_floating_point(dtype);
        public bool is_integral() => torch.is_integral(dtype);
        public bool is_complex() => torch.is_complex(dtype);
        public bool is_contiguous() => Kept(rho_is_contiguous(Handle)) != 0;
        public bool is_pinned() => CheckBoolean(rho_is_pinned(Handle), this);
        public long storage_offset() => Kept(rho_storage_offset(Handle));

        public bool is_nonzero()
        {
            if (numel() != 1) throw new InvalidOperationException("is_nonzero() called on non-singleton tensor");
            return ToScalar().ToBoolean();
        }

        public long[] shape => size();

        public unsafe long[] size()
        {
            var sizes = new ReadOnlySpan<long>(rho_sizes(Handle), (int)ndim).ToArray();
            GC.KeepAlive(this);
            return sizes;
        }

        public long size(int dim)
        {
            var size = rho_size_at(Handle, dim);
            if (size < 0) ThrowLastError();
            GC.KeepAlive(this);
            return size;
        }

        public unsafe long[] stride()
        {
            var strides = new ReadOnlySpan<long>(rho_strides(Handle), (int)ndim).ToArray();
            GC.KeepAlive(this);
            return strides;
        }

        public long stride(int dim)
        {
            var stride = rho_stride_at(Handle, dim);
            if (stride == long.MinValue) ThrowLastError();
            GC.KeepAlive(this);
            return stride;
        }

        public bool requires_grad
        {
            get => Kept(rho_requires_grad(Handle)) != 0;
            set => Check(rho_set_requires_grad(Handle, value ? 1 : 0), this);
        }

        public Tensor requires_grad_(bool requires_grad = true)
        {
            this.requires_grad = requires_grad;
            return this;
        }

        public Tensor with_requires_grad(bool requires_grad = true) => requires_grad_(requires_grad);

        /// <summary>The accumulated gradient; null when there is none. Every read gives a new object for the same tensor.</summary>
        public unsafe Tensor? grad
        {
            get
            {
                nint result;
                Check(rho_grad(Handle, &result), this);
                return result == 0 ? null : new Tensor(result);
            }
            set => Check(rho_set_grad(Handle, HandleOrZero(value)), this, value);
        }

        public void retain_grad() => Check(rho_retain_grad(Handle), this);

        public void backward() => autograd.backward((IList<Tensor>)[this]);

        public void backward(IList<Tensor>? grad_tensors = null, bool retain_graph = false, bool create_graph = false, IList<Tensor>? inputs = null) =>
            autograd.backward((IList<Tensor>)[this], grad_tensors, retain_graph, create_graph, inputs);

        /// <summary>The elements, copied to the CPU first if they are elsewhere.</summary>
        /// <exception cref="ArgumentException">T is not the type of the elements.</exception>
        public TensorAccessor<T> data<T>() where T : unmanaged
        {
            ValidateType(typeof(T));
            return new TensorAccessor<T>(device_type == DeviceType.CPU ? this : cpu());
        }

        /// <summary>The only element. Waits for the device.</summary>
        public unsafe T item<T>() where T : unmanaged
        {
            if (numel() != 1) throw new ArgumentException("Number of elements in the tensor must be 1");
            ValidateType(typeof(T));
            T value;
            Check(rho_item(Handle, &value), this);
            return value;
        }

        public unsafe Scalar ToScalar()
        {
            Number number;
            Check(rho_to_number(Handle, &number), this);
            return new Scalar(number);
        }

        /// <summary>The memory of a contiguous CPU tensor, without a copy, valid while the tensor lives.</summary>
        /// <exception cref="InvalidOperationException">The tensor is not contiguous or not on the CPU.</exception>
        /// <exception cref="ArgumentException">The tensor has more bytes than a span can.</exception>
        public unsafe Span<byte> bytes
        {
            get
            {
                var size = numel() * element_size();
                if (size > int.MaxValue) throw new ArgumentException("Span only supports up to int.MaxValue elements.");
                return new Span<byte>(ContiguousData(), (int)size);
            }
            set
            {
                if (numel() * element_size() != value.Length) throw new ArgumentException("Mismatched data sizes in SetBytes().");
                value.CopyTo(new Span<byte>(ContiguousData(), value.Length));
                GC.KeepAlive(this);
            }
        }

        public unsafe void WriteBytesToStream(Stream stream, int bufferSize = 1024)
        {
            var data = (byte*)ContiguousData();
            var left = numel() * element_size();
            while (left > 0)
            {
                var chunk = (int)Math.Min(left, bufferSize);
                stream.Write(new ReadOnlySpan<byte>(data, chunk));
                data += chunk;
                left -= chunk;
            }

            GC.KeepAlive(this);
        }

        public unsafe void ReadBytesFromStream(Stream stream, int bufferSize = 1024)
        {
            var data = (byte*)ContiguousData();
            var left = numel() * element_size();
            while (left > 0)
            {
                var chunk = (int)Math.Min(left, bufferSize);
                stream.ReadExactly(new Span<byte>(data, chunk));
                data += chunk;
                left -= chunk;
            }

            GC.KeepAlive(this);
        }

        public T ReadCpuValue<T>(long i) where T : unmanaged
        {
            ValidateType(typeof(T));
            return new TensorAccessor<T>(this)[i];
        }

        public bool ReadCpuBool(long i) => ReadCpuValue<bool>(i);
        public byte ReadCpuByte(long i) => ReadCpuValue<byte>(i);
        public sbyte ReadCpuSByte(long i) => ReadCpuValue<sbyte>(i);
        public short ReadCpuInt16(long i) => ReadCpuValue<short>(i);
        public int ReadCpuInt32(long i) => ReadCpuValue<int>(i);
        public long ReadCpuInt64(long i) => ReadCpuValue<long>(i);
        public float ReadCpuSingle(long i) => ReadCpuValue<float>(i);
        public double ReadCpuDouble(long i) => ReadCpuValue<double>(i);
        public float ReadCpuFloat16(long i) => (float)ReadCpuValue<Half>(i);
        public float ReadCpuBFloat16(long i) => ReadCpuValue<BFloat16>(i).ToSingle();

        public Tensor detach() => Own(rho_detach(Handle), this);
        public Tensor detach_() => Self(rho_detach_(Handle));
        public Tensor clone() => Own(rho_clone(Handle), this);
        public Tensor contiguous() => Own(rho_contiguous(Handle), this);
        public Tensor alias() => Own(rho_alias(Handle), this);
        public Tensor pin_memory() => Own(rho_pin_memory(Handle), this);
        public Tensor copy_(Tensor source, bool nonBlocking = false) => Self(rho_copy_(Handle, source.Handle, nonBlocking ? 1 : 0), source);
        public Tensor set_(Tensor source) => Self(rho_set_(Handle, source.Handle), source);

        public Tensor cpu() => To(null, CPU);
        public Tensor cuda(Device? device = null, bool non_blocking = false)
        {
            if (device is not null && device.type != DeviceType.CUDA) throw new ArgumentException("Not a CUDA device.", nameof(device));
            InitializeDeviceType(DeviceType.CUDA);
            return To(null, device ?? new Device(DeviceType.CUDA), non_blocking: non_blocking);
        }

        public Tensor to(ScalarType type, bool copy = false, bool disposeAfter = false, bool non_blocking = false) => To(type, null, copy, disposeAfter, non_blocking);
        public Tensor to_type(ScalarType type, bool copy = false, bool disposeAfter = false, bool non_blocking = false) => To(type, null, copy, disposeAfter, non_blocking);
        public Tensor to(Device device, bool copy = false, bool disposeAfter = false, bool non_blocking = false) => To(null, InitializeDevice(device), copy, disposeAfter, non_blocking);
        public Tensor to(string device, bool copy = false, bool disposeAfter = false, bool non_blocking = false) => to(new Device(device), copy, disposeAfter, non_blocking);
        public Tensor to(DeviceType deviceType, int deviceIndex = -1, bool copy = false, bool disposeAfter = false, bool non_blocking = false) => to(new Device(deviceType, deviceIndex), copy, disposeAfter, non_blocking);
        public Tensor to(ScalarType type, Device device, bool copy = false, bool disposeAfter = false, bool non_blocking = false) => To(type, InitializeDevice(device), copy, disposeAfter, non_blocking);
        public Tensor to(Tensor other, bool non_blocking = false) => To(other.dtype, other.device, non_blocking: non_blocking);
        public Tensor type(ScalarType dtype) => To(dtype, null);
        public Tensor type_as(Tensor tensor) => To(tensor.dtype, null);
        public Tensor @bool() => To(ScalarType.Bool, null);
        public Tensor @byte() => To(ScalarType.Byte, null);
        public Tensor @char() => To(ScalarType.Int8, null);
        public Tensor @short() => To(ScalarType.Int16, null);
        public Tensor @int() => To(ScalarType.Int32, null);
        public Tensor @long() => To(ScalarType.Int64, null);
        public Tensor half() => To(ScalarType.Float16, null);
        public Tensor bfloat16() => To(ScalarType.BFloat16, null);
        public Tensor @float() => To(ScalarType.Float32, null);
        public Tensor @double() => To(ScalarType.Float64, null);

        /// <summary>Whether shapes and all elements are equal.</summary>
        public bool Equals(Tensor target) => target is not null && CheckBoolean(rho_equal(Handle, target.Handle), this, target);

        public override bool Equals(object? obj) => obj is Tensor tensor && Equals(tensor);

        public override int GetHashCode() => RuntimeHelpers.GetHashCode(this);

        public bool allclose(Tensor target, double rtol = 1e-05, double atol = 1e-08, bool equal_nan = false) =>
            target is not null && CheckBoolean(rho_allclose(Handle, target.Handle, rtol, atol, equal_nan ? 1 : 0), this, target);

        /// <summary>Shape, type and device.</summary>
        public override string ToString()
        {
            if (IsInvalid) return "";
            var text = new StringBuilder("[").AppendJoin('x', shape).Append("], type = ").Append(dtype).Append(", device = ").Append(device);
            return text.ToString();
        }

        internal void ValidateType(Type type)
        {
            var expected = dtype switch
            {
                ScalarType.Byte => typeof(byte),
                ScalarType.Int8 => typeof(sbyte),
                ScalarType.Int16 => typeof(short),
                ScalarType.Int32 => typeof(int),
                ScalarType.Int64 => typeof(long),
                ScalarType.Float16 => typeof(Half),
                ScalarType.Float32 => typeof(float),
                ScalarType.Float64 => typeof(double),
                ScalarType.Bool => typeof(bool),
                ScalarType.BFloat16 => typeof(BFloat16),
                _ => null,
            };
            if (type != expected) throw new ArgumentException($"{type.Name} is not compatible with {dtype}");
        }

        /// <summary>Keeps this tensor from being finalized while its handle is being read from.</summary>
        private T Kept<T>(T value)
        {
            GC.KeepAlive(this);
            return value;
        }

        /// <summary>The result of an in-place operation.</summary>
        private Tensor Self(int status)
        {
            if (status < 0) ThrowLastError();
            return this;
        }

        private Tensor Self(int status, object? first, object? second = null)
        {
            GC.KeepAlive(first);
            GC.KeepAlive(second);
            return Self(status);
        }

        private Tensor To(ScalarType? type, Device? device, bool copy = false, bool disposeAfter = false, bool non_blocking = false)
        {
            var result = Own(rho_to(Handle, TypeOrNone(type), device is null ? -1 : (int)device.type, device?.index ?? -1, non_blocking ? 1 : 0, copy ? 1 : 0), this);
            if (disposeAfter) Dispose();
            return result;
        }

        private unsafe void* ContiguousData()
        {
            if (!is_contiguous()) throw new InvalidOperationException("Bytes() called on non-contiguous tensor.");
            return CpuData();
        }

        internal unsafe void* CpuData()
        {
            if (device_type != DeviceType.CPU)
            {
                throw new InvalidOperationException("Reading data from non-CPU memory is not supported. Move or copy the tensor to the cpu before reading.");
            }

            var data = (void*)rho_data(Handle);
            GC.KeepAlive(this);
            return data;
        }

        private static void Count()
        {
            var count = Interlocked.Increment(ref _totalCount);
            if (count > _peakCount) Interlocked.Exchange(ref _peakCount, Math.Max(count, _peakCount));
        }

        private static void ThrowDisposed() => throw new ObjectDisposedException(nameof(Tensor));
    }
}

public static class TensorExtensionMethods
{
    public static bool ToBoolean(this Tensor value) => value.ToScalar().ToBoolean();
    public static byte ToByte(this Tensor value) => value.ToScalar().ToByte();
    public static sbyte ToSByte(this Tensor value) => value.ToScalar().ToSByte();
    public static short ToInt16(this Tensor value) => value.ToScalar().ToInt16();
    public static int ToInt32(this Tensor value) => value.ToScalar().ToInt32();
    public static long ToInt64(this Tensor value) => value.ToScalar().ToInt64();
    public static Half ToHalf(this Tensor value) => value.ToScalar().ToHalf();
    public static BFloat16 ToBFloat16(this Tensor value) => value.ToScalar().ToBFloat16();
    public static float ToSingle(this Tensor value) => value.ToScalar().ToSingle();
    public static double ToDouble(this Tensor value) => value.ToScalar().ToDouble();

    /// <summary>Bytes of an element.</summary>
    public static int ElementSize(this ScalarType type) => type switch
    {
        ScalarType.Byte or ScalarType.Int8 or ScalarType.Bool => 1,
        ScalarType.Int16 or ScalarType.Float16 or ScalarType.BFloat16 => 2,
        ScalarType.Int32 or ScalarType.Float32 => 4,
        ScalarType.Int64 or ScalarType.Float64 or ScalarType.ComplexFloat32 => 8,
        ScalarType.ComplexFloat64 => 16,
        _ => throw new NotImplementedException($"{type}"),
    };

    public static long TotalSize(this IEnumerable<long> shape) => shape.Aggregate(1L, (product, size) => product * size);

    /// <summary>The tensor as a parameter, which takes it over: the tensor itself is invalid afterwards.</summary>
    public static Modules.Parameter AsParameter(this Tensor tensor) => new(tensor);
}
