using Rho.Model.Inference;

namespace Rho.Serving.Engine;

/// <summary>
/// Who holds which cache block, and what lies in the others. A full block that nobody holds keeps its content until its room is
/// needed, oldest first, and serves any sequence that begins with the same tokens. Not thread-safe.
/// </summary>
internal sealed class BlockPool
{
    private readonly int[] _holders;
    private readonly Content?[] _contents;
    private readonly LinkedListNode<int>[] _nodes;
    private readonly LinkedList<int> _free = new();
    private readonly Dictionary<Content, int> _byContent = [];
    private long _lastChain;

    public BlockPool(int blocks)
    {
        _holders = new int[blocks];
        _contents = new Content?[blocks];
        _nodes = new LinkedListNode<int>[blocks];
        for (var block = 0; block < blocks; block++) _nodes[block] = _free.AddLast(block);
    }

    public int Blocks => _holders.Length;

    /// <summary>Blocks that nobody holds, with and without content.</summary>
    public int Free => _free.Count;

    public static int BlocksFor(int tokens) => (tokens + DecodingModel.BlockTokens - 1) / DecodingModel.BlockTokens;

    /// <summary>Takes a block for new content; false when none is free.</summary>
    public bool TryTake(out int block)
    {
        if (_free.First is not { } node)
        {
            block = -1;
            return false;
        }

        block = node.Value;
        _free.RemoveFirst();
        _holders[block] = 1;
        if (_contents[block] is { } old)
        {
            _byContent.Remove(old);
            _contents[block] = null;
        }

        return true;
    }

    /// <summary>
    /// Finds the block that holds 16 tokens after the chain of blocks <paramref name="chain"/> (0 at the beginning), and takes it.
    /// </summary>
    /// <param name="chain">Becomes the chain up to and with the found block.</param>
    public bool TryReuse(ref long chain, ReadOnlySpan<int> tokens, out int block)
    {
        if (!_byContent.TryGetValue(new Content(chain, tokens), out block)) return false;
        if (_holders[block]++ == 0) _free.Remove(_nodes[block]);
        chain = _contents[block]!.Chain;
        return true;
    }

    /// <summary>Says that a held block now has 16 tokens after a chain; returns the chain with it.</summary>
    public long Fill(int block, long chain, ReadOnlySpan<int> tokens)
    {
        var content = new Content(chain, tokens);
        // Another sequence may have computed the same at the same time: then its block stays the one that is found.
        if (_byContent.TryGetValue(content, out var other)) return _contents[other]!.Chain;
        content.Chain = ++_lastChain;
        _contents[block] = content;
        _byContent[content] = block;
        return content.Chain;
    }

    /// <summary>Gives blocks back. Ends of sequences lose their content first: beginnings are likelier to be asked for.</summary>
    public void Release(List<int> blocks)
    {
        for (var i = blocks.Count - 1; i >= 0; i--)
        {
            var block = blocks[i];
            if (--_holders[block] > 0) continue;
            if (_contents[block] is null) _free.AddFirst(_nodes[block]);
            else _free.AddLast(_nodes[block]);
        }

        blocks.Clear();
    }

    /// <summary>16 tokens after a chain of blocks. Compared wholly, so that no request ever reads another one's text by a collision.</summary>
    private sealed class Content : IEquatable<Content>
    {
        private readonly long _before;
        private readonly int[] _tokens;
        private readonly int _hash;

        public Content(long before, ReadOnlySpan<int> tokens)
        {
            _before = before;
            _tokens = tokens.ToArray();
            var hash = new HashCode();
            hash.Add(before);
            hash.AddBytes(System.Runtime.InteropServices.MemoryMarshal.AsBytes(tokens));
            _hash = hash.ToHashCode();
        }

        /// <summary>Number of the chain that ends with this block; never given twice.</summary>
        public long Chain { get; set; }

        public bool Equals(Content? other) => other is not null && _before == other._before && _tokens.AsSpan().SequenceEqual(other._tokens);

        public override bool Equals(object? obj) => Equals(obj as Content);

        public override int GetHashCode() => _hash;
    }
}
