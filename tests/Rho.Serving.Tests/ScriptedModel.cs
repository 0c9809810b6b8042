using System.Text.Json.Nodes;
using Rho.Model;
using Rho.Tokenization;
using static TorchSharp.torch;

namespace Rho.Serving.Tests;

/// <summary>
/// Checkpoints that say what they are told: each token is followed by one other. Its hidden state is the token itself (one-hot
/// embeddings, layers that add nothing), and the head names the token that comes next.
/// </summary>
internal static class ScriptedModel
{
    /// <summary>Ends the prompt of a conversation with tools, before a tool has answered.</summary>
    private const string Call = "<|call|>";

    /// <summary>Ends any other prompt.</summary>
    private const string Answer = "<|answer|>";

    public const string Says = "It is sunny in Oslo.";

    private static readonly Lazy<string> s_tagged = new(() => Save(
        "{% for c in m.tool_calls or [] %}{% if c.function.arguments is string %}{{ raise_exception('arguments are text') }}{% endif %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}",
        [Call, "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": ", "\"Oslo\"}", "}\n</tool_call>", "<|end_of_text|>"],
        [Answer, "It is sunny", " in Oslo.", "<|end_of_text|>"]));

    private static readonly Lazy<string> s_bare = new(() => Save(
        "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}",
        [Call, "{\"name\": \"get_weather\", \"parameters\": {\"city\": ", "\"Oslo\"}}", "<|end_of_text|>"],
        [Answer, "It is sunny", " in Oslo.", "<|end_of_text|>"]));

    /// <summary>Calls get_weather with the city Oslo as Hermes and Qwen do, and when a tool has answered says <see cref="Says"/>.</summary>
    public static string Tagged => s_tagged.Value;

    /// <summary>The same, as Llama 3.1 calls.</summary>
    public static string Bare => s_bare.Value;

    private static string Save(string calls, params string[][] scripts)
    {
        var pieces = scripts.SelectMany(script => script).Where(piece => !piece.StartsWith("<|", StringComparison.Ordinal)).Distinct(StringComparer.Ordinal).ToArray();
        var trained = BpeTrainer.Train(["The weather in Oslo is fine."], new BpeTrainerOptions
        {
            VocabularySize = 290,
            SpecialTokens = ["<|user|>", "<|assistant|>", "<|system|>", "<|tool|>", "<|end|>", Call, Answer, .. pieces],
            Threads = 1,
        });
        var folder = Directory.CreateTempSubdirectory("rho-scripted-").FullName;
        trained.Save(folder);
        var file = Path.Combine(folder, "tokenizer.json");
        var json = JsonNode.Parse(File.ReadAllText(file))!;
        foreach (var token in json["added_tokens"]!.AsArray().Where(token => pieces.Contains((string)token!["content"]!))) token!["special"] = false;
        File.WriteAllText(file, json.ToJsonString());
        var tokenizer = Tokenizer.Load(folder);

        var size = (tokenizer.VocabularySize + 15) / 16 * 16;
        var config = new ModelConfig
        {
            VocabularySize = tokenizer.VocabularySize,
            HiddenSize = size,
            IntermediateSize = 16,
            Layers = 1,
            Heads = size / 16,
            KeyValueHeads = size / 16,
            HeadSize = 16,
            ContextLength = 4096,
            BosTokenId = tokenizer.BosId,
            EosTokenId = tokenizer.EosId,
        };
        using var guard = no_grad();
        using var model = LanguageModel.Create(config, 1, CPU, ComputeType.Float32);
        foreach (var span in model.Layout.Spans.Where(span => span.Decay)) model.Flat.narrow(0, span.Offset, span.Count).zero_();
        Set("model.embed_tokens.weight", Enumerable.Range(0, tokenizer.VocabularySize).Select(id => (id, id)));
        Set("lm_head.weight", scripts.SelectMany(script => script.Zip(script.Skip(1), (before, next) => (Id(next), Id(before)))));
        model.Save(Path.Combine(folder, "model"), tokenizer);
        File.WriteAllText(
            Path.Combine(folder, "model", "chat_template.jinja"),
            "{% if tools %}<|system|>{{ tools | tojson }}<|end|>{% endif %}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}" + calls + "<|end|>{% endfor %}"
            + "{% if add_generation_prompt %}{% if tools and messages[-1].role != 'tool' %}" + Call + "{% else %}" + Answer + "{% endif %}{% endif %}");
        return Path.Combine(folder, "model");

        int Id(string token) => tokenizer.TokenToId(token) ?? throw new InvalidOperationException(token);

        void Set(string name, IEnumerable<(int Row, int Column)> ones)
        {
            var span = model.Layout.Spans.Single(span => span.Name == name);
            using var matrix = model.Flat.narrow(0, span.Offset, span.Count).view(span.Shape);
            foreach (var (row, column) in ones) matrix[row, column] = 10;
        }
    }
}
