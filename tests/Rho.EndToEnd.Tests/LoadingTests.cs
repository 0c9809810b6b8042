using System.Globalization;
using Rho.Model;
using Rho.Tokenization;
using static TorchSharp.torch;

namespace Rho.EndToEnd.Tests;

/// <summary>What a process takes of memory to load a checkpoint: little more than the checkpoint.</summary>
[Collection(WorkshopCollection.Name)]
public sealed class LoadingTests(Workshop workshop) : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData(ComputeType.Float32)]
    [InlineData(ComputeType.BFloat16)]
    public Task Load_Checkpoint_TakesItsSizeAndATenth(ComputeType type) => CompareAsync(80_000_000, type);

    [Theory]
    [InlineData(ComputeType.Float32)]
    [InlineData(ComputeType.BFloat16)]
    [Trait("Category", "Slow")]
    public Task Load_LargeCheckpoint_TakesItsSizeAndATenth(ComputeType type) => CompareAsync(400_000_000, type);

    private async Task CompareAsync(long bytes, ComputeType type)
    {
        // What differs from run to run and not with the size: pages of the runtime and its libraries.
        const long Noise = 24 << 20;
        var small = Make("small", 1, type);
        var large = Make("large", bytes, type);
        var (atLarge, atSmall) = (await PeakAsync("large", type), await PeakAsync("small", type));
        var difference = atLarge - atSmall;
        var limit = (long)(1.1 * (large - small)) + Noise;
        Assert.True(difference <= limit, $"{large - small} bytes more of weights took {difference} bytes more of memory, at most {limit} are to be");
        Assert.True(difference >= 0.9 * (large - small), $"{difference} bytes of memory for {large - small} bytes of weights: the peak was not measured");
    }

    /// <summary>A checkpoint of at least so many bytes; returns the size of its weights.</summary>
    private long Make(string name, long bytes, ComputeType type)
    {
        const int Hidden = 512, Intermediate = 1408;
        const long PerLayer = ((4L * Hidden) + (3L * Intermediate)) * Hidden;
        var tokenizer = Tokenizer.Load(workshop.TokenizerFolder);
        var config = new ModelConfig
        {
            VocabularySize = tokenizer.VocabularySize,
            HiddenSize = Hidden,
            IntermediateSize = Intermediate,
            Layers = (int)(bytes / (PerLayer * (type == ComputeType.Float32 ? 4 : 2))) + 1,
            Heads = 8,
            KeyValueHeads = 8,
            HeadSize = 64,
            ContextLength = Workshop.Length,
        };
        using var model = LanguageModel.Create(config, seed: 1, CPU, type);
        model.Save(_folder[name], tokenizer);
        return new FileInfo(Path.Combine(_folder[name], "model.safetensors")).Length;
    }

    /// <summary>The most memory that a scorer held at a time until it was ready, pages of mapped files included.</summary>
    private async Task<long> PeakAsync(string name, ComputeType type)
    {
        var (process, _) = await Services.StartScorerAsync(_folder[name], "--cache", _folder["cache"], "--dtype", type == ComputeType.Float32 ? "float32" : "bfloat16");
        await using (process)
        {
            var line = File.ReadLines($"/proc/{process.Id}/status").First(line => line.StartsWith("VmHWM:", StringComparison.Ordinal));
            return long.Parse(line.Split(['\t', ' '], StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) << 10;
        }
    }
}
