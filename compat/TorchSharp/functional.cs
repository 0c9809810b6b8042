namespace TorchSharp;

public static partial class torch
{
    public static class nn
    {
        public enum Reduction
        {
            None = 0,
            Mean = 1,
            Sum = 2,
        }

        public static class functional
        {
            private static readonly bool s_hasFusedAttention = Operation.Exists("aten::scaled_dot_product_attention");

            public static Tensor linear(Tensor input, Tensor weights, Tensor? bias = null) => Op.linear.Call(input, weights, bias);

            public static Tensor cross_entropy(Tensor input, Tensor target, Tensor? weight = null, long ignore_index = -100, Reduction reduction = Reduction.Mean, double label_smoothing = 0) =>
                Op.cross_entropy_loss.Call(input, target, weight, (long)reduction, ignore_index, label_smoothing);

            public static Tensor silu(Tensor x, bool inplace = false) => inplace ? x.copy_(x.silu()) : x.silu();
            public static Tensor relu(Tensor x, bool inplace = false) => inplace ? x.copy_(x.relu()) : x.relu();
            public static Tensor gelu(Tensor x) => Op.gelu.Call(x, "none");
            public static Tensor softmax(Tensor input, long dim, ScalarType? dtype = null) => input.softmax(dim, dtype);
            public static Tensor log_softmax(Tensor x, long dim) => x.log_softmax(dim);

            /// <summary>softmax(Q K^T / sqrt(H) + mask) V; libtorch's own where it has it (2.0 and newer).</summary>
            public static Tensor scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask = null, double p = 0, bool is_casual = false)
            {
                if (s_hasFusedAttention) return Op.scaled_dot_product_attention.Call(query, key, value, attn_mask, p, is_casual);
                if (p != 0) throw new NotSupportedException("dropout in attention needs libtorch 2.0 or newer");
                if (attn_mask is not null && is_casual) throw new ArgumentException("attn_mask and is_casual exclude each other");
                using var scope = NewDisposeScope();
                var scores = query.matmul(key.transpose(-2, -1)).mul(1 / Math.Sqrt(query.size(-1)));               // (..., T, S)
                if (is_casual)
                    scores = scores.masked_fill(ones([query.size(-2), key.size(-2)], ScalarType.Bool, query.device).triu(1), double.NegativeInfinity);
                else if (attn_mask is { dtype: ScalarType.Bool })
                    scores = scores.masked_fill(attn_mask.logical_not(), double.NegativeInfinity);
                else if (attn_mask is not null)
                    scores = scores.add(attn_mask);
                return scores.softmax(-1).matmul(value).MoveToOuterDisposeScope();                                  // (..., T, H)
            }
        }
    }
}
