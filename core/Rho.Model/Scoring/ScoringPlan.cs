namespace Rho.Model.Scoring;

/// <summary>Tokens of one sequence that lie together in a pass.</summary>
/// <param name="Start">of its first token in the pass</param>
/// <param name="Position">of its first token in the sequence; those before it are in earlier passes</param>
/// <param name="GoesOn">whether later passes have more of the sequence</param>
internal readonly record struct SequencePiece(int Start, int Position, int Count, bool GoesOn);

/// <summary>Tokens that go through the model together: [Start, Start + Count) of the batch.</summary>
internal sealed record ScoringPass(int Start, int Count, IReadOnlyList<SequencePiece> Pieces);

/// <summary>
/// How a batch goes through the model: in passes of a bounded number of tokens, so that activations do not grow with the batch or its
/// sequences. Sequences that fit a pass stay whole; longer ones are cut into pieces of a pass each, one after another, and the keys
/// and values of the earlier pieces are kept. It depends on the lengths alone, so a batch's losses are the same bytes every time.
/// </summary>
/// <param name="FirstSeen">Null where every token sees all before it; else per token of the batch the earliest position of its sequence that it sees.</param>
/// <param name="Longest">tokens of the longest sequence</param>
/// <param name="Kept">most tokens of a sequence whose keys and values are kept; 0 where no sequence is cut</param>
internal sealed record ScoringPlan(IReadOnlyList<ScoringPass> Passes, int[]? FirstSeen, int Longest, int Kept)
{
    /// <param name="documents">Empty, or per token its document's number; a document's tokens lie together. [tokens]</param>
    /// <param name="slidingWindow">tokens that a token sees, itself included; null for all before it</param>
    internal static ScoringPlan Of(ReadOnlySpan<int> lengths, ReadOnlySpan<int> documents, int? slidingWindow, int passTokens)
    {
        var passes = new List<ScoringPass>();
        var pieces = new List<SequencePiece>();
        int start = 0, count = 0, longest = 0, kept = 0;
        void Close()
        {
            if (count == 0) return;
            passes.Add(new ScoringPass(start, count, [.. pieces]));
            (start, count) = (start + count, 0);
            pieces.Clear();
        }

        foreach (var length in lengths)
        {
            longest = Math.Max(longest, length);
            if (length > passTokens - count) Close();
            for (var position = 0; position < length; position += passTokens)
            {
                var piece = Math.Min(passTokens, length - position);
                var goesOn = position + piece < length;
                if (goesOn) kept = Math.Max(kept, position + piece);
                pieces.Add(new SequencePiece(count, position, piece, goesOn));
                count += piece;
                if (goesOn) Close();
            }
        }

        Close();
        return new ScoringPlan(passes, First(lengths, documents, slidingWindow is { } window && window < longest ? window : longest, longest), longest, kept);
    }

    private static int[]? First(ReadOnlySpan<int> lengths, ReadOnlySpan<int> documents, int window, int longest)
    {
        if (documents.IsEmpty && window == longest) return null;
        var total = 0;
        foreach (var length in lengths) total += length;
        var first = new int[total];
        var at = 0;
        foreach (var length in lengths)
        {
            AttentionContext.FirstSeenOf(documents.IsEmpty ? [] : documents.Slice(at, length), window, first.AsSpan(at, length));
            at += length;
        }

        return first;
    }
}
