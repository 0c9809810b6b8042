using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;

namespace Rho.Tokenization;

/// <summary>
/// SentencePiece's BPE (sentencepiece/src/bpe_model.cc): any two neighbours whose joint text is a piece merge, the piece of
/// the highest score first. Characters without a piece become bytes or one unknown token per run.
/// </summary>
internal sealed class SentencePieceBpe : TokenModel
{
    /// <summary>Added to the id of a user-defined symbol while merging: it takes no part in it.</summary>
    private const int Frozen = 1 << 28;

    /// <summary>Added to a character that is no piece.</summary>
    private const int Unlisted = 1 << 29;

    private readonly SentencePieceFile _file;
    private readonly PrefixMatcher _userDefined;
    private readonly MergeTable _merges;
    private readonly int[] _characters;
    private readonly Dictionary<string, int> _frozen;
    private readonly int[] _bytes;
    private readonly int _unknown;
    private readonly BlankCut _cut;
    private readonly WordCache _cache = new();

    public SentencePieceBpe(SentencePieceFile file, Vocabulary vocabulary, PrefixMatcher userDefined, string name)
    {
        _file = file;
        _userDefined = userDefined;
        Vocabulary = vocabulary;
        if (file.Pieces.Exists(piece => piece.Type == PieceType.Unused)) throw new RhoException($"{name}: pieces of type UNUSED in a BPE model are not supported");
        _unknown = file.Pieces.FindIndex(piece => piece.Type == PieceType.Unknown);
        _bytes = [.. Enumerable.Range(0, 256).Select(b => vocabulary.TryGet($"<0x{b:X2}>", out var id) ? id : -1)];
        var words = file.Pieces.Where(piece => piece.Type is PieceType.Normal or PieceType.UserDefined).Select(piece => piece.Text).ToArray();
        _frozen = file.Pieces.Select((piece, id) => (piece, id)).Where(item => item.piece.Type == PieceType.UserDefined)
            .ToDictionary(item => item.piece.Text, item => item.id, StringComparer.Ordinal);
        _characters = new int[char.MaxValue + 1];
        for (var c = 0; c < _characters.Length; c++) _characters[c] = char.IsSurrogate((char)c) ? -1 : Symbol([(char)c]);
        _cut = BlankCut.For(words);
        _merges = BuildMerges();
    }

    public override Vocabulary Vocabulary { get; }

    private MergeTable BuildMerges()
    {
        var table = new MergeTable(Vocabulary.Count * 4);
        var scores = _file.Pieces.Select(piece => piece.Score).Distinct().OrderDescending().Select((score, rank) => (score, rank)).ToDictionary();
        for (var id = 0; id < _file.Pieces.Count; id++)
        {
            var (text, score, type) = _file.Pieces[id];
            if (type is not (PieceType.Normal or PieceType.UserDefined)) continue;
            for (var at = 0; at < text.Length;)
            {
                at += char.IsHighSurrogate(text[at]) ? 2 : 1;
                if (at >= text.Length) break;
                var left = Symbol(text.AsSpan(0, at));
                var right = Symbol(text.AsSpan(at));
                if (left >= 0 && right >= 0) table.Set(left, right, scores[score], id);
            }
        }

        return table;
    }

    /// <summary>The symbol of a text that can take part in a merge: a piece, or a character that is none; otherwise -1.</summary>
    private int Symbol(ReadOnlySpan<char> text)
    {
        if (Vocabulary.TryGet(text, out var id) && _file.Pieces[id].Type is PieceType.Normal or PieceType.UserDefined) return id;
        return Rune.DecodeFromUtf16(text, out var rune, out var length) == System.Buffers.OperationStatus.Done && length == text.Length ? Unlisted + rune.Value : -1;
    }

    public override void Encode(ReadOnlySpan<char> word, List<int> output)
    {
        var first = output.Count;
        while (!word.IsEmpty)
        {
            var length = _cut.Length(word);
            EncodeWord(word[..length], output, first);
            word = word[length..];
        }
    }

    private void EncodeWord(ReadOnlySpan<char> word, List<int> output, int first)
    {
        if (word.Length > WordCache.LongestWord)
        {
            Append(word, output, first);
            return;
        }

        var hash = WordCache.Hash(word);
        if (_cache.TryGet(word, hash, out var ids))
        {
            // A run of unknown characters is one token, also across words.
            if (output.Count > first && output[^1] == _unknown && ids.Length > 0 && ids[0] == _unknown) ids = ids[1..];
            if (ids.Length == 1) output.Add(ids[0]);
            else output.AddRange(ids);
            return;
        }

        var own = new List<int>(word.Length);
        Append(word, own, 0);
        _cache.Put(word, hash, CollectionsMarshal.AsSpan(own));
        foreach (var id in own)
        {
            if (id != _unknown || output.Count == first || output[^1] != _unknown) output.Add(id);
        }
    }

