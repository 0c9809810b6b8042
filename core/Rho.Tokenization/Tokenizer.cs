using System.Buffers;
using System.Text;
using Rho.Jinja;

namespace Rho.Tokenization;

/// <summary>A token and the characters of the text, [Start, End) in UTF-16 units, that it stands for.</summary>
public readonly record struct TokenSpan(int Id, int Start, int End);

/// <summary>
/// Text to token ids and back, as described by a Hugging Face tokenizer.json or a SentencePiece tokenizer.model. Immutable: many threads can share one.
/// </summary>
public sealed class Tokenizer
{
    private readonly TokenizerParts _parts;
    private readonly TokenModel _model;
    private readonly Dictionary<int, AddedToken> _added;
    private readonly Dictionary<string, int> _addedIds;
    private readonly AddedTokenMatcher? _rawMatcher;
    private readonly AddedTokenMatcher? _normalizedMatcher;
    private readonly Splitter? _direct;
    private readonly byte[]?[]? _tokenBytes;

    internal Tokenizer(TokenizerParts parts, TokenizerSettings settings)
    {
        _parts = parts;
        _model = parts.Model;
        Settings = settings;
        _chatTemplate = new Lazy<ChatTemplate?>(() => ReadChatTemplate(settings));
        _added = new Dictionary<int, AddedToken>();
        _addedIds = new Dictionary<string, int>(StringComparer.Ordinal);
        foreach (var token in parts.AddedTokens)
        {
            if (token.Content.Length == 0) continue;
            if (!_added.TryAdd(token.Id, token) || !_addedIds.TryAdd(token.Content, token.Id))
                throw new RhoException($"added token \"{token.Content}\" with id {token.Id}: this token or id occurs twice");
        }

        VocabularySize = Math.Max(_model.Vocabulary.Size, _added.Count == 0 ? 0 : _added.Keys.Max() + 1);
        _rawMatcher = Matcher(_added.Values.Where(token => !token.Normalized), token => token.Content);
        _normalizedMatcher = Matcher(_added.Values.Where(token => token.Normalized), Normalized);
        _direct = _normalizedMatcher is null && parts.Normalizers.Count == 0 ? DirectSplitter(parts.PreTokenizers) : null;
        Fingerprint = parts.Fingerprint();

        if (parts.Decoders is [ByteLevelDecoder])
        {
            _tokenBytes = new byte[VocabularySize][];
            for (var id = 0; id < VocabularySize; id++)
            {
                if (Find(id) is { } token) _tokenBytes[id] = ByteAlphabet.Bytes(token);
            }
        }

        BosId = Id(settings.BosToken ?? parts.Names.Bos) ?? settings.BosId;
        EosId = Id(settings.EosToken ?? parts.Names.Eos) ?? settings.EosId;
        PadId = Id(settings.PadToken ?? parts.Names.Pad) ?? settings.PadId;
        UnknownId = Id(settings.UnknownToken ?? parts.Names.Unknown);
    }

    internal TokenizerSettings Settings { get; }

    private readonly Lazy<ChatTemplate?> _chatTemplate;

    /// <summary>The model's chat template; null where the files have none.</summary>
    /// <exception cref="RhoException">The template uses something that is not supported. (Loading a tokenizer does not fail for this.)</exception>
    public ChatTemplate? ChatTemplate => _chatTemplate.Value;

    /// <summary>1 + the highest id.</summary>
    public int VocabularySize { get; }

    /// <summary>"sha256:" and 64 hex digits over all that decides about ids; equal for files that give equal ids.</summary>
    public string Fingerprint { get; }

    public int? BosId { get; }

    public int? EosId { get; }

    public int? PadId { get; }

    public int? UnknownId { get; }

    /// <summary>Reads tokenizer.json, or else tokenizer.model, and what stands beside it: tokenizer_config.json, special_tokens_map.json, generation_config.json, config.json.</summary>
    /// <exception cref="RhoException">A file is missing, broken, or uses something that is not supported (named in the message).</exception>
    public static Tokenizer Load(string directory)
    {
        if (!Directory.Exists(directory)) throw new NotFoundException($"{directory}: this folder does not exist");
        var settings = TokenizerSettings.Load(directory);
        var json = Path.Combine(directory, "tokenizer.json");
        var model = Path.Combine(directory, "tokenizer.model");
        if (File.Exists(json)) return new Tokenizer(TokenizerParts.Read(JsonPart.Load(json)).With(settings), settings);
        if (!File.Exists(model)) throw new NotFoundException($"{directory}: neither tokenizer.json nor tokenizer.model in this folder");
        return new Tokenizer(SentencePieceLoader.Read(JsonPart.ReadFile(model), model, settings).With(settings), settings);
    }

