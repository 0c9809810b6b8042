using System.Text.Json;
using Rho.TestSupport;
using static TorchSharp.torch;

namespace Rho.Model.Inference.Tests;

/// <summary>A decoding model of the test data, with blocks handed out one sequence after another.</summary>
internal sealed class Decoder(DecodingModel model) : IDisposable
{
    private int _nextBlock;

    public DecodingModel Model { get; } = model;

    public static string Data => Path.Combine(AppContext.BaseDirectory, "data");

    public static TheoryData<string> Kinds => [.. Directory.GetDirectories(Data).Select(path => Path.GetFileName(path)!).Order(StringComparer.Ordinal)];

    public static Decoder Load(string kind, DecodingBackend backend, ComputeType compute = ComputeType.Float32, int threads = 2, WeightFormat weights = WeightFormat.Model) =>
        new(DecodingModel.Create(
            LanguageModel.Load(Path.Combine(Data, kind), backend == DecodingBackend.Torch ? TestDevice.Device : CPU, compute),
            new DecodingOptions { Backend = backend, CacheBytes = 8 << 20, MaxBatchTokens = 160, Threads = threads, Weights = weights }));

    public static List<Case> Cases(string kind) => JsonSerializer.Deserialize<List<Case>>(File.ReadAllText(Path.Combine(Data, kind, "expected.json")), s_json)!;

    public SequenceState Begin() => new(this);

    public int[] TakeBlocks(int count) => [.. Enumerable.Range(0, count).Select(_ => _nextBlock++)];

    public void Dispose() => Model.Dispose();

    /// <summary>Logits of all outputs of a batch, row by row.</summary>
    public float[][] Run(ForwardBatch batch)
    {
        Model.Forward(batch);
        var vocabulary = Model.Config.VocabularySize;
        var all = new float[batch.Outputs.Length * vocabulary];
        if (batch.Outputs.Length > 0) Model.Logits(0, batch.Outputs.Length, all);
        return [.. Enumerable.Range(0, batch.Outputs.Length).Select(i => all.AsSpan(i * vocabulary, vocabulary).ToArray())];
    }

    private static readonly JsonSerializerOptions s_json = new() { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };

    /// <summary>One prompt, its greedy continuation, ln p of every token but the first, and the likeliest tokens after each.</summary>
    public sealed record Case(int[] Prompt, int[] Continuation, double[] LogProbabilities, double[][][] Top);
}

/// <summary>A sequence that is decoded token by token or piece by piece.</summary>
internal sealed class SequenceState(Decoder decoder)
{
    private readonly int[] _blocks = decoder.TakeBlocks(256 / DecodingModel.BlockTokens);

    public int Position { get; private set; }

    /// <summary>Adds tokens to a batch and asks for the logits of all of them, or of the last alone.</summary>
    public void Add(ForwardBatch batch, ReadOnlySpan<int> tokens, bool allOutputs)
    {
        var row = batch.Add(tokens, Position, _blocks);
        for (var i = allOutputs ? 0 : tokens.Length - 1; i < tokens.Length; i++) batch.AddOutput(row + i);
        Position += tokens.Length;
    }

    /// <summary>Runs tokens alone; logits after each of them.</summary>
    public float[][] Run(ReadOnlySpan<int> tokens)
    {
        var batch = new ForwardBatch();
        Add(batch, tokens, allOutputs: true);
        return decoder.Run(batch);
    }
}
