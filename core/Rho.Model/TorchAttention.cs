using Rho.Kernels;
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
        var scores = TensorOps.Wide(query.bmm(key.transpose(1, 2))).mul_(spec.Scale);
        var bent = spec.SoftCap is { } cap ? scores.div_(cap).tanh_().clone() : null;
        if (spec.SoftCap is { } factor) scores.mul_(factor);
        var shape = scores.shape;
        return (scores.view(batch, spec.Heads, length, -1).masked_fill_(seen.logical_not(), double.NegativeInfinity).softmax(-1).view(shape), bent);
    }

    /// <param name="qkv">[P, (N + 2 K) * H]</param>
    /// <param name="earlier">Keys and values of the sequence that the first piece goes on with, not rotated; null where there is none. [tokens, 2 K, H]</param>
    /// <param name="attended">[P, N * H], written</param>
    internal static void Attend(AttentionPieces all, Tensor qkv, Tensor? earlier, Tensor attended)
    {
        var pieces = all.Pieces;
        for (var i = 0; i < pieces.Count;)
        {
            // Neighbours of one length are one batch.
            var end = i + 1;
            if (pieces[i].Position == 0)
                while (end < pieces.Count && pieces[end].Position == 0 && pieces[end].Count == pieces[i].Count) end++;
            using var scope = NewDisposeScope();
            Attend(all, pieces[i], end - i, qkv, earlier, attended);
            i = end;
        }
    }

    // B pieces of T tokens, S keys each.
    private static void Attend(AttentionPieces all, Piece piece, int count, Tensor qkv, Tensor? earlier, Tensor attended)
    {
        var (spec, length) = (all.Spec, piece.Count);
        var keys = piece.Position + length;
        var rows = qkv.narrow(0, piece.Start, (long)count * length).view(count, length, spec.Columns, spec.HeadSize);
        var output = attended.narrow(0, piece.Start, (long)count * length).view(count, length, spec.Heads, spec.HeadSize);
        var keyValues = rows.narrow(2, spec.Heads, 2 * spec.KeyValueHeads);                     // [B, T, 2 K, H]
        if (piece.Position > 0) keyValues = cat([earlier!.narrow(0, 0, piece.Position).unsqueeze(0), keyValues], 1); // [1, S, 2 K, H]
        var query = all.Angles.Rotate(rows.narrow(2, 0, spec.Heads), piece.Position, length).transpose(1, 2); // [B, N, T, H]
        var key = all.Angles.Rotate(keyValues.narrow(2, 0, spec.KeyValueHeads), 0, keys).transpose(1, 2); // [B, K, S, H]
        var value = keyValues.narrow(2, spec.KeyValueHeads, spec.KeyValueHeads).transpose(1, 2); // [B, K, S, H]
        if (piece.Position == 0 && all.FirstSeen is null && spec.SoftCap is null)
        {
            output.copy_(Attend(spec, query, key, value, null).transpose(1, 2));
            return;
        }

        var step = (int)Math.Clamp(ScoreBytes / (4L * count * spec.Heads * keys), 1, length);
        var position = arange(keys, ScalarType.Int32, qkv.device);
        for (var start = 0; start < length; start += step)
        {
            using var scope = NewDisposeScope();
            var taken = Math.Min(step, length - start);
            var seen = position.le(position.narrow(0, piece.Position + start, taken).unsqueeze(-1));   // [taken, S]
            if (all.FirstSeen is { } firstSeen)
            {
                var first = new int[count * taken];
                for (var b = 0; b < count; b++) Array.Copy(firstSeen, all.FirstRow + piece.Start + (b * length) + start, first, b * taken, taken);
                seen = seen.logical_and(position.ge(tensor(first, [count, 1, taken, 1], device: qkv.device))); // [B, 1, taken, S]
            }

            output.narrow(1, start, taken).copy_(Attend(spec, query.narrow(2, start, taken), key, value, seen).transpose(1, 2));
        }
    }

    /// <summary>True where a query of a sequence sees a key. [T, T]</summary>
    private static Tensor Seen(AttentionRows rows, int sequence, Device device)
    {
        var key = arange(rows.Length, ScalarType.Int32, device);
        var seen = key.le(key.unsqueeze(-1));
        return rows.FirstSeen is null ? seen
            : seen.logical_and(key.ge(tensor(rows.FirstSeen.AsSpan(sequence * rows.Length, rows.Length).ToArray(), [rows.Length, 1], device: device)));
    }

    /// <summary>As <see cref="CpuKernels.AttentionGradient"/>: dV = P^T dO; dP = dO V^T; dS = P (dP - rowsum(dP P)), under a cap times 1 - tanh^2; dQ = dS K; dK = dS^T Q.</summary>
    internal static (Tensor Queries, Tensor? KeysValues) Backward(AttentionRows rows, Tensor qkv, Tensor gradient, RowSet moved, RowSet seen)
    {
        using var scope = NewDisposeScope();
        var (spec, length) = (rows.Spec, rows.Length);
        List<Tensor> queries = [], keysValues = [];
        for (var b = 0; b < rows.Sequences; b++)
        {
            using var inner = NewDisposeScope();
            var (from, to) = moved.Chosen.Between((long)b * length, (b + 1L) * length);
            var parts = qkv.narrow(0, (long)b * length, length).view(length, spec.Columns, spec.HeadSize).split([spec.Heads, spec.KeyValueHeads, spec.KeyValueHeads], 1);
            var (query, key, value) = (rows.Angles.Rotate(parts[0], 0, length), rows.Angles.Rotate(parts[1], 0, length).transpose(0, 1), parts[2].transpose(0, 1)); // [T, N, H], [K, T, H] twice
            var (dQuery, dKey, dValue) = (zeros_like(query), zeros_like(key), zeros_like(value));
            var mask = Seen(rows, b, qkv.device);                                            // [T, T]
            var step = (int)Math.Max(1, ScoreBytes / (4L * spec.Heads * length));
            for (var first = from; first < to; first += step)
            {
                using var innermost = NewDisposeScope();
                var count = Math.Min(step, to - first);
                var at = tensor(Enumerable.Range(first, count).Select(i => moved.Chosen.At(i) - ((long)b * length)).ToArray(), device: qkv.device);
                Tensor Heads(Tensor some) => Grouped(spec, some.transpose(0, 1).unsqueeze(0));    // [M, N, H] to [K, G * M, H]
                var q = Heads(query.index_select(0, at));
                var given = Heads(gradient.narrow(0, first, count).view(count, spec.Heads, spec.HeadSize));
                var (p, tanh) = Probabilities(spec, q, key, mask.index_select(0, at), 1, count);
                dValue.add_(p.to(value.dtype).transpose(1, 2).bmm(given));
                var ds = TensorOps.Wide(given.bmm(value.transpose(1, 2)));
                ds = ds.sub_(ds.mul(p).sum([-1L], keepdim: true)).mul_(p).mul_(spec.Scale);
                if (tanh is not null) ds.mul_(tanh.mul(tanh).neg_().add_(1));
                var narrow = ds.to(key.dtype);
                dKey.add_(narrow.transpose(1, 2).bmm(q));
                dQuery.index_copy_(0, at, narrow.bmm(key).view(spec.Heads, count, spec.HeadSize).transpose(0, 1));
            }

            Tensor Chosen(RowSet set, Tensor all)
            {
                var (begin, end) = set.Chosen.Between((long)b * length, (b + 1L) * length);
                return all.index_select(0, tensor(Enumerable.Range(begin, end - begin).Select(i => set.Chosen.At(i) - ((long)b * length)).ToArray(), device: qkv.device)).flatten(1);
            }

            queries.Add(Chosen(moved, rows.Angles.Rotate(dQuery, 0, length, back: true)).MoveToOuterDisposeScope());
            keysValues.Add(Chosen(seen, cat([rows.Angles.Rotate(dKey.transpose(0, 1), 0, length, back: true), dValue.transpose(0, 1)], 1)).MoveToOuterDisposeScope());
        }

        return (cat(queries).MoveToOuterDisposeScope(), cat(keysValues).MoveToOuterDisposeScope());
    }
}
