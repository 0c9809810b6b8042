namespace Rho.Serving.Constraints;

/// <summary>A constraint of texts to a language of bytes, over a vocabulary. Token masks are kept per place in the language.</summary>
internal sealed class GrammarConstraint(VocabularyTrie vocabulary, ExpressionTable table, Expression language) : TextConstraint
{
    // 128,000 tokens make masks of 16 KB.
    private const int MostMasks = 512;

    private readonly Lock _lock = new();
    private readonly Dictionary<int, ulong[]> _masks = [];

    /// <summary>Whether texts that begin now should have a new constraint: every text adds what was not computed before, and there is a bound.</summary>
    public bool IsWorn
    {
        get
        {
            lock (_lock) return table.IsWorn;
        }
    }

    public override ConstraintMatcher Start() => new Matcher(this, language);

    private ulong[] MaskOf(Expression state)
    {
        lock (_lock)
        {
            if (_masks.TryGetValue(state.Id, out var mask)) return mask;
            mask = new ulong[(vocabulary.VocabularySize + 63) / 64];
            vocabulary.Allow(table, state, mask);
            if (state.MayEnd)
            {
                foreach (var end in vocabulary.Ends) mask[end >> 6] |= 1UL << (end & 63);
            }

            if (_masks.Count >= MostMasks) _masks.Clear();
            _masks.Add(state.Id, mask);
            return mask;
        }
    }

    private Expression Advance(Expression state, int token)
    {
        lock (_lock)
        {
            foreach (var value in vocabulary.Bytes[token].Span) state = table.After(state, value);
            return state;
        }
    }

    private sealed class Matcher(GrammarConstraint owner, Expression state) : ConstraintMatcher
    {
        private Expression _state = state;

        public override bool IsComplete => _state.Kind == ExpressionKind.Empty;

        public override bool Allow(Span<ulong> tokens)
        {
            var mask = owner.MaskOf(_state);
            mask.CopyTo(tokens);
            return mask.AsSpan().ContainsAnyExcept(0UL);
        }

        public override void Advance(int token) => _state = owner.Advance(_state, token);
    }
}
