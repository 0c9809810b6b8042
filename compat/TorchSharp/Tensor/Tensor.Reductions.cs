using TorchSharp.Native;
using static TorchSharp.Native.Interop;
using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

public static partial class torch
{
    public partial class Tensor
    {
        public unsafe Tensor sum(ScalarType? type = null) => Own(rho_sum(Handle, null, 0, 0, TypeOrNone(type)), this);
        public Tensor sum(long dim, bool keepdim = false, ScalarType? type = null) => sum((ReadOnlySpan<long>)[dim], keepdim, type);
        public Tensor sum(long dim0, long dim1, bool keepdim = false, ScalarType? type = null) => sum((ReadOnlySpan<long>)[dim0, dim1], keepdim, type);
        public Tensor sum(long dim0, long dim1, long dim2, bool keepdim = false, ScalarType? type = null) => sum((ReadOnlySpan<long>)[dim0, dim1, dim2], keepdim, type);
        public Tensor sum(long[] dim, bool keepdim = false, ScalarType? type = null) => sum((ReadOnlySpan<long>)dim, keepdim, type);

        public unsafe Tensor sum(ReadOnlySpan<long> dim, bool keepdim = false, ScalarType? type = null)
        {
            fixed (long* dims = dim) return Own(rho_sum(Handle, dims, dim.Length, keepdim ? 1 : 0, TypeOrNone(type)), this);
        }

        public unsafe Tensor mean() => Own(rho_mean(Handle, null, 0, 0, -1), this);

        public unsafe Tensor mean(long[] dimensions, bool keepdim = false, ScalarType? type = null)
        {
            fixed (long* dims = dimensions) return Own(rho_mean(Handle, dims, dimensions.Length, keepdim ? 1 : 0, TypeOrNone(type)), this);
        }

        public Tensor nansum() => Own(rho_nansum(Handle), this);
        public Tensor prod(ScalarType? type = null) => Own(rho_prod(Handle, TypeOrNone(type)), this);
        public Tensor prod(long dim, bool keepdim = false, ScalarType? type = null) => Own(rho_prod_dim(Handle, dim, keepdim ? 1 : 0, TypeOrNone(type)), this);

        public Tensor max() => Own(rho_max_all(Handle), this);
        public Tensor max(Tensor other) => maximum(other);

        public unsafe (Tensor values, Tensor indexes) max(long dim, bool keepdim = false)
        {
            var results = stackalloc nint[2];
            return OwnPair(rho_max_dim(Handle, dim, keepdim ? 1 : 0, results), results, this);
        }

        public Tensor min() => Own(rho_min_all(Handle), this);
        public Tensor min(Tensor other) => minimum(other);

        public unsafe (Tensor values, Tensor indexes) min(long dim, bool keepdim = false)
        {
            var results = stackalloc nint[2];
            return OwnPair(rho_min_dim(Handle, dim, keepdim ? 1 : 0, results), results, this);
        }

        public unsafe (Tensor min, Tensor max) aminmax(long? dim = null, bool keepdim = false)
        {
            var results = stackalloc nint[2];
            return OwnPair(rho_aminmax(Handle, dim.GetValueOrDefault(), dim.HasValue ? 1 : 0, keepdim ? 1 : 0, results), results, this);
        }

        public Tensor amax(params long[] dims) => Amax(dims, false);
        public Tensor amax(long[] dims, bool keepdim = false, Tensor? @out = null) => Into(Amax(dims, keepdim), @out);
        public Tensor amax(ReadOnlySpan<long> dims, bool keepdim = false, Tensor? @out = null) => Into(Amax(dims, keepdim), @out);
        public Tensor amin(params long[] dims) => Amin(dims, false);
        public Tensor amin(long[] dims, bool keepdim = false, Tensor? @out = null) => Into(Amin(dims, keepdim), @out);
        public Tensor amin(ReadOnlySpan<long> dims, bool keepdim = false, Tensor? @out = null) => Into(Amin(dims, keepdim), @out);

        public Tensor argmax() => Own(rho_argmax(Handle, 0, 0, 0), this);
        public Tensor argmax(long dim, bool keepdim = false) => Own(rho_argmax(Handle, dim, 1, keepdim ? 1 : 0), this);
        public Tensor argmin() => Own(rho_argmin(Handle, 0, 0, 0), this);
        public Tensor argmin(long dim, bool keepdim = false) => Own(rho_argmin(Handle, dim, 1, keepdim ? 1 : 0), this);
        public Tensor all() => Own(rho_all_all(Handle), this);
        public Tensor all(long dim, bool keepdim = false) => Own(rho_all_dim(Handle, dim, keepdim ? 1 : 0), this);
        public Tensor any() => Own(rho_any_all(Handle), this);
        public Tensor any(long dim, bool keepdim = false) => Own(rho_any_dim(Handle, dim, keepdim ? 1 : 0), this);
        public Tensor median() => Own(rho_median_all(Handle), this);
        public Tensor logsumexp(long dim, bool keepdim = false) => Own(rho_logsumexp(Handle, dim, keepdim ? 1 : 0), this);
        public Tensor norm(float p = 2.0f) => Own(rho_norm(Handle, p), this);
        public Tensor norm(int dim, bool keepdim = false, float p = 2.0f) => Own(rho_norm_dim(Handle, p, dim, keepdim ? 1 : 0), this);

