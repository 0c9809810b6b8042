using System.Buffers;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;

namespace Rho.Tokenization;

/// <summary>
/// The unigram language model (Kudo, https://aclanthology.org/P18-1007): of all ways to cut a text into pieces the one with
/// the highest sum of scores, found by dynamic programming from left to right.
/// </summary>
internal sealed class UnigramModel : TokenModel
{
    private const double UnknownPenalty = 10;

    private readonly ByteTrie _trie;
    private readonly double[] _scores;
    private readonly double _unknownScore;
    private readonly int _unknown;
    private readonly int[]? _bytes;
    private readonly bool _single;
    private readonly WordCache? _cache;
    private readonly Action<Utf8JsonWriter> _write;

    /// <summary>A model out of a SentencePiece file: sums in single precision, as SentencePiece has them.</summary>
    public UnigramModel(SentencePieceFile file, Vocabulary vocabulary)
    {
        Vocabulary = vocabulary;
        _single = true;
        _unknown = file.Pieces.FindIndex(piece => piece.Type == PieceType.Unknown);
        _trie = new ByteTrie(file.Pieces.Select((piece, id) => (piece, id))
            .Where(item => item.piece.Type is PieceType.Normal or PieceType.UserDefined)
            .Select(item => (item.piece.Text, item.id)));
        _scores = [.. file.Pieces.Select(piece => (double)piece.Score)];
        var normal = file.Pieces.Where(piece => piece.Type == PieceType.Normal).Select(piece => piece.Score).ToArray();

        // SentencePiece starts its maximum at the smallest positive number.
        var highest = Math.Max(1.17549435E-38f, normal.DefaultIfEmpty().Max());
        var lowest = normal.DefaultIfEmpty(float.MaxValue).Min();
        _unknownScore = lowest - (float)UnknownPenalty;
        for (var id = 0; id < _scores.Length; id++)
        {
            if (file.Pieces[id].Type == PieceType.UserDefined) _scores[id] = Encoding.UTF8.GetByteCount(file.Pieces[id].Text) * highest - 0.1;
        }

        if (file.ByteFallback) _bytes = ByteIds(vocabulary);
        _write = json => SentencePieceBpe.WritePieces(json, file, "Unigram");
    }

    private UnigramModel(Vocabulary vocabulary, List<(string Text, double Score)> pieces, int unknown, bool byteFallback)
    {
        Vocabulary = vocabulary;
        _unknown = unknown;
        _trie = new ByteTrie(pieces.Select((piece, id) => (piece.Text, id)));
        _scores = [.. pieces.Select(piece => piece.Score)];
        _unknownScore = _scores.DefaultIfEmpty().Min() - UnknownPenalty;
        if (byteFallback) _bytes = ByteIds(vocabulary);

        // Words come one by one from a pre-tokenizer and their sums start anew, so a word always gives the same.
        _cache = new WordCache();
        _write = json =>
        {
            json.WriteStartObject();
            json.WriteString("type", "Unigram");
            if (unknown < 0) json.WriteNull("unk_id");
            else json.WriteNumber("unk_id", unknown);
            json.WriteStartArray("vocab");
            foreach (var (text, score) in pieces)
            {
                json.WriteStartArray();
                json.WriteStringValue(text);
                json.WriteNumberValue(score);
                json.WriteEndArray();
            }

            json.WriteEndArray();
            json.WriteBoolean("byte_fallback", byteFallback);
            json.WriteEndObject();
        };
    }

    public override Vocabulary Vocabulary { get; }

    public override void Write(Utf8JsonWriter json) => _write(json);

    private static int[] ByteIds(Vocabulary vocabulary) =>
        [.. Enumerable.Range(0, 256).Select(b => vocabulary.TryGet($"<0x{b:X2}>", out var id) ? id : -1)];

    /// <summary>Reads the model part of tokenizer.json.</summary>
    public static UnigramModel Read(JsonPart part)
    {
        part.Allow("type", "unk_id", "vocab", "byte_fallback");
        var vocabulary = new Vocabulary();
        var pieces = new List<(string Text, double Score)>();
        foreach (var item in part.Get("vocab").Items())
        {
            if (item.Items().ToArray() is not [var text, var score]) throw item.Error("expected a token and its score");
            if (text.Text().Length == 0) throw item.Error("the token is empty");
            if (!vocabulary.TryAdd(text.Text(), pieces.Count)) throw item.Error($"token \"{text.Text()}\" occurs twice");
            pieces.Add((text.Text(), score.Number()));
        }

        var unknown = part.Find("unk_id");
        if (!unknown.IsNull && unknown.TokenId() >= pieces.Count) throw unknown.Error($"{unknown.Integer()} is not among the {pieces.Count} tokens");
        return new UnigramModel(vocabulary, pieces, unknown.IsNull ? -1 : unknown.TokenId(), part.Flag("byte_fallback", false));
    }

