using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using Rho.Serving.Constraints;

namespace Rho.Serving.Tests;

public sealed class ConstraintTests
{
    [Theory]
    [InlineData("abc")]
    [InlineData("a*b+c?")]
    [InlineData("(ab|a)(bc|c)*")]
    [InlineData("[a-c]{2,4}")]
    [InlineData("[^ab]+")]
    [InlineData("(?:a|b){3}")]
    [InlineData("a{2,}b{0,2}")]
    [InlineData(@"\d+(\.\d{1,2})?")]
    [InlineData(@"(a?){3}a{3}")]
    [InlineData(@"\w\s?\w")]
    [InlineData(".b.")]
    [InlineData("(|a)b")]
    [InlineData("a|b|")]
    [InlineData("[ä-ö]+x?")]
    [InlineData(@"[\]a\-]+")]
    [InlineData("^ab$|^c$")]
    public void Regex_RandomTexts_MatchesAsDotNetDoes(string pattern)
    {
        var table = new ExpressionTable();
        var language = RegexParser.Parse(table, pattern);
        var expected = new Regex($@"\A(?:{pattern})\z", RegexOptions.None, TimeSpan.FromSeconds(5));
        var random = new Random(7);
        string[] alphabet = ["a", "b", "c", "1", ".", " ", "x", "ä", "ö", "]", "-", "\n"];
        for (var i = 0; i < 3000; i++)
        {
            var text = string.Concat(Enumerable.Range(0, random.Next(8)).Select(_ => alphabet[random.Next(alphabet.Length)]));
            // \w, \d and \s are ASCII's here (but for spaces), as in JSON schemas.
            if (pattern.Contains('\\', StringComparison.Ordinal) && text.Any(c => c > 127)) continue;
            Assert.True(expected.IsMatch(text) == Matches(table, language, text), $"'{text}' against {pattern}");
        }
    }

    [Fact]
    public void Regex_CharactersBeyondTheFirstPlane_AreOneCharacter()
    {
        var table = new ExpressionTable();
        var language = RegexParser.Parse(table, "[😀-😂x]{2}");
        Assert.True(Matches(table, language, "😁x"));
        Assert.False(Matches(table, language, "😀"));
        Assert.False(Matches(table, language, "😃x"));
    }

    [Theory]
    [InlineData("a(b", "position 4")]
    [InlineData("a)b", "')' without")]
    [InlineData("[a", "'[' without")]
    [InlineData("*a", "nothing to repeat", "without anything to repeat")]
    [InlineData("a{3,1}", "below its lower")]
    [InlineData("a{99999}", "above 10000")]
    [InlineData(@"\bword", "not supported")]
    [InlineData("(?=a)b", "(?:")]
    [InlineData(@"(a)\1", "not supported")]
    [InlineData("[z-a]", "lower to a higher")]
    public void Regex_BrokenOrUnsupported_SaysWhat(string pattern, string message, string? other = null)
    {
        var error = Assert.Throws<RhoException>(() => RegexParser.Parse(new ExpressionTable(), pattern));
        Assert.True(error.Message.Contains(message, StringComparison.Ordinal) || (other is not null && error.Message.Contains(other, StringComparison.Ordinal)), error.Message);
    }

    [Fact]
    public void CharacterRanges_AllCharacters_SpellAllOfUtf8AndNothingElse()
    {
        var table = new ExpressionTable();
        var all = CharacterRanges.All.ToExpression(table);
        var random = new Random(3);
        Span<byte> bytes = stackalloc byte[4];
        for (var i = 0; i < 20_000; i++)
        {
            var rune = new Rune(random.Next(2) == 0 ? random.Next(0xD800) : random.Next(0xE000, 0x110000));
            Assert.True(Matches(table, all, rune.ToString()));
            bytes = bytes[..random.Next(1, 5)];
            random.NextBytes(bytes);
            var state = all;
            foreach (var value in bytes) state = table.After(state, value);
            var valid = Rune.DecodeFromUtf8(bytes, out _, out var used) == System.Buffers.OperationStatus.Done && used == bytes.Length;
            Assert.Equal(valid, state.MayEnd);
            bytes = new byte[4];
        }
    }

