using System.Runtime.InteropServices;
using TorchSharp.Native;
using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

public static partial class torch
{
    public static readonly ScalarType uint8 = ScalarType.Byte;
    public static readonly ScalarType int8 = ScalarType.Int8;
    public static readonly ScalarType int16 = ScalarType.Int16;
    public static readonly ScalarType @short = ScalarType.Int16;
    public static readonly ScalarType int32 = ScalarType.Int32;
    public static readonly ScalarType @int = ScalarType.Int32;
    public static readonly ScalarType int64 = ScalarType.Int64;
    public static readonly ScalarType @long = ScalarType.Int64;
    public static readonly ScalarType float16 = ScalarType.Float16;
    public static readonly ScalarType half = ScalarType.Float16;
    public static readonly ScalarType float32 = ScalarType.Float32;
    public static readonly ScalarType @float = ScalarType.Float32;
    public static readonly ScalarType float64 = ScalarType.Float64;
    public static readonly ScalarType @double = ScalarType.Float64;
    public static readonly ScalarType bfloat16 = ScalarType.BFloat16;
    public static readonly ScalarType @bool = ScalarType.Bool;

    /// <summary>Of the libtorch that the native library was built with.</summary>
    public static unsafe string __version__ => Marshal.PtrToStringUTF8((nint)rho_torch_version())!;

    /// <summary>Tensors that the calling thread makes until the scope is disposed die with it.</summary>
    public static DisposeScope NewDisposeScope() => DisposeScopeManager.ThreadSingleton.NewDisposeScope();

    public static DisposeScope? CurrentDisposeScope => DisposeScopeManager.ThreadSingleton.CurrentDisposeScope;

    public static int get_num_threads() => rho_get_num_threads();
    public static void set_num_threads(int num) => Interop.Check(rho_set_num_threads(num));
    public static int get_num_interop_threads() => rho_get_num_interop_threads();

    /// <exception cref="ExternalException">Parallel work has started, or the number was set before.</exception>
    public static void set_num_interop_threads(int num) => Interop.Check(rho_set_num_interop_threads(num));

    public static ScalarType get_default_dtype() => (ScalarType)rho_default_dtype();

    public static void set_default_dtype(ScalarType dtype)
    {
        if (!is_floating_point(dtype)) throw new ArgumentException($"The default type must be a floating-point type, not {dtype}.", nameof(dtype));
        rho_set_default_dtype((int)dtype);
    }

    public static bool is_floating_point(ScalarType type) =>
        type is ScalarType.Float16 or ScalarType.BFloat16 or ScalarType.Float32 or ScalarType.Float64;

    public static bool is_integral(ScalarType type) =>
        type is ScalarType.Byte or ScalarType.Int8 or ScalarType.Int16 or ScalarType.Int32 or ScalarType.Int64;

    public static bool is_complex(ScalarType type) => type is ScalarType.ComplexFloat32 or ScalarType.ComplexFloat64;

    public static bool is_tensor(object obj) => obj is Tensor;

    public static ScalarType result_type(Tensor tensor1, Tensor tensor2)
    {
        var type = rho_result_type(tensor1.Handle, tensor2.Handle);
        Interop.Check(type, tensor1, tensor2);
        return (ScalarType)type;
    }

    public static ScalarType promote_types(ScalarType type1, ScalarType type2) =>
        (ScalarType)rho_promote_types((int)type1, (int)type2);

    public static bool can_cast(ScalarType from, ScalarType to) => rho_can_cast((int)from, (int)to) != 0;

    public static bool cuda_is_available() => cuda.is_available();

    public static bool is_grad_enabled() => rho_grad_enabled() != 0;

    /// <summary>Operations record no graph on the calling thread until the result is disposed.</summary>
    public static IDisposable no_grad() => new GradMode(false);

    public static IDisposable enable_grad(bool enabled = true) => new GradMode(enabled);
    public static IDisposable set_grad_enabled(bool mode = true) => new GradMode(mode);

    public static bool is_inference_mode_enabled() => rho_inference_mode_enabled() != 0;