    public override void Encode(ReadOnlySpan<char> word, List<int> output)
    {
        if (_cache is null || word.Length > WordCache.LongestWord)
        {
            var symbols = Scratch.OfThread.Symbols;
            symbols.Clear();
            Encode(word, symbols);
            foreach (var symbol in symbols) output.Add(symbol.Id);
            symbols.Clear();
            if (symbols.Capacity > 1 << 20) symbols.Capacity = 0;
            return;
        }

        var hash = WordCache.Hash(word);
        if (_cache.TryGet(word, hash, out var ids))
        {
            output.AddRange(ids);
            return;
        }

        var own = new List<Symbol>();
        Encode(word, own);
        var start = output.Count;
        foreach (var symbol in own) output.Add(symbol.Id);
        _cache.Put(word, hash, CollectionsMarshal.AsSpan(output)[start..]);
    }

    public override void Encode(ReadOnlySpan<char> word, List<Symbol> output)
    {
        if (word.IsEmpty) return;
        var buffer = ArrayPool<byte>.Shared.Rent(word.Length * 3);
        var text = buffer.AsSpan(0, Encoding.UTF8.GetBytes(word, buffer));
        var path = Scratch.OfThread.Path(text.Length + 1);
        FindBestPath(text, path);

        var first = output.Count;
        for (var end = text.Length; end > 0;)
        {
            var (id, start) = (path[end].Id, path[end].Start);
            while (id == _unknown && start > 0 && path[start].Id == _unknown) start = path[start].Start;
            if (id == _unknown) AddUnknown(text[start..end], output);
            else output.Add(new Symbol(id, end - start));
            end = start;
        }

        output.Reverse(first, output.Count - first);
        ArrayPool<byte>.Shared.Return(buffer);
    }

    /// <summary>A run of unknown characters, last byte first: bytes, one unknown token, or (rarely) a piece after all.</summary>
    private void AddUnknown(ReadOnlySpan<byte> text, List<Symbol> output)
    {
        var id = _single ? -1 : _trie.Find(text);
        if (id < 0 && _bytes is { } bytes && Known(bytes, text))
        {
            for (var i = text.Length - 1; i >= 0; i--) output.Add(new Symbol(bytes[text[i]], 1));
            return;
        }

        if (id < 0 && _unknown < 0) throw new RhoException("the text has a character that is not in the vocabulary, and the tokenizer has no unknown token");
        output.Add(new Symbol(id < 0 ? _unknown : id, text.Length));
    }

    private static bool Known(int[] bytes, ReadOnlySpan<byte> text)
    {
        foreach (var b in text)
        {
            if (bytes[b] < 0) return false;
        }

        return true;
    }

    private struct Node
    {
        public double Score;
        public int Start;
        public int Id;
    }

    private void FindBestPath(ReadOnlySpan<byte> text, Span<Node> best)
    {
        best.Fill(new Node { Start = -1, Id = -1 });
        var scores = _scores;
        var trie = _trie;
        for (var start = 0; start < text.Length;)
        {
            var length = Math.Min(CharacterLength(text[start]), text.Length - start);
            var soFar = best[start].Score;
            var node = ByteTrie.Root;
            var single = false;
            for (var end = start; end < text.Length;)
            {
                node = trie.Step(node, text[end++]);
                if (node < 0) break;
                var id = trie.Value(node);
                if (id < 0) continue;
                single |= end - start == length;
                Offer(ref best[end], scores[id] + soFar, start, id);
            }

            if (!single)
            {
                var score = _unknownScore + soFar;
                Offer(ref best[start + length], _single ? (float)score : score, start, _unknown);
            }

            start += length;
        }
    }

    private void Offer(ref Node node, double score, int start, int id)
    {
        if (node.Start >= 0 && score <= node.Score) return;
        node.Score = _single ? (float)score : score;
        node.Start = start;
        node.Id = id;
    }

    private static int CharacterLength(byte first) => first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;

    private sealed class Scratch
    {
        [ThreadStatic]
        private static Scratch? _ofThread;

        private Node[] _path = [];

        public static Scratch OfThread => _ofThread ??= new Scratch();

        public List<Symbol> Symbols { get; } = [];

        public Span<Node> Path(int length)
        {
            if (_path.Length < length || _path.Length > Math.Max(length, 1 << 20)) _path = new Node[length];
            return _path.AsSpan(0, length);
        }
    }
}
