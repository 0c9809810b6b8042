using System.Runtime.CompilerServices;
using TorchSharp.Native;
using static TorchSharp.Native.Interop;
using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

public static partial class torch
{
    /// <summary>One entry of tensor[...].</summary>
    public struct TensorIndex
    {
        // In the order of IndexKind in indexing.cpp. The default is a new dimension, as None is.
        private enum Kind
        {
            None,
            Ellipsis,
            Bool,
            Single,
            Tensor,
            Slice,
        }

        private Kind _kind;
        private long? _start;
        private long? _stop;
        private long? _step;
        private Tensor? _tensor;

        /// <summary>As many full slices as dimensions are left.</summary>
        public static readonly TensorIndex Ellipsis = new() { _kind = Kind.Ellipsis };

        /// <summary>A new dimension of size 1.</summary>
        public static readonly TensorIndex None = new() { _kind = Kind.None };

        public static readonly TensorIndex Null = new() { _kind = Kind.None };

        /// <summary>A whole dimension.</summary>
        public static readonly TensorIndex Colon = Slice();

        public static TensorIndex Slice(long? start = null, long? stop = null, long? step = null) =>
            new() { _kind = Kind.Slice, _start = start, _stop = stop, _step = step };

        public static TensorIndex Slice((int? start, int? end) range) => Slice(range.start, range.end);

        public static TensorIndex Slice(Range range) =>
            Slice(
                range.Start.IsFromEnd ? -range.Start.Value : range.Start.Value,
                !range.End.IsFromEnd ? range.End.Value : range.End.Value == 0 ? null : -range.End.Value);

        public static TensorIndex Bool(bool value) => new() { _kind = Kind.Bool, _start = value ? 1 : 0 };
        public static TensorIndex Single(long? index) => new() { _kind = Kind.Single, _start = index };
        public static TensorIndex Tensor(Tensor tensor) => new() { _kind = Kind.Tensor, _tensor = tensor };

        public static implicit operator TensorIndex(long value) => Single(value);
        public static implicit operator TensorIndex((int? start, int? end) range) => Slice(range);
        public static implicit operator TensorIndex(Range range) => Slice(range);
        public static implicit operator TensorIndex(Index index) => Single(index.IsFromEnd ? -index.Value : index.Value);

        /// <summary>Only there so that tensor[slice, slice] is not ambiguous.</summary>
        public static implicit operator Tensor(TensorIndex value) => throw new InvalidOperationException("Should not be called.");

        internal readonly bool IsTensor => _kind == Kind.Tensor;

        /// <summary>Null where the index takes a whole dimension.</summary>
        internal readonly Tensor? AsTensor() => _kind switch
        {
            Kind.Tensor => _tensor,
            Kind.Slice when _start is null && _stop is null && _step is null => null,
            _ => throw new ArgumentException("Values can be accumulated where tensors or whole dimensions are the indices only."),
        };

        internal readonly NativeIndex Encode() => new()
        {
            Kind = (long)_kind,
            Present = (_start is null ? 0 : 1) | (_stop is null ? 0 : 2) | (_step is null ? 0 : 4),
            Start = _start.GetValueOrDefault(),
            Stop = _stop.GetValueOrDefault(),
            Step = _step.GetValueOrDefault(),
            Tensor = _kind == Kind.Tensor ? _tensor!.Handle : 0,
        };
    }

    public partial class Tensor
    {
        [IndexerName("TensorItems")]
        public Tensor this[params TensorIndex[] indices]
        {
            get => index(indices);
            set => index_put_(value, indices);
        }

        [IndexerName("TensorItems")]
        public Tensor this[params Tensor[] indices]
        {
            get => index(indices);
            set => index_put_(value, indices);
        }

        [IndexerName("TensorItems")]
        public Tensor this[long i1]
        {
            get => Index([i1]);
            set => Put([i1], value);
        }

        [IndexerName("TensorItems")]
        public Tensor this[long i1, long i2]
        {
            get => Index([i1, i2]);
            set => Put([i1, i2], value);
        }

        [IndexerName("TensorItems")]
        public Tensor this[long i1, long i2, long i3]
        {
            get => Index([i1, i2, i3]);
            set => Put([i1, i2, i3], value);
        }

        [IndexerName("TensorItems")]
        public Tensor this[long i1, long i2, long i3, long i4]
        {
            get => Index([i1, i2, i3, i4]);
            set => Put([i1, i2, i3, i4], value);
        }

        [IndexerName("TensorItems")]
        public Tensor this[params long[] indices]
        {
            get => Index(Array.ConvertAll(indices, index => (TensorIndex)index));
            set => Put(Array.ConvertAll(indices, index => (TensorIndex)index), value);
        }

        /// <summary>Integers, slices, ellipsis and new dimensions give views; tensors give copies.</summary>
        public Tensor index(params TensorIndex[] indices) => Index(indices);

        public Tensor index(params Tensor[] indices) => Index(Array.ConvertAll(indices, TensorIndex.Tensor));

        public Tensor index_put_(Tensor value, params TensorIndex[] indices) => Put(indices, value);

        public Tensor index_put_(Tensor value, params Tensor[] indices) => Put(Array.ConvertAll(indices, TensorIndex.Tensor), value);

        /// <summary>With <paramref name="accumulate"/>, values are added, also where indices repeat.</summary>
        public Tensor index_put_(Tensor value, Tensor[] indices, bool accumulate = false) =>
            index_put_(value, Array.ConvertAll(indices, TensorIndex.Tensor), accumulate);

        /// <inheritdoc cref="index_put_(Tensor, Tensor[], bool)"/>
        public unsafe Tensor index_put_(Tensor value, TensorIndex[] indices, bool accumulate = false)
        {
            if (!accumulate) return Put(indices, value);
            if (!indices.Any(index => index.IsTensor)) throw new ArgumentException("Values can be accumulated where tensors are the indices only.", nameof(indices));
            fixed (nint* handles = Handles(indices.Select(index => index.AsTensor())))
            {
                return Self(rho_index_put_accumulate_(Handle, handles, indices.Length, value.Handle), indices, value);
            }
        }

        public unsafe Tensor index_put_(Scalar value, params TensorIndex[] indices)
        {
            fixed (NativeIndex* native = Array.ConvertAll(indices, index => index.Encode()))
            {
                return Self(rho_index_put_number_(Handle, native, indices.Length, value.Number), indices);
            }
        }

        public Tensor index_put_(Scalar value, params Tensor[] indices) => index_put_(value, Array.ConvertAll(indices, TensorIndex.Tensor));

        private unsafe Tensor Index(ReadOnlySpan<TensorIndex> indices)
        {
            Span<NativeIndex> native = stackalloc NativeIndex[indices.Length];
            for (var i = 0; i < indices.Length; i++) native[i] = indices[i].Encode();
            nint result;
            fixed (NativeIndex* pointer = native) result = rho_index(Handle, pointer, indices.Length);
            foreach (ref readonly var index in indices) GC.KeepAlive(index.IsTensor ? index.AsTensor() : null);
            return Own(result, this);
        }

        private unsafe Tensor Put(ReadOnlySpan<TensorIndex> indices, Tensor value)
        {
            Span<NativeIndex> native = stackalloc NativeIndex[indices.Length];
            for (var i = 0; i < indices.Length; i++) native[i] = indices[i].Encode();
            int status;
            fixed (NativeIndex* pointer = native) status = rho_index_put_(Handle, pointer, indices.Length, value.Handle);
            foreach (ref readonly var index in indices) GC.KeepAlive(index.IsTensor ? index.AsTensor() : null);
            return Self(status, value);
        }
    }
}
