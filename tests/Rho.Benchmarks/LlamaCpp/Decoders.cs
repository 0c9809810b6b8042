using System.Runtime.Intrinsics.X86;
using LLama;
using LLama.Common;
using LLama.Native;
using Rho.Model;
using Rho.Model.Inference;

namespace Rho.Benchmarks.LlamaCpp;

/// <summary>Either side: a model with a cache for some sequences.</summary>
internal interface IDecoder : IDisposable
{
    /// <summary>Runs tokens of several sequences, one array each, all from one position on; what was cached from there on is forgotten.</summary>
    /// <param name="all">Whether logits of every token are wanted, or of each sequence's last.</param>
    void Forward(int[][] sequences, int position, bool all);

    /// <summary>Logits of the last pass, by number among those wanted. [vocabulary]; until the next call of either method</summary>
    ReadOnlySpan<float> Logits(int output);
}

/// <summary>As the serving engine uses it.</summary>
internal sealed class RhoDecoder : IDecoder
{
    private readonly DecodingModel _model;
    private readonly IReadOnlyList<int>[] _blocks;
    private readonly ForwardBatch _batch = new();
    private float[] _logits = [];

    /// <param name="model">becomes this object's own</param>
    internal RhoDecoder(LanguageModel model, WeightFormat weights, int sequences, int longest)
    {
        var each = (longest + DecodingModel.BlockTokens - 1) / DecodingModel.BlockTokens;
        _model = DecodingModel.Create(model, new DecodingOptions { CacheBytes = 256 << 20, MaxBatchTokens = 512, Threads = Environment.ProcessorCount, Weights = weights });
        _blocks = [.. Enumerable.Range(0, sequences).Select(i => Enumerable.Range(i * each, each).ToArray())];
    }

    public void Forward(int[][] sequences, int position, bool all)
    {
        _batch.Clear();
        for (var i = 0; i < sequences.Length; i++)
        {
            var start = _batch.Add(sequences[i], position, _blocks[i]);
            for (var t = all ? 0 : sequences[i].Length - 1; t < sequences[i].Length; t++) _batch.AddOutput(start + t);
        }

        _model.Forward(_batch);
        var outputs = _batch.Outputs.Length;
        if (_logits.Length < outputs * _model.Config.VocabularySize) _logits = new float[outputs * _model.Config.VocabularySize];
        _model.Logits(0, outputs, _logits);
    }

    public ReadOnlySpan<float> Logits(int output) => _logits.AsSpan(output * _model.Config.VocabularySize, _model.Config.VocabularySize);

    public void Dispose() => _model.Dispose();
}

/// <summary>llama.cpp as LLamaSharp has it.</summary>
internal sealed class LlamaCppDecoder : IDecoder
{
    private readonly LLamaWeights _weights;
    private readonly LLamaContext _context;
    private readonly LLamaBatch _batch = new();
    private readonly List<int> _outputs = [];

    /// <param name="exact">Keys and values in float32 and no flash attention, rather than llama.cpp's defaults (float16, and where it pays).</param>
    internal LlamaCppDecoder(string path, int sequences, int longest, bool exact)
    {
        ChooseLibrary();
        var options = new ModelParams(path)
        {
            ContextSize = (uint)(sequences * longest),
            BatchSize = 512,
            UBatchSize = 512,
            SeqMax = (uint)sequences,
            Threads = Environment.ProcessorCount,
            BatchThreads = Environment.ProcessorCount,
            GpuLayerCount = 0,
        };
        if (exact) options = options with { FlashAttention = false, TypeK = GGMLType.GGML_TYPE_F32, TypeV = GGMLType.GGML_TYPE_F32 };
        _weights = LLamaWeights.LoadFromFile(options);
        _context = _weights.CreateContext(options);
    }

    public void Forward(int[][] sequences, int position, bool all)
    {
        _batch.Clear();
        _outputs.Clear();
        for (var i = 0; i < sequences.Length; i++)
        {
            _context.NativeHandle.MemorySequenceRemove((LLamaSeqId)i, position, -1);
            for (var t = 0; t < sequences[i].Length; t++)
            {
                var wanted = all || t == sequences[i].Length - 1;
                if (wanted) _outputs.Add(_batch.TokenCount);
                _batch.Add(sequences[i][t], position + t, (LLamaSeqId)i, wanted);
            }
        }

        var result = _context.NativeHandle.Decode(_batch);
        if (result != DecodeResult.Ok) throw new RhoException($"llama.cpp decodes nothing: {result}");
    }

    public ReadOnlySpan<float> Logits(int output) => _context.NativeHandle.GetLogitsIth(_outputs[output]);

    public void Dispose()
    {
        _context.Dispose();
        _weights.Dispose();
    }

    private static void ChooseLibrary()
    {
        if (NativeLibraryConfig.LLama.LibraryHasLoaded) return;
        NativeLibraryConfig.All
            .WithAvx(Avx512BW.VL.IsSupported ? AvxLevel.Avx512 : AvxLevel.Avx2)
            .WithCuda(false)
            .WithVulkan(false)
            .WithAutoFallback(false)
            .WithSearchDirectory(AppContext.BaseDirectory)
            .WithLogCallback((level, message) =>
            {
                if (level == LLamaLogLevel.Error) Console.Error.Write(message);
            });
    }
}
