using System.Text.Json;

namespace Rho.Cli.Quickstart;

/// <summary>What the quickstart found; summary.json as written.</summary>
internal sealed record QuickstartSummary
{
    /// <summary>Processor, cores and libtorch on which the numbers arose.</summary>
    public required string Machine { get; init; }

    /// <summary>Wall time of the whole job.</summary>
    public required double Seconds { get; init; }

    public required IReadOnlyList<StageTime> Stages { get; init; }

    /// <summary>Architecture of all three models.</summary>
    public required string Model { get; init; }

    public required int VocabularySize { get; init; }

    public required DataSummary Data { get; init; }

    public required ReferenceSummary Reference { get; init; }

    public required ScoresSummary Scores { get; init; }

    /// <summary>CLM first, then SLM, trained on the same tokens in the same order.</summary>
    public required IReadOnlyList<RunSummary> Runs { get; init; }

    /// <summary>What the served SLM model was asked over HTTP.</summary>
    public required IReadOnlyList<Exchange> Asked { get; init; }

    public static readonly JsonSerializerOptions JsonOptions = new(JsonSerializerDefaults.Web)
    {
        WriteIndented = true,
        Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };
}

internal sealed record StageTime(string Name, double Seconds);

/// <summary>Token counts of the corpora, and the share of the crawl's tokens that its generator made as noise, whole and by kind.</summary>
internal sealed record DataSummary(long CuratedTokens, long CrawlTokens, long HeldOutTokens, double NoiseShare, IReadOnlyDictionary<NoiseKind, double> NoiseShareByKind);

/// <summary><paramref name="HeldOutLoss"/> in nats per token.</summary>
internal sealed record ReferenceSummary(long Tokens, double HeldOutLoss, double Seconds);

/// <summary><paramref name="Cache"/> is redis or folder.</summary>
internal sealed record ScoresSummary(int Scorers, string Cache, long Tokens, double Seconds);

/// <summary>One trained model.</summary>
internal sealed record RunSummary
{
    /// <summary>clm or slm.</summary>
    public required string Objective { get; init; }

    /// <summary>Share of a batch's tokens whose loss trains the model; 1 for CLM.</summary>
    public required double Ratio { get; init; }

    public required long Tokens { get; init; }

    public required double Seconds { get; init; }

    /// <summary>Nats per token on held-out clean text, at the end.</summary>
    public required double HeldOutLoss { get; init; }

    /// <summary>Share of all noise tokens seen that this objective trained on.</summary>
    public required double NoiseTrainedOn { get; init; }

    /// <summary>Share of all clean tokens seen that this objective trained on.</summary>
    public required double CleanTrainedOn { get; init; }

    public required IReadOnlyDictionary<NoiseKind, double> NoiseTrainedOnByKind { get; init; }

    public required IReadOnlyList<CurvePoint> Curve { get; init; }
}

/// <summary>Held-out loss (nats per token) after so many tokens.</summary>
internal readonly record struct CurvePoint(long Tokens, double HeldOutLoss);

internal sealed record Exchange(string Prompt, string Answer);

/// <summary>A token of the report's page: its text, what the generator and the selection made of it, and its losses in nats (NaN where it has none).</summary>
internal readonly record struct PageToken(string Text, NoiseKind? Noise, bool Selected, float Loss, float ReferenceLoss);
