namespace Rho.Serving.Constraints;

/// <summary>A constraint of texts to a language of bytes, over a vocabulary. Token masks are kept per place in the language.</summary>
internal sealed class GrammarConstraint(VocabularyTrie vocabulary, ExpressionTable table, Expression language) : TextConstraint
{
    // 128,000 tokens make masks of 16 KB.
    private const int MostMasks = 512;

    private readonly Lock _lock = new();
    private readonly Dictionary<int, Mask> _masks = [];

    /// <summary>Whether texts that begin now should have a new constraint: every text adds what was not computed before, and there is a bound.</summary>
    public bool IsWorn
    {
        get
        {
            lock (_lock) return table.IsWorn;
        }
    }

    public override ConstraintMatcher Start() => new Matcher(this, language);

    private Mask MaskOf(Expression state)
    {
        lock (_lock)
        {
            if (_masks.TryGetValue(state.Id, out var mask)) return mask;
            var tokens = new ulong[(vocabulary.VocabularySize + 63) / 64];
            vocabulary.Allow(table, state, tokens);
            mask = new Mask(tokens, GoesOn: tokens.AsSpan().ContainsAnyExcept(0UL));
            if (state.MayEnd)
            {
                foreach (var end in vocabulary.Ends) tokens[end >> 6] |= 1UL << (end & 63);
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

    /// <param name="Tokens">A bit for each token that can come, ends among them.</param>
    /// <param name="GoesOn">Whether any can come but an end.</param>
    private sealed record Mask(ulong[] Tokens, bool GoesOn);

    private sealed class Matcher(GrammarConstraint owner, Expression state) : ConstraintMatcher
    {
        private Expression _state = state;

        public override bool IsComplete => _state.Kind == ExpressionKind.Empty || (_state.MayEnd && !owner.MaskOf(_state).GoesOn);

        public override bool Allow(Span<ulong> tokens)
        {
            var mask = owner.MaskOf(_state).Tokens;
            mask.CopyTo(tokens);
            return mask.AsSpan().ContainsAnyExcept(0UL);
        }

        public override void Advance(int token) => _state = owner.Advance(_state, token);
    }
}
