using Rho.Formats;

namespace Rho.Model;

/// <summary>The positions that predict a token: the row of the hidden state, and the token that comes after it.</summary>
/// <param name="Positions">index into the batch's tokens of the predicting position</param>
/// <param name="Targets">the token at the next position</param>
internal sealed record PredictingRows(long[] Positions, long[] Targets)
{
    internal static PredictingRows Of(TokenBatch batch)
    {
        var lengths = new int[batch.Sequences];
        Array.Fill(lengths, batch.Length);
        return Of(batch.Tokens, lengths, batch.Documents ?? []);
    }

    /// <param name="tokens">sequences one after another</param>
    internal static PredictingRows Of(ReadOnlySpan<int> tokens, ReadOnlySpan<int> lengths, ReadOnlySpan<int> documents)
    {
        var positions = new long[tokens.Length];
        var targets = new long[tokens.Length];
        var (count, start) = (0, 0);
        foreach (var length in lengths)
        {
            for (var at = start + 1; at < start + length; at++)
            {
                if (!documents.IsEmpty && (documents[at] < 0 || documents[at] != documents[at - 1])) continue;
                positions[count] = at - 1;
                targets[count++] = tokens[at];
            }

            start += length;
        }

        return new PredictingRows(positions[..count], targets[..count]);
    }

    /// <summary>Those with positions in start .. start + count, of which <paramref name="from"/> is the first and then the one after them.</summary>
    internal PredictingRows Within(ref int from, long start, int count)
    {
        var end = from;
        while (end < Positions.Length && Positions[end] < start + count) end++;
        var rows = new PredictingRows(Positions[from..end], Targets[from..end]);
        from = end;
        return rows;
    }

    /// <summary>Values of rows to the positions of their targets.</summary>
    /// <param name="rows">[rows, width]</param>
    /// <param name="values">[tokens, width]</param>
    internal void Spread<T>(ReadOnlySpan<T> rows, Span<T> values, int width = 1)
    {
        for (var i = 0; i < Positions.Length; i++) rows.Slice(i * width, width).CopyTo(values[(((int)Positions[i] + 1) * width)..]);
    }

    /// <summary>Scores of rows to the positions of their targets.</summary>
    internal void Spread(TokenScores rows, TokenScores scores)
    {
        for (var i = 0; i < Positions.Length; i++) rows.CopyTo(i, 1, scores, (int)Positions[i] + 1);
    }

    /// <summary>A probe's tokens at the targets' positions. [rows, K]</summary>
    internal int[] Asked(TokenProbe probe)
    {
        var ids = new int[Positions.Length * probe.K];
        for (var i = 0; i < Positions.Length; i++) probe.Ids.AsSpan(((int)Positions[i] + 1) * probe.K, probe.K).CopyTo(ids.AsSpan(i * probe.K));
        return ids;
    }
}
