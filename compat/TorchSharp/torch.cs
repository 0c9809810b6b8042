using System.Runtime.InteropServices;
using static TorchSharp.Native;

namespace TorchSharp;

public static partial class torch
{
    public static Device CPU = new(DeviceType.CPU);

    public static ScalarType float32 = ScalarType.Float32;
    public static ScalarType float64 = ScalarType.Float64;
    public static ScalarType float16 = ScalarType.Float16;
    public static ScalarType bfloat16 = ScalarType.BFloat16;
    public static ScalarType int64 = ScalarType.Int64;
    public static ScalarType int32 = ScalarType.Int32;
    public static ScalarType int16 = ScalarType.Int16;
    public static ScalarType int8 = ScalarType.Int8;
    public static ScalarType uint8 = ScalarType.Byte;
    public static ScalarType @bool = ScalarType.Bool;

    public static string __version__ => Marshal.PtrToStringUTF8(rt_version())!;

    public static DisposeScope NewDisposeScope() => DisposeScopeManager.ForThread.Open();
    public static DisposeScope? CurrentDisposeScope => DisposeScopeManager.ForThread.Current;

    public static IDisposable no_grad() => new GradMode(false);
    public static IDisposable enable_grad(bool enabled = true) => new GradMode(enabled);
    public static IDisposable set_grad_enabled(bool mode = true) => new GradMode(mode);
    public static IDisposable inference_mode(bool mode = true) => new InferenceMode(mode);
    public static bool is_grad_enabled() => rt_grad_mode() != 0;
    public static bool is_inference_mode_enabled() => rt_inference_mode() != 0;

    public static int get_num_threads() => rt_threads();
    public static void set_num_threads(int num) => rt_set_threads(num);
    public static void set_num_interop_threads(int num) => Check(rt_set_interop_threads(num));

    public static Generator manual_seed(long seed) => rt_manual_seed(seed) is var handle and not 0 ? new Generator(handle) : throw Error();


    public static Tensor zeros(long[] size, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, string[]? names = null) =>
        Made(Op.zeros.Call(size, dtype, Arg.None, device, Arg.None), requires_grad);

    public static Tensor ones(long[] size, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, string[]? names = null) =>
        Made(Op.ones.Call(size, dtype, Arg.None, device, Arg.None), requires_grad);

    public static Tensor empty(long[] size, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, string[]? names = null) =>
        Made(Op.empty__memory_format.Call(size, dtype, Arg.None, device, Arg.None, Arg.None), requires_grad);

    public static Tensor full(long[] size, Scalar value, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, string[]? names = null) =>
        Made(Op.full.Call(size, value, dtype, Arg.None, device, Arg.None), requires_grad);

    public static Tensor rand(long[] size, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, Generator? generator = null, string[]? names = null) =>
        Made(generator is null ? Op.rand.Call(size, dtype, Arg.None, device, Arg.None) : Op.rand__generator.Call(size, generator, dtype, Arg.None, device, Arg.None), requires_grad);

    public static Tensor randn(long[] size, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, Generator? generator = null, string[]? names = null) =>
        Made(generator is null ? Op.randn.Call(size, dtype, Arg.None, device, Arg.None) : Op.randn__generator.Call(size, generator, dtype, Arg.None, device, Arg.None), requires_grad);

    public static Tensor randint(long low, long high, long[] size, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, Generator? generator = null, string[]? names = null) =>
        Made(generator is null ? Op.randint__low.Call(low, high, size, dtype ?? ScalarType.Int64, Arg.None, device, Arg.None)
            : Op.randint__low_generator.Call(low, high, size, generator, dtype ?? ScalarType.Int64, Arg.None, device, Arg.None), requires_grad);

    public static Tensor arange(Scalar stop, ScalarType? dtype = null, Device? device = null, bool requires_grad = false) =>
        Made(Op.arange.Call(stop, dtype, Arg.None, device, Arg.None), requires_grad);

    public static Tensor arange(Scalar start, Scalar stop, ScalarType? dtype = null, Device? device = null, bool requires_grad = false) =>
        Made(Op.arange__start.Call(start, stop, dtype, Arg.None, device, Arg.None), requires_grad);

    public static Tensor arange(Scalar start, Scalar stop, Scalar step, ScalarType? dtype = null, Device? device = null, bool requires_grad = false) =>
        Made(Op.arange__start_step.Call(start, stop, step, dtype, Arg.None, device, Arg.None), requires_grad);

    public static Tensor zeros_like(Tensor input, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, string[]? names = null) =>
        Made(Op.zeros_like.Call(input, dtype, Arg.None, device, Arg.None, Arg.None), requires_grad);

    public static Tensor ones_like(Tensor input, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, string[]? names = null) =>
        Made(Op.ones_like.Call(input, dtype, Arg.None, device, Arg.None, Arg.None), requires_grad);

    public static Tensor empty_like(Tensor input, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, string[]? names = null) =>
        Made(Op.empty_like.Call(input, dtype, Arg.None, device, Arg.None, Arg.None), requires_grad);

    public static Tensor tensor(float scalar, Device? device = null, bool requires_grad = false) => From([scalar], [], null, device, requires_grad);
    public static Tensor tensor(double scalar, ScalarType? dtype = null, Device? device = null, bool requires_grad = false) => From([scalar], [], dtype, device, requires_grad);
    public static Tensor tensor(long scalar, ScalarType? dtype = null, Device? device = null, bool requires_grad = false) => From([scalar], [], dtype, device, requires_grad);
    public static Tensor tensor(int scalar, Device? device = null, bool requires_grad = false) => From([scalar], [], null, device, requires_grad);
    public static Tensor tensor(bool scalar, ScalarType? dtype = null, Device? device = null, bool requires_grad = false) => From([scalar], [], dtype, device, requires_grad);

