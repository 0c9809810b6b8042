using System.Security.Cryptography;
using System.Text.Json;

namespace Rho.Formats;

/// <summary>The mask of one shard, as mask.json lists it.</summary>
/// <param name="File">Name of the file in the mask's folder.</param>
/// <param name="ShardSha256">Identity of the shard (<see cref="TokenShard.Sha256"/>).</param>
/// <param name="Sha256">SHA-256 of the tensor's bytes.</param>
public sealed record MaskEntry(string File, string ShardSha256, string Sha256);

/// <summary>The content of mask.json; names are snake_case in the file.</summary>
public sealed record MaskDescription
{
    internal const string CurrentFormat = "rho.mask.v1";

    public string Format { get; init; } = CurrentFormat;

    /// <summary>Fingerprint of the tokenizer of the corpus.</summary>
    public required string TokenizerFingerprint { get; init; }

    public required IReadOnlyList<MaskEntry> Shards { get; init; }
}

/// <summary>
/// A folder with mask.json and, per shard of a corpus, a safetensors file with a tensor <c>loss_mask</c>, U8 [sequences, length]: 1 where the
/// token's loss counts, 0 where it does not. It has no tokens: it belongs to the corpus whose shards it names. Read-only and safe to use from
/// several threads.
/// </summary>
public sealed class CorpusMask : IDisposable
{
    public const string FileName = "mask.json";

    private static readonly JsonSerializerOptions Json = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        RespectNullableAnnotations = true,
        RespectRequiredConstructorParameters = true,
        WriteIndented = true,
    };

    private readonly List<SafetensorsFile> _files = [];
    private readonly int _length;

    private CorpusMask(int length, MaskDescription description) => (_length, Description) = (length, description);

    public MaskDescription Description { get; }

    /// <summary>Opens a mask of a corpus and checks that it is one: the tokenizer, a mask of each shard, and the masks' hashes, which reads all of it once.</summary>
    /// <exception cref="NotFoundException">The folder has no mask.json.</exception>
    /// <exception cref="MismatchException">The mask belongs to another corpus.</exception>
    /// <exception cref="RhoException">The mask is broken.</exception>
    public static CorpusMask Open(string directory, Corpus corpus)
    {
        var description = Load(Path.Combine(directory, FileName));
        if (description.TokenizerFingerprint != corpus.TokenizerFingerprint)
            throw new MismatchException($"{directory}: is the mask of a corpus made with tokenizer {Short(description.TokenizerFingerprint)}, {corpus.Directory} was made with {Short(corpus.TokenizerFingerprint)}");
        var mask = new CorpusMask(corpus.SequenceLength, description);
        try
        {
            foreach (var shard in corpus.Shards)
            {
                var entry = description.Shards.FirstOrDefault(entry => entry.ShardSha256 == shard.Sha256)
                    ?? throw new MismatchException($"{directory}: has no mask of {Path.Combine(corpus.Directory, shard.File)} (shard {Short(shard.Sha256)}): it is the mask of another corpus");
                mask._files.Add(OpenFile(Path.Combine(directory, entry.File), entry, shard.Sequences, corpus.SequenceLength));
            }

            return mask;
        }
        catch
        {
            mask.Dispose();
            throw;
        }
    }

    /// <summary>Writes mask.json, which makes a folder of masks a mask of a corpus.</summary>
    public static void Save(string directory, MaskDescription description) =>
        AtomicFile.WriteText(Path.Combine(directory, FileName), JsonSerializer.Serialize(description, Json) + "\n");

    /// <summary>Starts the mask of a shard: a file with the tensor <see cref="TokenShard.LossMask"/>, to be written and completed.</summary>
    public static SafetensorsWriter Create(string path, TokenShard shard) => SafetensorsWriter.Create(
        path, [(TokenShard.LossMask, ElementType.U8, [shard.Sequences, shard.Length])],
        new Dictionary<string, string>(StringComparer.Ordinal) { ["format"] = MaskDescription.CurrentFormat, ["shard_sha256"] = shard.Sha256 });

    /// <summary>The mask of whole sequences of a shard of the corpus, [count * length].</summary>
    public ReadOnlySpan<byte> Read(int shard, long firstSequence, int count) =>
        _files[shard].Bytes(TokenShard.LossMask, firstSequence * _length, checked(count * _length));

    public void Dispose() => _files.ForEach(file => file.Dispose());

    private static MaskDescription Load(string path)
    {
        try
        {
            using var stream = File.OpenRead(path);
            var description = JsonSerializer.Deserialize<MaskDescription>(stream, Json) ?? throw new JsonException("it is null");
            if (description.Format != MaskDescription.CurrentFormat)
                throw new RhoException($"{path}: not a valid mask: format is \"{description.Format}\", to be \"{MaskDescription.CurrentFormat}\"");
            foreach (var shard in description.Shards)
                if (shard.File != Path.GetFileName(shard.File) || shard.File.Length == 0) throw new RhoException($"{path}: not a valid mask: file \"{shard.File}\" is to be a name without folders");
            return description;
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new NotFoundException($"{path}: no such file: masks are written with: rho concentrate --mask");
        }
        catch (JsonException e)
        {
            throw new RhoException($"{path}: not a valid mask: {e.Message}", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new RhoException($"{path}: cannot be read: {e.Message}", e);
        }
    }

    private static SafetensorsFile OpenFile(string path, MaskEntry entry, long sequences, int length)
    {
        var file = SafetensorsFile.Open(path);
        try
        {
            var tensor = file.Tensor(TokenShard.LossMask);
            if (tensor.Type != ElementType.U8 || tensor.Shape is not [var rows, var columns] || rows != sequences || columns != length)
                throw new RhoException($"{path}: not a mask of its shard: tensor {tensor} is to be U8 [{sequences}, {length}]");
            if (Hash(file, tensor.ByteLength) is var hash && hash != entry.Sha256)
                throw new CorruptDataException($"{path}: the mask has SHA-256 {hash}, but {FileName} lists {entry.Sha256}: the file was changed or damaged");
            return file;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    private static string Hash(SafetensorsFile file, long bytes)
    {
        const int step = 1 << 26;
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        for (long start = 0; start < bytes; start += step) hash.AppendData(file.Bytes(TokenShard.LossMask, start, (int)Math.Min(step, bytes - start)));
        return Convert.ToHexStringLower(hash.GetHashAndReset());
    }

    private static string Short(string fingerprint) => fingerprint.Length > 12 ? fingerprint[..12] : fingerprint;
}
