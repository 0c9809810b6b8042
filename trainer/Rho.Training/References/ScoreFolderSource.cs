using System.Runtime.CompilerServices;
using Rho.Client;
using Rho.Formats;

namespace Rho.Training;

/// <summary>Losses from a folder of score files. Files are known by what they hold, not by their names.</summary>
internal sealed class ScoreFolderSource : IReferenceSource
{
    private const int BlockTokens = 1 << 20;
    private readonly string _directory;
    private readonly ReferenceNeeds _needs;
    private readonly Dictionary<string, ScoreFile> _files = new(StringComparer.Ordinal);
    private readonly ReferenceIdentity _identity;

    /// <param name="needs">What is wanted beside losses.</param>
    /// <exception cref="RhoException">The folder has no score files, a broken one, files of different references, or files without what is wanted.</exception>
    public ScoreFolderSource(string directory, ReferenceNeeds needs)
    {
        (_directory, _needs) = (directory, needs);
        if (!Directory.Exists(directory)) throw new NotFoundException($"{directory}: no such folder of score files");
        string? fingerprint = null;
        try
        {
            foreach (var path in Directory.EnumerateFiles(directory, "*.safetensors", SearchOption.AllDirectories).Order(StringComparer.Ordinal))
            {
                var file = ScoreFile.Open(path);
                if (!_files.TryAdd(file.ShardSha256, file)) file.Dispose();
                fingerprint ??= file.ReferenceFingerprint;
                if (file.ReferenceFingerprint != fingerprint)
                    throw new MismatchException($"{path}: scored by reference {TrainingData.Short(file.ReferenceFingerprint)}, other files of the folder by {TrainingData.Short(fingerprint)}");
                if (needs.Entropies && !file.HasEntropies)
                    throw new MismatchException($"{path}: has no entropies, which reference_entropy ranks by; write scores with: rho score --entropy");
                if (needs.TopK > file.TopK)
                    throw new MismatchException($"{path}: has {(file.TopK == 0 ? "no most likely tokens" : $"the {file.TopK} most likely tokens")}, divergence looks at {needs.TopK}; write scores with: rho score --top-k {needs.TopK}");
            }
        }
        catch
        {
            Close();
            throw;
        }

        if (fingerprint is null) throw new NotFoundException($"{directory}: has no score files (*.safetensors)");
        Description = File.Exists(Path.Combine(directory, ScoresDescription.FileName)) ? ScoresDescription.Load(directory) : null;
        _identity = new ReferenceIdentity(fingerprint, Description?.TokenizerFingerprint, null, null, $"{_files.Count} score files in {directory}");
    }

    public bool GivesEntropies => _needs.Entropies;

    public int TopK => _needs.TopK;

    /// <summary>What `rho score` wrote beside the files; null for files from elsewhere.</summary>
    public ScoresDescription? Description { get; }

    public Task<ReferenceIdentity> IdentifyAsync(CancellationToken cancellation) => Task.FromResult(_identity);

    /// <summary>Whether the folder has the scores of a shard.</summary>
    public bool Has(string shardSha256) => _files.ContainsKey(shardSha256);

    public async IAsyncEnumerable<LossBlock> ReadAsync(TokenShard shard, bool documentsSeeEachOther, long firstSequence, [EnumeratorCancellation] CancellationToken cancellation)
    {
        if (!_files.TryGetValue(shard.Sha256, out var file)) throw new NotFoundException($"{_directory}: has no scores of {shard.Path} (shard {TrainingData.Short(shard.Sha256)})");
        if (file.Sequences != shard.Sequences || file.Length != shard.Length)
            throw new MismatchException($"{file.Path}: has {file.Sequences} sequences of {file.Length} losses, {shard.Path} {shard.Sequences} of {shard.Length} tokens");
        var step = Math.Max(1, BlockTokens / shard.Length);
        for (var first = firstSequence; first < shard.Sequences; first += step)
        {
            cancellation.ThrowIfCancellationRequested();
            var count = (int)Math.Min(step, shard.Sequences - first);
            yield return new LossBlock(first, count, shard.Length, file.Read(first, count, _needs.Entropies, _needs.TopK));
        }

        await Task.CompletedTask;
    }

    public ValueTask DisposeAsync()
    {
        Close();
        return ValueTask.CompletedTask;
    }

    private void Close()
    {
        foreach (var file in _files.Values) file.Dispose();
    }
}
