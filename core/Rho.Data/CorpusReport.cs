namespace Rho.Data;

/// <summary>What a build read, kept and left out. Counts only, no times: the same input gives the same report.</summary>
public sealed record CorpusReport
{
    /// <summary>Documents that were kept, each counted once however often it was read.</summary>
    public required long Documents { get; init; }

    /// <summary>Their tokens, end tokens included.</summary>
    public required long Tokens { get; init; }

    /// <summary>Their text in UTF-8.</summary>
    public required long Bytes { get; init; }
}