    /// <summary>Writes tokenizer.json (or tokenizer.model, where it came from one) and tokenizer_config.json, which Hugging Face tokenizers and transformers read.</summary>
    public void Save(string directory)
    {
        Directory.CreateDirectory(directory);
        if (_parts.SentencePiece is { } model)
        {
            AtomicFile.Write(Path.Combine(directory, "tokenizer.model"), stream => stream.Write(model));
            if (_parts.AddedTokens.Count > 0) AtomicFile.Write(Path.Combine(directory, "added_tokens.json"), _parts.WriteAddedTokens);
        }
        else
        {
            AtomicFile.Write(Path.Combine(directory, "tokenizer.json"), _parts.Write);
        }

        var reader = _parts.SentencePiece is null ? "PreTrainedTokenizerFast" : "LlamaTokenizer";
        if (Settings.ChatTemplateFile is { } template) AtomicFile.WriteText(Path.Combine(directory, "chat_template.jinja"), template);
        AtomicFile.Write(Path.Combine(directory, "tokenizer_config.json"), stream => Settings.Write(stream, reader));
    }

    /// <summary>The ids of a text. Parts of it that read like added tokens (such as &lt;s&gt;) become these tokens.</summary>
    /// <param name="addSpecialTokens">Adds what the tokenizer puts around a text, such as the token that begins one.</param>
    public int[] Encode(string text, bool addSpecialTokens = false) => Encode(text.AsSpan(), addSpecialTokens);

    public int[] Encode(ReadOnlySpan<char> text, bool addSpecialTokens = false)
    {
        var output = Scratch.OfThread.Ids;
        output.Clear();
        Encode(text, output, addSpecialTokens);
        var ids = output.ToArray();
        output.Clear();
        if (output.Capacity > 1 << 20) output.Capacity = 0;
        return ids;
    }

    /// <summary>Appends the ids of a text to <paramref name="output"/>, which is all that is allocated for plain tokenizers.</summary>
    public void Encode(ReadOnlySpan<char> text, List<int> output, bool addSpecialTokens = false)
    {
        if (addSpecialTokens && _parts.PostProcessor is { } before) output.AddRange(before.Prefix);
        Encode(WellFormed(text), Scratch.OfThread.Sink.To(output));
        if (addSpecialTokens && _parts.PostProcessor is { } after) output.AddRange(after.Suffix);
    }

    /// <summary>The ids of a text and where each comes from. Tokens that the tokenizer adds have empty ranges.</summary>
    public IReadOnlyList<TokenSpan> EncodeWithOffsets(string text, bool addSpecialTokens = false)
    {
        var output = new List<TokenSpan>();
        Encode(WellFormed(text), new SpanSink(output));
        if (_parts.PostProcessor is not { } post) return output;
        if (post.TrimOffsets) TrimOffsets(text, output, post.AddPrefixSpace);
        if (!addSpecialTokens) return output;
        return [.. post.Prefix.Select(id => new TokenSpan(id, 0, 0)), .. output, .. post.Suffix.Select(id => new TokenSpan(id, 0, 0))];
    }

    private void Encode(ReadOnlySpan<char> text, TokenSink sink)
    {
        var search = 0;
        var taken = 0;
        while (_rawMatcher is not null && taken < text.Length)
        {
            var from = taken;
            var token = _rawMatcher.Next(text, ref search, ref taken, out var start);
            if (start > from) EncodeFragment(text[from..start], from, sink);
            if (token is null) return;
            sink.AddToken(token.Id, start, taken);
        }

        if (taken < text.Length) EncodeFragment(text[taken..], taken, sink);
    }

    /// <summary>A stretch of the raw text, from <paramref name="offset"/> on, without raw added tokens.</summary>
    private void EncodeFragment(ReadOnlySpan<char> text, int offset, TokenSink sink)
    {
        if (_direct is { } splitter && !sink.WantsOffsets)
        {
            for (var start = 0; start < text.Length;)
            {
                var end = splitter.Next(text, start);
                sink.AddWord(_model, text[start..end]);
                start = end;
            }

            return;
        }

        var pieces = Scratch.OfThread.Pieces;
        var passage = Scratch.OfThread.Normalize(text, offset, sink.WantsOffsets, _parts.Normalizers);
        var search = 0;
        var taken = 0;
        while (_normalizedMatcher is not null && taken < passage.Length)
        {
            var from = taken;
            var token = _normalizedMatcher.Next(passage.Text, ref search, ref taken, out var start);
            EncodePiece(pieces, passage, from, start, offset == 0 && from == 0, sink);
            if (token is null) return;
            var (originStart, originEnd) = sink.WantsOffsets ? passage.Origin(start, taken) : default;
            sink.AddToken(token.Id, originStart, originEnd);
        }

        EncodePiece(pieces, passage, taken, passage.Length, offset == 0 && taken == 0, sink);
    }

