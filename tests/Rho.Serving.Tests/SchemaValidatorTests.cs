using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using Rho.Serving.Constraints;

namespace Rho.Serving.Tests;

/// <summary>Texts drawn under random schemas, held against validators that others wrote.</summary>
public sealed class SchemaValidatorTests
{
    private static readonly ConstraintCompiler s_compiler = new(
        TestModels.Tokenizer.VocabularySize,
        id => TestModels.Tokenizer.IsSpecial(id) ? default : TestModels.Tokenizer.TokenBytes(id),
        [TestModels.Tokenizer.EosId!.Value]);

    [Fact]
    public async Task RandomSchemas_TextsConform_SaysPythonsJsonschema()
    {
        var (exitCode, printed, _) = await Tool.RunAsync("/usr/bin/python3", ["-c", "import jsonschema"], ".");
        Assert.SkipUnless(exitCode == 0, "python3-jsonschema is not installed");
        Assert.Equal("", printed);
        await CheckAsync("/usr/bin/python3", "validate.py", 250);
    }

    [Fact, Trait("Category", "Slow")]
    public async Task RandomSchemas_TextsConform_SaysAjv()
    {
        await ClientTests.NeedPackagesAsync();
        await CheckAsync("node", "validate.mjs", 1000);
    }

    /// <summary>Writes schemas with texts and lets a program read them; it prints what it finds wrong, and in the end how many it read.</summary>
    private static async Task CheckAsync(string program, string script, int count)
    {
        var file = Path.Combine(Directory.CreateTempSubdirectory("rho-schemas-").FullName, "drawn.jsonl");
        var drawn = 0;
        await using (var lines = new StreamWriter(file))
        {
            for (var seed = 0; seed < count; seed++)
            {
                var random = new Random(seed);
                var schema = Schema(random, 3);
                TextConstraint constraint;
                try
                {
                    constraint = s_compiler.JsonSchema(schema.ToJsonString(), "schema");
                }
                catch (InvalidFieldException exception) when (exception.Message.Contains("no text conforms", StringComparison.Ordinal))
                {
                    // Random keywords can contradict each other.
                    continue;
                }

                for (var i = 0; i < 3; i++)
                {
                    await lines.WriteLineAsync(new JsonObject { ["schema"] = schema.DeepClone(), ["text"] = ConstraintPropertyTests.Walk(constraint, random) }.ToJsonString());
                    drawn++;
                }
            }
        }

        Assert.True(drawn > count * 2, $"{drawn} texts of {count} schemas");
        var (exitCode, printed, errors) = await Tool.RunAsync(program, [script, file], ClientTests.Clients);
        Assert.True(exitCode == 0, errors + printed);
        Assert.Equal(drawn.ToString(CultureInfo.InvariantCulture), printed.Trim());
        File.Delete(file);
    }

    private static JsonObject Schema(Random random, int depth)
    {
        string[] formats = ["date", "time", "date-time", "duration", "uuid", "email", "hostname", "ipv4", "ipv6", "uri", "int32", "unheard-of"];
        string[] patterns = ["^[a-d]+$", "x", "^[0-9]{2}", "(ab|c)$", "^(?!ab)[a-c]*$", "^\\S+ \\S+$"];
        decimal[] steps = [1, 2, 5, 7, 10, 12, 250, 0.5m, 0.25m, 0.1m, 0.01m, 1.5m];
        switch (random.Next(depth > 0 ? 12 : 6))
        {
            case 0:
                var integer = new JsonObject { ["type"] = "integer", ["format"] = "int64" };
                Bound(integer, whole: true);
                return integer;
            case 1:
                var number = new JsonObject { ["type"] = "number" };
                Bound(number, whole: false);
                return number;
            case 2:
                return new JsonObject { ["type"] = "string", ["format"] = formats[random.Next(formats.Length)], ["x-note"] = 1 };
            case 3:
                var text = new JsonObject { ["type"] = "string" };
                if (random.Next(2) == 0) text["pattern"] = patterns[random.Next(patterns.Length)];
                if (random.Next(2) == 0) text["minLength"] = random.Next(6);
                if (random.Next(2) == 0) text["maxLength"] = random.Next(6, 12);
                if (random.Next(3) == 0) text["allOf"] = new JsonArray(new JsonObject { ["pattern"] = patterns[random.Next(patterns.Length)] });
                return text;
            case 4:
                return new JsonObject { ["enum"] = new JsonArray("a\"b", 12, 1.5, null, "ü", new JsonArray(1)), ["type"] = new JsonArray("string", "number", "null") };
            case 5:
                return new JsonObject { ["type"] = new JsonArray("null", "boolean", "integer"), ["minimum"] = -3, ["pattern"] = "x" };
            case 6:
                var least = random.Next(3);
                var array = new JsonObject { ["type"] = "array", ["items"] = Schema(random, depth - 1), ["minItems"] = least, ["maxItems"] = least + random.Next(3), ["uniqueItems"] = false };
                if (random.Next(3) == 0) array["prefixItems"] = new JsonArray(Schema(random, depth - 1), Schema(random, depth - 1));
                return array;
            case 7:
                return new JsonObject { ["anyOf"] = new JsonArray(Schema(random, depth - 1), Schema(random, depth - 1)), ["title"] = "t" };
            case 8:
                return new JsonObject { ["type"] = "object", ["additionalProperties"] = Schema(random, depth - 1), ["propertyNames"] = new JsonObject { ["pattern"] = patterns[random.Next(patterns.Length)] }, ["minProperties"] = random.Next(2), ["maxProperties"] = 3 };
            case 9:
                return new JsonObject
                {
                    ["type"] = "object",
                    ["properties"] = new JsonObject { ["s_x"] = new JsonObject { ["type"] = "string", ["maxLength"] = 4 } },
                    ["patternProperties"] = new JsonObject { ["^s_"] = new JsonObject { ["type"] = "string" }, ["_n$"] = new JsonObject { ["type"] = "string", ["minLength"] = 2 } },
                    ["additionalProperties"] = random.Next(2) == 0 ? false : Schema(random, depth - 1),
                };
            case 10:
                var either = Object();
                either["allOf"] = new JsonArray(Object(), Object());
                return either;
            default:
                return Object();
        }

        void Bound(JsonObject schema, bool whole)
        {
            var low = whole ? random.Next(-2000, 2000) : Math.Round((decimal)(random.NextDouble() - 0.5) * 100, random.Next(4));
            if (random.Next(2) == 0) schema[random.Next(2) == 0 ? "minimum" : "exclusiveMinimum"] = low;
            if (random.Next(2) == 0) schema[random.Next(2) == 0 ? "maximum" : "exclusiveMaximum"] = low + (whole ? random.Next(1, 5000) : Math.Round((decimal)random.NextDouble() * 20, random.Next(1, 4)));
            if (random.Next(3) == 0) schema["multipleOf"] = whole ? decimal.Truncate(steps[random.Next(7)]) : steps[random.Next(steps.Length)];
        }

        JsonObject Object()
        {
            var properties = new JsonObject();
            var required = new JsonArray();
            foreach (var name in new[] { "a", "ab", "na me", "ß" }.Where(_ => random.Next(2) == 0))
            {
                properties[name] = Schema(random, depth - 1);
                if (random.Next(2) == 0) required.Add(name);
            }

            var schema = new JsonObject { ["type"] = "object", ["properties"] = properties, ["required"] = required };
            if (random.Next(3) == 0) schema["additionalProperties"] = Schema(random, depth - 1);
            if (random.Next(4) == 0) schema["minProperties"] = random.Next(2);
            return schema;
        }
    }
}
