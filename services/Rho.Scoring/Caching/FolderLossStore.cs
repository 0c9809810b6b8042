using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using Microsoft.Extensions.Logging;
using Rho.Data;

namespace Rho.Scoring.Caching;

/// <summary>
/// Scores in a folder, for one machine or a shared file system with locks. Several processes may use it at once:
/// <code>
/// REFERENCE/SHARD-LAYOUT-FORMAT.safetensors  a finished shard (see <see cref="CachedScoreFile"/>)
/// REFERENCE/SHARD-LAYOUT-FORMAT.partial      chunks of a shard in work (see <see cref="ChunkLog"/>)
/// REFERENCE/SHARD-LAYOUT-FORMAT.lock         locked by the process that writes; the system frees it when that process ends
/// REFERENCE/probe.f32                        the reference's probe losses
/// </code>
/// </summary>
public sealed class FolderLossStore : ILossStore
{
    private readonly string _root;
    private readonly ScoringMetrics _metrics;
    private readonly ILogger _logger;
    private readonly ConcurrentDictionary<string, ChunkLog> _logs = new(StringComparer.Ordinal);
    private long _fence;

    /// <exception cref="RhoException">The folder cannot be made or written to.</exception>
    public FolderLossStore(string root, ScoringMetrics metrics, ILogger logger)
    {
        _root = root;
        _metrics = metrics;
        _logger = logger;
        try
        {
            Directory.CreateDirectory(root);
            var probe = AtomicFile.TemporaryPath(Path.Combine(root, "write"));
            File.WriteAllBytes(probe, []);
            File.Delete(probe);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new RhoException($"cache folder {root}: cannot be written to: {e.Message}", e);
        }
    }

    public string Kind => "folder";

    public bool Available => true;

    public Task<IReadOnlyList<byte[]>> ReadAsync(ScoreKey key, int first, int count, CancellationToken cancellation) => Guard<IReadOnlyList<byte[]>>(() =>
    {
        var payloads = new List<byte[]>(count);
        using var finished = CachedScoreFile.TryOpen(FinishedPath(key), key, out var damaged);
        var log = finished is null ? Log(key) : null;
        for (var chunk = first; chunk < first + count && !damaged; chunk++)
        {
            byte[]? payload;
            if (finished is not null) damaged = (payload = CachedScoreFile.Read(finished, key, chunk)) is null;
            else payload = log!.Read(chunk, out damaged);
            if (payload is null) break;
            payloads.Add(payload);
        }

        if (damaged)
        {
            _metrics.CacheCorrupt.Add(1);
            _logger.LogWarning("Chunk {Chunk} of cached shard {Name} is damaged and will be scored again", first + payloads.Count, key.Name);
        }

        return payloads;
    });

    public Task<bool[]> PresentAsync(ScoreKey key, CancellationToken cancellation) => Guard(() =>
    {
        using var finished = CachedScoreFile.TryOpen(FinishedPath(key), key, out _);
        if (finished is null) return Log(key).Present();
        var present = new bool[key.Grid.Chunks];
        Array.Fill(present, value: true);
        return present;
    });

    public Task<IShardLease?> TryLeaseAsync(ScoreKey key, CancellationToken cancellation) => Task.Run(() => Guard<IShardLease?>(() =>
    {
        var @lock = TryLock(key);
        if (@lock is null) return null;
        try
        {
            Recover(key);
            return new Lease(this, key, @lock, Interlocked.Increment(ref _fence));
        }
        catch
        {
            @lock.Dispose();
            throw;
        }
    }), cancellation);

    public Task<bool> IsLeasedAsync(ScoreKey key, CancellationToken cancellation) => Guard(() =>
    {
        if (!File.Exists(PathOf(key, ".lock"))) return false;
        using var @lock = TryLock(key);
        return @lock is null;
    });

