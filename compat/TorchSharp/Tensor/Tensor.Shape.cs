using TorchSharp.Native;
using static TorchSharp.Native.Interop;
using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

public static partial class torch
{
    public partial class Tensor
    {
        // Views. They share memory with this tensor (reshape and flatten where they can).
        public unsafe Tensor view(params long[] shape)
        {
            fixed (long* dims = shape) return Own(rho_view(Handle, dims, shape.Length), this);
        }

        public Tensor view_as(Tensor other) => view(other.shape);

        public unsafe Tensor reshape(params long[] shape)
        {
            fixed (long* dims = shape) return Own(rho_reshape(Handle, dims, shape.Length), this);
        }

        public unsafe Tensor permute(params long[] permutation)
        {
            fixed (long* dims = permutation) return Own(rho_permute(Handle, dims, permutation.Length), this);
        }

        public Tensor permute(IEnumerable<long> permutation) => permute(permutation.ToArray());

        public unsafe Tensor expand(ReadOnlySpan<long> sizes, bool isImplicit = false)
        {
            fixed (long* dims = sizes) return Own(rho_expand(Handle, dims, sizes.Length, isImplicit ? 1 : 0), this);
        }

        public Tensor expand(long[] sizes, bool isImplicit = false) => expand((ReadOnlySpan<long>)sizes, isImplicit);
        public Tensor expand(params long[] sizes) => expand((ReadOnlySpan<long>)sizes);
        public Tensor expand_as(Tensor other) => expand((ReadOnlySpan<long>)other.shape);
        public Tensor broadcast_to(params long[] shape) => expand((ReadOnlySpan<long>)shape);

        public unsafe Tensor as_strided(long[] size, long[] strides, long storageOffset = 0)
        {
            fixed (long* sizePointer = size, stridePointer = strides)
            {
                return Own(rho_as_strided(Handle, sizePointer, size.Length, stridePointer, strides.Length, storageOffset), this);
            }
        }

        public Tensor t() => Own(rho_t(Handle), this);
        public Tensor T => Own(rho_numpy_T(Handle), this);
        public Tensor mT => Own(rho_mT(Handle), this);
        public Tensor transpose(long dim0, long dim1) => Own(rho_transpose(Handle, dim0, dim1), this);
        public Tensor transpose_(long dim0, long dim1) => Self(rho_transpose_(Handle, dim0, dim1));
        public Tensor swapaxes(long dim0, long dim1) => transpose(dim0, dim1);
        public Tensor swapdims(long dim0, long dim1) => transpose(dim0, dim1);

        public unsafe Tensor movedim(long[] source, long[] destination)
        {
            fixed (long* from = source, to = destination) return Own(rho_movedim(Handle, from, source.Length, to, destination.Length), this);
        }

        public Tensor moveaxis(long[] source, long[] destination) => movedim(source, destination);
        public Tensor unsqueeze(long dim) => Own(rho_unsqueeze(Handle, dim), this);
        public Tensor unsqueeze_(long dim) => Self(rho_unsqueeze_(Handle, dim));
        public Tensor squeeze(long? dim = null) => Own(rho_squeeze(Handle, dim.GetValueOrDefault(), dim.HasValue ? 1 : 0), this);
        public Tensor squeeze_(long? dim = null) => Self(rho_squeeze_(Handle, dim.GetValueOrDefault(), dim.HasValue ? 1 : 0));
        public Tensor flatten(long start_dim = 0, long end_dim = -1) => Own(rho_flatten(Handle, start_dim, end_dim), this);
        public Tensor ravel() => flatten();

        public unsafe Tensor unflatten(long dim, params long[] sizes)
        {
            fixed (long* dims = sizes) return Own(rho_unflatten(Handle, dim, dims, sizes.Length), this);
        }

