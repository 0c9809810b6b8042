using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;

namespace Rho.Tokenization;

internal sealed record BpeOptions
{
    public string? UnknownToken { get; init; }

    public bool FuseUnknown { get; init; }

    public bool ByteFallback { get; init; }

    /// <summary>A word that is itself a token is not merged.</summary>
    public bool IgnoreMerges { get; init; }
}

/// <summary>
/// Byte-pair encoding with the semantics of Hugging Face tokenizers: words are spelled in characters (or, byte-level, in
/// bytes) and neighbours merged in the order of the merge list.
/// </summary>
internal sealed class BpeModel : TokenModel
{
    private readonly BpeOptions _options;
    private readonly IReadOnlyList<(string Left, string Right)> _mergeList;
    private readonly MergeTable _merges;
    private readonly int[] _units;
    private readonly int[]? _fallback;
    private readonly int _unknown;
    private readonly bool _byteLevel;
    private readonly BlankCut _cut;
    private readonly WordCache _cache = new();

    /// <param name="vocabulary">The tokens; not changed afterwards.</param>
    /// <param name="merges">The merge list, most frequent first.</param>
    /// <param name="byteLevel">Words come as plain text and are spelled in <see cref="ByteAlphabet"/> here.</param>
    public BpeModel(Vocabulary vocabulary, IReadOnlyList<(string Left, string Right)> merges, BpeOptions options, bool byteLevel)
    {
        Vocabulary = vocabulary;
        _options = options;
        _mergeList = merges;
        _byteLevel = byteLevel;
        _merges = new MergeTable(merges.Count);
        for (var rank = 0; rank < merges.Count; rank++)
        {
            var (left, right) = merges[rank];
            if (!vocabulary.TryGet(left, out var leftId)) throw Missing(rank, left);
            if (!vocabulary.TryGet(right, out var rightId)) throw Missing(rank, right);
            if (!vocabulary.TryGet(left + right, out var merged)) throw Missing(rank, left + right);
            _merges.Set(leftId, rightId, rank, merged);
        }

        _unknown = -1;
        if (options.UnknownToken is { } unknown && !vocabulary.TryGet(unknown, out _unknown))
            throw new RhoException($"model.unk_token: \"{unknown}\" is not in the vocabulary");

        _units = new int[byteLevel ? 256 : char.MaxValue + 1];
        for (var i = 0; i < _units.Length; i++)
        {
            var letter = byteLevel ? ByteAlphabet.Letter((byte)i) : (char)i;
            _units[i] = vocabulary.TryGet([letter], out var id) ? id : -1;
        }

        if (options.ByteFallback) _fallback = [.. Enumerable.Range(0, 256).Select(b => vocabulary.TryGet($"<0x{b:X2}>", out var id) ? id : -1)];
        _cut = byteLevel || options.IgnoreMerges || _units['\u2581'] < 0 ? BlankCut.None : BlankCut.For([.. merges.Select(merge => merge.Left + merge.Right)]);
    }

    public override Vocabulary Vocabulary { get; }

    private static RhoException Missing(int rank, string token) =>
        new($"model.merges[{rank}]: \"{token}\" is not in the vocabulary");

    public override void Encode(ReadOnlySpan<char> word, List<int> output)
    {
        while (!word.IsEmpty)
        {
            var length = _cut.Length(word);
            EncodeWord(word[..length], output);
            word = word[length..];
        }
    }

    private void EncodeWord(ReadOnlySpan<char> word, List<int> output)
    {
        if (word.Length > WordCache.LongestWord)
        {
            Append(word, output);
            return;
        }

        var hash = WordCache.Hash(word);
        if (_cache.TryGet(word, hash, out var ids))
        {
            if (ids.Length == 1) output.Add(ids[0]);
            else output.AddRange(ids);
            return;
        }

        var start = output.Count;
        Append(word, output);
        _cache.Put(word, hash, CollectionsMarshal.AsSpan(output)[start..]);
    }

