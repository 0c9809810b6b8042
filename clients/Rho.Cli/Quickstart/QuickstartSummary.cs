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

    /// <summary>What both served models were asked over HTTP: the first held-out problems.</summary>
    public required IReadOnlyList<Exchange> Asked { get; init; }

    /// <summary>Of <see cref="Asked"/>, how many each model answered right.</summary>
    public int ClmRight => Asked.Count(exchange => exchange.Clm.Right);

    public int SlmRight => Asked.Count(exchange => exchange.Slm.Right);

    /// <summary>
    /// Share of the tokens after which SLM's held-out loss first was as low as CLM's last one, straight between two evaluations; null where it never was.
    /// </summary>
    public double? ReachesClmAfter
    {
        get
        {
            var (goal, curve) = (Runs[0].HeldOutLoss, Runs[1].Curve);
            for (var i = 0; i < curve.Count; i++)
            {
                if (!(curve[i].HeldOutLoss <= goal)) continue;
                var before = i == 0 ? curve[0] : curve[i - 1];
                var part = i == 0 ? 0 : (before.HeldOutLoss - goal) / (before.HeldOutLoss - curve[i].HeldOutLoss);
                return (before.Tokens + (part * (curve[i].Tokens - before.Tokens))) / Runs[0].Tokens;
            }

            return null;
        }
    }

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

/// <summary>A held-out problem without its answer, the right one, and both models' greedy continuations.</summary>
internal sealed record Exchange(string Prompt, string Answer, Reply Clm, Reply Slm);

/// <summary><paramref name="Right"/>: the text is the right answer and nothing else.</summary>
internal sealed record Reply(string Text, bool Right);

/// <summary>A token of the report's page: its text, what the generator and the selection made of it, and its losses in nats (NaN where it has none).</summary>
internal readonly record struct PageToken(string Text, NoiseKind? Noise, bool Selected, float Loss, float ReferenceLoss);
