namespace Rho.Model.Inference;

/// <summary>A run of tokens of one sequence within a <see cref="ForwardBatch"/>.</summary>
/// <param name="Start">Row of its first token in the batch.</param>
/// <param name="Count">Its tokens.</param>
/// <param name="Position">Position of its first token in the sequence; what lies before is in the cache.</param>
/// <param name="Blocks">The sequence's cache blocks in order: block i holds positions [i * 16, i * 16 + 16). At least up to its last token.</param>
/// <param name="Length">Tokens of the whole sequence, which decide the angles of its rotation where <see cref="DecodingModel.RecomputeBeyond"/> says so.</param>
public readonly record struct Segment(int Start, int Count, int Position, IReadOnlyList<int> Blocks, int Length);

/// <summary>The tokens of one step: of any number of sequences, whole prompts, pieces of prompts and single tokens alike.</summary>
public sealed class ForwardBatch
{
    private readonly List<int> _tokens = [];
    private readonly List<Segment> _segments = [];
    private readonly List<int> _outputs = [];

    public IReadOnlyList<Segment> Segments => _segments;

    public ReadOnlySpan<int> Tokens => System.Runtime.InteropServices.CollectionsMarshal.AsSpan(_tokens);

    /// <summary>Rows whose next-token logits are wanted, ascending.</summary>
    public ReadOnlySpan<int> Outputs => System.Runtime.InteropServices.CollectionsMarshal.AsSpan(_outputs);

    public int Count => _tokens.Count;

    public void Clear()
    {
        _tokens.Clear();
        _segments.Clear();
        _outputs.Clear();
    }

    /// <summary>Adds tokens of a sequence at a position; returns the row of the first.</summary>
    /// <param name="length">of the whole sequence so far, with what is still to be added of a prompt; where these tokens are its last ones, it need not be said</param>
    public int Add(ReadOnlySpan<int> tokens, int position, IReadOnlyList<int> blocks, int? length = null)
    {
        var start = _tokens.Count;
        _tokens.AddRange(tokens);
        _segments.Add(new Segment(start, tokens.Length, position, blocks, length ?? (position + tokens.Length)));
        return start;
    }

    /// <summary>Asks for the logits of a row; returns their number among the outputs. Rows must ascend.</summary>
    public int AddOutput(int row)
    {
        _outputs.Add(row);
        return _outputs.Count - 1;
    }
}