    private void Append(ReadOnlySpan<char> word, List<int> output, int first)
    {
        var symbols = Scratch;
        symbols.Clear();
        Spell(word, symbols, lengths: null);
        var span = CollectionsMarshal.AsSpan(symbols);
        var count = Merger.OfThread.Merge(_merges, span, default);
        Span<byte> bytes = stackalloc byte[4];
        foreach (var symbol in span[..count])
        {
            if (symbol < Unlisted)
            {
                output.Add(symbol & ~Frozen);
            }
            else if (_file.ByteFallback)
            {
                var length = new Rune(symbol - Unlisted).EncodeToUtf8(bytes);
                foreach (var b in bytes[..length]) output.Add(_bytes[b]);
            }
            else if (output.Count == first || output[^1] != _unknown)
            {
                output.Add(_unknown);
            }
        }

        symbols.Clear();
        if (symbols.Capacity > 1 << 20) symbols.Capacity = 0;
    }

    [ThreadStatic]
    private static List<int>? _scratch;

    private static List<int> Scratch => _scratch ??= [];

    public override void Encode(ReadOnlySpan<char> word, List<Symbol> output)
    {
        var symbols = new List<int>();
        var lengths = new List<int>();
        Spell(word, symbols, lengths);
        var first = output.Count;
        var count = Merger.OfThread.Merge(_merges, CollectionsMarshal.AsSpan(symbols), CollectionsMarshal.AsSpan(lengths));
        Span<byte> bytes = stackalloc byte[4];
        for (var i = 0; i < count; i++)
        {
            var symbol = symbols[i];
            if (symbol < Unlisted)
            {
                output.Add(new Symbol(symbol & ~Frozen, lengths[i]));
            }
            else if (_file.ByteFallback)
            {
                var length = new Rune(symbol - Unlisted).EncodeToUtf8(bytes);
                foreach (var b in bytes[..length]) output.Add(new Symbol(_bytes[b], 1));
            }
            else if (output.Count > first && output[^1].Id == _unknown)
            {
                output[^1] = new Symbol(_unknown, output[^1].Bytes + lengths[i]);
            }
            else
            {
                output.Add(new Symbol(_unknown, lengths[i]));
            }
        }
    }

    private void Spell(ReadOnlySpan<char> word, List<int> symbols, List<int>? lengths)
    {
        for (var i = 0; i < word.Length;)
        {
            if (_userDefined.Match(word, i) is { } symbol)
            {
                symbols.Add(Frozen + _frozen[symbol]);
                lengths?.Add(Encoding.UTF8.GetByteCount(symbol));
                i += symbol.Length;
                continue;
            }

            var c = word[i];
            if (char.IsHighSurrogate(c))
            {
                symbols.Add(Symbol(word.Slice(i, 2)));
                lengths?.Add(4);
                i += 2;
            }
            else
            {
                symbols.Add(_characters[c]);
                lengths?.Add(c < 0x80 ? 1 : c < 0x800 ? 2 : 3);
                i++;
            }
        }
    }

    public override void Write(Utf8JsonWriter json) => WritePieces(json, _file, "BPE");

    /// <summary>The pieces in one fixed form, for the fingerprint.</summary>
    public static void WritePieces(Utf8JsonWriter json, SentencePieceFile file, string type)
    {
        json.WriteStartObject();
        json.WriteString("type", $"SentencePiece {type}");
        json.WriteBoolean("byte_fallback", file.ByteFallback);
        json.WriteStartArray("pieces");
        foreach (var (text, score, kind) in file.Pieces)
        {
            json.WriteStringValue(text);
            json.WriteNumberValue(score);
            json.WriteNumberValue((int)kind);
        }

        json.WriteEndArray();
        json.WriteEndObject();
    }
}

/// <summary>
/// Where a text can be cut without changing what its pieces are: at an edge of a run of visible blanks that no piece reaches
/// across.
/// </summary>
internal readonly struct BlankCut
{
    private const char Blank = '\u2581';

    private enum Edge
    {
        None,
        Before,
        After,
    }

    private readonly Edge _edge;

    private BlankCut(Edge edge) => _edge = edge;

    public static BlankCut For(IReadOnlyList<string> pieces)
    {
        var before = true;
        var after = true;
        foreach (var piece in pieces)
        {
            for (var i = 1; i < piece.Length; i++)
            {
                before &= piece[i] != Blank || piece[i - 1] == Blank;
                after &= piece[i - 1] != Blank || piece[i] == Blank;
            }
        }

        return new BlankCut(before ? Edge.Before : after ? Edge.After : Edge.None);
    }

    public static BlankCut None => new(Edge.None);

    /// <summary>The length of the first part.</summary>
    public int Length(ReadOnlySpan<char> text)
    {
        if (_edge == Edge.None) return text.Length;
        var start = _edge == Edge.Before ? text.IndexOfAnyExcept(Blank) : text.IndexOf(Blank);
        if (start < 0) return text.Length;
        var length = _edge == Edge.Before ? text[start..].IndexOf(Blank) : text[start..].IndexOfAnyExcept(Blank);
        return length < 0 ? text.Length : start + length;
    }
}
