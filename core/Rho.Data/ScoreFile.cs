namespace Rho.Data;

/// <summary>
/// A file of reference losses for one token shard: tensor <c>loss</c> [sequences, length], F16, F32, or U8 for the 8-bit logarithmic
/// code; nats, NaN where there is no loss. The metadata says whose losses they are (reference), of which tokens (shard_sha256) and how
/// they are encoded. Read-only and safe to use from several threads.
/// </summary>
public sealed class ScoreFile : IDisposable
{
    internal const string Format = "rho.scores.v1";

    private readonly SafetensorsFile _file;

    private ScoreFile(SafetensorsFile file, TensorEntry loss, string reference, string shardSha256, LossEncoding encoding)
    {
        _file = file;
        Sequences = loss.Shape[0];
        Length = (int)loss.Shape[1];
        ReferenceFingerprint = reference;
        ShardSha256 = shardSha256;
        Encoding = encoding;
    }

    public string Path => _file.Path;

    public string ReferenceFingerprint { get; }

    public string ShardSha256 { get; }

    public LossEncoding Encoding { get; }

    public long Sequences { get; }

    public int Length { get; }

    /// <summary>All metadata of the file, also what the writer added.</summary>
    public IReadOnlyDictionary<string, string> Metadata => _file.Metadata;

    /// <exception cref="RhoException">The file is missing or not a score file; the message names file and fault.</exception>
    public static ScoreFile Open(string path)
    {
        var file = SafetensorsFile.Open(path);
        try
        {
            string Required(string key) => file.Metadata.TryGetValue(key, out var value)
                ? value
                : throw new RhoException($"{path}: not a score file: its metadata has no \"{key}\"");
            var encoding = LossCodec.Parse(Required("encoding"));
            var loss = file.Tensor("loss");
            if (loss.Shape.Length != 2 || loss.Type != TypeOf(encoding) || loss.Shape[1] is < 1 or > 1 << 24)
                throw new RhoException($"{path}: not a score file: tensor {loss} is to be {TypeOf(encoding).Name()} [sequences, length] for encoding {LossCodec.Name(encoding)}");
            return new ScoreFile(file, loss, Required("reference"), Required("shard_sha256"), encoding);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>Starts a score file, which appears when <see cref="ScoreFileWriter.Complete"/> is called.</summary>
    /// <param name="metadata">More to keep in the header, beside format, reference, shard_sha256 and encoding.</param>
    public static ScoreFileWriter Create(
        string path, string referenceFingerprint, string shardSha256, LossEncoding encoding, long sequences, int length, IReadOnlyDictionary<string, string>? metadata = null)
        => new(path, referenceFingerprint, shardSha256, encoding, sequences, length, metadata);

    /// <summary>Reads whole sequences of losses, nats.</summary>
    /// <param name="firstSequence">Of this file.</param>
    /// <param name="losses">[sequences * Length]: its length says how many sequences.</param>
    public void Read(long firstSequence, Span<float> losses)
    {
        if (losses.Length % Length != 0) throw new ArgumentException($"{losses.Length} is no multiple of the sequence length {Length}", nameof(losses));
        LossCodec.Decode(Bytes(firstSequence, losses.Length / Length), Encoding, losses);
    }

    /// <summary>Losses of whole sequences as stored, in this file's encoding.</summary>
    public ReadOnlySpan<byte> Bytes(long firstSequence, int count)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(firstSequence);
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, Sequences - firstSequence);
        var row = (long)Length * LossCodec.BytesPerLoss(Encoding);
        return _file.Bytes("loss", firstSequence * row, checked((int)(count * row)));
    }

    public void Dispose() => _file.Dispose();

    internal static ElementType TypeOf(LossEncoding encoding) => encoding switch
    {
        LossEncoding.F16 => ElementType.F16,
        LossEncoding.F32 => ElementType.F32,
        _ => ElementType.U8,
    };
}

/// <summary>Writes a score file; sequences may come in any order and from any thread, each once.</summary>
public sealed class ScoreFileWriter : IDisposable
{
    private readonly SafetensorsWriter _writer;
    private readonly int _length;

    internal ScoreFileWriter(
        string path, string reference, string shardSha256, LossEncoding encoding, long sequences, int length, IReadOnlyDictionary<string, string>? metadata)
    {
        var all = new Dictionary<string, string>(metadata ?? new Dictionary<string, string>(StringComparer.Ordinal), StringComparer.Ordinal)
        {
            ["format"] = ScoreFile.Format,
            ["reference"] = reference,
            ["shard_sha256"] = shardSha256,
            ["encoding"] = LossCodec.Name(encoding),
        };
        // So that a reader in another language needs nothing but the file.
        if (encoding == LossEncoding.Log8) all["decode"] = "loss = (129 ** (code / 254) - 1) / 4; 255 = NaN";
        Encoding = encoding;
        _length = length;
        _writer = SafetensorsWriter.Create(path, [("loss", ScoreFile.TypeOf(encoding), [sequences, length])], all);
    }

    public LossEncoding Encoding { get; }

    /// <summary>Encodes and writes whole sequences.</summary>
    /// <param name="firstSequence">Of the file.</param>
    /// <param name="losses">[sequences * length], nats, NaN where there is no loss.</param>
    public void Write(long firstSequence, ReadOnlySpan<float> losses)
    {
        var bytes = new byte[losses.Length * LossCodec.BytesPerLoss(Encoding)];
        LossCodec.Encode(losses, Encoding, bytes);
        WriteEncoded(firstSequence, bytes);
    }

    /// <summary>Writes whole sequences that are in the file's encoding already.</summary>
    public void WriteEncoded(long firstSequence, ReadOnlySpan<byte> bytes)
    {
        var row = (long)_length * LossCodec.BytesPerLoss(Encoding);
        if (bytes.Length % row != 0) throw new ArgumentException($"{bytes.Length} bytes are no whole number of sequences of {row} bytes", nameof(bytes));
        _writer.Write("loss", firstSequence * row, bytes);
    }

    /// <summary>Gives the file its name, with all sequences in it.</summary>
    public void Complete() => _writer.Complete();

    public void Dispose() => _writer.Dispose();
}
