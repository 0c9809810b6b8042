using System.Diagnostics.CodeAnalysis;
using System.Runtime.ExceptionServices;

namespace Rho.Training;

/// <summary>
/// What the processes of a run decide together: they would wait for ever for one that stops, fails or writes a checkpoint by itself.
/// All members are called by all ranks at the same place.
/// </summary>
internal sealed class RankAgreement(IRankGroup ranks)
{
    /// <summary>Whether the last <see cref="AllReady"/> ended in an error, which all ranks then have.</summary>
    public bool AllFailed { get; private set; }

    /// <summary>Gets ready for a step, and tells whether it comes: false when a rank is to stop.</summary>
    /// <exception cref="RhoException">This rank, or another, failed.</exception>
    public bool AllReady<T>(Func<T> prepare, [NotNullWhen(true)] out T? prepared, CancellationToken cancellation)
        where T : class
    {
        const double goesOn = 2, stops = 1, failed = 0;
        Exception? error = null;
        Span<double> verdict = [goesOn];
        prepared = null;
        try
        {
            cancellation.ThrowIfCancellationRequested();
            prepared = prepare();
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            verdict[0] = stops;
        }
        catch (Exception e) when (ranks.Size > 1)
        {
            (error, verdict[0]) = (e, failed);
        }

        ranks.Lowest(verdict);
        AllFailed = verdict[0] == failed;
        if (error is not null) ExceptionDispatchInfo.Throw(error);
        if (AllFailed) throw new UnavailableException("another process of the run failed; its own message says why");
        // Who goes on has prepared.
        return verdict[0] == goesOn && prepared is not null;
    }

    /// <summary>Whether any rank wants something.</summary>
    public bool AnyWants(bool wanted)
    {
        Span<double> lowest = [wanted ? -1 : 0];
        ranks.Lowest(lowest);
        return lowest[0] != 0;
    }

    /// <summary>Checks that all ranks have the same weights: those that a faulty machine or library has parted are not to be kept.</summary>
    /// <param name="norm">Of this rank's weights; not asked for where there is one rank.</param>
    /// <exception cref="CorruptDataException">They do not.</exception>
    public void CheckSameWeights(Func<double> norm, long step)
    {
        if (ranks.Size == 1) return;
        var own = norm();
        Span<double> range = [own, -own];
        ranks.Lowest(range);
        if (range[0] != -range[1]) throw new CorruptDataException($"the processes of the run have different weights at step {step} (norms {range[0]:R} to {-range[1]:R})");
    }
}