    [Theory]
    [InlineData("""{"type": "integer", "minimum": -5, "maximum": 123}""", "-5;0;7;123;99", "-6;124;007;1000;-0;1.5")]
    [InlineData("""{"type": "integer", "minimum": 10}""", "10;99;100000000000", "9;-10;010")]
    [InlineData("""{"type": "integer", "exclusiveMaximum": -3}""", "-4;-1000", "-3;0;3")]
    [InlineData("""{"type": "number"}""", "0;-1.5;1e9;2.5E-3", "01;.5;1.;+1;NaN")]
    [InlineData("""{"type": ["string", "null"]}""", "null;\"a\";\"ä\\n\\u00e4\"", "1;\"a;\"\\x\";\"\\ud800\"")]
    [InlineData("""{"enum": ["a", 1, null, {"b": [true]}]}""", "\"a\";1;null;{\"b\":[true]}", "\"b\";2;true")]
    [InlineData("""{"const": "x\"y"}""", "\"x\\\"y\"", "\"x\"")]
    [InlineData("""{"type": "string", "minLength": 2, "maxLength": 3}""", "\"ab\";\"ä😀\";\"a\\nb\"", "\"a\";\"abcd\"")]
    [InlineData("""{"type": "string", "pattern": "^[a-z]+\\d$"}""", "\"ab1\"", "\"ab\";\"1\"")]
    [InlineData("""{"type": "string", "pattern": "b"}""", "\"b\";\"abc\";\"\\\"b\"", "\"a\";\"\"")]
    [InlineData("""{"type": "string", "format": "date"}""", "\"2024-02-29\"", "\"2024-13-01\";\"24-01-01\"")]
    [InlineData("""{"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 3}""", "[1];[1,2];[1, 2, 3]", "[];[1,2,3,4];[1,];[,1]")]
    [InlineData("""{"type": "array", "items": {"type": "boolean"}}""", "[];[true];[true,false, true]", "[1];[true,]")]
    [InlineData("""{"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": false}""", "[];[1];[1,\"a\"]", "[\"a\"];[1,\"a\",2]")]
    [InlineData("""{"type": "array", "prefixItems": [{"const": 1}], "items": {"const": 2}, "minItems": 2}""", "[1,2];[1,2,2]", "[1];[2];[1,1]")]
    [InlineData("""{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["b"]}""", "{\"b\":\"x\"};{\"a\": 1, \"b\": \"x\"};{ \"b\":\"\" }", "{};{\"a\":1};{\"b\":\"x\",\"a\":1};{\"b\":\"x\",\"c\":1}")]
    [InlineData("""{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"}}}""", "{};{\"a\":1};{\"c\":1};{\"a\":1,\"c\":2};{\"a\":1,\"b\":2,\"c\":3}", "{\"b\":1,\"a\":2};{,};{\"a\":1,}")]
    [InlineData("""{"type": "object", "properties": {"ab": {"const": 1}}, "required": ["ab"], "additionalProperties": {"type": "boolean"}}""", "{\"ab\":1};{\"ab\":1,\"a\":true};{\"ab\":1,\"abc\":true,\"x\":false}", "{\"ab\":1,\"ab\":true};{\"ab\":true};{\"ab\":1,\"x\":1}")]
    [InlineData("""{"type": "object"}""", "{};{\"a\": [1, {\"b\": null}]}", "[];1")]
    [InlineData("""{"$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["next"]}}, "$ref": "#/$defs/node"}""", "{\"next\":null};{\"next\":{\"next\":{\"next\":null}}}", "{};{\"next\":1}")]
    [InlineData("true", "1;[];{\"a\":{}};\"x\";null", "nul;tru;{a:1}")]
    public void JsonSchema_Texts_ConformOrNot(string schema, string right, string wrong)
    {
        var table = new ExpressionTable();
        using var json = JsonDocument.Parse(schema);
        var language = JsonSchemaCompiler.Compile(table, json.RootElement);
        foreach (var text in right.Split(';')) Assert.True(Matches(table, language, text), text);
        foreach (var text in wrong.Split(';')) Assert.False(Matches(table, language, text), text);
    }

