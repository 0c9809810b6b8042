using System.Diagnostics;

namespace Rho.Client;

/// <summary>How far some work has got over all its attempts, and whether another attempt is worth it.</summary>
internal sealed class Progress(TimeSpan budget)
{
    private const int MaxInternalFailures = 4;

    private long _last = Stopwatch.GetTimestamp();
    private int _internalFailures;

    public long Steps { get; private set; }

    /// <summary>The replica that failed last; the next attempt prefers others.</summary>
    public Replica? LastFailed { get; set; }

    /// <summary>Time without progress.</summary>
    public TimeSpan Idle => Stopwatch.GetElapsedTime(_last);

    public void Step()
    {
        Steps++;
        _last = Stopwatch.GetTimestamp();
        _internalFailures = 0;
    }

    /// <summary>Whether to try again after a failure: while there is budget, and not for ever with scorers that break.</summary>
    public bool MayGoOn(ReplicaFailedException failure) =>
        Idle < budget && (!failure.IsInternal || ++_internalFailures < MaxInternalFailures);
}
