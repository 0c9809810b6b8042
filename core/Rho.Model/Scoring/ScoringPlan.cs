using Rho.Model.Architectures;

namespace Rho.Model.Scoring;

/// <summary>Tokens of one sequence that lie together in a pass.</summary>
/// <param name="Start">of its first token in the pass</param>
/// <param name="Position">of its first token in the sequence; those before it are in earlier passes</param>
/// <param name="GoesOn">whether later passes have more of the sequence</param>
/// <param name="Length">of the sequence</param>
internal readonly record struct SequencePiece(int Start, int Position, int Count, bool GoesOn, int Length);

/// <summary>Tokens that go through the model together: [Start, Start + Count) of the batch.</summary>
internal sealed record ScoringPass(int Start, int Count, IReadOnlyList<SequencePiece> Pieces);

/// <summary>
/// How a batch goes through the model: in passes of a bounded number of tokens, so that activations do not grow with the batch or its
/// sequences. Sequences that fit a pass stay whole; longer ones are cut into pieces of a pass each, one after another, and the keys
/// and values of the earlier pieces are kept. It depends on the lengths alone, so a batch's losses are the same bytes every time.
/// </summary>
/// <param name="Kept">most tokens of a sequence whose keys and values are kept; 0 where no sequence is cut</param>
internal sealed record ScoringPlan(IReadOnlyList<ScoringPass> Passes, Visibility Visibility, int Kept)
{
    /// <param name="documents">Empty, or per token its document's number; a document's tokens lie together. [tokens]</param>
    internal static ScoringPlan Of(ReadOnlySpan<int> lengths, ReadOnlySpan<int> documents, int passTokens)
    {
        var passes = new List<ScoringPass>();
        var pieces = new List<SequencePiece>();
        int start = 0, count = 0, kept = 0;
        void Close()
        {
            if (count == 0) return;
            passes.Add(new ScoringPass(start, count, [.. pieces]));
            (start, count) = (start + count, 0);
            pieces.Clear();
        }

        foreach (var length in lengths)
        {
            if (length > passTokens - count) Close();
            for (var position = 0; position < length; position += passTokens)
            {
                var piece = Math.Min(passTokens, length - position);
                var goesOn = position + piece < length;
                if (goesOn) kept = Math.Max(kept, position + piece);
                pieces.Add(new SequencePiece(count, position, piece, goesOn, length));
                count += piece;
                if (goesOn) Close();
            }
        }

        Close();
        return new ScoringPlan(passes, new Visibility([.. lengths], [.. documents]), kept);
    }
}