        public Tensor narrow(long dim, long start, long length) => Own(rho_narrow(Handle, dim, start, length), this);
        public Tensor slice(long dim, long start, long finish, long step) => Own(rho_slice(Handle, dim, start, finish, step), this);
        public Tensor select(long dim, long index) => Own(rho_select(Handle, dim, index), this);
        public Tensor unfold(long dimension, long size, long step) => Own(rho_unfold(Handle, dimension, size, step), this);
        public Tensor diagonal(long offset = 0, long dim1 = 0, long dim2 = 1) => Own(rho_diagonal(Handle, offset, dim1, dim2), this);

        public unsafe Tensor[] chunk(long chunks, long dim = 0)
        {
            long count;
            return OwnList(rho_chunk(Handle, chunks, dim, &count), &count, this);
        }

        public unsafe Tensor[] split(long size, int dim = 0)
        {
            long count;
            return OwnList(rho_split(Handle, size, dim, &count), &count, this);
        }

        public Tensor[] split(long[] sizes, long dim = 0) => split((ReadOnlySpan<long>)sizes, dim);
        public Tensor[] split(params long[] sizes) => split((ReadOnlySpan<long>)sizes);

        public unsafe Tensor[] split(ReadOnlySpan<long> sizes, long dim = 0)
        {
            long count;
            fixed (long* dims = sizes) return OwnList(rho_split_with_sizes(Handle, dims, sizes.Length, dim, &count), &count, this);
        }

        public unsafe Tensor[] tensor_split(long size, long dim = 0)
        {
            long count;
            return OwnList(rho_tensor_split(Handle, size, dim, &count), &count, this);
        }

        public unsafe Tensor[] tensor_split(long[] sizes, long dim = 0)
        {
            long count;
            fixed (long* dims = sizes) return OwnList(rho_tensor_split_indices(Handle, dims, sizes.Length, dim, &count), &count, this);
        }

        public unsafe Tensor[] unbind(long dimension = 0)
        {
            long count;
            return OwnList(rho_unbind(Handle, dimension, &count), &count, this);
        }

        // Copies
        public unsafe Tensor repeat(params long[] sizes)
        {
            fixed (long* dims = sizes) return Own(rho_repeat(Handle, dims, sizes.Length), this);
        }

        public unsafe Tensor tile(long[] reps)
        {
            fixed (long* dims = reps) return Own(rho_tile(Handle, dims, reps.Length), this);
        }

        public unsafe Tensor flip(params long[] dims)
        {
            fixed (long* pointer = dims) return Own(rho_flip(Handle, pointer, dims.Length), this);
        }

        public Tensor roll(long shifts, long? dims = null) => Roll([shifts], dims.HasValue ? [dims.GetValueOrDefault()] : []);
        public Tensor roll(long[] shifts) => Roll(shifts, []);
        public Tensor roll(long[] shifts, long[] dims) => Roll(shifts, dims);
        public Tensor diag(long diagonal = 0) => Own(rho_diag(Handle, diagonal), this);
        public Tensor tril(long diagonal = 0) => Own(rho_tril(Handle, diagonal), this);
        public Tensor triu(long diagonal = 0) => Own(rho_triu(Handle, diagonal), this);
        public Tensor tril_(long diagonal = 0) => Self(rho_tril_(Handle, diagonal));
        public Tensor triu_(long diagonal = 0) => Self(rho_triu_(Handle, diagonal));

        /// <summary>Every element (or slice of <paramref name="dim"/>) several times in a row.</summary>
        public Tensor repeat_interleave(long repeats, long? dim = null, long? output_size = null) =>
            Own(rho_repeat_interleave(Handle, repeats, dim.GetValueOrDefault(), dim.HasValue ? 1 : 0, output_size.GetValueOrDefault(), output_size.HasValue ? 1 : 0), this);

        public Tensor repeat_interleave(Tensor repeats, long? dim = null, long? output_size = null) =>
            Own(rho_repeat_interleave_tensor(Handle, repeats.Handle, dim.GetValueOrDefault(), dim.HasValue ? 1 : 0, output_size.GetValueOrDefault(), output_size.HasValue ? 1 : 0), this, repeats);

