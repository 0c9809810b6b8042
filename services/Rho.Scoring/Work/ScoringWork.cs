using System.Runtime.InteropServices;

namespace Rho.Scoring.Work;

/// <summary>Sequences of one length to be scored, and room for what comes out.</summary>
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

    /// <summary>[Sequences * Length] nats, filled when <see cref="Completion"/> completes.</summary>
    public required float[] Losses { get; init; }

    public required CancellationToken Cancellation { get; init; }

    public int Count => Sequences * Length;

    public Task Completion => _completion.Task;

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
