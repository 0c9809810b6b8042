using Rho.Model.Architectures;
using Rho.Tokenization;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>A decoder: its configuration and its weights in one flat buffer. What computes with it are the engines: Training, Scoring, Inference.</summary>
public sealed class LanguageModel : IDisposable
{
    private readonly Tensor[] _weights;

    private LanguageModel(ModelConfig config, Network network, Tensor flat)
    {
        (Config, Network, Flat) = (config, network, flat);
        _weights = [.. Layout.Weights.Select(weight =>
        {
            using var part = flat.narrow(0, weight.Offset, weight.Count);
            return part.view(weight.Shape).DetachFromDisposeScope();
        })];
    }

    public ModelConfig Config { get; }
    public Network Network { get; }
    public ParameterLayout Layout => Network.Layout;

    /// <summary>All parameters one after another. [parameters]</summary>
    public Tensor Flat { get; }

    public Device Device => Flat.device;
    public ScalarType Dtype => Flat.dtype;
    public long Parameters => Layout.Count;

    /// <summary>As above, without those of the experts that a token does not take.</summary>
    public long ActiveParameters => Network.ActiveParameters;

    /// <summary>Reads a Hugging Face checkpoint folder: model.safetensors, or else pytorch_model.bin, each also as several files with an index.</summary>
    /// <exception cref="RhoException">A file is missing or truncated, or a tensor is missing or has the wrong shape.</exception>
    public static LanguageModel Load(string checkpointDirectory, Device device, ComputeType compute)
    {
        var config = ModelConfig.Load(checkpointDirectory);
        var model = Empty(config, device, compute.Resolve(device));
        try
        {
            Checkpoint.Read(checkpointDirectory, model);
            return model;
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    /// <summary>A model with random weights: normal with deviation 0.02, norms at one.</summary>
    public static LanguageModel Create(ModelConfig config, long seed, Device device, ComputeType compute)
    {
        config.Validate("model");
        var model = Empty(config, device, compute.Resolve(device));
        using var guard = no_grad();
        using var generator = new Generator((ulong)seed);
        foreach (var span in model.Layout.Spans)
        {
            using var scope = NewDisposeScope();
            var parameter = model.Slice(span.Offset, span.Count);
            if (!span.Decay)
            {
                parameter.fill_(span.Initial);
                continue;
            }

            // Drawn as float32 on the CPU, so that a seed gives the same weights in every type on every device.
            var drawn = model.Dtype == ScalarType.Float32 && device.type == DeviceType.CPU ? parameter : empty([span.Count], ScalarType.Float32);
            drawn.normal_(0, 0.02, generator);
            if (!ReferenceEquals(drawn, parameter)) parameter.copy_(drawn);
        }

        return model;
    }

    /// <summary>A copy with weights of another element type or on another device.</summary>
    public LanguageModel CopyTo(Device device, ScalarType dtype)
    {
        using var guard = no_grad();
        return new LanguageModel(Config, Network, Flat.to(dtype, device, copy: true).DetachFromDisposeScope());
    }

    /// <summary>Writes a Hugging Face folder, which appears whole or not at all.</summary>
    /// <param name="shardBytes">Weights beyond this are written as several files with an index. A tensor larger than that has a file of its own.</param>
    /// <exception cref="RhoException">The folder exists and is not empty, or cannot be written.</exception>
    public void Save(string directory, Tokenizer? tokenizer, long shardBytes = 5_000_000_000) => Checkpoint.Write(directory, this, tokenizer, shardBytes);

    internal static LanguageModel Empty(ModelConfig config, Device device, ScalarType dtype)
    {
        var network = new Network(config);
        return new LanguageModel(config, network, empty([network.Layout.Count], dtype, device).DetachFromDisposeScope());
    }

    /// <summary>A view of a weight.</summary>
    internal Tensor this[Weight weight] => _weights[weight.Index];

    internal Tensor Slice(long offset, long count) => Flat.narrow(0, offset, count);

    public void Dispose()
    {
        foreach (var weight in _weights) weight.Dispose();
        Flat.Dispose();
    }
}