        // Gathering and scattering
        public Tensor gather(long dim, Tensor index) => Own(rho_gather(Handle, dim, index.Handle, 0), this, index);
        public Tensor scatter(long dim, Tensor index, Tensor src) => Own(rho_scatter(Handle, dim, index.Handle, src.Handle), this, index, src);
        public Tensor scatter_(long dim, Tensor index, Tensor src) => Self(rho_scatter_(Handle, dim, index.Handle, src.Handle), index, src);
        public Tensor scatter_add(long dim, Tensor index, Tensor src) => Own(rho_scatter_add(Handle, dim, index.Handle, src.Handle), this, index, src);
        public Tensor scatter_add_(long dim, Tensor index, Tensor src) => Self(rho_scatter_add_(Handle, dim, index.Handle, src.Handle), index, src);
        public Tensor index_select(long dim, Tensor index) => Own(rho_index_select(Handle, dim, index.Handle), this, index);
        public Tensor index_add(long dim, Tensor index, Tensor source, Scalar alpha) => Own(rho_index_add(Handle, dim, Int64Index(index), source.Handle, alpha.Number), this, index, source);
        public Tensor index_add_(long dim, Tensor index, Tensor source, Scalar alpha) => Self(rho_index_add_(Handle, dim, Int64Index(index), source.Handle, alpha.Number), index, source);
        public Tensor index_copy(long dim, Tensor index, Tensor source) => Own(rho_index_copy(Handle, dim, Int64Index(index), source.Handle), this, index, source);
        public Tensor index_copy_(long dim, Tensor index, Tensor source) => Self(rho_index_copy_(Handle, dim, Int64Index(index), source.Handle), index, source);
        public Tensor index_fill(long dim, Tensor index, Scalar value) => Own(rho_index_fill(Handle, dim, Int64Index(index), value.Number), this, index);
        public Tensor index_fill_(long dim, Tensor index, Scalar value) => Self(rho_index_fill_(Handle, dim, Int64Index(index), value.Number), index);
        public Tensor masked_fill(Tensor mask, Scalar value) => Own(rho_masked_fill(Handle, mask.Handle, value.Number), this, mask);
        public Tensor masked_fill_(Tensor mask, Scalar value) => Self(rho_masked_fill_(Handle, mask.Handle, value.Number), mask);
        public Tensor masked_scatter(Tensor mask, Tensor value) => Own(rho_masked_scatter(Handle, mask.Handle, value.Handle), this, mask, value);
        public Tensor masked_scatter_(Tensor mask, Tensor value) => Self(rho_masked_scatter_(Handle, mask.Handle, value.Handle), mask, value);
        public Tensor masked_select(Tensor mask) => Own(rho_masked_select(Handle, mask.Handle), this, mask);
        public Tensor take(Tensor index) => Own(rho_take(Handle, index.Handle), this, index);
        public Tensor take_along_dim(Tensor indices) => Own(rho_take_along_dim(Handle, indices.Handle, 0, 0), this, indices);
        public Tensor take_along_dim(Tensor indices, long dim) => Own(rho_take_along_dim(Handle, indices.Handle, dim, 1), this, indices);
        public Tensor nonzero() => Own(rho_nonzero(Handle), this);
        public Tensor argwhere() => Own(rho_argwhere(Handle), this);
        public Tensor isin(Tensor test_elements, bool assumeUnique = false, bool invert = false) =>
            Own(rho_isin(Handle, test_elements.Handle, assumeUnique ? 1 : 0, invert ? 1 : 0), this, test_elements);

        private unsafe Tensor Roll(long[] shifts, long[] dims)
        {
            fixed (long* shiftPointer = shifts, dimPointer = dims) return Own(rho_roll(Handle, shiftPointer, shifts.Length, dimPointer, dims.Length), this);
        }

        private static nint Int64Index(Tensor index)
        {
            if (index.dtype != ScalarType.Int64) throw new ArgumentException("Element type of 'index' must be 'Int64'");
            return index.Handle;
        }
    }
}
