using System.Runtime.InteropServices;

namespace Rho.Formats;

/// <summary>
/// A file of reference losses for one token shard: tensor <c>loss</c> [sequences, length], F16, F32, or U8 for the 8-bit logarithmic
/// code; nats, NaN where there is no loss. A file may also say more of the distributions that the losses are taken from: tensor
/// <c>entropy</c> [sequences, length], F16, nats, and the k most likely tokens, <c>top_ids</c> [sequences, length, k], U32, with
/// <c>top_log_probabilities</c> of the same shape, F16, nats. The metadata says whose losses they are (reference), of which tokens
/// (shard_sha256) and how losses are encoded. Read-only and safe to use from several threads.
/// </summary>
public sealed class ScoreFile : IDisposable
{
    internal const string Format = "rho.scores.v1";

    private readonly SafetensorsFile _file;

    private ScoreFile(SafetensorsFile file, TensorEntry loss, string reference, string shardSha256, LossEncoding encoding, int topK)
    {
        TopK = topK;
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

    /// <summary>Whether the file has the entropy of each distribution.</summary>
    public bool HasEntropies => _file.Tensors.ContainsKey(ScoreFormat.EntropyName);

    /// <summary>How many most likely tokens the file has of each distribution; 0 for none.</summary>
    public int TopK { get; }

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
            var type = new ScoreFormat(encoding).Columns.First().Type;
            if (loss.Shape.Length != 2 || loss.Type != type || loss.Shape[1] is < 1 or > 1 << 24)
                throw new RhoException($"{path}: not a score file: tensor {loss} is to be {type.Name()} [sequences, length] for encoding {LossCodec.Name(encoding)}");
            return new ScoreFile(file, loss, Required("reference"), Required("shard_sha256"), encoding, CheckExtras(file, loss));
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>What the file says beside the losses has their shape. Returns k of the most likely tokens.</summary>
    private static int CheckExtras(SafetensorsFile file, TensorEntry loss)
    {
        if (file.Tensors.TryGetValue(ScoreFormat.EntropyName, out var entropy) && (entropy.Type != ElementType.F16 || !entropy.Shape.AsSpan().SequenceEqual(loss.Shape)))
            throw new RhoException($"{file.Path}: not a score file: tensor {entropy} is to be F16 of the shape of {loss}");
        if (!file.Tensors.TryGetValue(ScoreFormat.TopIdsName, out var ids)) return 0;
        var probabilities = file.Tensor(ScoreFormat.TopLogProbabilitiesName);
        if (ids.Type != ElementType.U32 || ids.Shape is not [var sequences, var length, > 0 and <= 1 << 16] || sequences != loss.Shape[0] || length != loss.Shape[1]
            || probabilities.Type != ElementType.F16 || !probabilities.Shape.AsSpan().SequenceEqual(ids.Shape))
            throw new RhoException($"{file.Path}: not a score file: tensors {ids} and {probabilities} are to be U32 and F16 [sequences, length, k] beside {loss}");
        return (int)ids.Shape[2];
    }

    /// <summary>Starts a score file, which appears when <see cref="ScoreFileWriter.Complete"/> is called.</summary>
    /// <param name="metadata">More to keep in the header, beside format, reference, shard_sha256 and encoding.</param>
    /// <param name="entropies">Whether entropies are written too.</param>
    /// <param name="topK">How many most likely tokens are written too.</param>
    public static ScoreFileWriter Create(
        string path, string referenceFingerprint, string shardSha256, LossEncoding encoding, long sequences, int length, IReadOnlyDictionary<string, string>? metadata = null,
        bool entropies = false, int topK = 0)
        => new(path, referenceFingerprint, shardSha256, encoding, sequences, length, metadata, entropies, topK);

    /// <summary>Reads whole sequences of losses, nats.</summary>
    /// <param name="firstSequence">Of this file.</param>
    /// <param name="losses">[sequences * Length]: its length says how many sequences.</param>
    public void Read(long firstSequence, Span<float> losses)
    {
        if (losses.Length % Length != 0) throw new ArgumentException($"{losses.Length} is no multiple of the sequence length {Length}", nameof(losses));
        LossCodec.Decode(Bytes(firstSequence, losses.Length / Length), Encoding, losses);
    }

    /// <summary>Losses of whole sequences as stored, in this file's encoding.</summary>
    public ReadOnlySpan<byte> Bytes(long firstSequence, int count) => Rows("loss", LossCodec.BytesPerLoss(Encoding), firstSequence, count);

    /// <summary>Reads what the file says of whole sequences.</summary>
    /// <param name="entropies">Whether entropies are wanted; the file has to have them.</param>
    /// <param name="topK">How many of the most likely tokens are wanted; at most the file's.</param>
    public TokenScores Read(long firstSequence, int count, bool entropies, int topK)
    {
        var kept = topK > 0 ? TopK : 0;
        var scores = TokenScores.Room(count * Length, entropies, kept);
        scores.Decode(
            Encoding, 0, Bytes(firstSequence, count), entropies ? Rows(ScoreFormat.EntropyName, sizeof(ushort), firstSequence, count) : [],
            kept > 0 ? Rows(ScoreFormat.TopIdsName, kept * sizeof(uint), firstSequence, count) : [],
            kept > 0 ? Rows(ScoreFormat.TopLogProbabilitiesName, kept * sizeof(ushort), firstSequence, count) : []);
        if (kept == topK) return scores;
        var fewer = TokenScores.Room(scores.Tokens, entropies, topK);
        scores.CopyTo(0, scores.Tokens, fewer, 0);
        return fewer;
    }

    private ReadOnlySpan<byte> Rows(string tensor, int bytesPerToken, long firstSequence, int count)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(firstSequence);
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, Sequences - firstSequence);
        var row = (long)Length * bytesPerToken;
        return _file.Bytes(tensor, firstSequence * row, checked((int)(count * row)));
    }

    public void Dispose() => _file.Dispose();
}

