using static TorchSharp.torch;

namespace Rho.Training;

/// <summary>
/// The processes that train one model together, each on its share of the micro-batches. All members but <see cref="Abort"/> are
/// called by all ranks at the same place, and give all of them the same result.
/// </summary>
internal interface IRankGroup : IDisposable
{
    /// <summary>This process, from 0. Rank 0 leads: it alone writes files and says what happens.</summary>
    int Rank { get; }

    int Size { get; }

    /// <summary>Adds values up over ranks, in place.</summary>
    void Sum(Span<double> values);

    /// <summary>Adds a flat float32 tensor up over ranks, in place.</summary>
    void Sum(Tensor flat);

    /// <summary>The lowest of each value over ranks, in place.</summary>
    void Lowest(Span<double> values);

    /// <summary>What each rank gives, one after another in their order; ranks may give different lengths.</summary>
    T[] Gather<T>(ReadOnlySpan<T> own)
        where T : unmanaged;

    /// <summary>Rank 0's text, for all.</summary>
    string Broadcast(string text);

    /// <summary>Ends all processes at once, because this one cannot go on: others would wait for it for ever.</summary>
    void Abort(string message);
}

/// <summary>One process by itself.</summary>
internal sealed class SingleRank : IRankGroup
{
    public int Rank => 0;

    public int Size => 1;

    public void Sum(Span<double> values)
    {
    }

    public void Sum(Tensor flat)
    {
    }

    public void Lowest(Span<double> values)
    {
    }

    public T[] Gather<T>(ReadOnlySpan<T> own)
        where T : unmanaged => own.ToArray();

    public string Broadcast(string text) => text;

    public void Abort(string message)
    {
    }

    public void Dispose()
    {
    }
}

/// <summary>How the processes of a run find each other.</summary>
internal static class RankGroups
{
    /// <summary>Whether this process was started beside others, and is not the first.</summary>
    public static bool IsFollower => Environment.GetEnvironmentVariable("OMPI_COMM_WORLD_RANK") is { } rank && rank != "0";

    /// <summary>The group that mpirun started, or this process alone.</summary>
    /// <exception cref="RhoException">mpirun's library cannot be used.</exception>
    public static IRankGroup Join() =>
        Environment.GetEnvironmentVariable("OMPI_COMM_WORLD_SIZE") is { } size && size != "1" ? MpiGroup.Join() : new SingleRank();
}
