using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Rho.Kernels;
using Rho.Model.Architectures;
using Rho.Model.Training;
using static TorchSharp.torch;
using Attention = Rho.Kernels.Attention;

namespace Rho.Model;

/// <summary>The kernels of <see cref="Rho.Kernels"/> for CPU tensors of an element type: the one place where tensors become pointers. Shapes are as the kernels say.</summary>
internal abstract unsafe class CpuKernels
{
    private static readonly CpuKernels s_float32 = new CpuKernels<Float32>(), s_bfloat16 = new CpuKernels<BFloat16>();

    /// <summary>Those for the tensor's element type.</summary>
    internal static CpuKernels Of(Tensor tensor) => tensor.dtype == ScalarType.Float32 ? s_float32 : s_bfloat16;

    /// <summary>Whether kernels can take the tensor as it is.</summary>
    internal static bool Fit(Tensor tensor) =>
        tensor.device_type == TorchSharp.DeviceType.CPU && tensor.dtype is ScalarType.Float32 or ScalarType.BFloat16 && tensor.NumberOfElements * tensor.ElementSize <= int.MaxValue;

    internal static bool FitAttention(AttentionSpec spec, Tensor qkv) => AttentionShape.Fits(spec.HeadSize, spec.Rotation?.Size ?? 0) && Fit(qkv);

    internal static bool FitRowSum(Tensor sum, Tensor part) => Fit(sum) && Fit(part) && sum.size(1) % 16 == 0 && sum.is_contiguous() && part.is_contiguous();

    internal abstract void RmsNorm(Tensor x, Tensor weight, Tensor y, Norm norm);

    /// <returns>the gradient of x</returns>
    internal abstract Tensor RmsNormGradient(Tensor x, Tensor weight, Tensor gradient, Norm norm, Tensor sum);

    /// <param name="y">its rows may be apart</param>
    internal abstract void Gate(Tensor gateUp, Activation activation, Tensor y);

    internal abstract void GateGradient(Tensor gateUp, Tensor gradient, Activation activation);

    /// <param name="logSums">[P, N], or null</param>
    internal abstract void Attend(AttentionPieces pieces, Tensor qkv, Tensor? earlier, Tensor attended, Tensor? logSums);

    /// <summary>The gradients of queries, [moved, N * H], and of keys and values, [seen, 2 K * H]; where the rows are the same, both in one: [moved, (N + 2 K) * H].</summary>
    /// <param name="qkv">freed where the gradients take its place</param>
    /// <param name="moved">the rows of the gradient</param>
    /// <param name="seen">the rows that these see</param>
    internal abstract (Tensor Queries, Tensor? KeysValues) AttentionGradient(AttentionRows rows, Value qkv, Tensor output, Tensor logSums, Tensor gradient, RowSet moved, RowSet seen);

    internal abstract void Add(RunningSoftmax softmax, Tensor logits, long first);

    internal abstract void Gather(Tensor logits, long first, ReadOnlySpan<int> ids, Span<float> values);

    internal abstract void CrossEntropyGradient(CrossEntropy loss, Tensor logits, long first, long[] targets, float[] logSums, float[] weights);

    /// <summary>sum += part, of this type</summary>
    internal abstract void AddTo(Tensor sum, Tensor part);

    /// <summary>sum[rows[i]] += part[i], the sum of this type. [N, D], [n] of int64, [n, D]</summary>
    internal abstract void AddRows(Tensor sum, Tensor rows, Tensor part);

    /// <summary>A view of a contiguous float32 or bfloat16 matrix, which has to outlive it.</summary>
    internal static WeightMatrix Matrix(Tensor tensor)
    {
        var (rows, columns, data) = ((int)tensor.size(0), (int)tensor.size(1), FlatMemory.Address(tensor));
        return tensor.dtype switch
        {
            ScalarType.Float32 => WeightMatrix.View<Float32>((void*)data, rows, columns),
            ScalarType.BFloat16 => WeightMatrix.View<BFloat16>((void*)data, rows, columns),
            _ => throw new RhoException($"the CPU kernels decode float32 and bfloat16 weights, not {tensor.dtype}"),
        };
    }

    /// <summary>A vector as float32 in memory of its own.</summary>
    internal static NativeBuffer Vector(Tensor tensor)
    {
        using var row = tensor.reshape(1, -1);
        using var source = Matrix(row);
        var buffer = new NativeBuffer((long)source.Columns * sizeof(float));
        source.ReadRow(0, buffer.Floats);
        return buffer;
    }

    /// <summary>The first element of a contiguous tensor.</summary>
    private protected static void* Pointer(Tensor tensor)
    {
        if (!tensor.is_contiguous()) throw new ArgumentException("kernels take contiguous tensors");
        return Unsafe.AsPointer(ref MemoryMarshal.GetReference(tensor.bytes));
    }
}

