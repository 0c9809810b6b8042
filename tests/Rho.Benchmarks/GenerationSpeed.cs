using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using Rho.Hosting;
using Rho.Model;
using Rho.Model.Inference;
using Rho.Serving.Engine;
using Rho.Tokenization;
using static TorchSharp.torch;

namespace Rho.Benchmarks;

/// <summary>The peer's generation through the serving engine: greedy, a prompt of 64 tokens, 64 new ones, for a batch of equal requests.</summary>
internal static class GenerationSpeed
{
    private const int Prompt = 64;
    private const int NewTokens = 64;

    /// <returns>One round, and the tokens that it makes.</returns>
    internal static (Action Step, int Tokens) Step(ModelConfig config, ComputeType compute, Device device, int batch)
    {
        var model = LanguageModel.Create(config with { ContextLength = 2048 }, 0, device, compute);
        var options = new EngineOptions { ReusePrefixes = false };
        var decoder = DecodingModel.Create(model, new DecodingOptions { CacheBytes = 256 << 20, MaxBatchTokens = options.MaxStepTokens, Threads = Environment.ProcessorCount });
        var meters = new ServiceCollection().AddMetrics().BuildServiceProvider().GetRequiredService<System.Diagnostics.Metrics.IMeterFactory>();
        var engine = new InferenceEngine(
            "bench", decoder, SmallTokenizer(), [], options, new EngineMetrics(meters, vllmNames: false),
            new ServiceHealth(TimeProvider.System, TimeSpan.FromMinutes(2)), TimeProvider.System, NullLogger.Instance);
        var random = new Random(0);
        var request = new GenerationRequest
        {
            Prompt = [.. Enumerable.Range(0, Prompt).Select(_ => random.Next(config.VocabularySize))],
            Sampling = new SamplingSettings { Temperature = 0, MaxTokens = NewTokens },
        };
        return (() => Task.WaitAll(Enumerable.Range(0, batch).Select(_ => engine.Submit(request)).ToArray().Select(ReadAsync).ToArray()), batch * NewTokens);
    }

    internal static Tokenizer SmallTokenizer() =>
        BpeTrainer.Train([.. Enumerable.Repeat("the quick brown fox jumps over the lazy dog; 12 + 30 = 42", 4)], new BpeTrainerOptions { VocabularySize = 300, Threads = 1 });

    private static async Task ReadAsync(Generation generation)
    {
        await foreach (var _ in generation.ReadAsync())
        {
        }
    }
}
