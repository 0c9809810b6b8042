namespace TorchSharp.Utils;

/// <summary>Typed access to the elements of a CPU tensor, in row-major order whatever its strides.</summary>
public sealed class TensorAccessor<T> : IDisposable where T : unmanaged
{
    private readonly torch.Tensor _tensor;

    internal TensorAccessor(torch.Tensor tensor) => _tensor = tensor;

    public long Count => _tensor.NumberOfElements;

    public unsafe T[] ToArray()
    {
        using var dense = _tensor.is_contiguous() ? null : _tensor.contiguous();
        return new ReadOnlySpan<T>((void*)(dense ?? _tensor).DataPointer, checked((int)Count)).ToArray();
    }

    public void CopyTo(T[] array, int arrayIndex = 0, long tensorIndex = 0) => CopyTo(array.AsSpan(), arrayIndex, tensorIndex);

    public unsafe void CopyTo(Span<T> array, int arrayIndex = 0, long tensorIndex = 0)
    {
        using var dense = _tensor.is_contiguous() ? null : _tensor.contiguous();
        new ReadOnlySpan<T>((T*)(dense ?? _tensor).DataPointer + tensorIndex, (int)Math.Min(array.Length - arrayIndex, Count - tensorIndex)).CopyTo(array[arrayIndex..]);
    }

    public void CopyFrom(T[] array, int arrayIndex = 0, long tensorIndex = 0) => CopyFrom((ReadOnlySpan<T>)array, arrayIndex, tensorIndex);

    public unsafe void CopyFrom(ReadOnlySpan<T> array, int arrayIndex = 0, long tensorIndex = 0)
    {
        if (!_tensor.is_contiguous()) throw new InvalidOperationException("elements are written to contiguous tensors only");
        array = array[arrayIndex..];
        if (array.Length > Count - tensorIndex) array = array[..(int)(Count - tensorIndex)];
        array.CopyTo(new Span<T>((T*)_tensor.DataPointer + tensorIndex, array.Length));
    }

    public unsafe T this[params long[] indices]
    {
        get => *Address(indices);
        set => *Address(indices) = value;
    }

    private unsafe T* Address(long[] indices)
    {
        var (shape, stride) = (_tensor.shape, _tensor.stride());
        if (indices.Length != shape.Length) throw new ArgumentException($"{indices.Length} indices for {shape.Length} dimensions");
        var offset = 0L;
        for (var d = 0; d < shape.Length; d++)
        {
            if ((ulong)indices[d] >= (ulong)shape[d]) throw new IndexOutOfRangeException($"index {indices[d]} is outside dimension {d} of size {shape[d]}");
            offset += indices[d] * stride[d];
        }

        return (T*)_tensor.DataPointer + offset;
    }

    public void Dispose() { }
}
