using Rho.Formats;
using Rho.TestSupport;

namespace Rho.Benchmarks.Scoring;

/// <summary>A folder of random tokens that goes with the measurement.</summary>
internal sealed class WorkFolder : IDisposable
{
    private const int Length = 512;

    private readonly string _folder = Directory.CreateTempSubdirectory("rho-bench-").FullName;

    public string this[string name] => Path.Combine(_folder, name);

    public TokenShard Shard(string name, int sequences, int vocabulary = 1000, int seed = 1)
    {
        var random = new Random(seed);
        var tokens = new int[sequences * Length];
        for (var i = 0; i < tokens.Length; i++) tokens[i] = random.Next(vocabulary);
        TokenShard.Write(this[name], tokens, Length, vocabulary, [.. Enumerable.Range(0, sequences).Select(i => new Piece(i, 0, Length, i))]);
        return TokenShard.Open(this[name]);
    }

    public Corpus Corpus(string name, int shards, int sequences, int vocabulary)
    {
        Directory.CreateDirectory(this[name]);
        var entries = new List<ShardEntry>();
        for (var i = 0; i < shards; i++)
        {
            var file = $"shard-{i:00000}.safetensors";
            using var shard = Shard(Path.Combine(name, file), sequences, vocabulary, seed: i + 1);
            entries.Add(new ShardEntry(file, sequences, shard.Sha256));
        }

        Formats.Corpus.Save(this[name], new CorpusDescription
        {
            TokenizerFingerprint = new HashModel().TokenizerFingerprint,
            VocabularySize = vocabulary,
            SequenceLength = Length,
            DocumentsSeeEachOther = true,
            Sequences = (long)sequences * shards,
            Tokens = (long)sequences * shards * Length,
            Shards = entries,
        });
        return Formats.Corpus.Open(this[name]);
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);
}
