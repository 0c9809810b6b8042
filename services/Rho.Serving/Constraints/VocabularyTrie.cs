namespace Rho.Serving.Constraints;

/// <summary>A vocabulary's tokens by their bytes, as a tree laid out in the order in which it is walked.</summary>
internal sealed class VocabularyTrie
{
    private readonly List<Node> _nodes = [];
    private readonly List<int> _tokens = [];

    /// <param name="bytesOf">A token's bytes; none for tokens that have no text.</param>
    /// <param name="ends">Tokens that end a text.</param>
    public VocabularyTrie(int vocabularySize, Func<int, ReadOnlyMemory<byte>> bytesOf, IEnumerable<int> ends)
    {
        VocabularySize = vocabularySize;
        Ends = [.. ends];
        Bytes = [.. Enumerable.Range(0, vocabularySize).Select(bytesOf)];
        var sorted = Enumerable.Range(0, vocabularySize).Where(token => Bytes[token].Length > 0).ToArray();
        Array.Sort(sorted, (a, b) => Bytes[a].Span.SequenceCompareTo(Bytes[b].Span));
        Add(sorted, 0);
    }

    public int VocabularySize { get; }

    public IReadOnlyList<int> Ends { get; }

    public ReadOnlyMemory<byte>[] Bytes { get; }

    /// <summary>Sets the bits of all tokens that can come where <paramref name="start"/> is what has to follow.</summary>
    public void Allow(ExpressionTable table, Expression start, Span<ulong> allowed)
    {
        var states = new List<Expression> { start };
        for (var i = 0; i < _nodes.Count;)
        {
            var node = _nodes[i];
            var state = table.After(states[node.Depth - 1], node.Byte);
            if (state == table.Nothing)
            {
                i = node.Next;
                continue;
            }

            if (states.Count <= node.Depth) states.Add(state);
            else states[node.Depth] = state;
            for (var t = node.FirstToken; t < node.LastToken; t++) allowed[_tokens[t] >> 6] |= 1UL << (_tokens[t] & 63);
            i++;
        }
    }

    /// <summary>Adds the nodes below a common beginning of <paramref name="depth"/> bytes.</summary>
    private void Add(ReadOnlySpan<int> tokens, int depth)
    {
        while (tokens.Length > 0)
        {
            var value = Bytes[tokens[0]].Span[depth];
            var count = 1;
            while (count < tokens.Length && Bytes[tokens[count]].Span[depth] == value) count++;
            var place = _nodes.Count;
            var firstToken = _tokens.Count;
            var here = 0;
            while (here < count && Bytes[tokens[here]].Length == depth + 1) _tokens.Add(tokens[here++]);
            _nodes.Add(default);
            var lastToken = _tokens.Count;
            Add(tokens[here..count], depth + 1);
            _nodes[place] = new Node(value, depth + 1, _nodes.Count, firstToken, lastToken);
            tokens = tokens[count..];
        }
    }

    /// <param name="Next">The node after all that begin with this one.</param>
    private readonly record struct Node(byte Byte, int Depth, int Next, int FirstToken, int LastToken);
}
