using TorchSharp.Modules;
using TorchSharp.Native;
using static TorchSharp.Native.Interop;
using static TorchSharp.Native.NativeMethods;

namespace TorchSharp;

public static partial class torch
{
    public static partial class nn
    {
        public static partial class functional
        {
            /// <summary>x W^T + b over the last dimension.</summary>
            public static Tensor linear(Tensor input, Tensor weights, Tensor? bias = null) =>
                Own(rho_linear(input.Handle, weights.Handle, HandleOrZero(bias)), input, weights, bias);

            public static Tensor relu(Tensor x, bool inplace = false) => inplace ? x.relu_().alias() : x.relu();
            public static Tensor silu(Tensor x, bool inplace = false) => inplace ? x.silu_().alias() : x.silu();
            public static Tensor tanh(Tensor x, bool inplace = false) => inplace ? x.tanh_().alias() : x.tanh();
            public static Tensor sigmoid(Tensor x) => x.sigmoid();
            public static Tensor sigmoid(Tensor x, bool inplace) => inplace ? x.sigmoid_().alias() : x.sigmoid();
            public static Tensor gelu(Tensor x) => x.gelu();
            public static Tensor gelu(Tensor x, bool inplace) => inplace ? x.gelu_().alias() : x.gelu();
            public static Tensor gelu(Tensor x, GELU.Approximate approximate, bool inplace = false) => inplace ? x.gelu_(approximate).alias() : x.gelu(approximate);
            public static Tensor logsigmoid(Tensor x) => x.log_sigmoid();
            public static Tensor softplus(Tensor x, double beta = 1, double threshold = 20) => x.softplus(beta, threshold);
            public static Tensor leaky_relu(Tensor input, double negative_slope = 0.01, bool inplace = false)
            {
                var result = Own(rho_leaky_relu(input.Handle, negative_slope), input);
                if (!inplace) return result;
                using (result) return input.copy_(result).alias();
            }

            public static Tensor softmax(Tensor input, long dim, ScalarType? dtype = null) => input.softmax(dim, dtype);
            public static Tensor log_softmax(Tensor x, long dim) => x.log_softmax(dim);

            public static Tensor dropout(Tensor input, double p = 0.5, bool training = true, bool inplace = false)
            {
                if (!inplace) return Own(rho_dropout(input.Handle, p, training ? 1 : 0), input);
                Check(rho_dropout_(input.Handle, p, training ? 1 : 0), input);
                return input.alias();
            }

            /// <summary>-ln softmax(input)[target] over dimension 1, in nats.</summary>
            /// <param name="input">Logits, (N, C, ...) or (C).</param>
            /// <param name="target">Class indices of type Int64, (N, ...), or class probabilities of the input's shape.</param>
            /// <param name="weight">A factor for each class.</param>
            /// <param name="ignore_index">Targets of this value count for nothing, in the mean either.</param>
            /// <param name="reduction">Mean over targets, sum, or neither.</param>
            /// <param name="label_smoothing">Share of the target that is spread over all classes.</param>
            public static Tensor cross_entropy(Tensor input, Tensor target, Tensor? weight = null, long ignore_index = -100, Reduction reduction = Reduction.Mean, double label_smoothing = 0) =>
                Own(rho_cross_entropy(input.Handle, target.Handle, HandleOrZero(weight), ignore_index, (long)reduction, label_smoothing), input, target, weight);

            public static Tensor nll_loss(Tensor input, Tensor target, Tensor? weight = null, Reduction reduction = Reduction.Mean) =>
                Own(rho_nll_loss(input.Handle, target.Handle, HandleOrZero(weight), (long)reduction), input, target, weight);

            public static Tensor mse_loss(Tensor input, Tensor target, Reduction reduction = Reduction.Mean) =>
                Own(rho_mse_loss(input.Handle, target.Handle, (long)reduction), input, target);

            public static Tensor l1_loss(Tensor input, Tensor target, Reduction reduction = Reduction.Mean) =>
                Own(rho_l1_loss(input.Handle, target.Handle, (long)reduction), input, target);

            public static Tensor kl_div(Tensor input, Tensor target, bool log_target = true, Reduction reduction = Reduction.Mean) =>
                Own(rho_kl_div(input.Handle, target.Handle, (long)reduction, log_target ? 1 : 0), input, target);

