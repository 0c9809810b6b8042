namespace Rho.Formats;

/// <summary>A file of named tensors that is mapped into memory and read part by part.</summary>
public interface ITensorFile : IDisposable
{
    string Path { get; }

    IReadOnlyDictionary<string, TensorEntry> Tensors { get; }

    /// <summary>Copies part of a tensor, its elements in row-major order.</summary>
    /// <param name="start">Byte within the tensor, a multiple of the element size; <paramref name="target"/> has whole elements too.</param>
    /// <exception cref="RhoException">The file has no such tensor.</exception>
    void Read(string name, long start, Span<byte> target);
}
