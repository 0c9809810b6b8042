using System.Runtime.InteropServices;
using Rho.Formats;
using Rho.Model;
using Rho.Tokenization;
using TorchSharp;

namespace Rho.Training.Tests;

/// <summary>A folder with a tokenizer, small corpora and a reference checkpoint, for runs that take milliseconds a step.</summary>
public sealed class World : IDisposable
{
    public const int Length = 16;
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private static readonly Lazy<Tokenizer> s_tokenizer = new(() => BpeTrainer.Train(
        ["the sum of two and three is five", "a word is made of tokens (and marks)", "the sum of four and five is nine"],
        new BpeTrainerOptions { VocabularySize = 290, MinimumFrequency = 1, Threads = 1 }));

    public World()
    {
        Root = Path.Combine(Path.GetTempPath(), $"rho-training-{Guid.NewGuid():N}");
        Directory.CreateDirectory(Root);
        Tokenizer.Save(Path.Combine(Root, "tokenizer"));
    }

    public string Root { get; }

    public static Tokenizer Tokenizer => s_tokenizer.Value;

    public string At(string path) => Path.Combine(Root, path);

    /// <summary>A corpus of random walks over the vocabulary: predictable enough that training lowers the loss.</summary>
    public string Corpus(string name, int[] shardSequences, int seed = 1, bool documentsSeeEachOther = true, bool padded = false, int length = Length)
    {
        var directory = At(name);
        Directory.CreateDirectory(directory);
        var random = new Random(seed);
        var entries = new List<ShardEntry>();
        for (var i = 0; i < shardSequences.Length; i++)
        {
            var tokens = new int[shardSequences[i] * length];
            var pieces = new List<Piece>();
            for (var s = 0; s < shardSequences[i]; s++)
            {
                var at = random.Next(Tokenizer.VocabularySize);
                for (var t = 0; t < length; t++)
                {
                    tokens[s * length + t] = at;
                    at = random.Next(4) == 0 ? random.Next(Tokenizer.VocabularySize) : (at + 1) % 20;
                }

                var covered = padded && s == shardSequences[i] - 1 ? length / 2 : length;
                pieces.Add(new Piece(s, 0, 5, 2L * s));
                pieces.Add(new Piece(s, 5, covered - 5, 2L * s + 1));
            }

            var file = $"shard-{i:D5}.safetensors";
            TokenShard.Write(Path.Combine(directory, file), tokens, length, Tokenizer.VocabularySize, pieces.ToArray());
            using var shard = TokenShard.Open(Path.Combine(directory, file));
            entries.Add(new ShardEntry(file, shard.Sequences, shard.Sha256));
        }

        var sequences = entries.Sum(entry => entry.Sequences);
        Formats.Corpus.Save(directory, new CorpusDescription
        {
            TokenizerFingerprint = Tokenizer.Fingerprint,
            VocabularySize = Tokenizer.VocabularySize,
            SequenceLength = length,
            DocumentsSeeEachOther = documentsSeeEachOther,
            Sequences = sequences,
            Tokens = sequences * length - (padded ? shardSequences.Length * (length - length / 2) : 0),
            Shards = entries,
        });
        return directory;
    }

    /// <summary>The corpus again, with a loss_mask in each shard.</summary>
    /// <param name="counts">By shard, sequence and position: whether the token's loss counts.</param>
    public string WithLossMask(string name, string corpusDirectory, Func<int, int, int, bool> counts)
    {
        Directory.CreateDirectory(At(name));
        var corpus = Formats.Corpus.Open(corpusDirectory);
        for (var i = 0; i < corpus.Shards.Count; i++)
        {
            using var source = SafetensorsFile.Open(Path.Combine(corpusDirectory, corpus.Shards[i].File));
            var shape = source.Tensor("tokens").Shape;
            var mask = Enumerable.Range(0, (int)(shape[0] * shape[1])).Select(at => counts(i, at / (int)shape[1], at % (int)shape[1]) ? (byte)1 : (byte)0).ToArray();
            using var writer = SafetensorsWriter.Create(
                Path.Combine(At(name), corpus.Shards[i].File),
                source.Tensors.Values.Select(tensor => (tensor.Name, tensor.Type, tensor.Shape)).Append((TokenShard.LossMask, ElementType.U8, shape)),
                source.Metadata);
            foreach (var tensor in source.Tensors.Keys) writer.Write(tensor, 0, source.Bytes(tensor));
            writer.Write(TokenShard.LossMask, 0, mask);
            writer.Complete();
        }

        Formats.Corpus.Save(At(name), corpus.Description);
        return At(name);
    }

