using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Rho.Serving.Constraints;

namespace Rho.Serving.Tests;

/// <summary>Whatever tokens are drawn under a mask, what comes out is right: random walks through random schemas and expressions.</summary>
public sealed class ConstraintPropertyTests
{
    private static readonly ConstraintCompiler s_compiler = new(
        TestModels.Tokenizer.VocabularySize,
        id => TestModels.Tokenizer.IsSpecial(id) ? default : TestModels.Tokenizer.TokenBytes(id),
        [TestModels.Tokenizer.EosId!.Value]);

    [Fact]
    public void JsonSchema_RandomSchemaAndRandomTokens_IsJsonOfTheSchema()
    {
        for (var seed = 0; seed < 300; seed++)
        {
            var random = new Random(seed);
            var schema = Schema(random, 3);
            var text = Walk(s_compiler.JsonSchema(schema.ToJsonString(), "schema"), random);
            using var value = JsonDocument.Parse(text);
            Assert.True(Conforms(value.RootElement, schema), $"seed {seed}: {text} under {schema.ToJsonString()}");
        }
    }

    [Fact]
    public void JsonObject_RandomTokens_IsAnObject()
    {
        for (var seed = 0; seed < 200; seed++)
        {
            using var value = JsonDocument.Parse(Walk(s_compiler.JsonObject("response_format"), new Random(seed)));
            Assert.Equal(JsonValueKind.Object, value.RootElement.ValueKind);
        }
    }

    [Theory]
    [InlineData("[a-z]+@[a-z]+\\.(com|org)")]
    [InlineData("(yes|no|maybe so)(, (yes|no)){0,3}")]
    [InlineData("#[0-9A-F]{6}")]
    [InlineData("[^\\s,]+(,\\d{2,4})*!")]
    [InlineData("(a|ab)(c|bcd)(d*)")]
    [InlineData("Gr(ü|ue)(ß|ss)e (?:😀)+")]
    public void Regex_RandomTokens_Matches(string pattern)
    {
        for (var seed = 0; seed < 60; seed++)
        {
            var text = Walk(s_compiler.Regex(pattern, "regex"), new Random(seed));
            Assert.True(Regex.IsMatch(text, $@"\A(?:{pattern})\z", RegexOptions.None, TimeSpan.FromSeconds(5)), $"seed {seed}: '{text}'");
        }
    }

    [Fact]
    public void JsonObject_AfterVeryManyTexts_IsStillAnswered()
    {
        // Every text adds states of its own nesting: what one table may hold is spent after some, and later texts get a new one.
        for (var seed = 0; seed < 400; seed++) Walk(s_compiler.JsonObject("response_format"), new Random(seed), nested: 60);
    }

    /// <summary>Draws allowed tokens, at first any (or those that open, <paramref name="nested"/> times), later ones that close.</summary>
    internal static string Walk(TextConstraint constraint, Random random, int nested = 0)
    {
        var tokenizer = TestModels.Tokenizer;
        var matcher = constraint.Start();
        var mask = new ulong[(tokenizer.VocabularySize + 63) / 64];
        var bytes = new List<byte>();
        for (var step = 0; !matcher.IsComplete; step++)
        {
            Assert.True(step < 2000, $"no end: {System.Text.Encoding.UTF8.GetString([.. bytes])}");
            Assert.True(matcher.Allow(mask));
            var allowed = Enumerable.Range(0, tokenizer.VocabularySize).Where(id => (mask[id >> 6] >> (id & 63) & 1) != 0).ToList();
            Assert.NotEmpty(allowed);
            if (allowed.Contains(tokenizer.EosId!.Value) && (step > 40 || random.Next(4) == 0)) break;
            allowed.Remove(tokenizer.EosId.Value);
            // Some strings are not whole before they have an x, a blank, or c or _n at their end.
            var preferred = nested > step ? "{[" : step > 40 ? "\"}]" : "";
            if (step > 60 && random.Next(2) == 0) preferred = $"\"{"xc _n"[random.Next(5)]}";
            var token = preferred.Select(c => allowed.Find(id => tokenizer.TokenBytes(id).Span is [var only] && only == c)).FirstOrDefault(id => id > 0);
            if (token == 0 || random.Next(5) == 0) token = allowed[random.Next(allowed.Count)];
            bytes.AddRange(tokenizer.TokenBytes(token).Span);
            matcher.Advance(token);
        }

        return new System.Text.UTF8Encoding(false, throwOnInvalidBytes: true).GetString([.. bytes]);
    }

