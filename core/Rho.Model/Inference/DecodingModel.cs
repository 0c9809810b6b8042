using Rho.Kernels;
using TorchSharp;

namespace Rho.Model.Inference;

/// <summary>How weights are held for decoding.</summary>
public enum WeightFormat
{
    /// <summary>As the model has them: float32 or bfloat16.</summary>
    Model,

    /// <summary>The layers' matrices and an untied head as 8-bit integers with a float32 scale per 64 of a row; CPU only.</summary>
    Int8,
}

/// <summary>Which code computes.</summary>
public enum DecodingBackend
{
    /// <summary>The project's own kernels on the CPU, libtorch elsewhere.</summary>
    Auto,
    Kernels,
    Torch,
}

public sealed record DecodingOptions
{
    /// <summary>Bytes for keys and values; rounded down to whole blocks of 16 tokens.</summary>
    public long CacheBytes { get; init; } = 1L << 30;

    /// <summary>Most tokens of one <see cref="DecodingModel.Forward"/>.</summary>
    public int MaxBatchTokens { get; init; } = 512;

    /// <summary>Threads of the CPU kernels; 0 takes one per processor.</summary>
    public int Threads { get; init; }

    public WeightFormat Weights { get; init; }

    public DecodingBackend Backend { get; init; }
}

/// <summary>
/// A decoder for generation: a language model's weights and a cache of keys and values in blocks of <see cref="BlockTokens"/>
/// positions. Who holds which block is the caller's business. Not thread-safe: one loop owns it.
/// </summary>
public abstract class DecodingModel : IDisposable
{
    /// <summary>Positions per cache block.</summary>
    public const int BlockTokens = DecodingAttention<Float32>.BlockTokens;

    private protected DecodingModel(ModelConfig config, DecodingOptions options)
    {
        Config = config;
        MaxBatchTokens = options.MaxBatchTokens;
    }

    public ModelConfig Config { get; }

    public int MaxBatchTokens { get; }

    /// <summary>
    /// Tokens of the longest sequence whose keys have the angles of short ones (longrope's original context); null where all lengths have
    /// the same. What is cached of a sequence is of no use once it has more: it is to be computed anew, with its new length.
    /// </summary>
    public int? RecomputeBeyond => Config.RopeScaling is { Type: "longrope" } scaling && scaling.OriginalContextLength < Config.ContextLength ? scaling.OriginalContextLength : null;

    /// <summary>Blocks in the cache; their numbers are 0 to Blocks - 1.</summary>
    public abstract int Blocks { get; }

    /// <summary>Bytes that the cache takes.</summary>
    public abstract long CacheBytes { get; }

    /// <summary>Makes a decoder of a model, which it owns from then on.</summary>
    /// <exception cref="RhoException">The options do not fit the model or the device, for example a cache smaller than one block.</exception>
    public static DecodingModel Create(LanguageModel model, DecodingOptions options)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(options.MaxBatchTokens, 1);
        var onCpu = model.Device.type == DeviceType.CPU;
        var backend = options.Backend == DecodingBackend.Auto ? onCpu ? DecodingBackend.Kernels : DecodingBackend.Torch : options.Backend;
        if (backend == DecodingBackend.Kernels && !onCpu)
            throw new RhoException($"the kernels decode on the CPU, and the model is on {model.Device}: choose backend torch");
        if (options.Weights == WeightFormat.Int8 && backend != DecodingBackend.Kernels)
            throw new RhoException("8-bit weights are for the CPU: choose float32 or bfloat16 on other devices");
        if (backend == DecodingBackend.Torch) return new TorchDecodingModel(model, options);
        return model.Dtype == torch.ScalarType.BFloat16 ? new KernelDecodingModel<Kernels.BFloat16>(model, options) : new KernelDecodingModel<Float32>(model, options);
    }

    /// <summary>
    /// Runs the layers over a batch: writes keys and values of its tokens to the cache and keeps the final hidden states of its
    /// outputs until the next call.
    /// </summary>
    public abstract void Forward(ForwardBatch batch);

    /// <summary>Logits of the last batch's outputs [first, first + count): count * vocabulary floats, row by row.</summary>
    public abstract void Logits(int first, int count, Span<float> logits);

    /// <summary>Calls body(worker, index) for every index below count, on the decoder's threads where it has some.</summary>
    public virtual void Parallel(int count, Action<int, int> body)
    {
        for (var i = 0; i < count; i++) body(0, i);
    }

    /// <summary>Upper bound of the worker numbers that <see cref="Parallel"/> passes.</summary>
    public virtual int Workers => 1;

    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    protected abstract void Dispose(bool disposing);

    /// <summary>Blocks that fit a number of bytes.</summary>
    private protected static int BlocksThatFit(long cacheBytes, long blockBytes, ModelConfig config)
    {
        var blocks = (int)Math.Min(cacheBytes / blockBytes, int.MaxValue / 2);
        return blocks > 0
            ? blocks
            : throw new RhoException($"a key-value cache of {cacheBytes:N0} bytes is too small: {config.Layers} layers need {blockBytes:N0} bytes for {BlockTokens} tokens");
    }
}
