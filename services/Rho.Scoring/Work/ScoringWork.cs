using System.Diagnostics;
using System.Runtime.InteropServices;
using Rho.Formats;

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

    /// <summary>What is to be computed; its encoding does not matter here.</summary>
    public required ScoreFormat Format { get; init; }

    /// <summary>[Sequences * Length] nats, filled when <see cref="Completion"/> completes.</summary>
    public required float[] Losses { get; init; }

    /// <summary>[Sequences * Length] nats; empty where the format has none.</summary>
    public float[] Entropies { get; init; } = [];

    /// <summary>[Sequences * Length * TopK]; empty where the format has none.</summary>
    public int[] TopIds { get; init; } = [];

    /// <summary>As <see cref="TopIds"/>.</summary>
    public float[] TopLogProbabilities { get; init; } = [];

    public required CancellationToken Cancellation { get; init; }

    /// <summary>The span that the work was made in, which the batch's span links to.</summary>
    public ActivityContext Trace { get; } = Activity.Current?.Context ?? default;

    public int Count => Sequences * Length;

    /// <summary>Whether this and another may be one batch.</summary>
    public bool MayJoin(ScoringWork other) =>
        MayShareBatch && other.MayShareBatch && Format.Entropy == other.Format.Entropy && Format.TopK == other.Format.TopK;

    public Task Completion => _completion.Task;

    /// <summary>The results as they are cached and sent.</summary>
    public byte[] Encode()
    {
        var payload = new byte[Count * Format.BytesPerToken];
        var at = LossCodec.BytesPerLoss(Format.Encoding) * Count;
        LossCodec.Encode(Losses.AsSpan(0, Count), Format.Encoding, payload.AsSpan(0, at));
        if (Format.Entropy)
        {
            LossCodec.Encode(Entropies.AsSpan(0, Count), LossEncoding.F16, payload.AsSpan(at, Count * sizeof(ushort)));
            at += Count * sizeof(ushort);
        }

        var top = Count * Format.TopK;
        MemoryMarshal.AsBytes(TopIds.AsSpan(0, top)).CopyTo(payload.AsSpan(at));
        at += top * sizeof(uint);
        LossCodec.Encode(TopLogProbabilities.AsSpan(0, top), LossEncoding.F16, payload.AsSpan(at, top * sizeof(ushort)));
        return payload;
    }

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
