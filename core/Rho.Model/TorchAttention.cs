using Rho.Model.Architectures;
using Rho.Model.Training;
using static TorchSharp.torch;
using static TorchSharp.torch.nn.functional;

namespace Rho.Model;

/// <summary>Attention in libtorch's operations, for accelerators and for what the CPU's kernels do not take. B sequences, T queries, S keys, N heads, K key-value heads, H head size.</summary>
internal static class TorchAttention
{
    /// <summary>Most bytes of scores at a time where they are in memory.</summary>
    private const long ScoreBytes = 256 << 20;

    /// <summary>softmax(cap(scale Q K^T)) V of rotated queries and keys.</summary>
    /// <param name="query">[B, N, T, H]</param>
    /// <param name="key">[B, K, S, H]</param>
    /// <param name="value">[B, K, S, H]</param>
    /// <param name="seen">[.., T, S], broadcast over heads; null for causal attention, where T is S</param>
    /// <returns>[B, N, T, H]</returns>
    internal static Tensor Attend(AttentionSpec spec, Tensor query, Tensor key, Tensor value, Tensor? seen)
    {
        if (spec.SoftCap is not null)
        {
            seen ??= ones([query.size(2), key.size(2)], ScalarType.Bool, query.device).tril();
            return InSteps(spec, query, key, value, seen);
        }

        // The fused one scales by 1 / sqrt(H).
        if (spec.Scale * Math.Sqrt(spec.HeadSize) is var scale && Math.Abs(scale - 1) > 1e-12) query = query.mul(scale);
        Tensor Repeat(Tensor x) => spec.PerGroup == 1 ? x : x.repeat_interleave(spec.PerGroup, 1);
        return scaled_dot_product_attention(query, Repeat(key), Repeat(value), seen, is_casual: seen is null);
    }

    /// <summary>The same with scores in memory, softmaxes in float32 at least, and no copies of keys and values.</summary>
    internal static Tensor InSteps(AttentionSpec spec, Tensor query, Tensor key, Tensor value, Tensor seen)
    {
        var (batch, length) = (query.size(0), query.size(2));
        var (p, _) = Probabilities(spec, Grouped(spec, query), Flat(key), seen, batch, length);
        return p.to(value.dtype).bmm(Flat(value)).view(batch, spec.Heads, length, -1);
    }

    // Heads of a group lie one after another, and so do their rows: [B, N, T, H] to [B * K, G * T, H]
    private static Tensor Grouped(AttentionSpec spec, Tensor query) => query.reshape(query.size(0) * spec.KeyValueHeads, spec.PerGroup * query.size(2), spec.HeadSize);

    private static Tensor Flat(Tensor keys) => keys.reshape(-1, keys.size(2), keys.size(3));

    /// <returns>Probabilities, and tanh of the scores under a cap. Both [B * K, G * T, S]</returns>
    private static (Tensor Probabilities, Tensor? Tanh) Probabilities(AttentionSpec spec, Tensor query, Tensor key, Tensor seen, long batch, long length)
    {
        var scores = Kernels.Wide(query.bmm(key.transpose(1, 2))).mul_(spec.Scale);
        var bent = spec.SoftCap is { } cap ? scores.div_(cap).tanh_().clone() : null;
        if (spec.SoftCap is { } factor) scores.mul_(factor);
        var shape = scores.shape;
        return (scores.view(batch, spec.Heads, length, -1).masked_fill_(seen.logical_not(), double.NegativeInfinity).softmax(-1).view(shape), bent);
    }

    /// <param name="qkv">[B * T, (N + 2 K) * H]</param>
    /// <returns>[B * T, N * H]</returns>
    internal static Tensor Forward(AttentionRows rows, Tensor qkv)
    {
        using var scope = NewDisposeScope();
        var (spec, length) = (rows.Spec, rows.Length);
        var parts = qkv.view(rows.Sequences, length, spec.Columns, spec.HeadSize).split([spec.Heads, spec.KeyValueHeads, spec.KeyValueHeads], 2);
        var (query, key) = (rows.Angles.Rotate(parts[0], 0, length), rows.Angles.Rotate(parts[1], 0, length));
        var seen = rows.FirstSeen is null ? null : Seen(rows, 0, rows.Sequences, qkv.device);
        return Attend(spec, query.transpose(1, 2), key.transpose(1, 2), parts[2].transpose(1, 2), seen).transpose(1, 2).reshape(-1, spec.Queries).MoveToOuterDisposeScope();
    }