    public static Tensor tensor(float[] rawArray, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, string[]? names = null) => From(rawArray, [rawArray.Length], dtype, device, requires_grad);
    public static Tensor tensor(double[] rawArray, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, string[]? names = null) => From(rawArray, [rawArray.Length], dtype, device, requires_grad);
    public static Tensor tensor(IList<long> rawArray, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, string[]? names = null) => From(rawArray as long[] ?? [.. rawArray], [rawArray.Count], dtype, device, requires_grad);
    public static Tensor tensor(int[] rawArray, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, string[]? names = null) => From(rawArray, [rawArray.Length], dtype, device, requires_grad);
    public static Tensor tensor(bool[] rawArray, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, string[]? names = null) => From(rawArray, [rawArray.Length], dtype, device, requires_grad);

    public static Tensor tensor(float[] rawArray, ReadOnlySpan<long> dimensions, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, string[]? names = null) => From(rawArray, dimensions, dtype, device, requires_grad);
    public static Tensor tensor(double[] rawArray, ReadOnlySpan<long> dimensions, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, string[]? names = null) => From(rawArray, dimensions, dtype, device, requires_grad);
    public static Tensor tensor(IList<long> rawArray, ReadOnlySpan<long> dimensions, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, string[]? names = null) => From(rawArray as long[] ?? [.. rawArray], dimensions, dtype, device, requires_grad);
    public static Tensor tensor(int[] rawArray, ReadOnlySpan<long> dimensions, ScalarType? dtype = null, Device? device = null, bool requires_grad = false, string[]? names = null) => From(rawArray, dimensions, dtype, device, requires_grad);

    private static unsafe Tensor From<T>(T[] values, ReadOnlySpan<long> dimensions, ScalarType? dtype, Device? device, bool requires_grad) where T : unmanaged
    {
        var type = ElementTypes.Of<T>();
        nint handle;
        fixed (T* p = values)
        fixed (long* sizes = dimensions)
            handle = rt_from_bytes(p, (long)values.Length * sizeof(T), sizes, dimensions.Length, (sbyte)type);
        var made = Tensor.FromHandle(handle);
        if ((dtype is not null && dtype != type) || (device is not null && device.type != DeviceType.CPU))
        {
            using var source = made;
            made = source.to(dtype ?? type, device ?? CPU);
        }

        return Made(made, requires_grad);
    }

    private static Tensor Made(Tensor tensor, bool requires_grad) => requires_grad ? tensor.requires_grad_() : tensor;

    public static Tensor cat(IList<Tensor> tensors, long dim = 0) => Op.cat.Call(tensors.ToArray(), dim);
    public static Tensor stack(IEnumerable<Tensor> tensors, long dim = 0) => Op.stack.Call(tensors.ToArray(), dim);
    public static Tensor where(Tensor condition, Tensor x, Tensor y) => Op.where__self.Call(condition, x, y);
    public static Tensor matmul(Tensor input, Tensor target) => input.matmul(target);
    public static Tensor mm(Tensor input, Tensor target) => input.mm(target);
    public static Tensor outer(Tensor input, Tensor vec2) => Op.outer.Call(input, vec2);
    public static Tensor einsum(string equation, params Tensor[] tensors) => Op.einsum.Call(equation, tensors, Arg.None);
    public static Tensor sqrt(Tensor input) => input.sqrt();
    public static Tensor rsqrt(Tensor input) => input.rsqrt();
    public static Tensor exp(Tensor input) => input.exp();
    public static Tensor log(Tensor input) => input.log();
    public static Tensor sigmoid(Tensor input) => input.sigmoid();
    public static Tensor cos(Tensor input) => input.cos();
    public static Tensor sin(Tensor input) => input.sin();
    public static Tensor minimum(Tensor input, Tensor other) => input.minimum(other);
    public static Tensor maximum(Tensor input, Tensor other) => input.maximum(other);
    public static Tensor softmax(Tensor input, int dim, ScalarType? dtype = null) => input.softmax(dim, dtype);
    public static Tensor argmax(Tensor input, long dim, bool keepdim = false) => input.argmax(dim, keepdim);

    public static class random
    {
        public static Generator manual_seed(long seed) => torch.manual_seed(seed);
    }

    public static class cuda
    {
        public static bool is_available() => device_count() > 0;
        public static int device_count() => rt_cuda_devices();
        public static void synchronize(Device? device = null) => Check(rt_cuda_synchronize(device?.index is > 0 and var index ? index : 0));
    }

    public static class linalg
    {
        public static Tensor vector_norm(Tensor input, double ord = 2, long[]? dims = null, bool keepdim = false) =>
            Op.linalg_vector_norm.Call(input, ord, dims is null ? Arg.None : dims, keepdim, Arg.None);
    }

    private sealed class GradMode : IDisposable
    {
        private readonly int _before;
        internal GradMode(bool on) => _before = rt_set_grad_mode(on ? 1 : 0);
        public void Dispose() => rt_set_grad_mode(_before);
    }

    private sealed class InferenceMode : IDisposable
    {
        private nint _guard;
        internal InferenceMode(bool on) => _guard = rt_inference_enter(on ? 1 : 0);

        public void Dispose()
        {
            var guard = Interlocked.Exchange(ref _guard, 0);
            if (guard != 0) rt_inference_leave(guard);
        }
    }
}