    private void Append(ReadOnlySpan<char> word, List<int> output)
    {
        if (_options.IgnoreMerges && TryWhole(word, out var whole))
        {
            output.Add(whole);
            return;
        }

        var start = output.Count;
        Spell(word, output, lengths: null);
        var symbols = CollectionsMarshal.AsSpan(output)[start..];
        CollectionsMarshal.SetCount(output, start + Merger.OfThread.Merge(_merges, symbols, default));
    }

    public override void Encode(ReadOnlySpan<char> word, List<Symbol> output)
    {
        if (_options.IgnoreMerges && TryWhole(word, out var whole))
        {
            output.Add(new Symbol(whole, Encoding.UTF8.GetByteCount(word)));
            return;
        }

        var symbols = new List<int>();
        var lengths = new List<int>();
        Spell(word, symbols, lengths);
        var count = Merger.OfThread.Merge(_merges, CollectionsMarshal.AsSpan(symbols), CollectionsMarshal.AsSpan(lengths));
        for (var i = 0; i < count; i++) output.Add(new Symbol(symbols[i], lengths[i]));
    }

    private bool TryWhole(ReadOnlySpan<char> word, out int id)
    {
        if (!_byteLevel) return Vocabulary.TryGet(word, out id);
        if (word.Length > 1024)
        {
            // Longer than any token worth having; the text of a token is at most three bytes per char.
            return Vocabulary.TryGet(ByteAlphabet.Spell(Encoding.UTF8.GetBytes(word.ToString())), out id);
        }

        Span<byte> bytes = stackalloc byte[word.Length * 3];
        var count = Encoding.UTF8.GetBytes(word, bytes);
        Span<char> letters = stackalloc char[count];
        for (var i = 0; i < count; i++) letters[i] = ByteAlphabet.Letter(bytes[i]);
        return Vocabulary.TryGet(letters, out id);
    }

    private void Spell(ReadOnlySpan<char> word, List<int> symbols, List<int>? lengths)
    {
        var speller = new Speller(this, symbols, lengths);
        if (_byteLevel) SpellBytes(word, ref speller);
        else SpellCharacters(word, ref speller);
        speller.Flush();
    }

    private void SpellBytes(ReadOnlySpan<char> word, ref Speller speller)
    {
        Span<byte> bytes = stackalloc byte[384];
        while (!word.IsEmpty)
        {
            var taken = Math.Min(word.Length, 128);
            if (taken < word.Length && char.IsHighSurrogate(word[taken - 1])) taken--;
            var count = Encoding.UTF8.GetBytes(word[..taken], bytes);
            foreach (var b in bytes[..count])
            {
                var id = _units[b];
                if (id >= 0) speller.Add(id, 1);
                else speller.AddUnknown([ByteAlphabet.Letter(b)], 1);
            }

            word = word[taken..];
        }
    }

    private void SpellCharacters(ReadOnlySpan<char> word, ref Speller speller)
    {
        for (var i = 0; i < word.Length;)
        {
            var c = word[i];
            var length = char.IsHighSurrogate(c) && i + 1 < word.Length ? 2 : 1;
            var unit = word.Slice(i, length);
            i += length;
            var bytes = length == 2 ? 4 : c < 0x80 ? 1 : c < 0x800 ? 2 : 3;
            var id = length == 1 ? _units[c] : Vocabulary.TryGet(unit, out var found) ? found : -1;
            if (id >= 0) speller.Add(id, bytes);
            else speller.AddUnknown(unit, bytes);
        }
    }