            public static unsafe Tensor layer_norm(Tensor input, long[] normalized_shape, Tensor? weight = null, Tensor? bias = null, double eps = 1e-05)
            {
                fixed (long* shape = normalized_shape)
                {
                    return Own(rho_layer_norm(input.Handle, shape, normalized_shape.Length, HandleOrZero(weight), HandleOrZero(bias), eps), input, weight, bias);
                }
            }

            public static Tensor normalize(Tensor input, double p = 2, long dim = 1, double eps = 1e-12) =>
                Own(rho_normalize(input.Handle, p, dim, eps), input);

            public static Tensor one_hot(Tensor x, long num_classes = -1)
            {
                if (x.dtype != ScalarType.Int64) throw new ArgumentException("OneHot input tensor must have elements of type Int64");
                return Own(rho_one_hot(x.Handle, num_classes), x);
            }

            public static Tensor pad(Tensor input, long[] pad, PaddingModes mode = PaddingModes.Constant, double value = 0) =>
                functional.pad(input, (ReadOnlySpan<long>)pad, mode, value);

            public static Tensor pad(Tensor input, (long, long) pad, PaddingModes mode = PaddingModes.Constant, double value = 0) =>
                functional.pad(input, (ReadOnlySpan<long>)[pad.Item1, pad.Item2], mode, value);

            public static Tensor pad(Tensor input, (long, long, long, long) pad, PaddingModes mode = PaddingModes.Constant, double value = 0) =>
                functional.pad(input, (ReadOnlySpan<long>)[pad.Item1, pad.Item2, pad.Item3, pad.Item4], mode, value);

            /// <summary>Adds elements before and after, the last dimension's pair first.</summary>
            public static unsafe Tensor pad(Tensor input, ReadOnlySpan<long> pad, PaddingModes mode = PaddingModes.Constant, double value = 0)
            {
                fixed (long* sizes = pad) return Own(rho_pad(input.Handle, sizes, pad.Length, (int)mode, value), input);
            }

            /// <summary>softmax(query key^T / sqrt(width) + mask) value over the last two dimensions, (..., length, width).</summary>
            /// <param name="query">(..., L, E)</param>
            /// <param name="key">(..., S, E)</param>
            /// <param name="value">(..., S, V)</param>
            /// <param name="attn_mask">Broadcasts to (..., L, S): bool, true where a query sees a key, or a term added to the scores.</param>
            /// <param name="p">Dropout of the weights; applies whenever it is above 0.</param>
            /// <param name="is_casual">Query i sees keys 0 to i. (The spelling is TorchSharp's.)</param>
            public static Tensor scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask = null, double p = 0, bool is_casual = false) =>
                Own(rho_attention(query.Handle, key.Handle, value.Handle, HandleOrZero(attn_mask), p, is_casual ? 1 : 0), query, key, value, attn_mask);
        }

        public static partial class utils
        {
            /// <summary>Scales all gradients so that their common norm is at most <paramref name="max_norm"/>.</summary>
            /// <returns>The norm before.</returns>
            public static unsafe double clip_grad_norm_(IEnumerable<Parameter> tensors, double max_norm, double norm_type = 2.0)
            {
                using var scope = NewDisposeScope();
                using var mode = no_grad();
                var grads = tensors.Select(tensor => tensor.grad).OfType<Tensor>().ToArray();
                if (grads.Length == 0) return 0;
                double norm;
                var handles = Handles(grads);
                fixed (nint* pointer = handles) norm = Own(rho_total_norm(pointer, handles.Length, norm_type), grads).ToDouble();
                var factor = max_norm / (norm + 1e-6);
                if (factor < 1)
                {
                    foreach (var grad in grads) grad.mul_(factor);
                }

                return norm;
            }

            public static void clip_grad_value_(IEnumerable<Parameter> tensors, double clip_value)
            {
                using var scope = NewDisposeScope();
                using var mode = no_grad();
                foreach (var tensor in tensors) tensor.grad?.clamp_((Scalar)(-clip_value), (Scalar)clip_value);
            }
        }
    }

    public static partial class linalg
    {
        /// <summary>(sum |x|^ord)^(1/ord) over the dimensions, all when null.</summary>
        public static unsafe Tensor vector_norm(Tensor input, double ord = 2, long[]? dims = null, bool keepdim = false)
        {
            fixed (long* pointer = dims) return Own(rho_vector_norm(input.Handle, ord, pointer, dims?.Length ?? 0, keepdim ? 1 : 0), input);
        }
    }
}
