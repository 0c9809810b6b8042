using System.Text;
using TorchSharp.Native;
using static TorchSharp.Native.Interop;
using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

// Functions of several tensors.
public static unsafe partial class torch
{
    public static Tensor cat(IList<Tensor> tensors, long dim = 0)
    {
        var handles = Handles(tensors);
        fixed (nint* pointer = handles) return Own(rho_cat(pointer, handles.Length, dim), tensors);
    }

    public static Tensor cat(Tensor[] tensors, long dim = 0) => cat((IList<Tensor>)tensors, dim);
    public static Tensor cat(ReadOnlySpan<Tensor> tensors, long dim = 0) => cat((IList<Tensor>)tensors.ToArray(), dim);
    public static Tensor concat(IList<Tensor> tensors, long dim = 0) => cat(tensors, dim);
    public static Tensor concat(Tensor[] tensors, long dim = 0) => cat((IList<Tensor>)tensors, dim);

    public static Tensor stack(IEnumerable<Tensor> tensors, long dim = 0)
    {
        var list = tensors.ToArray();
        fixed (nint* pointer = Handles(list)) return Own(rho_stack(pointer, list.Length, dim), list);
    }

    public static Tensor hstack(IList<Tensor> tensors)
    {
        var handles = Handles(tensors);
        fixed (nint* pointer = handles) return Own(rho_hstack(pointer, handles.Length), tensors);
    }

    public static Tensor hstack(params Tensor[] tensors) => hstack((IList<Tensor>)tensors);

    public static Tensor vstack(IList<Tensor> tensors)
    {
        var handles = Handles(tensors);
        fixed (nint* pointer = handles) return Own(rho_vstack(pointer, handles.Length), tensors);
    }

    public static Tensor vstack(Tensor[] tensors) => vstack((IList<Tensor>)tensors);

    public static IList<Tensor> broadcast_tensors(params Tensor[] tensors)
    {
        long count;
        fixed (nint* pointer = Handles(tensors)) return OwnList(rho_broadcast_tensors(pointer, tensors.Length, &count), &count, tensors);
    }

    public static Tensor[] meshgrid(IEnumerable<Tensor> tensors, string indexing = "ij")
    {
        var list = tensors.ToArray();
        var text = Encoding.UTF8.GetBytes(indexing + '\0');
        long count;
        fixed (byte* textPointer = text)
        fixed (nint* pointer = Handles(list))
        {
            return OwnList(rho_meshgrid(pointer, list.Length, textPointer, &count), &count, list);
        }
    }

    /// <summary>Sums of products in Einstein's notation, such as "bij,bjk->bik".</summary>
    public static Tensor einsum(string equation, params Tensor[] tensors)
    {
        var text = Encoding.UTF8.GetBytes(equation + '\0');
        fixed (byte* textPointer = text)
        fixed (nint* pointer = Handles(tensors))
        {
            return Own(rho_einsum(textPointer, pointer, tensors.Length), tensors);
        }
    }

    /// <summary>x where condition holds, y elsewhere.</summary>
    public static Tensor where(Tensor condition, Tensor x, Tensor y) => x.where(condition, y);

    /// <summary>The coordinates of the elements that are not zero, one tensor a dimension.</summary>
    public static Tensor[] where(Tensor condition)
    {
        long count;
        return OwnList(rho_where_indices(condition.Handle, &count), &count, condition);
    }

    public static Tensor gather(Tensor input, long dim, Tensor index, bool sparse_grad = false) =>
        Own(rho_gather(input.Handle, dim, index.Handle, sparse_grad ? 1 : 0), input, index);

    /// <summary>Where each value would go in a sorted sequence.</summary>
    public static Tensor searchsorted(Tensor sorted_sequence, Tensor values, bool out_int32 = false, bool right = false, Tensor? sorter = null) =>
        Own(rho_searchsorted(sorted_sequence.Handle, values.Handle, out_int32 ? 1 : 0, right ? 1 : 0, HandleOrZero(sorter)), sorted_sequence, values, sorter);

    public static Tensor sum(Tensor input, ReadOnlySpan<long> dim, bool keepdim = false, ScalarType? type = null) => input.sum(dim, keepdim, type);
    public static Tensor addmm(Tensor input, Tensor mat1, Tensor mat2, float beta, float alpha) => input.addmm(mat1, mat2, beta, alpha);
    public static Tensor addmm_(Tensor input, Tensor mat1, Tensor mat2, float beta, float alpha) => input.addmm_(mat1, mat2, beta, alpha);
    public static Tensor softmax(Tensor input, int dim, ScalarType? dtype = null) => input.softmax(dim, dtype);
    public static Tensor dot(Tensor input, Tensor other) => input.dot(other);
    public static Tensor norm(Tensor input, float p = 2.0f) => input.norm(p);
    public static Tensor norm(Tensor input, int dimension, bool keepdim = false, float p = 2.0f) => input.norm(dimension, keepdim, p);
    public static Tensor[] split(Tensor tensor, long[] split_size_or_sections, long dim = 0) => tensor.split(split_size_or_sections, dim);
    public static Tensor[] unbind(Tensor input, long dim = 0) => input.unbind(dim);
}
