using Rho.Cli.Quickstart;
using Rho.Formats;
using Rho.Model;
using Rho.Tokenization;
using static TorchSharp.torch;

namespace Rho.EndToEnd.Tests;

/// <summary>
/// What the tests work with, made once: text, a tokenizer and a corpus by the executable, and a reference with random weights (all
/// that is compared here are bytes). Tests read it and write elsewhere.
/// </summary>
public sealed class Workshop : IAsyncLifetime
{
    public const int Length = 128;

    private readonly TemporaryFolder _folder = new();

    public string Text => _folder["text.jsonl"];

    public string TokenizerFolder => _folder["tokenizer"];

    /// <summary>Several shards of a few seconds' scoring.</summary>
    public string CorpusFolder => _folder["corpus"];

    public string HeldOutFolder => _folder["heldout"];

    public string Reference => _folder["reference"];

    public async ValueTask InitializeAsync()
    {
        var data = QuickstartCorpus.Generate(3, 20_000, 250_000, 20_000);
        QuickstartCorpus.Write(Text, data.Crawl);
        QuickstartCorpus.Write(_folder["heldout.jsonl"], data.HeldOut);
        await RhoProgram.SucceedAsync("tokenizer", "train", "--vocab", "512", "--out", TokenizerFolder, Text);
        await RhoProgram.SucceedAsync("corpus", "build", "--tokenizer", TokenizerFolder, "--length", $"{Length}", "--shard-tokens", "16384", "--out", CorpusFolder, Text);
        await RhoProgram.SucceedAsync("corpus", "build", "--tokenizer", TokenizerFolder, "--length", $"{Length}", "--out", HeldOutFolder, _folder["heldout.jsonl"]);
        var tokenizer = Tokenizer.Load(TokenizerFolder);
        using var model = LanguageModel.Create(
            new ModelConfig { VocabularySize = tokenizer.VocabularySize, HiddenSize = 128, IntermediateSize = 352, Layers = 4, Heads = 4, KeyValueHeads = 2, HeadSize = 32, ContextLength = Length },
            seed: 1, CPU, ComputeType.Float32);
        model.Save(Reference, tokenizer);
        Assert.InRange(Corpus.Open(CorpusFolder).Shards.Count, 5, 20);
    }

    public ValueTask DisposeAsync()
    {
        _folder.Dispose();
        return ValueTask.CompletedTask;
    }
}

[CollectionDefinition(Name)]
public sealed class WorkshopCollection : ICollectionFixture<Workshop>
{
    public const string Name = "workshop";
}

/// <summary>Processes that tests start beside the executable under test.</summary>
internal static class Services
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    /// <summary>A scorer that is ready, and its address; the system chooses the port.</summary>
    public static async Task<(ChildProcess Process, string Address)> StartScorerAsync(string reference, params string[] arguments)
    {
        var process = RhoProgram.Start(Listening, ["scorer", "--reference", reference, "--port", "0", .. arguments]);
        return (process, await process.ReadyAsync(Patience, CancellationToken.None));
    }

    /// <summary>A Redis of its own, without files.</summary>
    public static async Task<(ChildProcess Process, string Address)> StartRedisAsync()
    {
        var (process, port) = await QuickstartRedis.StartAsync(logPath: null, CancellationToken.None);
        return (process, $"127.0.0.1:{port}");
    }

    private static string? Listening(string line) => line.StartsWith("listening on ", StringComparison.Ordinal) ? line["listening on ".Length..] : null;
}
