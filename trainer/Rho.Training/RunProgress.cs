namespace Rho.Training;

/// <summary>The counters of a run in progress: with the tensors, all that a checkpoint holds.</summary>
internal sealed record RunProgress
{
    /// <summary>Steps done.</summary>
    public required long Step { get; init; }

    public required long Tokens { get; init; }

    public required long SelectedTokens { get; init; }

    public required long[] Consumed { get; init; }

    /// <summary>Skipped in a row.</summary>
    public required int NonFiniteSteps { get; init; }

    public static RunProgress Start(int corpora) => new() { Step = 0, Tokens = 0, SelectedTokens = 0, Consumed = new long[corpora], NonFiniteSteps = 0 };

    public static RunProgress From(CheckpointState state) => new()
    {
        Step = state.Step,
        Tokens = state.Tokens,
        SelectedTokens = state.SelectedTokens,
        Consumed = [.. state.Consumed],
        NonFiniteSteps = state.NonFiniteSteps,
    };
}
