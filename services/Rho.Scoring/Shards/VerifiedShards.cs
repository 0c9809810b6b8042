using System.Security.Cryptography;

namespace Rho.Scoring.Shards;

/// <summary>What a shard's content is: a shard of other tokens, another layout or another shape is another one.</summary>
internal sealed record ShardContent(string Sha256, string LayoutSha256, int BytesPerId, ChunkGrid Grid);

/// <summary>
/// Shards of which this process has seen all tokens and found that they have the shard's hash, with the SHA-256 of each of their
/// chunks: by those a chunk that comes alone is checked as strictly as the whole was. The oldest are forgotten.
/// </summary>
internal sealed class VerifiedShards
{
    /// <summary>4 MiB of hashes, of two billion tokens.</summary>
    private const int MaxHashBytes = 4 << 20;

    private readonly Lock _gate = new();
    private readonly Dictionary<ShardContent, TaskCompletionSource<byte[]?>> _shards = [];
    private readonly Queue<(ShardContent Shard, int Bytes)> _order = new();
    private int _bytes;

    /// <summary>Whether the caller is to see the shard now, and to say how that ended. False where another stream has seen it or is about to.</summary>
    /// <param name="hashes">Of the shard's chunks, [chunks * 32], once the shard is seen; null where that fails.</param>
    public bool TryBegin(ShardContent shard, out Task<byte[]?> hashes)
    {
        lock (_gate)
        {
            var isNew = !_shards.TryGetValue(shard, out var known);
            if (isNew) _shards.Add(shard, known = new TaskCompletionSource<byte[]?>(TaskCreationOptions.RunContinuationsAsynchronously));
            hashes = known!.Task;
            return isNew;
        }
    }

    /// <summary>Whoever began, or saw the shard without having begun, found that the tokens are the shard's.</summary>
    public void Add(ShardContent shard, byte[] chunkHashes)
    {
        lock (_gate)
        {
            if (!_shards.TryGetValue(shard, out var known)) _shards.Add(shard, known = new TaskCompletionSource<byte[]?>(TaskCreationOptions.RunContinuationsAsynchronously));
            if (!known.TrySetResult(chunkHashes)) return;
            _order.Enqueue((shard, chunkHashes.Length));
            _bytes += chunkHashes.Length;
            while (_bytes > MaxHashBytes && _order.Count > 1)
            {
                var (oldest, bytes) = _order.Dequeue();
                _shards.Remove(oldest);
                _bytes -= bytes;
            }
        }
    }

    /// <summary>Whoever began did not get to see all of the shard; does nothing where the shard was added.</summary>
    public void GiveUp(ShardContent shard)
    {
        lock (_gate)
        {
            if (!_shards.TryGetValue(shard, out var known) || known.Task.IsCompleted) return;
            _shards.Remove(shard);
            known.SetResult(null);
        }
    }

    /// <summary>Where a chunk's hash lies among <c>chunkHashes</c>.</summary>
    public static Range Of(int chunk) => (chunk * SHA256.HashSizeInBytes)..((chunk + 1) * SHA256.HashSizeInBytes);
}
