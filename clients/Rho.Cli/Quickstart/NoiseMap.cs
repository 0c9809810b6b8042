using Rho.Formats;
using Rho.Tokenization;

namespace Rho.Cli.Quickstart;

/// <summary>Which tokens of a corpus its generator made as noise. Ends of documents and padding count as neither noise nor clean.</summary>
internal sealed class NoiseMap
{
    private const sbyte Uncounted = -2, Clean = -1;

    private readonly sbyte[][] _kinds;
    private readonly int _length;

    private NoiseMap(sbyte[][] kinds, int length) => (_kinds, _length) = (kinds, length);

    /// <summary>The kinds of noise that a token's class can be.</summary>
    public static IReadOnlyList<NoiseKind> Kinds { get; } = Enum.GetValues<NoiseKind>();

    /// <summary>
    /// Tokenizes the documents again, with offsets, and lays them over the corpus that was built from them in their order.
    /// </summary>
    public static NoiseMap Create(Corpus corpus, Tokenizer tokenizer, IReadOnlyList<MarkedDocument> documents)
    {
        var kinds = new sbyte[corpus.Shards.Count][];
        var next = 0;
        (long Document, int Position, IReadOnlyList<TokenSpan> Spans) current = (-1, 0, []);
        for (var index = 0; index < kinds.Length; index++)
        {
            using var shard = corpus.OpenShard(index);
            kinds[index] = new sbyte[shard.Sequences * shard.Length];
            kinds[index].AsSpan().Fill(Uncounted);
            var tokens = new int[shard.Length];
            foreach (var piece in shard.Pieces(0, (int)shard.Sequences))
            {
                if (piece.Document != current.Document)
                {
                    current = (piece.Document, 0, tokenizer.EncodeWithOffsets(documents[next].Text, addSpecialTokens: true));
                    next++;
                }

                shard.Read(piece.Sequence, tokens);
                for (var t = piece.Start; t < piece.Start + piece.Length; t++, current.Position++)
                {
                    if (current.Position >= current.Spans.Count) continue; // the end of the document
                    var span = current.Spans[current.Position];
                    if (span.Id != tokens[t]) throw new InvalidOperationException($"document {next - 1}: token {current.Position} is not what the corpus holds");
                    if (span.End == span.Start) continue; // a special token, such as the beginning of the document
                    var kind = documents[next - 1].KindOf(span.Start, span.End - span.Start);
                    kinds[index][(piece.Sequence * shard.Length) + t] = kind is { } noise ? (sbyte)noise : Clean;
                }
            }
        }

        return new NoiseMap(kinds, corpus.SequenceLength);
    }

    /// <summary>The kind of noise of a token; null for clean ones. False for tokens that do not count.</summary>
    public bool TryGet(int shard, long sequence, int position, out NoiseKind? kind)
    {
        var value = _kinds[shard][(sequence * _length) + position];
        kind = value >= 0 ? (NoiseKind)value : null;
        return value != Uncounted;
    }

    /// <summary>Share of the counted tokens that are noise, by kind.</summary>
    public IReadOnlyDictionary<NoiseKind, double> Shares()
    {
        var counted = (double)_kinds.Sum(shard => shard.Count(value => value != Uncounted));
        return Kinds.ToDictionary(kind => kind, kind => _kinds.Sum(shard => shard.Count(value => value == (sbyte)kind)) / counted);
    }
}

/// <summary>Counts, by kind, which tokens an objective saw and which of them it trained on.</summary>
internal sealed class NoiseTally(NoiseMap map)
{
    private readonly long[] _seen = new long[NoiseMap.Kinds.Count + 1], _trained = new long[NoiseMap.Kinds.Count + 1];

    /// <summary>A token with a loss; <paramref name="selected"/> says whether it trained the model.</summary>
    public void Add(int shard, long sequence, int position, bool selected)
    {
        if (!map.TryGet(shard, sequence, position, out var kind)) return;
        var slot = kind is { } noise ? (int)noise : NoiseMap.Kinds.Count;
        _seen[slot]++;
        if (selected) _trained[slot]++;
    }

    /// <summary>Share of all noise tokens seen that trained the model.</summary>
    public double NoiseShare => Share(_trained[..^1].Sum(), _seen[..^1].Sum());

    /// <summary>Share of all clean tokens seen that trained the model.</summary>
    public double CleanShare => Share(_trained[^1], _seen[^1]);

    public IReadOnlyDictionary<NoiseKind, double> NoiseShareByKind => NoiseMap.Kinds.ToDictionary(kind => kind, kind => Share(_trained[(int)kind], _seen[(int)kind]));

    private static double Share(long part, long whole) => whole == 0 ? 0 : (double)part / whole;
}
