using Rho.Tokenization;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Model;

/// <summary>The weights of one transformer block; views on the model's flat buffer.</summary>
public sealed record LayerWeights
{
    public required Tensor InputNorm { get; init; }      // [hidden]
    public required Tensor Qkv { get; init; }            // [(heads + 2 kvHeads) * headSize, hidden]: q rows, k rows, v rows
    public Tensor? QkvBias { get; init; }                // [(heads + 2 kvHeads) * headSize]
    public Tensor? QueryNorm { get; init; }              // [headSize]
    public Tensor? KeyNorm { get; init; }                // [headSize]
    public required Tensor Output { get; init; }         // [hidden, heads * headSize]
    public required Tensor PostNorm { get; init; }       // [hidden]
    public required Tensor GateUp { get; init; }         // [2 * intermediate, hidden]: gate rows, up rows
    public required Tensor Down { get; init; }           // [hidden, intermediate]

    internal IEnumerable<Tensor> All => new[] { InputNorm, Qkv, QkvBias, QueryNorm, KeyNorm, Output, PostNorm, GateUp, Down }.OfType<Tensor>();
}

/// <summary>A Llama-family decoder: its configuration and its weights in one flat buffer. The forward passes are in Transformer and Inference.</summary>
public sealed class LanguageModel : IDisposable
{
    private LanguageModel(ModelConfig config, Tensor flat)
    {
        Config = config;
        Layout = new ParameterLayout(config);
        Flat = flat;
        Embedding = View("model.embed_tokens.weight");
        FinalNorm = View("model.norm.weight");
        Head = config.TiedEmbeddings ? Embedding : View("lm_head.weight");
        Layers = [.. Enumerable.Range(0, config.Layers).Select(Layer)];
    }

    public ModelConfig Config { get; }
    public ParameterLayout Layout { get; }
    public IReadOnlyList<LayerWeights> Layers { get; }
    public Tensor Embedding { get; }                     // [vocab, hidden]
    public Tensor FinalNorm { get; }                     // [hidden]
    public Tensor Head { get; }                          // [vocab, hidden]; the embedding where tied

    /// <summary>All parameters one after another. [parameters]</summary>
    public Tensor Flat { get; }

    public Device Device => Flat.device;
    public ScalarType Dtype => Flat.dtype;
    public long Parameters => Layout.Count;

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
                parameter.fill_(span.Name.EndsWith(".bias", StringComparison.Ordinal) ? 0 : 1);
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
        return new LanguageModel(Config, Flat.to(dtype, device, copy: true).DetachFromDisposeScope());
    }

    /// <summary>Writes a Hugging Face folder, which appears whole or not at all.</summary>
    /// <param name="shardBytes">Weights beyond this are written as several files with an index. A tensor larger than that has a file of its own.</param>
    /// <exception cref="RhoException">The folder exists and is not empty, or cannot be written.</exception>
    public void Save(string directory, Tokenizer? tokenizer, long shardBytes = 5_000_000_000) => Checkpoint.Write(directory, this, tokenizer, shardBytes);

    internal static LanguageModel Empty(ModelConfig config, Device device, ScalarType dtype) =>
        new(config, empty([new ParameterLayout(config).Count], dtype, device).DetachFromDisposeScope());

    internal Tensor Slice(long offset, long count) => Flat.narrow(0, offset, count);

    internal Tensor View(string first, string? last = null)
    {
        var (a, b) = (Layout[first], Layout[last ?? first]);
        using var slice = Slice(a.Offset, b.Offset + b.Count - a.Offset);
        return (a.Shape.Length == 1 ? slice.view(-1) : slice.view(-1, a.Shape[1])).DetachFromDisposeScope();
    }

    private LayerWeights Layer(int index)
    {
        var layer = $"model.layers.{index}";
        return new LayerWeights
        {
            InputNorm = View($"{layer}.input_layernorm.weight"),
            Qkv = View($"{layer}.self_attn.q_proj.weight", $"{layer}.self_attn.v_proj.weight"),
            QkvBias = Config.AttentionBias ? View($"{layer}.self_attn.q_proj.bias", $"{layer}.self_attn.v_proj.bias") : null,
            QueryNorm = Config.QueryKeyNorm ? View($"{layer}.self_attn.q_norm.weight") : null,
            KeyNorm = Config.QueryKeyNorm ? View($"{layer}.self_attn.k_norm.weight") : null,
            Output = View($"{layer}.self_attn.o_proj.weight"),
            PostNorm = View($"{layer}.post_attention_layernorm.weight"),
            GateUp = View($"{layer}.mlp.gate_proj.weight", $"{layer}.mlp.up_proj.weight"),
            Down = View($"{layer}.mlp.down_proj.weight"),
        };
    }

    public void Dispose()
    {
        foreach (var tensor in Layers.SelectMany(layer => layer.All).Append(Embedding).Append(FinalNorm).Append(Head)) tensor.Dispose();
        Flat.Dispose();
    }
}