        public unsafe Tensor std(bool unbiased = true) => Own(rho_std(Handle, null, 0, unbiased ? 1 : 0, 0), this);
        public Tensor std(long dim, bool unbiased = true, bool keepdim = false, ScalarType? type = null) => std((ReadOnlySpan<long>)[dim], unbiased, keepdim, type);
        public Tensor std(long[] dimensions, bool unbiased = true, bool keepdim = false, ScalarType? type = null) => std((ReadOnlySpan<long>)dimensions, unbiased, keepdim, type);

        public unsafe Tensor std(ReadOnlySpan<long> dimensions, bool unbiased = true, bool keepdim = false, ScalarType? type = null)
        {
            fixed (long* dims = dimensions) return Typed(Own(rho_std(Handle, dims, dimensions.Length, unbiased ? 1 : 0, keepdim ? 1 : 0), this), type);
        }

        public unsafe Tensor var(bool unbiased = true) => Own(rho_var(Handle, null, 0, unbiased ? 1 : 0, 0), this);
        public Tensor var(long dim, bool unbiased = true, bool keepdim = false, ScalarType? type = null) => var((ReadOnlySpan<long>)[dim], unbiased, keepdim, type);
        public Tensor var(long[] dimensions, bool unbiased = true, bool keepdim = false, ScalarType? type = null) => var((ReadOnlySpan<long>)dimensions, unbiased, keepdim, type);

        public unsafe Tensor var(ReadOnlySpan<long> dimensions, bool unbiased = true, bool keepdim = false, ScalarType? type = null)
        {
            fixed (long* dims = dimensions) return Typed(Own(rho_var(Handle, dims, dimensions.Length, unbiased ? 1 : 0, keepdim ? 1 : 0), this), type);
        }

        public unsafe Tensor count_nonzero(long[]? dims = null)
        {
            fixed (long* pointer = dims) return Own(rho_count_nonzero(Handle, pointer, dims?.Length ?? 0), this);
        }

        public Tensor quantile(Tensor q, long dim = -1, bool keepdim = false) => Own(rho_quantile(Handle, q.Handle, dim, keepdim ? 1 : 0), this, q);
        public Tensor cumsum(long dim, ScalarType? type = null) => Own(rho_cumsum(Handle, dim, TypeOrNone(type)), this);
        public Tensor cumprod(long dim, ScalarType? type = null) => Own(rho_cumprod(Handle, dim, TypeOrNone(type)), this);
        public Tensor logcumsumexp(long dim) => Own(rho_logcumsumexp(Handle, dim), this);

        public unsafe (Tensor values, Tensor indexes) topk(int k, int dim = -1, bool largest = true, bool sorted = true)
        {
            var results = stackalloc nint[2];
            return OwnPair(rho_topk(Handle, k, dim, largest ? 1 : 0, sorted ? 1 : 0, results), results, this);
        }

        public unsafe (Tensor Values, Tensor Indices) sort(long dim = -1, bool descending = false, bool stable = false)
        {
            var results = stackalloc nint[2];
            return OwnPair(rho_sort(Handle, dim, descending ? 1 : 0, stable ? 1 : 0, results), results, this);
        }

        public Tensor argsort(long dim = -1, bool descending = false) => Own(rho_argsort(Handle, dim, descending ? 1 : 0), this);

        public unsafe (Tensor values, Tensor indices) kthvalue(long k, long? dim, bool keepdim = false)
        {
            var results = stackalloc nint[2];
            return OwnPair(rho_kthvalue(Handle, k, dim ?? -1, keepdim ? 1 : 0, results), results, this);
        }

        public Tensor bucketize(Tensor boundaries, bool outInt32 = false, bool right = false) =>
            Own(rho_bucketize(Handle, boundaries.Handle, outInt32 ? 1 : 0, right ? 1 : 0), this, boundaries);

        public Tensor bincount(Tensor? weights, long minlength = 0) => Own(rho_bincount(Handle, HandleOrZero(weights), minlength), this, weights);

        public unsafe (Tensor output, Tensor? inverse_indices, Tensor? counts) unique(bool sorted = true, bool return_inverse = false, bool return_counts = false, int? dim = null)
        {
            var results = stackalloc nint[3];
            Check(rho_unique(Handle, sorted ? 1 : 0, return_inverse ? 1 : 0, return_counts ? 1 : 0, dim.GetValueOrDefault(), dim.HasValue ? 1 : 0, results), this);
            var (output, inverse, counts) = (new Tensor(results[0]), new Tensor(results[1]), new Tensor(results[2]));
            if (!return_inverse) inverse.Dispose();
            if (!return_counts) counts.Dispose();
            return (output, return_inverse ? inverse : null, return_counts ? counts : null);
        }

        private unsafe Tensor Amax(ReadOnlySpan<long> dims, bool keepdim)
        {
            fixed (long* pointer = dims) return Own(rho_amax(Handle, pointer, dims.Length, keepdim ? 1 : 0), this);
        }

        private unsafe Tensor Amin(ReadOnlySpan<long> dims, bool keepdim)
        {
            fixed (long* pointer = dims) return Own(rho_amin(Handle, pointer, dims.Length, keepdim ? 1 : 0), this);
        }

        private static Tensor Typed(Tensor tensor, ScalarType? type) =>
            type is null || type == tensor.dtype ? tensor : tensor.to(type.GetValueOrDefault(), disposeAfter: true);

        private static Tensor Into(Tensor result, Tensor? target)
        {
            if (target is null) return result;
            using (result) return target.copy_(result);
        }
    }
}
