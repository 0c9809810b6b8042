using Rho.Model;
using Rho.Model.Architectures;
using Rho.Tokenization;
using static TorchSharp.torch;

namespace Rho.Serving.Tests;

/// <summary>Small random checkpoints with a real tokenizer, made once per test run.</summary>
internal static class TestModels
{
    private static readonly Lazy<string> s_folder = new(() => Directory.CreateTempSubdirectory("rho-serving-").FullName);
    private static readonly Lazy<Tokenizer> s_tokenizer = new(Train);
    private static readonly Lock s_lock = new();

    public static Tokenizer Tokenizer => s_tokenizer.Value;

    /// <summary>A checkpoint folder; the same seed and context give the same one.</summary>
    public static string Folder(long seed = 1, int context = 512)
    {
        lock (s_lock)
        {
            var folder = Path.Combine(s_folder.Value, $"tiny-{seed}-{context}");
            if (!Directory.Exists(folder)) Save(folder, seed, context);
            return folder;
        }
    }

    /// <summary>One with longrope, whose short sequences have up to <paramref name="original"/> tokens.</summary>
    public static string LongRope(int original)
    {
        lock (s_lock)
        {
            var folder = Path.Combine(s_folder.Value, $"longrope-{original}");
            if (Directory.Exists(folder)) return folder;
            var scaling = new RopeScaling("longrope", 512.0 / original, 1, 4, original, 32, 1, null)
            {
                ShortFactors = new ValueList<double>([.. Enumerable.Range(0, 8).Select(i => 1 + (0.1 * i))]),
                LongFactors = new ValueList<double>([.. Enumerable.Range(0, 8).Select(i => 2.0 + i)]),
            };
            Save(folder, Tokenizer, 5, Config(Tokenizer, 512) with { ModelType = "phi3", RopeScaling = scaling });
            return folder;
        }
    }

    public static void Save(string folder, long seed, int context = 512) => Save(folder, Tokenizer, seed, context);

    public static void Save(string folder, Tokenizer tokenizer, long seed, int context = 512) => Save(folder, tokenizer, seed, Config(tokenizer, context));

    private static ModelConfig Config(Tokenizer tokenizer, int context) => new()
    {
        VocabularySize = tokenizer.VocabularySize,
        HiddenSize = 64,
        IntermediateSize = 160,
        Layers = 2,
        Heads = 4,
        KeyValueHeads = 2,
        HeadSize = 16,
        ContextLength = context,
        BosTokenId = tokenizer.BosId,
        EosTokenId = tokenizer.EosId,
    };

    private static void Save(string folder, Tokenizer tokenizer, long seed, ModelConfig config)
    {
        using var guard = no_grad();
        using var model = LanguageModel.Create(config, seed, CPU, ComputeType.Float32);
        // Wider weights than training begins with: continuations that do not repeat one token.
        model.Flat.mul_(6);
        foreach (var norm in model.Layout.Spans.Where(span => !span.Decay)) model.Flat.narrow(0, norm.Offset, norm.Count).fill_(1);
        model.Save(folder, tokenizer);
        File.WriteAllText(Path.Combine(folder, "chat_template.jinja"), ChatTemplate);
    }

    public const string ChatTemplate =
        "{% for message in messages %}{% if message.role == 'banned' %}{{ raise_exception('this role is banned') }}{% endif %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

    private static Tokenizer Train()
    {
        string[] texts =
        [
            "The quick brown fox jumps over the lazy dog. The dog sleeps, the fox runs.",
            "What is 12 + 30? 12 + 30 = 42. What is 7 * 6? 7 * 6 = 42.",
            "Grüße aus Köln: äöüß, 東京は晴れ, emoji 😀😀 and so on.",
            "{\"name\": \"Ada\", \"age\": 36, \"tags\": [\"a\", \"b\"], \"ok\": true, \"none\": null}",
        ];
        return BpeTrainer.Train([.. Enumerable.Repeat(texts, 4).SelectMany(x => x)], new BpeTrainerOptions
        {
            VocabularySize = 420,
            SpecialTokens = ["<|user|>", "<|assistant|>", "<|end|>"],
            Threads = 1,
        });
    }
}
