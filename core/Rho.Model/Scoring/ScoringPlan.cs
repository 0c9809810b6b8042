using Rho.Kernels;
using Rho.Model.Architectures;

namespace Rho.Model.Scoring;

/// <summary>Tokens that go through the model together: [Start, Start + Count) of the batch.</summary>
/// <param name="Lengths">of the pieces' whole sequences</param>
/// <param name="GoesOn">whether later passes have more of the last piece's sequence</param>
internal sealed record ScoringPass(int Start, int Count, IReadOnlyList<Piece> Pieces, IReadOnlyList<int> Lengths, bool GoesOn);

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
        var (pieces, whole) = (new List<Piece>(), new List<int>());
        int start = 0, count = 0, kept = 0;
        void Close(bool goesOn = false)
        {
            if (count == 0) return;
            passes.Add(new ScoringPass(start, count, [.. pieces], [.. whole], goesOn));
            (start, count) = (start + count, 0);
            pieces.Clear();
            whole.Clear();
        }

        foreach (var length in lengths)
        {
            if (length > passTokens - count) Close();
            for (var position = 0; position < length; position += passTokens)
            {
                var piece = Math.Min(passTokens, length - position);
                var goesOn = position + piece < length;
                if (goesOn) kept = Math.Max(kept, position + piece);
                pieces.Add(new Piece(count, position, piece));
                whole.Add(length);
                count += piece;
                if (goesOn) Close(goesOn);
            }
        }

        Close();
        return new ScoringPlan(passes, new Visibility([.. lengths], [.. documents]), kept);
    }
}