    [Theory]
    [InlineData("""{"type": "object", "patternProperties": {}}""", "patternProperties")]
    [InlineData("""{"not": {"type": "string"}}""", "not")]
    [InlineData("""{"type": "number", "multipleOf": 2}""", "multipleOf")]
    [InlineData("""{"type": "string", "format": "phone"}""", "format 'phone'")]
    [InlineData("""{"type": "text"}""", "type 'text'")]
    [InlineData("""{"$ref": "#/$defs/none"}""", "leads nowhere")]
    [InlineData("""{"$ref": "http://example.com/x"}""", "not within")]
    [InlineData("""{"$ref": "#"}""", "refers to itself")]
    [InlineData("""{"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}, {"type": "null"}]}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}""", "refers to itself")]
    [InlineData("""{"type": "array", "items": {"type": "array", "uniqueItems": true}}""", "#/items: the keyword uniqueItems")]
    [InlineData("[1]", "an object or true")]
    public void JsonSchema_BrokenOrUnsupported_SaysWhatAndWhere(string schema, string message)
    {
        using var json = JsonDocument.Parse(schema);
        var error = Assert.Throws<RhoException>(() => JsonSchemaCompiler.Compile(new ExpressionTable(), json.RootElement));
        Assert.Contains(message, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Mask_EveryToken_IsAllowedExactlyWhenItsBytesCanFollow()
    {
        var tokenizer = TestModels.Tokenizer;
        ReadOnlyMemory<byte> BytesOf(int id) => tokenizer.IsSpecial(id) ? default : tokenizer.TokenBytes(id);
        var compiler = new ConstraintCompiler(tokenizer.VocabularySize, BytesOf, [tokenizer.EosId!.Value]);
        var table = new ExpressionTable();
        using var schema = JsonDocument.Parse("""{"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]}""");
        var state = JsonSchemaCompiler.Compile(table, schema.RootElement);
        var matcher = compiler.JsonSchema(schema.RootElement.GetRawText(), "x").Start();
        var random = new Random(1);
        var mask = new ulong[(tokenizer.VocabularySize + 63) / 64];
        for (var step = 0; step < 60 && !matcher.IsComplete; step++)
        {
            Assert.True(matcher.Allow(mask));
            var allowed = new List<int>();
            for (var id = 0; id < tokenizer.VocabularySize; id++)
            {
                var after = state;
                foreach (var value in BytesOf(id).Span) after = table.After(after, value);
                var expected = id == tokenizer.EosId ? state.MayEnd : BytesOf(id).Length > 0 && after != table.Nothing;
                Assert.Equal(expected, (mask[id >> 6] >> (id & 63) & 1) != 0);
                if (expected) allowed.Add(id);
            }

            var token = allowed[random.Next(allowed.Count)];
            foreach (var value in BytesOf(token).Span) state = table.After(state, value);
            matcher.Advance(token);
        }
    }

    [Theory]
    [InlineData("(a|b)*a(a|b){3000}c")]
    [InlineData("((((a{50}){50}){50}){50})")]
    public void Constraint_TooComplex_FailsAndStaysBounded(string pattern)
    {
        var table = new ExpressionTable();
        var language = RegexParser.Parse(table, pattern);
        var random = new Random(1);
        var error = Record.Exception(() =>
        {
            var state = language;
            for (var i = 0; i < 20_000 && state != table.Nothing; i++) state = table.After(state, (byte)(random.Next(2) == 0 ? 'a' : 'b'));
        });
        Assert.True(error is null or RhoException, error?.ToString());
    }

    private static bool Matches(ExpressionTable table, Expression language, string text)
    {
        foreach (var value in Encoding.UTF8.GetBytes(text)) language = table.After(language, value);
        return language.MayEnd;
    }
}