    /// <summary>A checkpoint with random weights.</summary>
    public string Checkpoint(string name, long seed)
    {
        using var model = LanguageModel.Create(SmallModel, seed, torch.CPU, ComputeType.Float32);
        model.Save(At(name), Tokenizer);
        return At(name);
    }

    public static ModelConfig SmallModel => new()
    {
        VocabularySize = Tokenizer.VocabularySize,
        HiddenSize = 32,
        IntermediateSize = 64,
        Layers = 2,
        Heads = 4,
        KeyValueHeads = 2,
        HeadSize = 8,
        ContextLength = 32,
    };

    /// <summary>Score files of a corpus by a checkpoint.</summary>
    public string Scores(string name, string corpusDirectory, string checkpoint, LossEncoding encoding = LossEncoding.F32, bool entropies = false, int topK = 0)
    {
        Directory.CreateDirectory(At(name));
        var corpus = Formats.Corpus.Open(corpusDirectory);
        using var reference = ReferenceModel.Load(checkpoint, torch.CPU, ComputeType.Float32);
        for (var i = 0; i < corpus.Shards.Count; i++)
        {
            using var shard = corpus.OpenShard(i);
            var (tokens, documents) = (new int[shard.Sequences * shard.Length], new int[shard.Sequences * shard.Length]);
            shard.Read(0, tokens);
            shard.ReadDocuments(0, documents);
            if (corpus.DocumentsSeeEachOther) documents = [.. documents.Select(document => Math.Min(document, 0))];
            var said = TokenScores.Room(tokens.Length, entropies, topK);
            reference.Score(tokens, (int)shard.Sequences, shard.Length, documents, said, default);
            using var file = ScoreFile.Create(At($"{name}/{i}.safetensors"), reference.Fingerprint, shard.Sha256, encoding, shard.Sequences, shard.Length, null, entropies, topK);
            file.Write(0, said);
            file.Complete();
        }

        return At(name);
    }

    /// <summary>A run file with the parts that tests leave alone.</summary>
    public RunFile Run(string output, string corpus, string extra = "", long steps = 12, string schedule = "\"learning_rate\": 0.01, \"warmup_steps\": 2") => RunFile.Parse($$"""
        {
          "output": "{{output}}",
          "model": { "config": { "hidden_size": 32, "intermediate_size": 64, "layers": 2, "heads": 4, "key_value_heads": 2, "context_length": 32 }, "tokenizer": "tokenizer" },
          "data": { "corpora": [ { "path": "{{corpus}}" } ], "shuffle_tokens": 256 },
          "batch": { "sequences": 4, "accumulation": 2 },
          "steps": {{steps}},
          "schedule": { {{schedule}} },
          "compute": { "device": "cpu", "precision": "float32" },
          "checkpoints": { "every_steps": 4 },
          {{extra}}
        }
        """, Root);

    public string Slm(string sources, string more = "") => $$"""
        "objective": { "kind": "slm"{{more}} },
        "reference": { "sources": [ {{sources}} ] },
        """;

    public static async Task<RunResult> RunAsync(TrainingRun run, CancellationToken cancellation = default) => await run.RunAsync(cancellation).WaitAsync(Patience);

    /// <summary>The weights of a checkpoint folder, as bytes.</summary>
    public static byte[] Weights(string directory) => File.ReadAllBytes(Path.Combine(directory, "model.safetensors"));

    public void Dispose() => Directory.Delete(Root, recursive: true);
}
