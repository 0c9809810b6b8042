using System.Text.Json;

namespace Rho.Tokenization.Tests;

/// <summary>Equal to SentencePiece on every text of Data/texts.json; see Data/make_sentencepiece.py.</summary>
public sealed class SentencePieceTests
{
    private static readonly string[] Folders =
        [.. Directory.GetDirectories(Path.Combine(Recorded.Folder, "sentencepiece")).Select(folder => Path.GetFileName(folder)!).Order(StringComparer.Ordinal)];

    public static TheoryData<string> Models() => [.. Folders];

    [Theory]
    [MemberData(nameof(Models))]
    public void Encode_AnyText_GivesTheSameIds(string model)
    {
        var tokenizer = Load(model);
        Cases.Compare(Expected(model).GetProperty("cases"), (text, expected) =>
        {
            var ids = Recorded.Ids(expected.GetProperty("ids"));
            Assert.Equal(ids, tokenizer.Encode(text));
            Assert.Equal(ids, tokenizer.EncodeWithOffsets(text).Select(token => token.Id));
            if (tokenizer.BosId is { } bos) Assert.Equal([bos, .. ids], tokenizer.Encode(text, addSpecialTokens: true));
        });
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void EncodeWithOffsets_AnyText_GivesTheSameOffsets(string model)
    {
        var tokenizer = Load(model);
        Cases.Compare(Expected(model).GetProperty("cases"), (text, expected) =>
        {
            // Of a character's bytes SentencePiece gives all but the last an empty range; here each stands for the character.
            var offsets = expected.GetProperty("offsets").EnumerateArray().Select(pair => (Start: pair[0].GetInt32(), End: pair[1].GetInt32()));
            var tokens = tokenizer.EncodeWithOffsets(text);
            var actual = tokens.Select((token, i) =>
                IsByte(tokenizer, token.Id) && i + 1 < tokens.Count && IsByte(tokenizer, tokens[i + 1].Id) && tokens[i + 1].Start == token.Start
                    ? (token.Start, token.Start)
                    : (token.Start, token.End));
            Assert.Equal(offsets, actual);
        });
    }

    [Theory]
    [MemberData(nameof(Models))]
    public void Decode_AnyIds_GivesTheSameText(string model)
    {
        var tokenizer = Load(model);
        var expected = Expected(model);
        Cases.Compare(expected.GetProperty("cases"), (_, item) => CompareDecoded(tokenizer, item));
        foreach (var item in expected.GetProperty("decodings").EnumerateArray()) CompareDecoded(tokenizer, item);
    }

    private static void CompareDecoded(Tokenizer tokenizer, JsonElement item)
    {
        var ids = Recorded.Ids(item.GetProperty("ids"));
        Assert.Equal(item.GetProperty("decoded").GetString(), tokenizer.Decode(ids));
        var decoder = tokenizer.CreateStreamingDecoder(skipSpecialTokens: false);
        Assert.Equal(item.GetProperty("decoded").GetString(), string.Concat(ids.Select(decoder.Append)) + decoder.Flush());
    }

    [Fact]
    public void Save_ThenLoad_GivesTheSameTokenizer()
    {
        var folder = Directory.CreateTempSubdirectory("rho-tokenizer-").FullName;
        try
        {
            foreach (var model in Folders)
            {
                var tokenizer = Load(model);
                tokenizer.Save(folder);
                Assert.Equal(tokenizer.Fingerprint, Tokenizer.Load(folder).Fingerprint);
            }
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    [Fact]
    public void Load_WithAddedTokens_FindsThemInText()
    {
        var folder = Directory.CreateTempSubdirectory("rho-tokenizer-").FullName;
        try
        {
            File.Copy(Path.Combine(Recorded.Folder, "sentencepiece", "llama", "tokenizer.model"), Path.Combine(folder, "tokenizer.model"));
            File.WriteAllText(
                Path.Combine(folder, "tokenizer_config.json"),
                """{"tokenizer_class": "LlamaTokenizer", "add_bos_token": false, "add_eos_token": true, "added_tokens_decoder": {"2": {"content": "</s>", "special": true}, "900": {"content": "<|im_end|>", "special": false}}}""");
            var tokenizer = Tokenizer.Load(folder);
            Assert.Equal(901, tokenizer.VocabularySize);
            Assert.Equal([.. tokenizer.Encode("hi"), 2, .. tokenizer.Encode("there"), 900], tokenizer.Encode("hi</s>there<|im_end|>"));
            Assert.Equal([.. tokenizer.Encode("hi"), 2], tokenizer.Encode("hi", addSpecialTokens: true));
            Assert.Equal("hi", tokenizer.Decode(tokenizer.Encode("hi", addSpecialTokens: true), skipSpecialTokens: true));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static bool IsByte(Tokenizer tokenizer, int id) => tokenizer.IdToToken(id) is ['<', '0', 'x', _, _, '>'];

    private static Tokenizer Load(string model) => Tokenizer.Load(Path.Combine(Recorded.Folder, "sentencepiece", model));

    private static JsonElement Expected(string model) => Recorded.ReadCompressed("sentencepiece", model, "expected.json.gz");
}
