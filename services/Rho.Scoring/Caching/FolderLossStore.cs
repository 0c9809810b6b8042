using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using Microsoft.Extensions.Logging;

namespace Rho.Scoring.Caching;

/// <summary>
/// Scores in a folder, for one machine or a shared file system with locks. Several processes may use it at once:
/// <code>
/// REFERENCE/SHARD-LAYOUT-FORMAT.safetensors  a finished shard (see <see cref="CachedScoreFile"/>)
/// REFERENCE/SHARD-LAYOUT-FORMAT.S.partial    chunks of a segment of a shard in work (see <see cref="ChunkLog"/>)
/// REFERENCE/SHARD-LAYOUT-FORMAT.S.lock       locked by the process that writes the segment; the system frees it when that process ends
/// REFERENCE/SHARD-LAYOUT-FORMAT.lock         locked while a finished shard is put together or taken apart
/// REFERENCE/probe.f32                        the reference's probe losses
/// </code>
/// </summary>
public sealed partial class FolderLossStore : ILossStore
{
    private readonly string _root;
    private readonly ScoringMetrics _metrics;
    private readonly ILogger _logger;
    private readonly ConcurrentDictionary<string, ChunkLog> _logs = new(StringComparer.Ordinal);

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

    public string? Trouble => null;

    public Task<IReadOnlyList<byte[]>> ReadAsync(ScoreKey key, int first, int count, CancellationToken cancellation) => Guard<IReadOnlyList<byte[]>>(() =>
    {
        var payloads = new List<byte[]>(count);
        using var finished = CachedScoreFile.TryOpen(FinishedPath(key), key, out var damaged);
        for (var chunk = first; chunk < first + count && !damaged; chunk++)
        {
            byte[]? payload;
            if (finished is not null) damaged = (payload = CachedScoreFile.Read(finished, key, chunk)) is null;
            else payload = Log(key, ChunkGrid.SegmentOf(chunk)).Read(chunk, out damaged);
            if (payload is null) break;
            payloads.Add(payload);
        }

        if (damaged)
        {
            _metrics.CacheCorrupt.Add(1);
            ChunkIsDamaged(first + payloads.Count, key.Name);
        }

        return payloads;
    });

    public Task<bool[]> PresentAsync(ScoreKey key, int first, int end, CancellationToken cancellation) => Guard(() =>
    {
        using var finished = CachedScoreFile.TryOpen(FinishedPath(key), key, out _);
        var present = new bool[end - first];
        if (finished is not null) Array.Fill(present, value: true);
        else MarkPresent(key, first, present);
        return present;
    });

    public Task<ISegmentLease?> TryLeaseAsync(ScoreKey key, int segment, CancellationToken cancellation) => Task.Run(() => Guard<ISegmentLease?>(() =>
    {
        var @lock = TryLock(SegmentPath(key, segment, ".lock"));
        if (@lock is null) return null;
        try
        {
            Recover(key, segment);
            return new Lease(this, key, segment, @lock);
        }
        catch
        {
            @lock.Dispose();
            throw;
        }
    }), cancellation);

