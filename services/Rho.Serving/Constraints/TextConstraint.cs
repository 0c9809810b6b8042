namespace Rho.Serving.Constraints;

/// <summary>A language that continuations have to be of. Immutable; each sequence gets a matcher of its own.</summary>
public abstract class TextConstraint
{
    public abstract ConstraintMatcher Start();
}

/// <summary>Where in a constraint's language one sequence is.</summary>
public abstract class ConstraintMatcher
{
    /// <summary>Nothing can follow: the continuation is whole.</summary>
    public abstract bool IsComplete { get; }

    /// <summary>
    /// Sets the bits of the tokens that can come now, ends of sequence among them where the text may end here; clears all others. False
    /// when no token can come: the vocabulary cannot spell what has to follow.
    /// </summary>
    public abstract bool Allow(Span<ulong> tokens);

    /// <summary>Takes a token that was allowed.</summary>
    public abstract void Advance(int token);
}
