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
    [InlineData("(?<=a)b", "(?:")]
    [InlineData("(x(?=a))b", "(?:")]
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
    [InlineData("""{"type": "string", "format": "date"}""", "\"2024-02-29\";\"2000-02-29\";\"1445-11-30\"", "\"2024-13-01\";\"24-01-01\";\"2023-02-29\";\"1900-02-29\";\"1445-11-31\";\"2024-02-30\"")]
    [InlineData("""{"type": "string", "format": "date-time"}""", "\"2024-02-29T23:59:59Z\";\"2024-12-31T00:00:00.5+02:00\"", "\"2023-02-29T00:00:00Z\";\"2024-02-29\";\"2024-02-29T24:00:00Z\"")]
    [InlineData("""{"type": "string", "format": "duration"}""", "\"P1Y2M3DT4H5M6S\";\"PT5M\";\"P2W\"", "\"P\";\"PT\";\"P1YT\";\"P1D2M\";\"5M\"")]
    [InlineData("""{"type": "string", "format": "hostname"}""", "\"a.example\";\"localhost\"", "\"-a.b\";\"a..b\";\"a_b\"")]
    [InlineData("""{"type": "string", "format": "ipv6"}""", "\"::\";\"::1\";\"2001:db8::8:800:200c:417a\";\"1:2:3:4:5:6:7:8\"", "\"1:2:3:4:5:6:7\";\"1::2::3\";\":1\";\"12345::\"")]
    [InlineData("""{"type": "string", "format": "uri"}""", "\"https://example.com/a%20b?q=1#f\";\"urn:isbn:0451450523\"", "\"example.com\";\"https://a b\";\"//x\"")]
    [InlineData("""{"type": "string", "format": "uuid"}""", "\"123e4567-E89B-12d3-a456-426614174000\"", "\"123e4567e89b12d3a456426614174000\"")]
    [InlineData("""{"type": "string", "format": "phone"}""", "\"anything\"", "1")]
    [InlineData("""{"type": "integer", "format": "int32"}""", "1;-7", "1.5")]
    [InlineData("""{"type": "number", "minimum": 0, "maximum": 1}""", "0;1;0.5;1.0;0.000001", "-0.1;1.01;2;1e3;-1")]
    [InlineData("""{"type": "number", "exclusiveMinimum": -1.25, "exclusiveMaximum": 2.5}""", "-1.2;-1.2499;0;2.4999;2", "-1.25;2.5;-1.3;2.51;-2;3")]
    [InlineData("""{"type": "number", "minimum": 10.05}""", "10.05;10.1;11;999", "10.04;10;9.99;1")]
    [InlineData("""{"type": "number", "maximum": -2}""", "-2;-2.0;-2.5;-100", "-1.9;0;2")]
    [InlineData("""{"type": "number", "minimum": 3, "exclusiveMinimum": true, "maximum": 1e300}""", "3.1;9999", "3;2")]
    [InlineData("""{"type": "number"}""", "9999999999999999;0.123456789012345;1e99", "99999999999999999;0.1234567890123456;1e999")]
    [InlineData("""{"type": "integer"}""", "9999999999999999;-1", "99999999999999999;1.0;1e3")]
    [InlineData("""{"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991}""", "9007199254740991;-9007199254740991", "9007199254740992")]
    [InlineData("""{"type": "integer", "minimum": 0.5, "maximum": 3.0}""", "1;3", "0;4")]
    [InlineData("""{"type": "integer", "multipleOf": 5}""", "0;5;-10;100", "1;-12;103")]
    [InlineData("""{"type": "integer", "multipleOf": 700.0, "maximum": 5000}""", "0;700;4900", "70;5600;777")]
    [InlineData("""{"type": "number", "multipleOf": 0.25, "minimum": 0}""", "0;0.25;1.5;1.50;7;12.75", "0.2;0.26;1.125;-0.25")]
    [InlineData("""{"type": "number", "multipleOf": 0.01, "maximum": 10}""", "0.01;9.99;10;-3.5", "0.001;10.01")]
    [InlineData("""{"type": "array", "items": {"type": "integer"}, "uniqueItems": false}""", "[];[1,1]", "[\"a\"]")]
    [InlineData("""{"type": "string", "pattern": "^a", "maxLength": 3}""", "\"a\";\"abc\"", "\"\";\"b\";\"abcd\"")]
    [InlineData("""{"type": "string", "pattern": "[0-9]", "minLength": 2, "allOf": [{"pattern": "x$"}]}""", "\"0x\";\"a1bx\"", "\"x\";\"0\";\"ax\"")]
    [InlineData("""{"type": "string", "format": "uuid", "pattern": "^0"}""", "\"023e4567-e89b-12d3-a456-426614174000\"", "\"123e4567-e89b-12d3-a456-426614174000\"")]
    [InlineData("""{"type": "string", "pattern": "^(?!^[-+.]*$)[+-]?0*\\d*\\.?\\d*$"}""", "\"1.5\";\"-0\";\"+7.\"", "\"\";\"-\";\".\";\"1.2.3\"")]
    [InlineData("""{"type": "string", "pattern": "^(?=.*[0-9])(?=.*[a-z])[0-9a-z]{2,3}$"}""", "\"a1\";\"1a2\"", "\"aa\";\"12\";\"a1b2\"")]
    [InlineData("""{"type": "boolean", "x-order": 1, "example": true, "xml": {}}""", "true", "1")]
    [InlineData("""{"type": "string", "anyOf": [{"const": "x"}, {"const": "y"}]}""", "\"x\";\"y\"", "\"z\"")]
    [InlineData("""{"type": "string", "nullable": true}""", "null;\"a\"", "1")]
    [InlineData("""{"allOf": [{"$ref": "#/$defs/a"}], "nullable": true, "$defs": {"a": {"type": "integer"}}}""", "null;3", "\"a\"")]
    [InlineData("""{"$ref": "#/$defs/a", "description": "d", "minimum": 3, "$defs": {"a": {"type": "integer", "maximum": 5}}}""", "3;5", "2;6")]
    [InlineData("""{"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"b": {"type": "string"}, "a": {"minimum": 4}}}]}""", "{\"a\":4};{\"a\":5,\"b\":\"x\"}", "{\"a\":3};{\"b\":\"x\"};{}")]
    [InlineData("""{"type": "object", "properties": {"kind": {"type": "string"}}, "required": ["kind"], "oneOf": [{"properties": {"kind": {"const": "a"}}}, {"properties": {"kind": {"const": "b"}, "n": {"type": "integer"}}, "required": ["n"]}]}""", "{\"kind\":\"a\"};{\"kind\":\"b\",\"n\":1}", "{\"kind\":\"c\"};{\"kind\":\"b\"};{\"kind\":\"a\",\"n\":1}")]
    [InlineData("""{"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1, "maxProperties": 2}""", "{\"a\":1};{\"a\":1,\"b\":2}", "{};{\"a\":1,\"b\":2,\"c\":3}")]
    [InlineData("""{"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 2}""", "{\"a\":1,\"c\":2};{\"b\":1,\"c\":2}", "{\"a\":1};{}")]
    [InlineData("""{"type": "object", "propertyNames": {"pattern": "^[a-z]{2}$"}, "additionalProperties": {"type": "integer"}}""", "{\"ab\":1};{}", "{\"a\":1};{\"ab\":\"x\"}")]
    [InlineData("""{"type": "object", "patternProperties": {"^s_": {"type": "string"}, "_n$": {"type": "integer"}}, "additionalProperties": false}""", "{\"s_a\":\"x\",\"a_n\":1};{}", "{\"x\":1};{\"s_a\":1};{\"a_n\":\"x\"};{\"s_n\":1};{\"s_n\":\"x\"}")]
    [InlineData("""{"type": "object", "patternProperties": {"^s_": {"type": "string"}}, "additionalProperties": {"type": "integer"}}""", "{\"s_a\":\"x\",\"b\":1}", "{\"s_a\":1};{\"b\":\"x\"}")]
    [InlineData("""{"type": "integer", "enum": [1.0, 2.5, "a", 7], "maximum": 5}""", "1.0", "2.5;7;\"a\"")]
    [InlineData("""{"type": "array", "items": [{"const": 1}], "additionalItems": false}""", "[1];[]", "[2];[1,1]")]
    [InlineData("""{"type": "array", "prefixItems": [{"const": 1}, false], "minItems": 1}""", "[1]", "[];[1,1]")]
    [InlineData("""{"type": "object", "properties": {"id": {"type": ["string", "integer"], "pattern": "^-?(?:0|[1-9]\\d*)$"}}}""", "{\"id\":\"12\"};{\"id\":12}", "{\"id\":\"x\"}")]
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
    [InlineData("""{"type": "object", "dependentRequired": {}}""", "dependentRequired")]
    [InlineData("""{"type": "integer", "multipleOf": 0}""", "multipleOf is not above 0")]
    [InlineData("""{"type": "integer", "multipleOf": 12345}""", "too many digits")]
    [InlineData("""{"allOf": [{"$ref": "#"}]}""", "refers to itself")]
    [InlineData("""{"not": {"type": "string"}}""", "not")]
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