    /// <summary>
    /// As <see cref="no_grad"/>, and tensors made inside can never take part in a graph. To be disposed on the same thread.
    /// </summary>
    public static IDisposable inference_mode(bool mode = true) => new InferenceMode(mode);

    /// <summary>The limits of a floating-point type.</summary>
    public struct FInfo
    {
        public int bits;
        public double eps;
        public double max;
        public double min;
        public double resolution;
        public double smallest_normal;
        public double tiny;
    }

    public static FInfo finfo() => finfo(get_default_dtype());

    public static FInfo finfo(ScalarType dtype) => dtype switch
    {
        ScalarType.Float16 => Limits(16, 9.765625e-04, 65504, 6.103515625e-05, 1e-3),
        ScalarType.BFloat16 => Limits(16, 0.0078125, 3.3895313892515355e+38, 1.1754943508222875e-38, 1e-2),
        ScalarType.Float32 => Limits(32, 1.1920928955078125e-07, float.MaxValue, 1.1754943508222875e-38, 1e-6),
        ScalarType.Float64 => Limits(64, 2.220446049250313e-16, double.MaxValue, 2.2250738585072014e-308, 1e-15),
        _ => throw new ArgumentException($"'dtype' must be a floating-point type, not {dtype}.", nameof(dtype)),
    };

    private static FInfo Limits(int bits, double eps, double max, double tiny, double resolution) => new()
    {
        bits = bits,
        eps = eps,
        max = max,
        min = -max,
        tiny = tiny,
        smallest_normal = tiny,
        resolution = resolution,
    };

    public static partial class cuda
    {
        public static bool is_available() => rho_cuda_is_available() != 0 && rho_cuda_device_count() > 0;
        public static bool is_cudnn_available() => rho_cudnn_is_available() != 0;
        public static int device_count() => rho_cuda_device_count();
        public static void manual_seed(long seed) => Interop.Check(rho_cuda_manual_seed((ulong)seed, all: 0));
        public static void manual_seed_all(long seed) => Interop.Check(rho_cuda_manual_seed((ulong)seed, all: 1));

        /// <summary>Waits until the device has done all it was given.</summary>
        public static void synchronize(Device? device = null) => Interop.Check(rho_cuda_synchronize(device?.index ?? -1));
    }

    public static partial class backends
    {
        public static partial class cuda
        {
            public static partial class matmul
            {
                public static bool allow_tf32
                {
                    get => rho_get_allow_tf32_cublas() != 0;
                    set => Interop.Check(rho_set_allow_tf32_cublas(value ? 1 : 0));
                }
            }
        }

        public static partial class cudnn
        {
            public static bool allow_tf32
            {
                get => rho_get_allow_tf32_cudnn() != 0;
                set => Interop.Check(rho_set_allow_tf32_cudnn(value ? 1 : 0));
            }
        }
    }
}

internal sealed class GradMode : IDisposable
{
    private readonly int _previous = rho_grad_enabled();

    internal GradMode(bool enabled) => rho_set_grad_enabled(enabled ? 1 : 0);

    public void Dispose() => rho_set_grad_enabled(_previous);
}

internal sealed class InferenceMode(bool enabled) : IDisposable
{
    private nint _guard = rho_inference_mode_enter(enabled ? 1 : 0);

    public void Dispose()
    {
        if (_guard != 0) rho_inference_mode_leave(_guard);
        _guard = 0;
    }
}

/// <summary>While it lives, backward passes report which forward operation an error or a NaN came from.</summary>
public class AnomalyMode : IDisposable
{
    private readonly bool _wasEnabled = IsEnabled;
    private readonly bool _checkedNaN = ShouldCheckNaN;

    public AnomalyMode(bool enabled, bool check_nan = true) => rho_set_anomaly(enabled ? 1 : 0, check_nan ? 1 : 0);

    public static bool IsEnabled => rho_anomaly_enabled() != 0;
    public static bool ShouldCheckNaN => rho_anomaly_check_nan() != 0;

    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    protected virtual void Dispose(bool disposing) => rho_set_anomaly(_wasEnabled ? 1 : 0, _checkedNaN ? 1 : 0);
}
