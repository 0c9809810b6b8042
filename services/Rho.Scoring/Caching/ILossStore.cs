namespace Rho.Scoring.Caching;

/// <summary>
/// Where scores outlive the stream that computed them. Reads need no permission; writes need the lease of the shard's
/// segment, which one writer holds at a time among all processes on the store.
/// </summary>
/// <remarks>
/// Every method throws <see cref="StoreUnavailableException"/> where the store cannot be reached or refuses to work. Callers
/// then go on without it.
/// </remarks>
public interface ILossStore : IAsyncDisposable
{
    /// <summary>"redis", "folder" or "none".</summary>
    string Kind { get; }

    /// <summary>Whether calls have a chance now. A store that was lost becomes available again by itself.</summary>
    bool Available { get; }

    /// <summary>What keeps the store from working as it should, and what to do about it, on one line; null: nothing.</summary>
    string? Trouble { get; }

    /// <summary>
    /// Payloads of consecutive chunks from <paramref name="first"/> on: at most <paramref name="count"/>, up to the first that
    /// is missing. What fails its checksum is dropped, counted and reported as missing.
    /// </summary>
    Task<IReadOnlyList<byte[]>> ReadAsync(ScoreKey key, int first, int count, CancellationToken cancellation);

    /// <summary>For each chunk from <paramref name="first"/> to before <paramref name="end"/> whether it is stored.</summary>
    Task<bool[]> PresentAsync(ScoreKey key, int first, int end, CancellationToken cancellation);

    /// <summary>The right to write a segment's chunks, or null while another writer has it.</summary>
    Task<ISegmentLease?> TryLeaseAsync(ScoreKey key, int segment, CancellationToken cancellation);

    /// <summary>Whether some writer holds a lease on the shard.</summary>
    Task<bool> IsLeasedAsync(ScoreKey key, CancellationToken cancellation);

    /// <summary>
    /// What the store holds as the reference's probe losses; where it holds none, <paramref name="losses"/> become it.
    /// </summary>
    Task<float[]> ProbeAsync(string reference, float[] losses, CancellationToken cancellation);
}

/// <summary>One writer's right to write the chunks of a shard's segment. It is renewed until disposed, and lost with its holder's life.</summary>
public interface ISegmentLease : IAsyncDisposable
{
    /// <summary>
    /// Stores a chunk. <see cref="LeaseLostException"/> where the lease has expired or passed to another: what is stored stays as it is
    /// then, and a chunk that was missing may have been added, which is right whoever writes it.
    /// </summary>
    Task WriteAsync(int chunk, ReadOnlyMemory<byte> payload, CancellationToken cancellation);
}

/// <summary>The store cannot be reached, or does not take or give data.</summary>
public sealed class StoreUnavailableException(string message, Exception? inner = null) : Exception(message, inner);

/// <summary>A write came from a holder whose lease has expired or passed on.</summary>
public sealed class LeaseLostException(string message) : Exception(message);

/// <summary>No cache: every stream scores for itself.</summary>
public sealed class NoLossStore : ILossStore
{
    public string Kind => "none";

    public bool Available => false;

    public string? Trouble => null;

    public Task<IReadOnlyList<byte[]>> ReadAsync(ScoreKey key, int first, int count, CancellationToken cancellation) => throw Absent();

    public Task<bool[]> PresentAsync(ScoreKey key, int first, int end, CancellationToken cancellation) => throw Absent();

    public Task<ISegmentLease?> TryLeaseAsync(ScoreKey key, int segment, CancellationToken cancellation) => throw Absent();

    public Task<bool> IsLeasedAsync(ScoreKey key, CancellationToken cancellation) => throw Absent();

    public Task<float[]> ProbeAsync(string reference, float[] losses, CancellationToken cancellation) => throw Absent();

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    private static StoreUnavailableException Absent() => new("no cache is configured");
}