    /// <summary>True where a query sees a key. [sequences, 1, length, length]</summary>
    private static Tensor Seen(AttentionRows rows, int sequence, int sequences, Device device)
    {
        var key = arange(rows.Length, ScalarType.Int32, device);
        var seen = key.le(key.unsqueeze(-1));
        return rows.FirstSeen is null ? seen.view(1, 1, rows.Length, rows.Length)
            : seen.logical_and(key.ge(tensor(rows.FirstSeen.AsSpan(sequence * rows.Length, sequences * rows.Length).ToArray(), [sequences, 1, rows.Length, 1], device: device)));
    }

    /// <summary>As <see cref="Cpu.CausalAttention.Backward"/>: dV = P^T dO; dP = dO V^T; dS = P (dP - rowsum(dP P)), under a cap times 1 - tanh^2; dQ = dS K; dK = dS^T Q.</summary>
    internal static (Tensor Queries, Tensor? KeysValues) Backward(AttentionRows rows, Tensor qkv, Tensor gradient, RowSet moved, RowSet seen)
    {
        using var scope = NewDisposeScope();
        var (spec, length) = (rows.Spec, rows.Length);
        List<Tensor> queries = [], keysValues = [];
        for (var b = 0; b < rows.Sequences; b++)
        {
            using var inner = NewDisposeScope();
            var (from, to) = moved.Between((long)b * length, (b + 1L) * length);
            var parts = qkv.narrow(0, (long)b * length, length).view(length, spec.Columns, spec.HeadSize).split([spec.Heads, spec.KeyValueHeads, spec.KeyValueHeads], 1);
            var (query, key, value) = (rows.Angles.Rotate(parts[0], 0, length), rows.Angles.Rotate(parts[1], 0, length).transpose(0, 1), parts[2].transpose(0, 1)); // [T, N, H], [K, T, H] twice
            var (dQuery, dKey, dValue) = (zeros_like(query), zeros_like(key), zeros_like(value));
            var mask = Seen(rows, b, 1, qkv.device)[0, 0];                                      // [T, T]
            var step = (int)Math.Max(1, ScoreBytes / (4L * spec.Heads * length));
            for (var first = from; first < to; first += step)
            {
                using var innermost = NewDisposeScope();
                var count = Math.Min(step, to - first);
                var at = tensor(Enumerable.Range(first, count).Select(i => moved.At(i) - ((long)b * length)).ToArray(), device: qkv.device);
                Tensor Heads(Tensor some) => Grouped(spec, some.transpose(0, 1).unsqueeze(0));    // [M, N, H] to [K, G * M, H]
                var q = Heads(query.index_select(0, at));
                var given = Heads(gradient.narrow(0, first, count).view(count, spec.Heads, spec.HeadSize));
                var (p, tanh) = Probabilities(spec, q, key, mask.index_select(0, at), 1, count);
                dValue.add_(p.to(value.dtype).transpose(1, 2).bmm(given));
                var ds = Kernels.Wide(given.bmm(value.transpose(1, 2)));
                ds = ds.sub_(ds.mul(p).sum([-1L], keepdim: true)).mul_(p).mul_(spec.Scale);
                if (tanh is not null) ds.mul_(tanh.mul(tanh).neg_().add_(1));
                var narrow = ds.to(key.dtype);
                dKey.add_(narrow.transpose(1, 2).bmm(q));
                dQuery.index_copy_(0, at, narrow.bmm(key).view(spec.Heads, count, spec.HeadSize).transpose(0, 1));
            }

            Tensor Chosen(RowSet set, Tensor all)
            {
                var (begin, end) = set.Between((long)b * length, (b + 1L) * length);
                return all.index_select(0, tensor(Enumerable.Range(begin, end - begin).Select(i => set.At(i) - ((long)b * length)).ToArray(), device: qkv.device)).flatten(1);
            }

            queries.Add(Chosen(moved, rows.Angles.Rotate(dQuery, 0, length, back: true)).MoveToOuterDisposeScope());
            keysValues.Add(Chosen(seen, cat([rows.Angles.Rotate(dKey.transpose(0, 1), 0, length, back: true), dValue.transpose(0, 1)], 1)).MoveToOuterDisposeScope());
        }

        return (cat(queries).MoveToOuterDisposeScope(), cat(keysValues).MoveToOuterDisposeScope());
    }
}