internal sealed unsafe class CpuKernels<T> : CpuKernels where T : struct, IWritableFormat
{
    private static int Threads => get_num_threads();

    internal override void RmsNorm(Tensor x, Tensor weight, Tensor y, Norm norm) =>
        Rho.Kernels.RmsNorm.Forward<T>(Pointer(x), Pointer(weight), Pointer(y), x.NumberOfElements / norm.Width, (int)norm.Width, norm.Epsilon, norm.Shift, Threads);

    internal override Tensor RmsNormGradient(Tensor x, Tensor weight, Tensor gradient, Norm norm, Tensor sum)
    {
        var dx = empty_like(x);
        Rho.Kernels.RmsNorm.Backward<T>(
            Pointer(x), Pointer(weight), Pointer(gradient), Pointer(dx), (float*)Pointer(sum), x.NumberOfElements / norm.Width, (int)norm.Width, norm.Epsilon, norm.Shift, Threads);
        return dx;
    }

    internal override void Gate(Tensor gateUp, Activation activation, Tensor y)
    {
        var (rows, width, stride) = (y.size(0), (int)y.size(1), y.stride(0));
        var to = (void*)FlatMemory.First(y);
        if (activation == Activation.Silu) Gates.Forward<T, Silu>(Pointer(gateUp), to, rows, width, stride, Threads);
        else Gates.Forward<T, GeluTanh>(Pointer(gateUp), to, rows, width, stride, Threads);
    }

    internal override void GateGradient(Tensor gateUp, Tensor gradient, Activation activation)
    {
        var (rows, width) = (gradient.size(0), (int)gradient.size(1));
        if (activation == Activation.Silu) Gates.Backward<T, Silu>(Pointer(gateUp), Pointer(gradient), rows, width, Threads);
        else Gates.Backward<T, GeluTanh>(Pointer(gateUp), Pointer(gradient), rows, width, Threads);
    }

    internal override void Attend(AttentionPieces pieces, Tensor qkv, Tensor? earlier, Tensor attended, Tensor? logSums) =>
        Attention.Forward<T>(pieces.Shape, pieces.Pieces, Pointer(qkv), earlier is null ? null : Pointer(earlier), Pointer(attended), logSums is null ? null : (float*)Pointer(logSums), Threads);

    internal override (Tensor Queries, Tensor? KeysValues) AttentionGradient(AttentionRows rows, Value qkv, Tensor output, Tensor logSums, Tensor gradient, RowSet moved, RowSet seen)
    {
        var (spec, kept) = (rows.Spec, qkv.Kept);
        // A head's numbers of a row are read before its gradient is written: where rows are all, the gradients need no memory of their own.
        var together = moved.IsAll ? qkv.Take(moved) : ReferenceEquals(moved, seen) ? empty([moved.Count, spec.Columns * spec.HeadSize], kept.dtype) : null;
        var queries = together ?? empty([moved.Count, spec.Queries], kept.dtype);
        var keysValues = together is null ? empty([seen.Count, spec.KeysValues], kept.dtype) : null;
        var given = gradient.contiguous();
        new AttentionGradient(rows.All.Shape, rows.Sequences, rows.Length, moved.Chosen, seen.Chosen).Backward<T>(
            Pointer(kept), Pointer(output), (float*)Pointer(logSums), Pointer(given), Pointer(queries), keysValues is null ? null : Pointer(keysValues), Threads);
        return (queries, keysValues);
    }

    internal override void Add(RunningSoftmax softmax, Tensor logits, long first) => softmax.Add<T>(Pointer(logits), (int)first, (int)logits.size(1));

    internal override void Gather(Tensor logits, long first, ReadOnlySpan<int> ids, Span<float> values) =>
        RunningSoftmax.Gather<T>(Pointer(logits), (int)logits.size(0), (int)first, (int)logits.size(1), ids, values);

    internal override void CrossEntropyGradient(CrossEntropy loss, Tensor logits, long first, long[] targets, float[] logSums, float[] weights) =>
        loss.Backward<T>(Pointer(logits), first, (int)logits.size(1), targets, logSums, weights, Threads);

    internal override void AddTo(Tensor sum, Tensor part) =>
        Sums.Add<T>((float*)FlatMemory.Address(sum), (void*)FlatMemory.Address(part), sum.NumberOfElements, Threads);

    internal override void AddRows(Tensor sum, Tensor rows, Tensor part)
    {
        var (to, indices, from) = (FlatMemory.Address(sum), FlatMemory.Address(rows), FlatMemory.Address(part));
        if (part.dtype == ScalarType.Float32) Sums.AddRows<T, Float32>((void*)to, (long*)indices, (void*)from, rows.NumberOfElements, sum.size(1), Threads);
        else Sums.AddRows<T, BFloat16>((void*)to, (long*)indices, (void*)from, rows.NumberOfElements, sum.size(1), Threads);
    }
}
