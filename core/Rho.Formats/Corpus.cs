using System.Text.Json;
using System.Text.Json.Serialization;

namespace Rho.Formats;

/// <summary>A shard of a corpus as corpus.json lists it; see <see cref="TokenShard.Sha256"/> for the hash.</summary>
public sealed record ShardEntry(string File, long Sequences, string Sha256);

/// <summary>
/// The content of corpus.json. Property names are snake_case in the file, such as "sequence_length".
/// </summary>
public sealed record CorpusDescription
{
    internal const string CurrentFormat = "rho.corpus.v1";

    /// <summary>Always "rho.corpus.v1".</summary>
    [JsonPropertyOrder(-1)]
    public string Format { get; init; } = CurrentFormat;

    /// <summary>Fingerprint of the tokenizer that made the tokens.</summary>
    public required string TokenizerFingerprint { get; init; }

    /// <summary>Every token id is below it.</summary>
    public required int VocabularySize { get; init; }

    /// <summary>The token that ends each document; null where the writer did not say.</summary>
    public int? EndToken { get; init; }

    /// <summary>Tokens of each sequence.</summary>
    public required int SequenceLength { get; init; }

    /// <summary>Whether a token may attend to earlier documents of its sequence. False asks scorer and trainer for a document mask.</summary>
    public required bool DocumentsSeeEachOther { get; init; }

    /// <summary>Whether documents go on in the next sequence where one ends; otherwise only documents longer than a sequence are cut.</summary>
    public bool DocumentsCrossSequences { get; init; } = true;

    public required long Sequences { get; init; }

    /// <summary>Tokens without padding.</summary>
    public required long Tokens { get; init; }

    /// <summary>Documents as packed: one that is read in two epochs counts twice.</summary>
    public long Documents { get; init; }

    public required IReadOnlyList<ShardEntry> Shards { get; init; }

    /// <summary>How the corpus was built, and what from; null for a corpus that the builder did not make.</summary>
    public CorpusReport? Report { get; init; }
}

/// <summary>
/// A folder with corpus.json (<see cref="CorpusDescription"/>) and its token shards. corpus.json is written last, so a folder that has
/// one is a whole corpus.
/// </summary>
public sealed class Corpus
{
    public const string FileName = "corpus.json";

    private static readonly JsonSerializerOptions Json = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        RespectNullableAnnotations = true,
        RespectRequiredConstructorParameters = true,
        WriteIndented = true,
        Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    private Corpus(string directory, CorpusDescription description)
    {
        Directory = directory;
        Description = description;
    }

    public string Directory { get; }

    public CorpusDescription Description { get; }

    public string TokenizerFingerprint => Description.TokenizerFingerprint;

    public int VocabularySize => Description.VocabularySize;

    public int SequenceLength => Description.SequenceLength;

    public bool DocumentsSeeEachOther => Description.DocumentsSeeEachOther;

    public long Sequences => Description.Sequences;

    /// <summary>Tokens without padding.</summary>
    public long Tokens => Description.Tokens;

    public IReadOnlyList<ShardEntry> Shards => Description.Shards;

    /// <summary>Reads and checks corpus.json; shards are opened by <see cref="OpenShard"/>.</summary>
    /// <exception cref="NotFoundException">The folder has no corpus.json.</exception>
    /// <exception cref="RhoException">corpus.json is not valid; the message names the field.</exception>
    public static Corpus Open(string directory)
    {
        var path = Path.Combine(directory, FileName);
        CorpusDescription description;
        try
        {
            using var stream = File.OpenRead(path);
            description = JsonSerializer.Deserialize<CorpusDescription>(stream, Json) ?? throw new JsonException("it is null");
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new NotFoundException(System.IO.Directory.Exists(directory)
                ? $"{directory}: not a corpus: it has no {FileName} (a build that was interrupted is continued by the same command)"
                : $"{directory}: no such folder");
        }
        catch (JsonException e)
        {
            throw new RhoException($"{path}: not a valid corpus description: {e.Message}", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new RhoException($"{path}: cannot be read: {e.Message}", e);
        }

        Check(path, description);
        return new Corpus(directory, description);
    }

    /// <summary>Writes corpus.json, which makes a folder of shards a corpus.</summary>
    public static void Save(string directory, CorpusDescription description)
    {
        var path = Path.Combine(directory, FileName);
        try
        {
            AtomicFile.WriteText(path, JsonSerializer.Serialize(description, Json) + "\n");
            AtomicFile.FlushDirectory(directory);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw DiskError.Translate(path, e);
        }
    }

    /// <summary>Opens a shard and checks that it is the one that corpus.json lists, which reads all of it once.</summary>
    /// <exception cref="CorruptDataException">The shard's tokens do not have the hash in corpus.json.</exception>
    /// <exception cref="RhoException">The shard is missing, broken, of another shape, or has tokens outside the vocabulary.</exception>
    public TokenShard OpenShard(int index)
    {
        var entry = Shards[index];
        var shard = TokenShard.Open(Path.Combine(Directory, entry.File));
        try
        {
            if (shard.Sequences != entry.Sequences || shard.Length != SequenceLength)
                throw new RhoException($"{shard.Path}: has {shard.Sequences} sequences of {shard.Length} tokens, but {FileName} lists {entry.Sequences} of {SequenceLength}");
            if (shard.Sha256 != entry.Sha256)
                throw new CorruptDataException($"{shard.Path}: its tokens have SHA-256 {shard.Sha256}, but {FileName} lists {entry.Sha256}: the file was changed or damaged");
            if (shard.LargestToken() is var token && token >= VocabularySize)
                throw new RhoException($"{shard.Path}: token {token} is not in the vocabulary of {VocabularySize}");
            return shard;
        }
        catch
        {
            shard.Dispose();
            throw;
        }
    }

    private static void Check(string path, CorpusDescription description)
    {
        void Require(bool condition, string what)
        {
            if (!condition) throw new RhoException($"{path}: not a valid corpus description: {what}");
        }

        Require(description.Format == CorpusDescription.CurrentFormat, $"format is \"{description.Format}\", to be \"{CorpusDescription.CurrentFormat}\"");
        Require(description.SequenceLength is >= 1 and <= 1 << 24, $"sequence_length is {description.SequenceLength}");
        Require(description.VocabularySize >= 1, $"vocabulary_size is {description.VocabularySize}");
        foreach (var shard in description.Shards)
        {
            Require(shard.File == Path.GetFileName(shard.File) && shard.File.Length > 0, $"shard file \"{shard.File}\" is to be a name without folders");
            Require(shard.Sequences >= 0, $"shard {shard.File} has {shard.Sequences} sequences");
            Require(shard.Sha256.Length == 64 && shard.Sha256.All(char.IsAsciiHexDigitLower), $"shard {shard.File}: sha256 \"{shard.Sha256}\" is not 64 lower-case hexadecimal digits");
        }

        var sum = description.Shards.Sum(shard => shard.Sequences);
        Require(sum == description.Sequences, $"sequences is {description.Sequences}, but its shards have {sum}");
        Require(description.Tokens >= 0 && (decimal)description.Tokens <= (decimal)sum * description.SequenceLength, $"tokens is {description.Tokens}, more than {sum} sequences of {description.SequenceLength} hold");
    }
}