    private void EncodePiece(Pieces pieces, Passage passage, int start, int end, bool atStart, TokenSink sink)
    {
        pieces.Reset(passage, start, end, atStart);
        foreach (var step in _parts.PreTokenizers) step.Apply(pieces);
        foreach (var range in pieces.Ranges) sink.AddWord(_model, pieces.Text, range);
    }

    /// <summary>Lone surrogates stand for no character: like invalid bytes they are read as U+FFFD.</summary>
    private static ReadOnlySpan<char> WellFormed(ReadOnlySpan<char> text)
    {
        var surrogate = text.IndexOfAnyInRange('\uD800', '\uDFFF');
        if (surrogate < 0) return text;
        char[]? repaired = null;
        for (var i = surrogate; i < text.Length; i++)
        {
            if (!char.IsSurrogate(text[i])) continue;
            if (char.IsHighSurrogate(text[i]) && i + 1 < text.Length && char.IsLowSurrogate(text[i + 1]))
            {
                i++;
                continue;
            }

            repaired ??= text.ToArray();
            repaired[i] = '\uFFFD';
        }

        return repaired ?? text;
    }

    /// <summary>Takes white space at their ends off the offsets, as Hugging Face's ByteLevel post-processor does.</summary>
    private void TrimOffsets(string text, List<TokenSpan> tokens, bool addPrefixSpace)
    {
        for (var i = 0; i < tokens.Count; i++)
        {
            var (id, start, end) = tokens[i];
            var token = _added.ContainsKey(id) ? text.AsSpan(start, end - start) : Find(id);
            var leading = token.Length - token.TrimStart(TrimmedCharacters).Length;
            var trailing = token.Length - token.TrimEnd(TrimmedCharacters).Length;
            if (leading > 0)
            {
                if (addPrefixSpace && leading == 1 && (i == 0 || start == 0)) leading = 0;
                start = Math.Min(start + leading, end);
                if (IsInsidePair(text, start)) start++;
            }

            if (trailing > 0 && end >= trailing) end = Math.Max(end - trailing, start);
            if (IsInsidePair(text, end)) end--;
            tokens[i] = new TokenSpan(id, start, end);
        }
    }

    private static bool IsInsidePair(string text, int index) =>
        index > 0 && index < text.Length && char.IsHighSurrogate(text[index - 1]) && char.IsLowSurrogate(text[index]);

    /// <summary>A blank as <see cref="ByteAlphabet"/> spells it, and white space.</summary>
    private static readonly string TrimmedCharacters =
        ByteAlphabet.Letter((byte)' ') + new string([.. Enumerable.Range(0, 0x3001).Select(c => (char)c).Where(char.IsWhiteSpace)]);

    /// <summary>The text of ids. Ids that no token has give nothing.</summary>
    /// <exception cref="RhoException">An id is negative.</exception>
    public string Decode(ReadOnlySpan<int> ids, bool skipSpecialTokens = false)
    {
        if (_tokenBytes is not null) return DecodeBytes(ids, skipSpecialTokens);
        var (chain, output) = StartDecoding();
        foreach (var id in ids) Push(chain, id, skipSpecialTokens);
        chain.Finish();
        return output.Take();
    }

    private string DecodeBytes(ReadOnlySpan<int> ids, bool skipSpecialTokens)
    {
        var buffer = ArrayPool<byte>.Shared.Rent(ids.Length * 8 + 16);
        var count = 0;
        foreach (var id in ids)
        {
            if (id < 0) throw NoToken(id);
            if (id >= VocabularySize || _tokenBytes![id] is not { } bytes || (skipSpecialTokens && IsSpecial(id))) continue;
            if (count + bytes.Length > buffer.Length)
            {
                var larger = ArrayPool<byte>.Shared.Rent(Math.Max(count + bytes.Length, buffer.Length * 2));
                buffer.AsSpan(0, count).CopyTo(larger);
                ArrayPool<byte>.Shared.Return(buffer);
                buffer = larger;
            }

            bytes.CopyTo(buffer.AsSpan(count));
            count += bytes.Length;
        }

        var text = Encoding.UTF8.GetString(buffer, 0, count);
        ArrayPool<byte>.Shared.Return(buffer);
        return text;
    }

