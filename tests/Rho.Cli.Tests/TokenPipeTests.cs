using System.IO.Pipelines;
using System.Text;
using Rho.Tokenization;

namespace Rho.Cli.Tests;

public sealed class TokenPipeTests : IDisposable
{
    private const string Template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

    private readonly string _folder = Directory.CreateTempSubdirectory("rho-pipe-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task Ids_EachLine_DecodeToTheSameLines()
    {
        const string Text = "Hello wörld\n\n  two  blanks\t👍\r\nlast without an end";
        var ids = await RunAsync(Text, new TokenPipe(Trained()));
        Assert.Equal(4, ids.Split('\n', StringSplitOptions.None).Length - 1);
        Assert.Equal(Text + "\n", await RunAsync(ids, new TokenPipe(Trained()) { Decode = true }));
        Assert.Equal("ab\n", await RunAsync("[66, 67]\n", new TokenPipe(Trained()) { Decode = true }));
    }

    [Fact]
    public async Task Whole_File_IsOneText()
    {
        var ids = await RunAsync("a\nb\n", new TokenPipe(Trained()) { Whole = true });
        Assert.Equal("a\nb\n\n", await RunAsync(ids, new TokenPipe(Trained()) { Whole = true, Decode = true }));
        Assert.StartsWith("1 texts, 4 tokens, 4 bytes, 1.0000 ", await RunAsync("a\nb\n", new TokenPipe(Trained()) { Whole = true, Form = TokenizedForm.Count }), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Count_Files_AddsUpAndPrintsOnce()
    {
        var first = Path.Combine(_folder, "a.txt");
        await File.WriteAllTextAsync(first, "xy\nz\n");
        var output = new MemoryStream();
        await new TokenPipe(Trained()) { Form = TokenizedForm.Count }.RunAsync([first, "-"], () => new MemoryStream("é\n"u8.ToArray()), output, CancellationToken.None);
        Assert.Equal("3 texts, 5 tokens, 5 bytes, 1.0000 tokens per byte\n", Encoding.UTF8.GetString(output.ToArray()));
    }

    [Fact]
    public async Task Offsets_CharactersOutsideTheBasicPlane_CountAsOne()
    {
        var lines = (await RunAsync("👍b c", new TokenPipe(Trained()) { Form = TokenizedForm.Offsets })).Split('\n');
        Assert.Equal("67\t1\t2\tb", lines[4]);
        Assert.EndsWith("\t3\t4\tc", lines[6], StringComparison.Ordinal);
        Assert.Equal(["", ""], lines[7..]);
    }

    [Fact]
    public async Task Tokens_AreSpelledAsInTheVocabulary() =>
        Assert.Equal("a Ġ b\n", await RunAsync("a b\n", new TokenPipe(Trained()) { Form = TokenizedForm.Tokens }));

    [Fact]
    public async Task Chat_Conversation_IsWhatTheTemplateMakesOfIt()
    {
        const string Chat = """[{"role": "user", "content": "Hi"}]""";
        Assert.Equal("<user>Hi<assistant>\n", await RunAsync(Chat, new TokenPipe(Trained(Template)) { Chat = true, GenerationPrompt = true, Form = TokenizedForm.Text }));
        var ids = await RunAsync($$"""{"messages": {{Chat}}}""", new TokenPipe(Trained(Template)) { Chat = true });
        Assert.Equal("<user>Hi\n", await RunAsync(ids, new TokenPipe(Trained()) { Decode = true }));
    }

    [Theory]
    [InlineData("a\n\u00ff\n", false, false, "standard input:2: not valid UTF-8")]
    [InlineData("1\n2 x3\n", true, false, "standard input:2: \"x3\" is no token id")]
    [InlineData("-1\n", true, false, "\"-1\" is no token id")]
    [InlineData("9999\n", true, false, "\"9999\" is no token id (0 to 257)")]
    [InlineData("[{\n", false, true, "standard input:1: not valid JSON")]
    [InlineData("{\"a\": 1}\n", false, true, "\"messages\"")]
    public async Task BadInput_NamesTheLine(string latin, bool decode, bool chat, string expected)
    {
        var pipe = new TokenPipe(Trained(Template)) { Decode = decode, Chat = chat };
        var input = new MemoryStream(Encoding.Latin1.GetBytes(latin));
        var error = await Assert.ThrowsAsync<RhoException>(() => pipe.RunAsync(["-"], () => input, new MemoryStream(), CancellationToken.None));
        Assert.Contains(expected, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Chat_WithoutTemplate_SaysSo() =>
        Assert.Contains("no chat template", (await Assert.ThrowsAsync<RhoException>(() => RunAsync("[]", new TokenPipe(Trained()) { Chat = true }))).Message, StringComparison.Ordinal);

    [Fact]
    public async Task Lines_ThatHaveCome_AreAnsweredBeforeMoreIsThere()
    {
        var (toPipe, fromPipe) = (new Pipe(), new Pipe());
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        var running = new TokenPipe(Trained()).RunAsync(["-"], () => toPipe.Reader.AsStream(), fromPipe.Writer.AsStream(), patience.Token);
        var answers = new StreamReader(fromPipe.Reader.AsStream());
        foreach (var (text, ids) in new[] { ("ab\n", "66 67"), ("c\nd\n", "68") })
        {
            await toPipe.Writer.WriteAsync(Encoding.UTF8.GetBytes(text), patience.Token);
            Assert.Equal(ids, await answers.ReadLineAsync(patience.Token));
        }

        await toPipe.Writer.CompleteAsync();
        await running;
    }

    [Fact]
    public async Task Cancelled_WhileNothingComes_Ends()
    {
        var silent = new Pipe();
        using var stop = new CancellationTokenSource();
        var running = new TokenPipe(Trained()).RunAsync(["-"], () => silent.Reader.AsStream(), new MemoryStream(), stop.Token);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => running.WaitAsync(TimeSpan.FromSeconds(60)));
    }

    private static async Task<string> RunAsync(string text, TokenPipe pipe)
    {
        var output = new MemoryStream();
        await pipe.RunAsync(["-"], () => new MemoryStream(Encoding.UTF8.GetBytes(text)), output, CancellationToken.None);
        return Encoding.UTF8.GetString(output.ToArray());
    }

    /// <summary>Bytes and nothing else, so that ids can be foretold.</summary>
    private Tokenizer Trained(string? template = null)
    {
        var folder = Directory.CreateDirectory(Path.Combine(_folder, $"tokenizer-{template?.Length ?? 0}")).FullName;
        BpeTrainer.Train(["a"], new BpeTrainerOptions { VocabularySize = 258, BosToken = "<s>", EosToken = "</s>" }).Save(folder);
        if (template is not null) File.WriteAllText(Path.Combine(folder, "chat_template.jinja"), template);
        return Tokenizer.Load(folder);
    }
}
