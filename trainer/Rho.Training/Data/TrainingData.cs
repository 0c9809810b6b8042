using System.Security.Cryptography;
using System.Text;
using Rho.Formats;

namespace Rho.Training;

/// <summary>The corpora of a run, opened and checked to fit together, and their shards, opened as they are needed.</summary>
internal sealed class TrainingData : IDisposable
{
    /// <summary>Little, so that a reference has little to score before the first step.</summary>
    private const long FirstStretchTokens = 1 << 16;

    private readonly Lazy<TokenShard>[][] _shards;
    private readonly MaskedSequences?[] _masks;

    public TrainingData(DataSection section, int ranks)
    {
        Section = section;
        Corpora = [.. section.Corpora.Select((entry, i) => FieldErrors.Named($"data.corpora[{i}].path", () => Corpus.Open(entry.Path)))];
        for (var i = 0; i < Corpora.Length; i++) CheckAgainstFirst(i);
        Length = Corpora[0].SequenceLength;
        StretchSequences = Math.Max(1, section.ShuffleTokens / Length);
        FirstStretchSequences = Math.Clamp(FirstStretchTokens / Length, 1, StretchSequences);
        Ranks = ranks;
        _masks = new MaskedSequences?[Corpora.Length];
        OpenMasks();
        Limits = [.. section.Corpora.Select((entry, i) => entry.Epochs is { } epochs ? (long)Math.Floor((decimal)epochs * Sequences(i)) : long.MaxValue)];
        Weights = [.. section.Corpora.Select((entry, i) => entry.Weight ?? (entry.Epochs ?? 1) * Sequences(i))];
        _shards = [.. Corpora.Select(corpus => corpus.Shards.Select((_, shard) => new Lazy<TokenShard>(() => corpus.OpenShard(shard))).ToArray())];
        Fingerprint = ComputeFingerprint();
    }

    public DataSection Section { get; }

    public Corpus[] Corpora { get; }

    /// <summary>Tokens of a sequence.</summary>
    public int Length { get; }

    public long StretchSequences { get; }

    /// <summary>Of the run's first stretch; those after it grow.</summary>
    public long FirstStretchSequences { get; }

    public int Ranks { get; }

    /// <summary>Sequences to take at most from each corpus.</summary>
    public long[] Limits { get; }

    public double[] Weights { get; }

    public string TokenizerFingerprint => Corpora[0].TokenizerFingerprint;

    public bool DocumentsSeeEachOther => Corpora[0].DocumentsSeeEachOther;

    /// <summary>SHA-256 over what the order of the data follows from, beside the seed: a resumed run has to have the same.</summary>
    public string Fingerprint { get; }

    /// <summary>Opening a shard reads it once, to check its hash; it then stays mapped for the run.</summary>
    public TokenShard Shard(int corpus, int shard) => _shards[corpus][shard].Value;

    /// <summary>The mask of a corpus; null where it has none.</summary>
    public MaskedSequences? Mask(int corpus) => _masks[corpus];

    public void Dispose()
    {
        foreach (var mask in _masks) mask?.Dispose();
        foreach (var shard in _shards.SelectMany(corpus => corpus))
            if (shard.IsValueCreated) shard.Value.Dispose();
    }

    /// <summary>Sequences of an epoch.</summary>
    private long Sequences(int corpus) => _masks[corpus]?.Count ?? Corpora[corpus].Sequences;

    private void OpenMasks()
    {
        try
        {
            for (var i = 0; i < _masks.Length; i++)
            {
                var (entry, corpus) = (Section.Corpora[i], Corpora[i]);
                if (entry.Mask is { } mask) _masks[i] = FieldErrors.Named($"data.corpora[{i}].mask", () => new MaskedSequences(mask, corpus, entry.MinimumSelected));
            }
        }
        catch
        {
            foreach (var mask in _masks) mask?.Dispose();
            throw;
        }
    }

    private void CheckAgainstFirst(int i)
    {
        var (first, other) = (Corpora[0], Corpora[i]);
        if (other.Sequences == 0) throw new RhoException($"data.corpora[{i}]: {other.Directory} is empty");
        if (other.TokenizerFingerprint != first.TokenizerFingerprint)
            throw new MismatchException($"data.corpora[{i}]: {other.Directory} was made with tokenizer {Short(other.TokenizerFingerprint)}, {first.Directory} with {Short(first.TokenizerFingerprint)}; all corpora of a run need one");
        if (other.SequenceLength != first.SequenceLength)
            throw new RhoException($"data.corpora[{i}]: {other.Directory} has sequences of {other.SequenceLength} tokens, {first.Directory} of {first.SequenceLength}");
        if (other.DocumentsSeeEachOther != first.DocumentsSeeEachOther)
            throw new RhoException($"data.corpora[{i}]: documents see each other in one of {other.Directory} and {first.Directory} and not in the other");
    }

    private string ComputeFingerprint()
    {
        var text = new StringBuilder();
        for (var i = 0; i < Corpora.Length; i++)
        {
            text.Append($"corpus {Weights[i]:R} {Limits[i]}\n");
            if (_masks[i] is { } mask) text.Append($"mask {mask.Fingerprint} {Section.Corpora[i].MinimumSelected}\n");
            foreach (var shard in Corpora[i].Shards) text.Append($"{shard.Sha256} {shard.Sequences}\n");
        }

        text.Append($"stretch {FirstStretchSequences} to {StretchSequences}\n");
        return Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text.ToString())));
    }

    internal static string Short(string fingerprint) => fingerprint.Length > 12 ? fingerprint[..12] : fingerprint;
}