    /// <summary>A decoder for ids that come one by one.</summary>
    public StreamingDecoder CreateStreamingDecoder(bool skipSpecialTokens = true) => new(this, skipSpecialTokens);

    internal (DecoderState Chain, DecoderOutput Output) StartDecoding()
    {
        var output = new DecoderOutput(separated: _parts.Decoders.Count == 0);
        DecoderState chain = output;
        foreach (var step in _parts.Decoders.Reverse()) chain = step.Start(chain);
        return (chain, output);
    }

    internal void Push(DecoderState chain, int id, bool skipSpecialTokens)
    {
        if (id < 0) throw NoToken(id);
        if (Find(id) is { } token && !(skipSpecialTokens && IsSpecial(id))) chain.Push(token, ends: true);
    }

    /// <summary>The token as the vocabulary spells it.</summary>
    /// <exception cref="RhoException">No token has this id.</exception>
    public string IdToToken(int id) => Find(id) ?? throw NoToken(id);

    public int? TokenToId(string token) =>
        _addedIds.TryGetValue(token, out var id) || _model.Vocabulary.TryGet(token, out id) ? id : null;

    /// <summary>Whether Decode leaves this id out when it skips special tokens.</summary>
    public bool IsSpecial(int id) => _added.TryGetValue(id, out var token) && token.Special;

    /// <summary>The bytes that a token adds to decoded text.</summary>
    /// <exception cref="RhoException">No token has this id.</exception>
    public ReadOnlyMemory<byte> TokenBytes(int id)
    {
        var token = IdToToken(id);
        if (_tokenBytes is not null) return _tokenBytes[id];
        foreach (var step in _parts.Decoders)
        {
            if (step is ByteFallbackDecoder && ByteFallbackDecoder.TryByte(token, out var value)) return new[] { value };
            if (step is ByteLevelDecoder) return ByteAlphabet.Bytes(token);
            token = step.Spell(token);
        }

        return Encoding.UTF8.GetBytes(token);
    }

    private static ChatTemplate? ReadChatTemplate(TokenizerSettings settings)
    {
        var source = settings.ChatTemplateFile ?? settings.ChatTemplates.GetValueOrDefault("default");
        return source is null ? null : new ChatTemplate(source, settings.NamedTokens, forTools: settings.ChatTemplates.GetValueOrDefault("tool_use"));
    }

    private int? Id(string? token) => token is null ? null : TokenToId(token);

    private string? Find(int id) => _added.TryGetValue(id, out var token) ? token.Content : _model.Vocabulary[id];

    private RhoException NoToken(int id) => new($"token id {id}: the vocabulary has no such token (ids go from 0 to {VocabularySize - 1})");

    /// <summary>A token's text as it stands in normalized text.</summary>
    private string Normalized(AddedToken token) =>
        Scratch.OfThread.Normalize(token.Content, 0, tracked: false, _parts.Normalizers).Text.ToString();

    private static AddedTokenMatcher? Matcher(IEnumerable<AddedToken> tokens, Func<AddedToken, string> text)
    {
        var list = tokens.Select(token => (Text: text(token), token)).Where(item => item.Text.Length > 0).ToArray();
        return list.Length == 0 ? null : new AddedTokenMatcher(list);
    }

    /// <summary>The one splitter that does all pre-tokenization, if that is so.</summary>
    private static Splitter? DirectSplitter(IReadOnlyList<PreTokenizer> steps) => steps switch
    {
        [var only] => only.Direct,
        [var first, ByteLevelPreTokenizer { AddPrefixSpace: false, UseRegex: false }] => first.Direct,
        _ => null,
    };

    private sealed class Scratch
    {
        [ThreadStatic]
        private static Scratch? _ofThread;

        private Passage _passage = new();
        private Passage _spare = new();

        public static Scratch OfThread => _ofThread ??= new Scratch();

        public List<int> Ids { get; } = [];

        public IdSink Sink { get; } = new();

        public Pieces Pieces { get; } = new();

        public Passage Normalize(ReadOnlySpan<char> text, int offset, bool tracked, IReadOnlyList<Normalizer> normalizers)
        {
            _passage.Load(text, offset, tracked);
            foreach (var normalizer in normalizers)
            {
                _spare.Clear(tracked);
                if (normalizer.Apply(_passage, _spare)) (_passage, _spare) = (_spare, _passage);
            }

            return _passage;
        }
    }
}
