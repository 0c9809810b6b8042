using Rho.Formats;

namespace Rho.Training;

/// <summary>The frozen mask of a corpus (data.corpora[].mask), and which sequences it leaves to train on.</summary>
internal sealed class MaskedSequences : IDisposable
{
    private readonly CorpusMask _mask;
    private readonly int _length;

    /// <exception cref="RhoException">The folder is no mask of the corpus, or keeps nothing of it.</exception>
    public MaskedSequences(string directory, Corpus corpus, int minimumSelected)
    {
        (_mask, _length) = (CorpusMask.Open(directory, corpus), corpus.SequenceLength);
        Kept = [.. corpus.Shards.Select((shard, i) => Enumerable.Range(0, (int)shard.Sequences).Select(sequence => Selected(i, sequence) >= minimumSelected).ToArray())];
        Count = Kept.Sum(flags => (long)flags.AsSpan().Count(true));
        Fingerprint = string.Join(' ', corpus.Shards.Select(shard => _mask.Description.Shards.First(entry => entry.ShardSha256 == shard.Sha256).Sha256));
        if (Count > 0) return;
        _mask.Dispose();
        throw new RhoException($"{directory}: no sequence has {minimumSelected} selected tokens (minimum_selected)");
    }

    /// <summary>By shard and sequence.</summary>
    public IReadOnlyList<bool[]> Kept { get; }

    /// <summary>Sequences that are read.</summary>
    public long Count { get; }

    /// <summary>Of the masks of all shards.</summary>
    public string Fingerprint { get; }

    /// <summary>0 where a token's loss does not count. [length]</summary>
    public ReadOnlySpan<byte> Read(int shard, long sequence) => _mask.Read(shard, sequence, 1);

    public void Dispose() => _mask.Dispose();

    private int Selected(int shard, long sequence) => _length - Read(shard, sequence).Count((byte)0);
}
