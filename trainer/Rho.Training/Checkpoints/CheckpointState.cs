using System.Text.Json;
using System.Text.Json.Serialization;

namespace Rho.Training;

/// <summary>A file of a checkpoint: its length and SHA-256.</summary>
internal sealed record CheckpointFile(long Bytes, string Sha256);

/// <summary>state.json: all of a run's state that is no tensor, and the checksums of the files that hold those.</summary>
internal sealed record CheckpointState
{
    internal const string CurrentFormat = "rho.checkpoint.v1";

    public string Format { get; init; } = CurrentFormat;

    /// <summary>Steps done.</summary>
    public required long Step { get; init; }

    /// <summary>Of the whole run, as planned when this was written.</summary>
    public required long Steps { get; init; }

    public required long Tokens { get; init; }

    public required long SelectedTokens { get; init; }

    /// <summary>Optimizer steps: skipped ones do not count.</summary>
    public required long OptimizerSteps { get; init; }

    public required int NonFiniteSteps { get; init; }

    /// <summary>Sequences taken from each corpus.</summary>
    public required IReadOnlyList<long> Consumed { get; init; }

    /// <summary>What the order of the data follows from, beside the seed.</summary>
    public required string DataFingerprint { get; init; }

    public required long Seed { get; init; }

    /// <summary>Data-parallel processes; their number is part of the order of sums.</summary>
    public required int Ranks { get; init; }

    /// <summary>Null for runs without a reference.</summary>
    public string? ReferenceFingerprint { get; init; }

    /// <summary>Of reference.history; null where the selector does not look at it.</summary>
    public string? HistoryFingerprint { get; init; }

    public required string TokenizerFingerprint { get; init; }

    /// <summary>State of the ratio schedule.</summary>
    public required double Ratio { get; init; }

    /// <summary>Held-out losses at this step.</summary>
    public IReadOnlyDictionary<string, double>? Evaluation { get; init; }

    /// <summary>By path relative to the checkpoint.</summary>
    public IReadOnlyDictionary<string, CheckpointFile> Files { get; init; } = new Dictionary<string, CheckpointFile>(StringComparer.Ordinal);

    internal static readonly JsonSerializerOptions Json = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        RespectNullableAnnotations = true,
        RespectRequiredConstructorParameters = true,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        WriteIndented = true,
    };
}
