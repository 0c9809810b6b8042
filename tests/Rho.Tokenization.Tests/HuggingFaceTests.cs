using System.Text.Json;

namespace Rho.Tokenization.Tests;

/// <summary>Equal to Hugging Face tokenizers on every text of Data/texts.json; see Data/make_huggingface.js.</summary>
public sealed class HuggingFaceTests
{
    private static readonly string[] Folders =
        [.. Directory.GetDirectories(Path.Combine(Recorded.Folder, "huggingface")).Select(folder => Path.GetFileName(folder)!).Order(StringComparer.Ordinal)];

    public static TheoryData<string> Kinds() => [.. Folders];

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Encode_AnyText_GivesTheSameIds(string kind)
    {
        var tokenizer = Load(kind);
        ForEachCase(kind, (text, expected) =>
        {
            var ids = Recorded.Ids(expected.GetProperty("ids"));
            Assert.Equal(ids, tokenizer.Encode(text));
            Assert.Equal(expected.TryGetProperty("special", out var special) ? Recorded.Ids(special) : ids, tokenizer.Encode(text, addSpecialTokens: true));
        });
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void EncodeWithOffsets_AnyText_GivesTheSameIdsAndOffsets(string kind)
    {
        var tokenizer = Load(kind);
        ForEachCase(kind, (text, expected) =>
        {
            var tokens = tokenizer.EncodeWithOffsets(text);
            Assert.Equal(Recorded.Ids(expected.GetProperty("ids")), tokens.Select(token => token.Id));
            if (!expected.TryGetProperty("offsets", out var offsets)) return;
            Assert.Equal(
                offsets.EnumerateArray().Select(pair => (pair[0].GetInt32(), pair[1].GetInt32())),
                tokens.Select(token => (token.Start, token.End)));
        });
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Decode_AnyIds_GivesTheSameText(string kind)
    {
        var tokenizer = Load(kind);
        ForEachCase(kind, (_, expected) =>
        {
            var ids = Recorded.Ids(expected.GetProperty("ids"));
            if (!expected.TryGetProperty("decoded", out var text)) return;
            var decoded = text.GetString();
            var skipped = expected.TryGetProperty("skipped", out var other) ? other.GetString() : decoded;
            Assert.Equal(decoded, tokenizer.Decode(ids));
            Assert.Equal(skipped, tokenizer.Decode(ids, skipSpecialTokens: true));
            Assert.Equal(decoded, Stream(tokenizer, ids, false));
            Assert.Equal(skipped, Stream(tokenizer, ids, true));
        });

        foreach (var item in Expected(kind).GetProperty("decodings").EnumerateArray())
        {
            var ids = Recorded.Ids(item.GetProperty("ids"));
            var skip = item.GetProperty("skip").GetBoolean();
            Assert.Equal(item.GetProperty("decoded").GetString(), tokenizer.Decode(ids, skip));
            Assert.Equal(item.GetProperty("decoded").GetString(), Stream(tokenizer, ids, skip));
        }
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Save_ThenLoad_GivesTheSameTokenizer(string kind)
    {
        var folder = Directory.CreateTempSubdirectory("rho-tokenizer-").FullName;
        try
        {
            var tokenizer = Load(kind);
            tokenizer.Save(folder);
            var loaded = Tokenizer.Load(folder);
            Assert.Equal(tokenizer.Fingerprint, loaded.Fingerprint);
            foreach (var text in Recorded.Texts)
            {
                Assert.Equal(tokenizer.Encode(text, addSpecialTokens: true), loaded.Encode(text, addSpecialTokens: true));
                Assert.Equal(tokenizer.Decode(tokenizer.Encode(text)), loaded.Decode(loaded.Encode(text)));
            }
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    [Fact]
    public void Fingerprint_OtherKinds_Differ()
    {
        var fingerprints = Folders.Select(kind => Load(kind).Fingerprint).ToArray();
        Assert.Equal(fingerprints.Length, fingerprints.Distinct(StringComparer.Ordinal).Count());
        Assert.All(fingerprints, fingerprint => Assert.Matches("^sha256:[0-9a-f]{64}$", fingerprint));
    }

    private static string Stream(Tokenizer tokenizer, int[] ids, bool skipSpecialTokens)
    {
        var decoder = tokenizer.CreateStreamingDecoder(skipSpecialTokens);
        return string.Concat(ids.Select(decoder.Append)) + decoder.Flush();
    }

    private static Tokenizer Load(string kind) => Tokenizer.Load(Path.Combine(Recorded.Folder, "huggingface", kind));

    private static JsonElement Expected(string kind) => Recorded.ReadCompressed("huggingface", kind, "expected.json.gz");

    private static void ForEachCase(string kind, Action<string, JsonElement> check) => Cases.Compare(Expected(kind).GetProperty("cases"), check);
}
