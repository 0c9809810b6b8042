namespace Rho.Formats;

/// <summary>
/// What a build read, kept and left out. Counts only, no times: the same input and options give the same report.
/// Documents, tokens and bytes count what was kept for training, each document once however many epochs read it.
/// </summary>
public sealed record CorpusReport
{
    public required long Documents { get; init; }

    /// <summary>Tokens of the documents, end tokens included.</summary>
    public required long Tokens { get; init; }

    /// <summary>Text of the documents in UTF-8.</summary>
    public required long Bytes { get; init; }

    public double TokensPerByte => Bytes == 0 ? 0 : Math.Round((double)Tokens / Bytes, 6);

    /// <summary>Tokens of the longest document.</summary>
    public required int LongestDocument { get; init; }

    /// <summary>Positions of the corpus that hold no token.</summary>
    public required long PaddingTokens { get; init; }

    public required DroppedDocuments Dropped { get; init; }

    /// <summary>How often a document was cut because it exceeded 4 MiB of text: each part is a document of its own.</summary>
    public required long CutDocuments { get; init; }

    /// <summary>The first bad records that were skipped, at most 20.</summary>
    public required IReadOnlyList<BadRecord> BadRecords { get; init; }

    /// <summary>Null where nothing was held out.</summary>
    public HeldOutDocuments? HeldOut { get; init; }

    public required IReadOnlyList<SourceReport> Sources { get; init; }
}

/// <summary>Documents that did not get in, by reason.</summary>
public sealed record DroppedDocuments(long Duplicates, long Empty, long BadRecords);

/// <summary>A record that could not be read. Lines count from 1.</summary>
public sealed record BadRecord(string File, long Line, string Reason);

/// <summary>The held-out corpus, which stands in the folder "heldout" of the corpus.</summary>
public sealed record HeldOutDocuments(long Documents, long Tokens);

/// <summary>One source: what it offers, and how much of it is in the corpus.</summary>
/// <param name="TokensUsed">Tokens of this source in the corpus, over all epochs.</param>
/// <param name="EpochsUsed">TokensUsed by Tokens: 0.5 where a mixture ended with half of the source unread.</param>
public sealed record SourceReport(
    string Name, int Files, long Documents, long Tokens, long Bytes, int Epochs, long TokensUsed, double EpochsUsed, double? Weight = null);
