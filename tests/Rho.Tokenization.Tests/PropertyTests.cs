using System.Text;
using FsCheck;
using FsCheck.Fluent;

namespace Rho.Tokenization.Tests;

/// <summary>What holds for every text.</summary>
public sealed class PropertyTests
{
    private static readonly Tokenizer[] ByteLevel =
    [
        Texts.Train(pattern: BpePattern.Gpt2),
        Texts.Train(pattern: BpePattern.Llama3),
        Texts.Train(pattern: BpePattern.Qwen2),
        Texts.Train(vocabulary: 258),
        Tokenizer.Load(Path.Combine(Recorded.Folder, "huggingface", "deepseek_math")),
        Tokenizer.Load(Path.Combine(Recorded.Folder, "huggingface", "llama3")),
        Tokenizer.Load(Path.Combine(Recorded.Folder, "huggingface", "o200k")),
    ];

    /// <summary>Any characters, among them many that tokenizers treat in their own way.</summary>
    private static readonly Gen<string> AnyText = Gen.OneOf(
            Gen.Elements(" ", "  ", "\n", "\r\n", "\t", "'s", "'LL", "123", "é", "e\u0301", "👩‍👩‍👧", "中文", "<|end_of_text|>", "▁", "\0", "\uFFFD", "\u2028", "العربية"),
            Gen.Choose(0, 0x2FF).Select(code => new Rune(code).ToString()),
            Gen.Choose(0, 0x10F7FF).Select(code => new Rune(code < 0xD800 ? code : code + 0x800).ToString()))
        .ListOf()
        .Select(string.Concat);

    [Fact]
    public void Decode_OfEncodedText_IsTheText() => Check(AnyText, text =>
    {
        foreach (var tokenizer in ByteLevel) Assert.Equal(text, tokenizer.Decode(tokenizer.Encode(text)));
    });

    [Fact]
    public void EncodeWithOffsets_AnyText_AgreesWithEncodeAndCoversTheText() => Check(AnyText, text =>
    {
        foreach (var tokenizer in ByteLevel.Take(4))
        {
            var tokens = tokenizer.EncodeWithOffsets(text);
            Assert.Equal(tokenizer.Encode(text), tokens.Select(token => token.Id));
            var reached = 0;
            foreach (var (_, start, end) in tokens)
            {
                Assert.True(start <= reached && end >= reached, $"{start}..{end} after {reached}");
                Assert.False(start < text.Length && char.IsLowSurrogate(text[start]), "an offset inside a character");
                reached = end;
            }

            Assert.Equal(text.Length, reached);
        }
    });

    [Fact]
    public void StreamingDecoder_AnyIds_EqualsDecodeAndGivesWholeCharacters()
    {
        var all = ByteLevel.Concat(new[] { "llama2", "mistral_split", "metaspace_never", "unigram_bytes", "no_decoder" }.Select(kind => Tokenizer.Load(Path.Combine(Recorded.Folder, "huggingface", kind))))
            .Append(Tokenizer.Load(Path.Combine(Recorded.Folder, "sentencepiece", "llama")))
            .ToArray();
        Check(Gen.Choose(0, 1 << 20).ListOf(), seeds =>
        {
            foreach (var tokenizer in all)
            {
                var ids = seeds.Select(seed => seed % tokenizer.VocabularySize).ToArray();
                var decoder = tokenizer.CreateStreamingDecoder(skipSpecialTokens: false);
                var pieces = ids.Select(decoder.Append).ToList();
                pieces.Add(decoder.Flush());
                Assert.Equal(tokenizer.Decode(ids), string.Concat(pieces));
                Assert.All(pieces, piece => Assert.False(piece.Length > 0 && (char.IsLowSurrogate(piece[0]) || char.IsHighSurrogate(piece[^1]))));
            }
        });
    }

    [Fact]
    public void Splitters_AnyText_AgreeWithTheirExpressions()
    {
        (Splitter Splitter, string Pattern)[] all =
        [
            (Gpt2Splitter.Instance, Gpt2Splitter.Pattern),
            (LlamaSplitter.Llama3, LlamaSplitter.Llama3Pattern),
            (LlamaSplitter.Qwen2, LlamaSplitter.Qwen2Pattern),
        ];
        var generic = all.Select(item => RegexPattern.CreateGeneric(item.Pattern)).ToArray();
        void Compare(string text)
        {
            for (var i = 0; i < all.Length; i++)
            {
                var expected = new List<TextSpan>();
                generic[i].Find(text, expected);
                var actual = new List<TextSpan>();
                for (var start = 0; start < text.Length; start = actual[^1].End) actual.Add(new TextSpan(start, all[i].Splitter.Next(text, start), true));
                Assert.Equal(expected, actual);
            }
        }

        foreach (var text in Recorded.Texts) Compare(text);
        Check(AnyText, Compare);
        Check(Gen.Elements(" ", "\n", "\r", "\t", "a", "A", "1", "'", "s", "S", "l", "e", "r", "v", "!", "é", "ſ", "中", "²", "𝒜", "𝟘", "👍", "\u00A0", "\u0301").ListOf().Select(string.Concat), Compare);
    }

    [Fact]
    public void TokenBytes_OfEncodedText_AreTheTextsBytes() => Check(AnyText, text =>
    {
        foreach (var tokenizer in ByteLevel)
            Assert.Equal(Encoding.UTF8.GetBytes(text), tokenizer.Encode(text).SelectMany(id => tokenizer.TokenBytes(id).ToArray()));
    });

    [Fact]
    public void Encode_LoneSurrogate_IsReadAsReplacementCharacter()
    {
        foreach (var tokenizer in ByteLevel)
        {
            Assert.Equal(tokenizer.Encode("a\uFFFDb \uFFFD"), tokenizer.Encode("a\uD800b \uDC00"));
            Assert.Equal(tokenizer.Encode("\uFFFD𝒜"), tokenizer.EncodeWithOffsets("\uD835𝒜").Select(token => token.Id));
        }
    }

    private static void Check<T>(Gen<T> generator, Action<T> holds) =>
        FsCheck.Check.One(Config.QuickThrowOnFailure.WithReplay(20240404, 1234567).WithMaxTest(300).WithEndSize(60), Prop.ForAll(generator.ToArbitrary(), holds));
}
