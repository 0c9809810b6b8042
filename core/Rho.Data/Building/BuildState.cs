using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Rho.Formats;
using Rho.Tokenization;

namespace Rho.Data;

/// <summary>What a source has given so far.</summary>
internal sealed class SourceCounts
{
    public long Documents { get; set; }

    public long Tokens { get; set; }

    public long Bytes { get; set; }

    public int Longest { get; set; }

    public long HeldOutDocuments { get; set; }

    public long HeldOutTokens { get; set; }

    public long Duplicates { get; set; }

    public long Empty { get; set; }

    public long Cut { get; set; }
}

/// <summary>
/// Where a build stands, kept beside what it wrote so that it can be continued. Key says which build it is: all that decides about the
/// corpus, and nothing else.
/// </summary>
internal sealed class BuildState
{
    public required Dictionary<string, string> Key { get; set; }

    /// <summary>All input was read; what is missing is packing.</summary>
    public bool Tokenized { get; set; }

    public int Source { get; set; }

    public int File { get; set; }

    /// <summary>Records of the file that were read.</summary>
    public long Records { get; set; }

    /// <summary>Documents that came out of the file so far.</summary>
    public long FileDocuments { get; set; }

    public required SourceCounts[] Sources { get; set; }

    /// <summary>Bytes of the sources' token stores that count.</summary>
    public required long[] StoreLengths { get; set; }

    public long HashesLength { get; set; }

    public long BadRecords { get; set; }

    public List<BadRecord> Bad { get; set; } = [];

    public static BuildState Begin(Dictionary<string, string> key, int sources) => new()
    {
        Key = key,
        Sources = [.. Enumerable.Range(0, sources).Select(_ => new SourceCounts())],
        StoreLengths = new long[sources],
    };

    /// <summary>The state in the folder, or null where there is none.</summary>
    /// <exception cref="RhoException">It is of another build.</exception>
    public static BuildState? Load(string path, Dictionary<string, string> key)
    {
        if (!System.IO.File.Exists(path)) return null;
        var folder = Path.GetDirectoryName(path);
        BuildState state;
        try
        {
            state = JsonSerializer.Deserialize<BuildState>(System.IO.File.ReadAllBytes(path)) ?? throw new JsonException("null");
        }
        catch (JsonException e)
        {
            throw new RhoException($"{path}: the state of an interrupted build is damaged; delete {folder} to start anew", e);
        }

        foreach (var (name, value) in key)
        {
            var was = state.Key.GetValueOrDefault(name, "unknown");
            if (was == value) continue;
            throw new RhoException(
                $"{Path.GetDirectoryName(folder)}: holds an interrupted build with another {name}" +
                (value.Length + was.Length < 60 ? $" ({was}, now {value})" : "") + $"; continue with the same, or delete {folder} to start anew");
        }

        return state;
    }

    public void Save(string path)
    {
        try
        {
            AtomicFile.WriteText(path, JsonSerializer.Serialize(this));
        }
        catch (IOException e)
        {
            throw DiskError.Translate(path, e);
        }
    }

    public static Dictionary<string, string> KeyOf(CorpusOptions options, IReadOnlyList<IReadOnlyList<InputFile>> files, Tokenizer tokenizer)
    {
        var list = new StringBuilder();
        foreach (var source in files)
        {
            list.Append("source\n");
            foreach (var file in source) list.Append(CultureInfo.InvariantCulture, $"{file.Path}\n{file.Format} {file.Length} {file.ModifiedTicks}\n");
        }

        return new Dictionary<string, string>(StringComparer.Ordinal)
        {
            ["format"] = "1",
            ["tokenizer"] = tokenizer.Fingerprint,
            ["sequence length"] = options.SequenceLength.ToString(CultureInfo.InvariantCulture),
            ["end token"] = tokenizer.EosId!.Value.ToString(CultureInfo.InvariantCulture),
            ["chat template"] = options.Sources.Any(source => source.Messages is not null)
                ? Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(tokenizer.ChatTemplate!.Source)))
                : "none",
            ["document mask"] = options.DocumentsSeeEachOther ? "off" : "on",
            ["packing"] = options.DocumentsCrossSequences ? "across sequences" : "inside sequences",
            ["shuffle seed"] = options.ShuffleSeed?.ToString(CultureInfo.InvariantCulture) ?? "none",
            ["held-out share"] = options.HeldOutShare.ToString("R", CultureInfo.InvariantCulture),
            ["removal of duplicates"] = options.RemoveDuplicates ? "on" : "off",
            ["shard size"] = options.ShardTokens.ToString(CultureInfo.InvariantCulture),
            ["set of sources"] = JsonSerializer.Serialize(options.Sources.Select(source => source with { Paths = [] })),
            ["set of input files, or their content"] = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(list.ToString()))),
        };
    }
}
