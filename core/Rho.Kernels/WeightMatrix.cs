namespace Rho.Kernels;

/// <summary>A weight matrix [rows, columns] in memory, for <see cref="MatrixKernel{TFormat}"/>.</summary>
public abstract unsafe class WeightMatrix(int rows, int columns) : IDisposable
{
    public int Rows { get; } = rows;

    public int Columns { get; } = columns;

    /// <summary>y[n, r] (+)= sum_k x[n, k] w[r, k] (+ bias[r]) for weight rows [first, last).</summary>
    public abstract void Multiply(int first, int last, float* x, nint xStride, int n, float* y, nint yStride, float* bias, bool accumulate);

    /// <summary>Copies one row as float32.</summary>
    public abstract void ReadRow(int row, float* target);

    public abstract void Dispose();

    /// <summary>A view of rows that lie one after another, in memory that has to outlive it.</summary>
    public static WeightMatrix View<TFormat>(void* data, int rows, int columns) where TFormat : struct, INumberFormat => new WeightMatrix<TFormat>(rows, columns, (byte*)data, null);

    /// <summary>An 8-bit copy.</summary>
    public static WeightMatrix Quantize(WeightMatrix source, WorkerPool pool)
    {
        var rowBytes = Int8.RowBytes(source.Columns);
        var buffer = new NativeBuffer((long)rowBytes * source.Rows);
        pool.For(source.Rows, (_, row) =>
        {
            var values = new float[source.Columns];
            fixed (float* p = values) source.ReadRow(row, p);
            Int8.StoreRow(buffer.Bytes + (row * rowBytes), values);
        });
        return new WeightMatrix<Int8>(source.Rows, source.Columns, buffer.Bytes, buffer);
    }
}

internal sealed unsafe class WeightMatrix<TFormat>(int rows, int columns, byte* data, NativeBuffer? owned) : WeightMatrix(rows, columns) where TFormat : struct, INumberFormat
{
    private readonly byte* _data = data;
    private readonly nint _rowBytes = TFormat.RowBytes(columns);

    public override void Multiply(int first, int last, float* x, nint xStride, int n, float* y, nint yStride, float* bias, bool accumulate) =>
        MatrixKernel<TFormat>.Multiply(_data, _rowBytes, first, last, Columns, x, xStride, n, y, yStride, bias, accumulate);

    public override void ReadRow(int row, float* target)
    {
        var source = _data + (row * _rowBytes);
        for (var i = 0; i < Columns; i++) target[i] = TFormat.Get(source, i);
    }

    public override void Dispose() => owned?.Dispose();
}
