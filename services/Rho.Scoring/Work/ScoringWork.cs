using System.Diagnostics;
using System.Runtime.InteropServices;
using Rho.Formats;

namespace Rho.Scoring.Work;

/// <summary>Sequences of one length to be scored, and what came out.</summary>
internal sealed class ScoringWork
{
    private readonly TaskCompletionSource _completion = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Who is to be treated fairly: all work of one client shares one turn.</summary>
    public required string Client { get; init; }

    /// <summary>[Sequences * Length] token ids.</summary>
    public required int[] Tokens { get; init; }

    public required int Sequences { get; init; }

    public required int Length { get; init; }

    /// <summary>Per token the number of its document in its sequence, -1 for padding; null: documents see each other, no padding.</summary>
    public int[]? Documents { get; init; }

    /// <summary>Whether the sequences may share a batch with other clients' ones. What must be the same bytes every time may not.</summary>
    public bool MayShareBatch { get; init; }

    /// <summary>What is to be computed; its encoding does not matter here.</summary>
    public required ScoreFormat Format { get; init; }

    /// <summary>
    /// Room for the results where the caller keeps some, [Sequences * Length] in the format; otherwise the loop sets it. Filled when
    /// <see cref="Completion"/> completes.
    /// </summary>
    public TokenScores? Scores { get; set; }

    /// <summary>Where the results begin in <see cref="Scores"/>, which work of one batch has in common.</summary>
    public int FirstScore { get; set; }

    public required CancellationToken Cancellation { get; init; }

    /// <summary>The span that the work was made in, which the batch's span links to.</summary>
    public ActivityContext Trace { get; } = Activity.Current?.Context ?? default;

    public int Count => Sequences * Length;

    /// <summary>Whether this and another may be one batch.</summary>
    public bool MayJoin(ScoringWork other) =>
        MayShareBatch && other.MayShareBatch && Format.Entropy == other.Format.Entropy && Format.TopK == other.Format.TopK;

    public Task Completion => _completion.Task;

    /// <summary>The results as they are cached and sent.</summary>
    public byte[] Encode() => Scores!.Encode(Format, FirstScore, Count);

    public void Complete() => _completion.TrySetResult();

    public void Fail(Exception exception)
    {
        if (exception is OperationCanceledException) _completion.TrySetCanceled(Cancellation);
        else _completion.TrySetException(exception);
    }
}

/// <summary>What the loop does at a time, such as tokens per second while it works.</summary>
[StructLayout(LayoutKind.Auto)]
public readonly record struct LoopState(double TokensPerSecond, bool HasWork, TimeSpan SinceLastBatch);
