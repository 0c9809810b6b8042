using static TorchSharp.torch;

namespace Rho.Model.Scoring;

/// <summary>Attention over a pass's pieces in libtorch's operations, for accelerators and for head sizes that the CPU's kernels do not take.</summary>
internal static class TorchPieceAttention
{
    /// <summary>Most bytes of scores with a mask at a time.</summary>
    private const long ScoreBytes = 256 << 20;

    /// <summary>As <see cref="Cpu.PieceAttention.Attend"/>.</summary>
    internal static void Attend(PieceContext context, Tensor qkv, Tensor? earlier, Tensor attended)
    {
        var pieces = context.Pass.Pieces;
        for (var i = 0; i < pieces.Count;)
        {
            // Neighbours of one length are one batch.
            var end = i + 1;
            if (pieces[i].Position == 0)
                while (end < pieces.Count && pieces[end].Position == 0 && pieces[end].Count == pieces[i].Count) end++;
            using var scope = NewDisposeScope();
            Attend(context, pieces[i], end - i, qkv, earlier, attended);
            i = end;
        }
    }

    // B pieces of T tokens, S keys each.
    private static void Attend(PieceContext context, SequencePiece piece, int count, Tensor qkv, Tensor? earlier, Tensor attended)
    {
        var (spec, length) = (context.Spec, piece.Count);
        var keys = piece.Position + length;
        var rows = qkv.narrow(0, piece.Start, (long)count * length).view(count, length, spec.Columns, spec.HeadSize);
        var output = attended.narrow(0, piece.Start, (long)count * length).view(count, length, spec.Heads, spec.HeadSize);
        var keyValues = rows.narrow(2, spec.Heads, 2 * spec.KeyValueHeads);                     // [B, T, 2 K, H]
        if (piece.Position > 0) keyValues = cat([earlier!.narrow(0, 0, piece.Position).unsqueeze(0), keyValues], 1); // [1, S, 2 K, H]
        var query = context.Angles.Rotate(rows.narrow(2, 0, spec.Heads), piece.Position, length).transpose(1, 2); // [B, N, T, H]
        var key = context.Angles.Rotate(keyValues.narrow(2, 0, spec.KeyValueHeads), 0, keys).transpose(1, 2); // [B, K, S, H]
        var value = keyValues.narrow(2, spec.KeyValueHeads, spec.KeyValueHeads).transpose(1, 2); // [B, K, S, H]
        if (piece.Position == 0 && context.FirstSeen is null && spec.SoftCap is null)
        {
            output.copy_(TorchAttention.Attend(spec, query, key, value, null).transpose(1, 2));
            return;
        }

        var step = (int)Math.Clamp(ScoreBytes / (4L * count * spec.Heads * keys), 1, length);
        var position = arange(keys, ScalarType.Int32, qkv.device);
        for (var start = 0; start < length; start += step)
        {
            using var scope = NewDisposeScope();
            var taken = Math.Min(step, length - start);
            var seen = position.le(position.narrow(0, piece.Position + start, taken).unsqueeze(-1));   // [taken, S]
            if (context.FirstSeen is not null)
            {
                var first = new int[count * taken];
                for (var b = 0; b < count; b++)
                    for (var t = 0; t < taken; t++) first[(b * taken) + t] = context.First(piece, (b * length) + start + t);
                seen = seen.logical_and(position.ge(tensor(first, [count, 1, taken, 1], device: qkv.device))); // [B, 1, taken, S]
            }

            output.narrow(1, start, taken).copy_(TorchAttention.Attend(spec, query.narrow(2, start, taken), key, value, seen).transpose(1, 2));
        }
    }
}
