using System.Text.Json;
using System.Text.Json.Serialization;

namespace Rho.Data;

/// <summary>What the files of a source hold. Compression (gzip, zstd) is told by content, whatever the name.</summary>
public enum SourceFormat
{
    /// <summary>By the name's extension, before .gz or .zst: .txt, .jsonl or .ndjson, .json, .csv, .tsv.</summary>
    Auto,

    /// <summary>One document per file, or several with <see cref="CorpusSource.Separator"/>.</summary>
    Text,

    /// <summary>One JSON object per line.</summary>
    JsonLines,

    /// <summary>A JSON array of objects, or objects one after another.</summary>
    Json,

    /// <summary>Comma-separated with a header line, RFC 4180: fields in quotes may hold commas, quotes ("") and line breaks.</summary>
    Csv,

    /// <summary>As <see cref="Csv"/>, with tabs.</summary>
    Tsv,
}

/// <summary>Files that are read in one way and, in a mixture, count as one.</summary>
public sealed record CorpusSource
{
    /// <summary>
    /// Files, folders (all files in them and below whose extension says a format, hidden ones left out) and globs (<c>*</c>, <c>?</c>
    /// and <c>**</c> for any folders). What a folder or glob yields is read in the order of its paths.
    /// </summary>
    public required IReadOnlyList<string> Paths { get; init; }

    /// <summary>The name in reports; by default the first path.</summary>
    public string? Name { get; init; }

    public SourceFormat Format { get; init; }

    /// <summary>The field or column that holds the text. A record in which it is missing or not a string is a bad one.</summary>
    public string Field { get; init; } = "text";

    /// <summary>
    /// Text made of several fields instead of <see cref="Field"/>, such as "{question}\n{answer}". {{ and }} stand for braces, and the
    /// two characters \n, \t or \\ for a line break, a tab and a backslash. Fields may be strings, numbers or booleans.
    /// </summary>
    public string? Template { get; init; }

    /// <summary>
    /// For conversations in JSON: the field that holds them, usually "messages", as an array of objects with role and content. The
    /// tokenizer's chat template makes the text, which then gets the end token where it does not end with it, and no other special
    /// tokens but those of the template. A field "tools" beside it is handed to the template.
    /// </summary>
    public string? Messages { get; init; }

    /// <summary>
    /// For <see cref="SourceFormat.Text"/>: what stands between two documents, such as "\n\n\n" or "&lt;|endoftext|&gt;"; it belongs to
    /// neither. Without it a file is one document: blank lines inside a text are too common to end it.
    /// </summary>
    public string? Separator { get; init; }

    /// <summary>
    /// The source's share of the mixture's tokens, relative to those of the other sources: 6, 3 and 1 give 60, 30 and 10 %. All sources
    /// have one or none has. The mixture ends where a source that is due has been read <see cref="Epochs"/> times, so that the shares
    /// hold from beginning to end; the report says how much of each was used. Without weights everything is used.
    /// </summary>
    public double? Weight { get; init; }

    /// <summary>How often the source is read; with weights, how often at most.</summary>
    public int Epochs { get; init; } = 1;

    private static readonly JsonSerializerOptions Json = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
        RespectNullableAnnotations = true,
        ReadCommentHandling = JsonCommentHandling.Skip,
        AllowTrailingCommas = true,
        Converters = { new JsonStringEnumConverter(JsonNamingPolicy.SnakeCaseLower, allowIntegerValues: false) },
    };

    /// <summary>
    /// Reads the sources of a mixture from a JSON array, comments allowed, with these properties in snake_case:
    /// <c>[{"paths": ["web/"], "weight": 6}, {"paths": ["math.jsonl"], "weight": 1, "epochs": 2, "template": "{question}\n{answer}"}]</c>.
    /// Paths that are not absolute are relative to the file's folder.
    /// </summary>
    /// <exception cref="RhoException">The file is missing or not valid; the message names the property.</exception>
    public static IReadOnlyList<CorpusSource> LoadAll(string path)
    {
        try
        {
            using var stream = File.OpenRead(path);
            var sources = JsonSerializer.Deserialize<CorpusSource[]>(stream, Json);
            if (sources is null or [] || sources.Any(source => source is null)) throw new RhoException($"{path}: it is to hold an array of sources");
            var folder = Path.GetDirectoryName(path) ?? "";
            return [.. sources.Select(source => source with { Paths = [.. source.Paths.Select(p => Path.Combine(folder, p))] })];
        }
        catch (JsonException e)
        {
            throw new RhoException($"{path}: not a valid list of sources: {e.Message}", e);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new NotFoundException($"{path}: no such file");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new RhoException($"{path}: cannot be read: {e.Message}", e);
        }
    }
}

/// <summary>How a corpus is built; see <see cref="CorpusBuilder"/>.</summary>
public sealed record CorpusOptions
{
    public required IReadOnlyList<CorpusSource> Sources { get; init; }

    /// <summary>The corpus folder. It is to be new, empty, or to hold an interrupted build with the same options, which is continued.</summary>
    public required string Directory { get; init; }

    /// <summary>Tokens of each sequence.</summary>
    public required int SequenceLength { get; init; }

    /// <summary>Recorded for scorer and trainer: whether a token may attend to earlier documents of its sequence.</summary>
    public bool DocumentsSeeEachOther { get; init; } = true;

    /// <summary>
    /// True packs documents one after another, without a gap, across the ends of sequences. False keeps each document inside one
    /// sequence (one that is longer than a sequence is cut) and pads what stays free; documents then wait for a sequence in which they
    /// fit well, so their order changes a little.
    /// </summary>
    public bool DocumentsCrossSequences { get; init; } = true;

    /// <summary>Documents in an order drawn with this seed, another one in each epoch; null keeps the order of the input.</summary>
    public long? ShuffleSeed { get; init; }

    /// <summary>
    /// Share of documents, 0 to below 1, that go into a corpus of their own, the folder "heldout" inside the corpus. The content's hash
    /// decides, so a document is on the same side in every build. What is held out is there once, in the order of the input, whatever
    /// weights, epochs and shuffling say.
    /// </summary>
    public double HeldOutShare { get; init; }

    /// <summary>Drops documents whose text was there before, byte for byte.</summary>
    public bool RemoveDuplicates { get; init; } = true;

    /// <summary>Bad records (broken JSON, a missing field, invalid UTF-8) that are skipped and reported before the build gives up.</summary>
    public int MaxBadRecords { get; init; } = 10;

    /// <summary>Tokens of a shard file, at most; rounded down to whole sequences.</summary>
    public int ShardTokens { get; init; } = 4 << 20;

    /// <summary>Threads that tokenize; 0 takes one per core. The corpus does not depend on it.</summary>
    public int Workers { get; init; }
}

public enum CorpusStage
{
    /// <summary>Text is read and tokenized: progress counts bytes of the input files.</summary>
    Tokenizing,

    /// <summary>Documents are ordered and packed into shards: progress counts tokens.</summary>
    Packing,
}

/// <summary>How far a build is.</summary>
/// <param name="Done">Input bytes as on disk (tokenizing) or tokens (packing).</param>
/// <param name="Total">What Done reaches in the end.</param>
/// <param name="PerSecond">Done per second since the build was started or continued.</param>
/// <param name="Remaining">Until the stage ends at this rate; null until there is one.</param>
public sealed record CorpusProgress(
    CorpusStage Stage, long Done, long Total, long Documents, long Tokens, long BadRecords, double PerSecond, TimeSpan? Remaining);
