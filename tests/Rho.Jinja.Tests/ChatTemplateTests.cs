using System.IO.Compression;
using System.Text.Json;
using Microsoft.Extensions.Time.Testing;

namespace Rho.Jinja.Tests;

/// <summary>Equal to Jinja with the templates of published models; see Data/make_templates.py.</summary>
public sealed class ChatTemplateTests
{
    private static readonly string Folder = Path.Combine(AppContext.BaseDirectory, "Data");

    private static readonly JsonElement Recorded = ReadCompressed(Path.Combine(Folder, "templates.json.gz"));

    private static readonly Dictionary<string, string> Tokens =
        Recorded.GetProperty("tokens").EnumerateObject().ToDictionary(field => field.Name, field => field.Value.GetString()!);

    private static readonly FakeTimeProvider Time = new(DateTimeOffset.Parse(Recorded.GetProperty("now").GetString()! + "+00:00"));

    public static TheoryData<string> Names() => [.. Recorded.GetProperty("templates").EnumerateArray().Select(item => item.GetProperty("name").GetString()!)];

    public static TheoryData<string> Features() => [.. Recorded.GetProperty("features").EnumerateArray().Select(item => item.GetProperty("source").GetString()!)];

    [Theory]
    [MemberData(nameof(Names))]
    public void Render_PublishedTemplate_EqualsJinja(string name) => Compare(Recorded, name);

    private static void Compare(JsonElement recorded, string name)
    {
        var item = recorded.GetProperty("templates").EnumerateArray().Single(item => item.GetProperty("name").GetString() == name);
        var template = new ChatTemplate(item.GetProperty("source").GetString()!, Tokens, Time);
        foreach (var expected in item.GetProperty("cases").EnumerateArray())
        {
            var messages = recorded.GetProperty("conversations").GetProperty(expected.GetProperty("conversation").GetString()!);
            var variables = expected.GetProperty("variables").EnumerateObject().ToDictionary(field => field.Name, field => field.Value);
            Check(expected, () => template.Render(messages, expected.GetProperty("prompt").GetBoolean(), variables));
        }
    }

    [Theory]
    [MemberData(nameof(Features))]
    public void Render_Construct_EqualsJinja(string source)
    {
        var expected = Recorded.GetProperty("features").EnumerateArray().Single(item => item.GetProperty("source").GetString() == source);
        Check(expected, () => new ChatTemplate(source, Tokens, Time).Render(Recorded.GetProperty("conversations").GetProperty("several"), addGenerationPrompt: true));
    }

    private static void Check(JsonElement expected, Func<string> render)
    {
        if (expected.TryGetProperty("error", out var error))
        {
            var thrown = Assert.Throws<RhoException>(render);
            if (error.GetString()!.StartsWith("TemplateError: ", StringComparison.Ordinal)) Assert.Contains(error.GetString()!["TemplateError: ".Length..], thrown.Message, StringComparison.Ordinal);
            return;
        }

        Assert.Equal(expected.GetProperty("text").GetString(), render());
    }

    private static JsonElement ReadCompressed(string path)
    {
        using var stream = new GZipStream(File.OpenRead(path), CompressionMode.Decompress);
        using var document = JsonDocument.Parse(stream);
        return document.RootElement.Clone();
    }

    [Theory]
    [InlineData("{% include 'x' %}", "include")]
    [InlineData("{% call m() %}{% endcall %}", "call")]
    [InlineData("{{ x|urlize }}", "urlize")]
    [InlineData("{{ x is frobnicated }}", "frobnicated")]
    [InlineData("{% for x in y recursive %}{% endfor %}", "recursive")]
    [InlineData("{% if x %}", "endif")]
    [InlineData("{{ 'x }}", "no end")]
    [InlineData("{{ x", "}}")]
    [InlineData("{% set = 1 %}", "name")]
    [InlineData("{{ f(*x) }}", "*")]
    [InlineData("{% break %}", "outside")]
    public void Load_UnsupportedOrBroken_SaysWhat(string source, string what)
    {
        var error = Assert.Throws<RhoException>(() => new ChatTemplate(source));
        Assert.Contains(what, error.Message, StringComparison.Ordinal);
        Assert.Contains("line 1", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("{% for i in range(1000) %}{% for j in range(1000) %}{% for k in range(1000) %}{% endfor %}{% endfor %}{% endfor %}")]
    [InlineData("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}")]
    [InlineData("{{ 'x' * 1000000000 }}")]
    [InlineData("{% set ns = namespace(x='xxxxxxxxxxxxxxxx') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}")]
    [InlineData("{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}")]
    [InlineData("{% set ns = namespace(x=[1]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}")]
    [InlineData("{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}")]
    [InlineData("{{ range(1000000) }}")]
    [InlineData("{{ 9223372036854775807 + 1 }}")]
    public void Render_WithoutEnd_IsStopped(string source) =>
        Assert.Throws<RhoException>(() => new ChatTemplate(source).Render([], addGenerationPrompt: false));

    [Fact]
    public void Parse_DeeplyNested_IsRefused()
    {
        Assert.Throws<RhoException>(() => new ChatTemplate("{{ " + new string('(', 100_000) + new string(')', 100_000) + " }}"));
        Assert.Throws<RhoException>(() => new ChatTemplate(string.Concat(Enumerable.Repeat("{% if 1 %}", 10_000))));
        Assert.Throws<RhoException>(() => new ChatTemplate("{{ " + string.Concat(Enumerable.Repeat("1+", 1_000_000)) + "1 }}").Render([], false));
        Assert.Throws<RhoException>(() => new ChatTemplate("{{ x" + string.Concat(Enumerable.Repeat("|trim", 300_000)) + " }}").Render([], false));
    }

    [Fact]
    public void Render_Messages_EqualsRenderOfTheirJson()
    {
        var template = new ChatTemplate("{% for m in messages %}[{{ m.role }}] {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}");
        Assert.Equal("[user] hi\n[assistant] ho\n>", template.Render([new ChatMessage("user", "hi"), new ChatMessage("assistant", "ho")], addGenerationPrompt: true));
    }

    [Fact]
    public void Load_Damaged_GivesRhoExceptionOnly()
    {
        var random = new Random(5);
        foreach (var file in Directory.GetFiles(Path.Combine(Folder, "templates")))
        {
            var original = File.ReadAllText(file);
            for (var round = 0; round < 100; round++)
            {
                var source = original.ToCharArray();
                for (var i = random.Next(1, 4); i > 0; i--) source[random.Next(source.Length)] = "{}%'\"()[]|.- \n1a+~:,=#\\"[random.Next(23)];
                try
                {
                    new ChatTemplate(new string(source)).Render([new ChatMessage("system", "s"), new ChatMessage("user", "u"), new ChatMessage("assistant", "a")], true);
                }
                catch (RhoException)
                {
                    // Refused, as it should be.
                }
            }
        }
    }
}
