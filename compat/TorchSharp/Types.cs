using static TorchSharp.Native;

namespace TorchSharp;

public enum DeviceType
{
    CPU = 0,
    CUDA = 1,
}

/// <summary>A number on its way into an operator.</summary>
public sealed class Scalar : IDisposable
{
    private Scalar(Kind kind, long integer, double real, torch.ScalarType type) => (Kind, Integer, Real, Type) = (kind, integer, real, type);

    internal Kind Kind { get; }
    internal long Integer { get; }
    internal double Real { get; }

    public torch.ScalarType Type { get; }

    public void Dispose() { }

    public static implicit operator Scalar(byte value) => new(Kind.Int, value, value, torch.ScalarType.Byte);
    public static implicit operator Scalar(int value) => new(Kind.Int, value, value, torch.ScalarType.Int32);
    public static implicit operator Scalar(long value) => new(Kind.Int, value, value, torch.ScalarType.Int64);
    public static implicit operator Scalar(float value) => new(Kind.Double, 0, value, torch.ScalarType.Float32);
    public static implicit operator Scalar(double value) => new(Kind.Double, 0, value, torch.ScalarType.Float64);
    public static implicit operator Scalar(bool value) => new(Kind.Bool, value ? 1 : 0, value ? 1 : 0, torch.ScalarType.Bool);
}

public static partial class torch
{
    public enum ScalarType : sbyte
    {
        Byte = 0,
        Int8 = 1,
        Int16 = 2,
        Int32 = 3,
        Int64 = 4,
        Float16 = 5,
        Float32 = 6,
        Float64 = 7,
        Bool = 11,
        BFloat16 = 15,
    }

    public enum RoundingMode
    {
        None = 0,
        trunc = 1,
        floor = 2,
    }

    public sealed class Device
    {
        public Device(DeviceType deviceType, int index = -1) => (type, this.index) = (deviceType, index);

        public Device(string description)
        {
            var parts = description.Split(':');
            type = parts[0] switch
            {
                "cpu" => DeviceType.CPU,
                "cuda" => DeviceType.CUDA,
                _ => throw new ArgumentException($"unknown device '{description}': use cpu, cuda or cuda:N", nameof(description)),
            };
            index = -1;
            if (parts.Length > 2 || (parts.Length == 2 && (!int.TryParse(parts[1], out var number) || (index = number) < 0)))
                throw new ArgumentException($"unknown device '{description}': use cpu, cuda or cuda:N", nameof(description));
        }

        public DeviceType type { get; }
        public int index { get; }

        internal long Code => ((long)type << 8) | (byte)(type == DeviceType.CUDA && index < 0 ? 0 : index);

        public override string ToString() => (type == DeviceType.CPU ? "cpu" : "cuda") + (index < 0 ? "" : ":" + index);

        public static implicit operator Device(string description) => new(description);
    }

    /// <summary>A source of random numbers with its own state.</summary>
    public sealed class Generator : IDisposable
    {
        private nint _handle;

        public Generator(ulong seed = 0, Device? device = null)
        {
            this.device = device ?? CPU;
            _handle = rt_generator(this.device.Code, seed);
            if (_handle == 0) throw Error();
        }

        internal Generator(nint handle) => (_handle, device) = (handle, CPU);

        ~Generator() => Free();

        public nint Handle => _handle != 0 ? _handle : throw new ObjectDisposedException(nameof(Generator));
        public Device device { get; }

        public Generator manual_seed(long seed)
        {
            rt_generator_seed(Handle, (ulong)seed);
            return this;
        }

        public long initial_seed() => (long)rt_generator_initial_seed(Handle);
        public Tensor get_state() => Tensor.FromHandle(rt_generator_state(Handle));
        public void set_state(Tensor value) => Check(rt_generator_set_state(Handle, value.Handle));

        public void Dispose()
        {
            Free();
            GC.SuppressFinalize(this);
        }

        private void Free()
        {
            var handle = Interlocked.Exchange(ref _handle, 0);
            if (handle != 0) rt_generator_free(handle);
        }
    }

    /// <summary>One element of an indexing expression.</summary>
    public struct TensorIndex
    {
        internal enum IndexKind { None, Ellipsis, Single, Slice, Tensor }

        internal IndexKind What;
        internal long? Start;
        internal long? Stop;
        internal long? Step;
        internal Tensor? Indices;

        public static TensorIndex None = new() { What = IndexKind.None };
        public static TensorIndex Ellipsis = new() { What = IndexKind.Ellipsis };
        public static TensorIndex Colon = new() { What = IndexKind.Slice };

        public static TensorIndex Single(long? index) => new() { What = IndexKind.Single, Start = index };
        public static TensorIndex Slice(long? start = null, long? stop = null, long? step = null) => new() { What = IndexKind.Slice, Start = start, Stop = stop, Step = step };
        public static TensorIndex Slice(Range range) => range;
        public static TensorIndex Tensor(Tensor tensor) => new() { What = IndexKind.Tensor, Indices = tensor };

        public static implicit operator TensorIndex(long value) => Single(value);
        public static implicit operator TensorIndex(Range range) =>
            Slice(range.Start.IsFromEnd ? -range.Start.Value : range.Start.Value, !range.End.IsFromEnd ? range.End.Value : range.End.Value == 0 ? null : -range.End.Value);
    }
}