/// <summary>Writes a score file; sequences may come in any order and from any thread, each once.</summary>
public sealed class ScoreFileWriter : IDisposable
{
    private readonly SafetensorsWriter _writer;
    private readonly int _length;
    private readonly ScoreFormat _format;

    internal ScoreFileWriter(
        string path, string reference, string shardSha256, LossEncoding encoding, long sequences, int length, IReadOnlyDictionary<string, string>? metadata,
        bool entropies, int topK)
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
        (_length, _format) = (length, new ScoreFormat(encoding, entropies, topK));
        _writer = SafetensorsWriter.Create(path, _format.Columns.Select(column => (column.Name, column.Type, column.Shape(sequences, length))).ToList(), all);
    }

    public LossEncoding Encoding => _format.Encoding;

    /// <summary>Encodes and writes the losses of whole sequences.</summary>
    /// <param name="firstSequence">Of the file.</param>
    /// <param name="losses">[sequences * length], nats, NaN where there is no loss.</param>
    public void Write(long firstSequence, ReadOnlySpan<float> losses)
    {
        var bytes = new byte[losses.Length * LossCodec.BytesPerLoss(Encoding)];
        LossCodec.Encode(losses, Encoding, bytes);
        Write(_format.Columns.First(), firstSequence, bytes);
    }

    /// <summary>Encodes and writes all that the file is to have of whole sequences.</summary>
    public void Write(long firstSequence, TokenScores scores) => Write(firstSequence, new EncodedScores(_format, scores.Encode(_format, 0, scores.Tokens)));

    /// <summary>Writes whole sequences that are in the file's format already.</summary>
    /// <exception cref="ArgumentException">The scores are in another format, or no whole number of sequences.</exception>
    public void Write(long firstSequence, EncodedScores scores)
    {
        if (scores.Format != _format) throw new ArgumentException($"the scores are in format {scores.Format}, the file's is {_format}", nameof(scores));
        foreach (var (column, bytes) in _format.Columns.Zip(scores.Columns())) Write(column, firstSequence, bytes.Span);
    }

    private void Write(ScoreColumn column, long firstSequence, ReadOnlySpan<byte> bytes)
    {
        var row = (long)_length * column.BytesPerToken;
        if (bytes.Length % row != 0) throw new ArgumentException($"{bytes.Length} bytes are no whole number of sequences of {row} bytes", nameof(bytes));
        _writer.Write(column.Name, firstSequence * row, bytes);
    }

    /// <summary>Gives the file its name, with all sequences in it.</summary>
    public void Complete() => _writer.Complete();

    public void Dispose() => _writer.Dispose();
}
