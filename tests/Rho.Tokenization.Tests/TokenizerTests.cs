namespace Rho.Tokenization.Tests;

public sealed class TokenizerTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("rho-tokenizer-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void Save_ThenLoad_GivesTheSameTokenizer()
    {
        var tokenizer = Texts.Train();
        tokenizer.Save(_folder);
        var loaded = Tokenizer.Load(_folder);
        Assert.Equal(tokenizer.Fingerprint, loaded.Fingerprint);
        Assert.Equal(tokenizer.VocabularySize, loaded.VocabularySize);
        Assert.Equal((tokenizer.BosId, tokenizer.EosId, tokenizer.PadId), (loaded.BosId, loaded.EosId, loaded.PadId));
        foreach (var text in Texts.Sentences) Assert.Equal(tokenizer.Encode(text, true), loaded.Encode(text, true));
    }

    [Fact]
    public void Encode_SpecialTokenInText_BecomesThatToken()
    {
        var tokenizer = Texts.Train();
        int[] expected = [.. tokenizer.Encode("one"), tokenizer.EosId!.Value, .. tokenizer.Encode("two")];
        Assert.Equal(expected, tokenizer.Encode("one<|end_of_text|>two"));
        Assert.Equal("onetwo", tokenizer.Decode(expected, skipSpecialTokens: true));
        Assert.Equal("one<|end_of_text|>two", tokenizer.Decode(expected));
    }

    [Fact]
    public void Encode_WithSpecialTokens_StartsWithBos()
    {
        var tokenizer = Texts.Train();
        Assert.Equal([tokenizer.BosId!.Value, .. tokenizer.Encode("text")], tokenizer.Encode("text", addSpecialTokens: true));
    }

    [Fact]
    public void EncodeWithOffsets_TrainedTokenizer_CoversTheText()
    {
        var tokenizer = Texts.Train();
        foreach (var text in Texts.Sentences)
        {
            var tokens = tokenizer.EncodeWithOffsets(text);
            Assert.Equal(tokenizer.Encode(text), tokens.Select(token => token.Id));
            var reached = 0;
            foreach (var token in tokens)
            {
                Assert.InRange(token.Start, 0, reached);
                Assert.True(token.End >= reached);
                reached = token.End;
            }

            Assert.Equal(text.Length, reached);
        }
    }

    [Fact]
    public void StreamingDecoder_AnyTokens_EqualsDecode()
    {
        var tokenizer = Texts.Train(vocabulary: 260);
        foreach (var text in Texts.Sentences)
        {
            var decoder = tokenizer.CreateStreamingDecoder();
            var pieces = tokenizer.Encode(text).Select(decoder.Append).ToArray();
            Assert.Equal(text, string.Concat(pieces) + decoder.Flush());
            Assert.DoesNotContain(pieces, piece => piece.Contains('\uFFFD'));
        }
    }

    [Fact]
    public void Load_FolderWithoutTokenizer_SaysSo()
    {
        var error = Assert.Throws<NotFoundException>(() => Tokenizer.Load(_folder));
        Assert.Contains(_folder, error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("""{"chat_template": "{{ bos_token }}!", "bos_token": "<s>"}""", null, "<s>!")]
    [InlineData("""{"chat_template": [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]}""", null, "A")]
    [InlineData("""{"chat_template": "old"}""", "new\n", "new")]
    public void Load_TokenizerFolder_HasItsTemplate(string config, string? file, string expected)
    {
        Texts.Train().Save(_folder);
        File.WriteAllText(Path.Combine(_folder, "tokenizer_config.json"), config);
        if (file is not null) File.WriteAllText(Path.Combine(_folder, "chat_template.jinja"), file);
        var tokenizer = Tokenizer.Load(_folder);
        Assert.Equal(expected, tokenizer.ChatTemplate!.Render([], addGenerationPrompt: false));
        var copy = Path.Combine(_folder, "copy");
        tokenizer.Save(copy);
        Assert.Equal(expected, Tokenizer.Load(copy).ChatTemplate!.Render([], addGenerationPrompt: false));
    }
}