    private static JsonNode Schema(Random random, int depth)
    {
        switch (random.Next(depth > 0 ? 9 : 6))
        {
            case 0:
                var low = random.Next(-2000, 2000);
                return new JsonObject { ["type"] = "integer", ["minimum"] = low, ["maximum"] = low + random.Next(5000) };
            case 1:
                var least = random.Next(4);
                return new JsonObject { ["type"] = "string", ["minLength"] = least, ["maxLength"] = least + random.Next(6) };
            case 2:
                return new JsonObject { ["type"] = random.Next(2) == 0 ? "number" : "boolean" };
            case 3:
                return new JsonObject { ["enum"] = new JsonArray("a\"b", 12, null, "ü") };
            case 4:
                return new JsonObject { ["type"] = "string", ["pattern"] = "^[a-d\"\\\\]{2,6}$" };
            case 5:
                return new JsonObject { ["type"] = new JsonArray("null", "integer") };
            case 6:
                var minimum = random.Next(3);
                return new JsonObject { ["type"] = "array", ["items"] = Schema(random, depth - 1), ["minItems"] = minimum, ["maxItems"] = minimum + random.Next(3) };
            case 7:
                return new JsonObject { ["anyOf"] = new JsonArray(Schema(random, depth - 1), Schema(random, depth - 1)) };
            default:
                var properties = new JsonObject();
                var required = new JsonArray();
                foreach (var name in new[] { "a", "ab", "na me", "ß" }.Take(random.Next(1, 5)))
                {
                    properties[name] = Schema(random, depth - 1);
                    if (random.Next(2) == 0) required.Add(name);
                }

                var schema = new JsonObject { ["type"] = "object", ["properties"] = properties, ["required"] = required };
                if (random.Next(2) == 0) schema["additionalProperties"] = random.Next(2) == 0 ? false : Schema(random, depth - 1);
                return schema;
        }
    }

    /// <summary>Whether a value is one of a schema: written anew, of the keywords that <see cref="Schema"/> uses.</summary>
    private static bool Conforms(JsonElement value, JsonNode schema)
    {
        if (schema["anyOf"] is JsonArray choices) return choices.Any(choice => Conforms(value, choice!));
        if (schema["enum"] is JsonArray values) return values.Any(one => JsonNode.DeepEquals(one, JsonNode.Parse(value.GetRawText())));
        if (schema["type"] is JsonArray types) return types.Any(type => IsOf(value, (string)type!));
        if (!IsOf(value, (string)schema["type"]!)) return false;
        switch (value.ValueKind)
        {
            case JsonValueKind.Number:
                return schema["minimum"] is null || (value.GetInt64() >= (int)schema["minimum"]! && value.GetInt64() <= (int)schema["maximum"]!);
            case JsonValueKind.String:
                var text = value.GetString()!;
                if (schema["pattern"] is { } pattern) return Regex.IsMatch(text, (string)pattern!, RegexOptions.None, TimeSpan.FromSeconds(5));
                var length = text.EnumerateRunes().Count();
                return length >= (int)schema["minLength"]! && length <= (int)schema["maxLength"]!;
            case JsonValueKind.Array:
                var items = value.EnumerateArray().ToArray();
                return items.Length >= (int)schema["minItems"]! && items.Length <= (int)schema["maxItems"]! && items.All(item => Conforms(item, schema["items"]!));
            case JsonValueKind.Object:
                var names = value.EnumerateObject().Select(member => member.Name).ToHashSet(StringComparer.Ordinal);
                if (schema["required"]!.AsArray().Any(name => !names.Contains((string)name!))) return false;
                return value.EnumerateObject().All(member => schema["properties"]![member.Name] is { } own
                    ? Conforms(member.Value, own)
                    : schema["additionalProperties"] is JsonObject other && Conforms(member.Value, other));
            default:
                return true;
        }
    }

    private static bool IsOf(JsonElement value, string type) => type switch
    {
        "integer" => value.ValueKind == JsonValueKind.Number && value.TryGetInt64(out _) || (value.ValueKind == JsonValueKind.Number && !value.GetRawText().AsSpan().ContainsAny('.', 'e', 'E')),
        "number" => value.ValueKind == JsonValueKind.Number,
        "string" => value.ValueKind == JsonValueKind.String,
        "boolean" => value.ValueKind is JsonValueKind.True or JsonValueKind.False,
        "null" => value.ValueKind == JsonValueKind.Null,
        "array" => value.ValueKind == JsonValueKind.Array,
        _ => value.ValueKind == JsonValueKind.Object,
    };
}