    public Task<bool> IsLeasedAsync(ScoreKey key, CancellationToken cancellation) => Guard(() =>
    {
        for (var segment = 0; segment < key.Grid.Segments; segment++)
        {
            var path = SegmentPath(key, segment, ".lock");
            if (!File.Exists(path)) continue;
            using var @lock = TryLock(path);
            if (@lock is null) return true;
        }

        return false;
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

    private string SegmentPath(ScoreKey key, int segment, string extension) => PathOf(key, $".{segment}{extension}");

    private string FinishedPath(ScoreKey key) => PathOf(key, ".safetensors");

    private ChunkLog Log(ScoreKey key, int segment) => _logs.GetOrAdd(SegmentPath(key, segment, ".partial"), static (path, k) => new ChunkLog(k, path), key);

    private void MarkPresent(ScoreKey key, int first, bool[] present)
    {
        if (present.Length == 0) return;
        for (var segment = ChunkGrid.SegmentOf(first); segment <= ChunkGrid.SegmentOf(first + present.Length - 1); segment++)
            foreach (var chunk in Log(key, segment).Chunks())
                if (chunk >= first && chunk < first + present.Length)
                    present[chunk - first] = true;
    }

    private static FileStream? TryLock(string path)
    {
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

    /// <summary>With the segment's lock held: a torn log is mended, and a finished file with damage is taken apart again.</summary>
    private void Recover(ScoreKey key, int segment)
    {
        var finished = CachedScoreFile.TryOpen(FinishedPath(key), key, out var unreadable);
        if (finished is null && !unreadable)
        {
            var lost = Log(key, segment).Recover();
            if (lost > 0) _metrics.CacheCorrupt.Add(lost);
            return;
        }

        using (finished)
        {
            if (finished is not null && Enumerable.Range(0, key.Grid.Chunks).All(chunk => CachedScoreFile.Read(finished, key, chunk) is not null)) return;
            using var alone = TryLock(PathOf(key, ".lock")) ?? throw new StoreUnavailableException($"{FinishedPath(key)} is being mended by another process");
            if (!File.Exists(FinishedPath(key))) return;
            for (var log = 0; log < key.Grid.Segments; log++)
            {
                File.Delete(Log(key, log).Path);
                Log(key, log).Recover();
            }

            for (var chunk = 0; finished is not null && chunk < key.Grid.Chunks; chunk++)
                if (CachedScoreFile.Read(finished, key, chunk) is { } payload)
                    Log(key, ChunkGrid.SegmentOf(chunk)).Append(chunk, payload);
            File.Delete(FinishedPath(key));
        }

        ShardWasDamaged(key.Name);
    }

    /// <summary>Puts a shard's chunks together once all are there. Whoever writes the last one does, and of several only one.</summary>
    private void FinishIfComplete(ScoreKey key)
    {
        var present = new bool[key.Grid.Chunks];
        MarkPresent(key, 0, present);
        if (!Array.TrueForAll(present, p => p)) return;
        using var alone = TryLock(PathOf(key, ".lock"));
        if (alone is null || File.Exists(FinishedPath(key))) return;
        CachedScoreFile.Write(FinishedPath(key), key, chunk =>
            Log(key, ChunkGrid.SegmentOf(chunk)).Read(chunk, out _) ?? throw new StoreUnavailableException($"{key.Name}: chunk {chunk} is damaged"));
        for (var segment = 0; segment < key.Grid.Segments; segment++)
        {
            File.Delete(Log(key, segment).Path);
            _logs.TryRemove(Log(key, segment).Path, out _);
        }
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
            FolderFailed(_root, e.Message);
            return Task.FromException<T>(new StoreUnavailableException($"cache folder {_root}: {e.Message}", e));
        }
        catch (StoreUnavailableException e)
        {
            return Task.FromException<T>(e);
        }
    }

    [LoggerMessage(LogLevel.Warning, "chunk {Chunk} of cached shard {Name} is damaged and will be scored again")]
    private partial void ChunkIsDamaged(int chunk, string name);

    [LoggerMessage(LogLevel.Warning, "cached shard {Name} was damaged: its sound chunks are kept, the others are scored again")]
    private partial void ShardWasDamaged(string name);

    [LoggerMessage(LogLevel.Warning, "cache folder {Root}: {Reason}")]
    private partial void FolderFailed(string root, string reason);

    private sealed class Lease(FolderLossStore store, ScoreKey key, int segment, FileStream @lock) : ISegmentLease
    {
        private readonly SemaphoreSlim _one = new(1);

        public async Task WriteAsync(int chunk, ReadOnlyMemory<byte> payload, CancellationToken cancellation)
        {
            await _one.WaitAsync(cancellation);
            try
            {
                await store.Guard(() =>
                {
                    var log = store.Log(key, segment);
                    log.Append(chunk, payload.Span);
                    // Only the end of a segment can be the end of the shard.
                    if (log.Chunks().Count == Math.Min(ChunkGrid.SegmentChunks, key.Grid.Chunks - segment * ChunkGrid.SegmentChunks)) store.FinishIfComplete(key);
                    return true;
                });
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