    /// <summary>Collects symbols; what is not in the vocabulary becomes byte tokens, the unknown token, or nothing.</summary>
    private ref struct Speller(BpeModel model, List<int> symbols, List<int>? lengths)
    {
        private int _pendingUnknown;

        public void Add(int id, int bytes)
        {
            Flush();
            symbols.Add(id);
            lengths?.Add(bytes);
        }

        public void Flush()
        {
            if (_pendingUnknown == 0) return;
            symbols.Add(model._unknown);
            lengths?.Add(_pendingUnknown);
            _pendingUnknown = 0;
        }

        public void AddUnknown(scoped ReadOnlySpan<char> unit, int bytes)
        {
            if (model._fallback is { } fallback && TryFallback(fallback, unit)) return;
            if (model._unknown < 0) return;
            if (!model._options.FuseUnknown) Flush();
            _pendingUnknown += bytes;
        }

        private readonly bool TryFallback(int[] fallback, scoped ReadOnlySpan<char> unit)
        {
            Span<byte> bytes = stackalloc byte[8];
            var utf8 = bytes[..Encoding.UTF8.GetBytes(unit, bytes)];
            foreach (var b in utf8)
            {
                if (fallback[b] < 0) return false;
            }

            // A pending unknown stays pending here, as in Hugging Face tokenizers.
            foreach (var b in utf8)
            {
                symbols.Add(fallback[b]);
                lengths?.Add(1);
            }

            return true;
        }
    }

    public override void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteString("type", "BPE");
        json.WriteNull("dropout");
        if (_options.UnknownToken is null) json.WriteNull("unk_token");
        else json.WriteString("unk_token", _options.UnknownToken);
        json.WriteNull("continuing_subword_prefix");
        json.WriteNull("end_of_word_suffix");
        json.WriteBoolean("fuse_unk", _options.FuseUnknown);
        json.WriteBoolean("byte_fallback", _options.ByteFallback);
        json.WriteBoolean("ignore_merges", _options.IgnoreMerges);
        json.WriteStartObject("vocab");
        foreach (var (id, token) in Vocabulary.ById()) json.WriteNumber(token, id);
        json.WriteEndObject();
        json.WriteStartArray("merges");
        foreach (var (left, right) in _mergeList)
        {
            json.WriteStartArray();
            json.WriteStringValue(left);
            json.WriteStringValue(right);
            json.WriteEndArray();
        }

        json.WriteEndArray();
        json.WriteEndObject();
    }

    /// <summary>Reads the model part of tokenizer.json.</summary>
    public static BpeModel Read(JsonPart part, bool byteLevel)
    {
        part.Allow("type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges");
        var dropout = part.Find("dropout");
        if (!dropout.IsNull && dropout.Number() != 0) throw dropout.Error("BPE dropout is not supported: it makes ids random");
        foreach (var affix in (ReadOnlySpan<string>)["continuing_subword_prefix", "end_of_word_suffix"])
        {
            if (part.OptionalText(affix) is { Length: > 0 }) throw part.Find(affix).Error("not supported");
        }

        var vocabulary = new Vocabulary();
        foreach (var (token, id) in part.Get("vocab").Fields())
        {
            if (!vocabulary.TryAdd(token, id.TokenId())) throw id.Error($"token or id {id.Integer()} occurs twice");
        }

        var merges = new List<(string Left, string Right)>();
        foreach (var merge in part.Get("merges").Items()) merges.Add(ReadMerge(merge));

        var options = new BpeOptions
        {
            UnknownToken = part.OptionalText("unk_token"),
            FuseUnknown = part.Flag("fuse_unk", false),
            ByteFallback = part.Flag("byte_fallback", false),
            IgnoreMerges = part.Flag("ignore_merges", false),
        };
        try
        {
            return new BpeModel(vocabulary, merges, options, byteLevel);
        }
        catch (RhoException error)
        {
            throw part.Error(error.Message);
        }
    }

    /// <summary>A merge is "left right" or ["left", "right"].</summary>
    private static (string Left, string Right) ReadMerge(JsonPart part)
    {
        if (part.Kind == JsonValueKind.Array)
        {
            var sides = part.Items().Select(side => side.Text()).ToArray();
            if (sides is [{ Length: > 0 } left, { Length: > 0 } right]) return (left, right);
        }
        else
        {
            var text = part.Text();
            var blank = text.IndexOf(' ');
            if (blank > 0 && blank < text.Length - 1 && text.IndexOf(' ', blank + 1) < 0) return (text[..blank], text[(blank + 1)..]);
        }

        throw part.Error("expected two tokens, as \"left right\" or [\"left\", \"right\"]");
    }
}