    public Task<float[]> ProbeAsync(string reference, float[] losses, CancellationToken cancellation) => Guard(() =>
    {
        var path = Path.Combine(_root, FolderOf(reference), "probe.f32");
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        if (!File.Exists(path)) AtomicFile.Write(path, stream => stream.Write(MemoryMarshal.AsBytes(losses.AsSpan())));
        var stored = File.ReadAllBytes(path);
        return MemoryMarshal.Cast<byte, float>(stored.AsSpan(0, stored.Length / sizeof(float) * sizeof(float))).ToArray();
    });

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;

    // A fingerprint is "sha256:" and digits; not every file system takes a colon.
    private static string FolderOf(string reference) => reference.Replace("sha256:", "", StringComparison.Ordinal);

    private string PathOf(ScoreKey key, string extension) => Path.Combine(_root, FolderOf(key.Reference), key.Name + extension);

    private string FinishedPath(ScoreKey key) => PathOf(key, ".safetensors");

    private ChunkLog Log(ScoreKey key) => _logs.GetOrAdd(PathOf(key, ".partial"), (path, k) => new ChunkLog(k, path), key);

    private FileStream? TryLock(ScoreKey key)
    {
        var path = PathOf(key, ".lock");
        Directory.CreateDirectory(Path.GetDirectoryName(path)!);
        try
        {
            return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None, bufferSize: 1);
        }
        catch (IOException e) when (e is not (DirectoryNotFoundException or PathTooLongException))
        {
            return null;
        }
    }

    /// <summary>With the lock held: a finished file with damage goes back to a log of its sound chunks, and a torn log is mended.</summary>
    private void Recover(ScoreKey key)
    {
        var log = Log(key);
        var path = FinishedPath(key);
        var finished = CachedScoreFile.TryOpen(path, key, out var unreadable);
        if (finished is null && !unreadable)
        {
            var lost = log.Recover();
            if (lost > 0) _metrics.CacheCorrupt.Add(lost);
            return;
        }

        using (finished)
        {
            if (finished is not null && Enumerable.Range(0, key.Grid.Chunks).All(chunk => CachedScoreFile.Read(finished, key, chunk) is not null)) return;
            File.Delete(log.Path);
            log.Recover();
            for (var chunk = 0; finished is not null && chunk < key.Grid.Chunks; chunk++)
                if (CachedScoreFile.Read(finished, key, chunk) is { } payload)
                    log.Append(chunk, payload);
        }

        File.Delete(path);
        _logger.LogWarning("Cached shard {Name} was damaged: its sound chunks are kept, the others are scored again", key.Name);
    }

    private void Finish(ScoreKey key)
    {
        var log = Log(key);
        CachedScoreFile.Write(FinishedPath(key), key, chunk => log.Read(chunk, out _) ?? throw new StoreUnavailableException($"{log.Path}: chunk {chunk} is damaged"));
        File.Delete(log.Path);
        _logs.TryRemove(log.Path, out _);
    }

    private Task<T> Guard<T>(Func<T> operation)
    {
        try
        {
            return Task.FromResult(operation());
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or RhoException)
        {
            _metrics.CacheFailures.Add(1);
            _logger.LogWarning("Cache folder: {Message}", e.Message);
            return Task.FromException<T>(new StoreUnavailableException($"cache folder {_root}: {e.Message}", e));
        }
        catch (StoreUnavailableException e)
        {
            return Task.FromException<T>(e);
        }
    }

    private sealed class Lease(FolderLossStore store, ScoreKey key, FileStream @lock, long fencingToken) : IShardLease
    {
        private readonly SemaphoreSlim _one = new(1);

        public long FencingToken => fencingToken;

        public async Task WriteAsync(int chunk, ReadOnlyMemory<byte> payload, CancellationToken cancellation)
        {
            await _one.WaitAsync(cancellation).ConfigureAwait(false);
            try
            {
                await store.Guard(() =>
                {
                    var log = store.Log(key);
                    log.Append(chunk, payload.Span);
                    if (Array.TrueForAll(log.Present(), present => present)) store.Finish(key);
                    return true;
                }).ConfigureAwait(false);
            }
            finally
            {
                _one.Release();
            }
        }

        public ValueTask DisposeAsync()
        {
            @lock.Dispose();
            _one.Dispose();
            return ValueTask.CompletedTask;
        }
    }
}
