using TorchSharp;

namespace Rho.Model.Inference.Kernels;

/// <summary>A weight matrix [rows, columns] in memory, for <see cref="MatrixKernel{TFormat}"/>.</summary>
internal abstract unsafe class KernelMatrix(int rows, int columns) : IDisposable
{
    public int Rows { get; } = rows;

    public int Columns { get; } = columns;

    /// <summary>y[n, r] (+)= sum_k x[n, k] w[r, k] (+ bias[r]) for weight rows [first, last).</summary>
    public abstract void Multiply(int first, int last, float* x, nint xStride, int n, float* y, nint yStride, float* bias, bool accumulate);

    /// <summary>Copies one row as float32.</summary>
    public abstract void ReadRow(int row, float* target);

    public abstract void Dispose();

    /// <summary>A view of a contiguous float32 or bfloat16 tensor on the CPU, which has to outlive it.</summary>
    public static KernelMatrix View(torch.Tensor tensor)
    {
        var (rows, columns) = ((int)tensor.shape[0], (int)tensor.shape[1]);
        var data = Pointer(tensor);
        return tensor.dtype switch
        {
            torch.ScalarType.Float32 => new KernelMatrix<Float32Format>(rows, columns, data, null),
            torch.ScalarType.BFloat16 => new KernelMatrix<BFloat16Format>(rows, columns, data, null),
            _ => throw new RhoException($"the CPU kernels decode float32 and bfloat16 weights, not {tensor.dtype}"),
        };
    }

    /// <summary>An 8-bit copy of a tensor.</summary>
    public static KernelMatrix Quantize(torch.Tensor tensor, WorkerPool pool)
    {
        using var source = View(tensor);
        var rowBytes = Int8Format.RowBytes(source.Columns);
        var buffer = new NativeBuffer(rowBytes * source.Rows);
        pool.For(source.Rows, (_, row) =>
        {
            var values = new float[source.Columns];
            fixed (float* p = values) source.ReadRow(row, p);
            Int8Format.StoreRow(buffer.Bytes + (row * rowBytes), values);
        });
        return new KernelMatrix<Int8Format>(source.Rows, source.Columns, buffer.Bytes, buffer);
    }

    /// <summary>A vector as float32 in memory of its own; null for none.</summary>
    public static NativeBuffer? Vector(torch.Tensor? tensor)
    {
        if (tensor is null) return null;
        using var source = View(tensor.reshape(1, -1));
        var buffer = new NativeBuffer((long)source.Columns * sizeof(float));
        source.ReadRow(0, buffer.Floats);
        return buffer;
    }

    private static byte* Pointer(torch.Tensor tensor)
    {
        if (!tensor.is_contiguous()) throw new ArgumentException("a contiguous tensor was expected", nameof(tensor));

        // Spans end at 2 GiB; the first element's address is all that is needed.
        using var start = tensor.reshape(-1).narrow(0, 0, 1);
        fixed (byte* p = start.bytes) return p;
    }
}

internal sealed unsafe class KernelMatrix<TFormat>(int rows, int columns, byte* data, NativeBuffer? owned) : KernelMatrix(rows, columns)
    where TFormat : struct, INumberFormat
{
    private readonly byte* _data = data;
    private readonly nint _rowBytes = TFormat.RowBytes(columns);

    public override void Multiply(int first, int last, float* x, nint xStride, int n, float* y, nint yStride, float* bias, bool accumulate) =>
        MatrixKernel<TFormat>.Multiply(_data, _rowBytes, first, last, Columns, x, xStride, n, y, yStride, bias, accumulate);

    public override void ReadRow(int row, float* target)
    {
        var source = _data + (row * _rowBytes);
        for (var i = 0; i < Columns; i++) target[i] = TFormat.LoadOne(source, i);
    }

    public override void Dispose() => owned?.Dispose();
}
