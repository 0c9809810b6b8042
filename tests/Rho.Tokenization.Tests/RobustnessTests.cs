using System.Text;
using System.Text.Json.Nodes;

namespace Rho.Tokenization.Tests;

/// <summary>Broken files give a RhoException and nothing else; hard texts stay quick; threads do not disturb each other.</summary>
public sealed class RobustnessTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("rho-tokenizer-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData("gpt2")]
    [InlineData("llama3")]
    [InlineData("llama2")]
    [InlineData("mistral_split")]
    [InlineData("unigram_bytes")]
    [InlineData("normalizer_mixed")]
    [InlineData("cutting_split_words")]
    public void Load_DamagedJson_GivesRhoExceptionOnly(string kind)
    {
        var original = File.ReadAllBytes(Path.Combine(Recorded.Folder, "huggingface", kind, "tokenizer.json"));
        var target = Path.Combine(_folder, "tokenizer.json");
        var random = new Random(kind.Length);
        for (var round = 0; round < 150; round++)
        {
            var damaged = round % 3 == 0 ? Mutate(JsonNode.Parse(original)!, random) : Damage(original, random);
            File.WriteAllBytes(target, damaged);
            TryAll(target, damaged);
        }
    }

    [Theory]
    [InlineData("llama")]
    [InlineData("bpe_nfkc_cf")]
    [InlineData("unigram_nmt_nfkc")]
    [InlineData("unigram_bytes")]
    public void Load_DamagedModel_GivesRhoExceptionOnly(string model)
    {
        var original = File.ReadAllBytes(Path.Combine(Recorded.Folder, "sentencepiece", model, "tokenizer.model"));
        var target = Path.Combine(_folder, "tokenizer.model");
        var random = new Random(model.Length);
        for (var round = 0; round < 150; round++)
        {
            var damaged = Damage(original, random);
            File.WriteAllBytes(target, damaged);
            TryAll(target, damaged);
        }
    }

    private void TryAll(string file, byte[] contents)
    {
        try
        {
            var tokenizer = Tokenizer.Load(_folder);
            foreach (var text in Recorded.Texts.Where((_, i) => i % 12 == 5)) tokenizer.Decode(tokenizer.Encode(text, addSpecialTokens: true));
            tokenizer.EncodeWithOffsets("Hello  wörld 👍 <s> 12");
        }
        catch (RhoException error)
        {
            Assert.DoesNotContain('\n', error.Message);
        }
        catch (Exception error)
        {
            var kept = Path.Combine(Path.GetTempPath(), $"rho-fuzz-{Path.GetFileName(file)}");
            File.WriteAllBytes(kept, contents);
            Assert.Fail($"{kept}: {error}");
        }
    }

    private static byte[] Damage(byte[] original, Random random)
    {
        var damaged = original.ToArray();
        switch (random.Next(4))
        {
            case 0:
                return damaged[..random.Next(damaged.Length)];
            case 1:
                for (var i = random.Next(1, 20); i > 0; i--) damaged[random.Next(damaged.Length)] = (byte)random.Next(256);
                return damaged;
            case 2:
                var at = random.Next(damaged.Length);
                return [.. damaged[..at], .. damaged[random.Next(damaged.Length)..]];
            default:
                for (var i = random.Next(1, 5); i > 0; i--) damaged[random.Next(Math.Min(2000, damaged.Length))] ^= (byte)(1 << random.Next(8));
                return damaged;
        }
    }

    /// <summary>Still JSON, but with a value somewhere that does not belong there.</summary>
    private static byte[] Mutate(JsonNode root, Random random)
    {
        JsonNode?[] strange = [null, JsonValue.Create(-1), JsonValue.Create(1 << 30), JsonValue.Create(1.5), JsonValue.Create(""), JsonValue.Create("(["), JsonValue.Create(true), new JsonArray(), new JsonObject()];
        for (var node = root; ;)
        {
            var value = strange[random.Next(strange.Length)]?.DeepClone();
            if (node is JsonObject { Count: > 0 } item)
            {
                var name = item.ElementAt(random.Next(item.Count)).Key;
                if (item[name] is JsonObject or JsonArray && random.Next(4) > 0)
                {
                    node = item[name]!;
                    continue;
                }

                if (random.Next(4) == 0) item.Remove(name);
                else item[name] = value;
            }
            else if (node is JsonArray { Count: > 0 } list)
            {
                var index = random.Next(list.Count);
                if (list[index] is JsonObject or JsonArray && random.Next(4) > 0)
                {
                    node = list[index]!;
                    continue;
                }

                list[index] = value;
            }

            return Encoding.UTF8.GetBytes(root.ToJsonString());
        }
    }

    [Theory]
    [InlineData("normalizer", """{"type": "Nmt"}""", "'Nmt'")]
    [InlineData("pre_tokenizer", """{"type": "BertPreTokenizer"}""", "'BertPreTokenizer'")]
    [InlineData("pre_tokenizer", """{"type": "Split", "pattern": {"Regex": "(a)\\1"}, "behavior": "Isolated", "invert": false}""", "'\\1'")]
    [InlineData("pre_tokenizer", """{"type": "Split", "pattern": {"Regex": "\\p{Klingon}"}, "behavior": "Isolated", "invert": false}""", "Klingon")]
    [InlineData("pre_tokenizer", """{"type": "Split", "pattern": {"Regex": "[a"}, "behavior": "Isolated", "invert": false}""", "[a")]
    [InlineData("pre_tokenizer", """{"type": "Digits", "individual_digits": true, "roman": true}""", "roman")]
    [InlineData("post_processor", """{"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}""", "'BertProcessing'")]
    [InlineData("decoder", """{"type": "WordPiece", "prefix": "##", "cleanup": true}""", "'WordPiece'")]
    [InlineData("model", """{"type": "WordPiece", "vocab": {}}""", "'WordPiece'")]
    [InlineData("model", """{"type": "BPE", "dropout": 0.1, "vocab": {}, "merges": []}""", "dropout")]
    [InlineData("model", """{"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}""", "\"b\" is not in the vocabulary")]
    [InlineData("model", """{"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}""", "twice")]
    [InlineData("model", """{"type": "BPE", "vocab": {"a": -1}, "merges": []}""", "-1")]
    [InlineData("surprise", "{}", "surprise")]
    public void Load_UnsupportedComponent_IsRefusedByName(string field, string json, string named)
    {
        var root = JsonNode.Parse(File.ReadAllText(Path.Combine(Recorded.Folder, "huggingface", "llama2", "tokenizer.json")))!;
        root[field] = JsonNode.Parse(json);
        File.WriteAllText(Path.Combine(_folder, "tokenizer.json"), root.ToJsonString());
        var error = Assert.Throws<RhoException>(() => Tokenizer.Load(_folder));
        Assert.Contains(named, error.Message, StringComparison.Ordinal);
        Assert.Contains("tokenizer.json", error.Message, StringComparison.Ordinal);
    }

    /// <summary>More than a million characters (and so more than buffers keep) in a form that is hard on merging. Quadratic work would take minutes.</summary>
    [Theory]
    [InlineData("a")]
    [InlineData(" ")]
    [InlineData("\n")]
    [InlineData("'")]
    [InlineData("ab")]
    [InlineData("▁")]
    [InlineData("e\u0301")]
    [InlineData("\u0301\u0323")]
    [InlineData("中")]
    [InlineData("👍")]
    [InlineData("theandreason")]
    public async Task Encode_MegabyteOfOneThing_StaysQuick(string unit)
    {
        var text = new StringBuilder().Insert(0, unit, 1_200_000 / unit.Length).ToString();
        string[] kinds = ["huggingface/gpt2", "huggingface/llama3", "huggingface/qwen2", "huggingface/deepseek3", "huggingface/llama2", "huggingface/mistral_split", "sentencepiece/llama", "sentencepiece/unigram_nmt_nfkc"];
        foreach (var kind in kinds)
        {
            var tokenizer = Tokenizer.Load(Path.Combine(Recorded.Folder, kind));
            await Task.Run(() => tokenizer.Decode(tokenizer.Encode(text))).WaitAsync(TimeSpan.FromSeconds(60));
        }
    }

    [Fact]
    public void Encode_FromManyThreads_GivesTheSameAsFromOne()
    {
        string[] kinds = ["huggingface/llama3", "huggingface/llama2", "huggingface/deepseek3", "huggingface/unigram", "sentencepiece/llama", "sentencepiece/unigram_nmt_nfkc"];
        foreach (var kind in kinds)
        {
            var alone = Tokenizer.Load(Path.Combine(Recorded.Folder, kind));
            var expected = Recorded.Texts.Select(text => alone.Encode(text)).ToArray();
            var shared = Tokenizer.Load(Path.Combine(Recorded.Folder, kind));
            Parallel.For(0, 8, new ParallelOptions { MaxDegreeOfParallelism = 8 }, worker =>
            {
                for (var i = 0; i < Recorded.Texts.Length * 3; i++)
                {
                    var index = (i * (worker + 1) + worker) % Recorded.Texts.Length;
                    Assert.Equal(expected[index], shared.Encode(Recorded.Texts[index]));
                    Assert.Equal(shared.Decode(expected[index]), shared.Decode(expected[index]));
                }
            });
        }
    }

    [Fact]
    public void Encode_IntoAList_AllocatesNothing()
    {
        var tokenizer = Texts.Train();
        var text = string.Concat(Texts.Sentences);
        var output = new List<int>(10_000);
        // Code that the runtime has not optimized yet allocates closures that it later keeps on the stack.
        var (least, clock) = (long.MaxValue, System.Diagnostics.Stopwatch.StartNew());
        while (least > 0 && clock.Elapsed < TimeSpan.FromSeconds(20))
        {
            output.Clear();
            var before = GC.GetAllocatedBytesForCurrentThread();
            tokenizer.Encode(text, output);
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
        }

        Assert.Equal(0, least);
    }

    [Fact]
    public void Decode_UnknownIds_GiveNothingAndNegativeOnesAnError()
    {
        var tokenizer = Texts.Train();
        Assert.Equal("", tokenizer.Decode([tokenizer.VocabularySize, int.MaxValue]));
        Assert.Throws<RhoException>(() => tokenizer.Decode([-1]));
        Assert.Throws<RhoException>(() => tokenizer.IdToToken(tokenizer.VocabularySize));
        Assert.Throws<RhoException>(() => tokenizer.CreateStreamingDecoder().Append(-1));
        Assert.Null(tokenizer.TokenToId("no such token"));
    }
}
