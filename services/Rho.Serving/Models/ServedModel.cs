using System.Text;
using System.Text.Json;
using System.Text.Unicode;
using Microsoft.Extensions.Logging;
using Rho.Hosting;
using Rho.Model;
using Rho.Model.Inference;
using Rho.Serving.Constraints;
using Rho.Serving.Engine;
using Rho.Tokenization;
using Rho.Torch;
using TorchSharp;

namespace Rho.Serving.Models;

/// <summary>A loaded model under its name: tokenizer, engine and what is told about it.</summary>
public sealed class ServedModel
{
    private readonly string?[] _tokenTexts;
    private readonly TaskCompletionSource _unused = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _uses = 1;

    private ServedModel(ModelSource source, ModelConfig config, Tokenizer tokenizer, HashSet<int> ends, string description, InferenceEngine engine, DateTimeOffset loaded)
    {
        (Name, Path, Config, Tokenizer, Description, Engine, Loaded) = (source.Name, source.Path, config, tokenizer, description, engine, loaded);
        Constraints = new ConstraintCompiler(config.VocabularySize, id => tokenizer.IsSpecial(id) ? default : TokenBytes(id), ends);
        _tokenTexts = new string?[config.VocabularySize];
        LongestToken = Enumerable.Range(0, tokenizer.VocabularySize).Max(id => TokenBytes(id).Length);
    }

    public string Name { get; }

    public string Path { get; }

    public ModelConfig Config { get; }

    public Tokenizer Tokenizer { get; }

    /// <summary>For people: "llama 3.1M parameters, bfloat16, cpu".</summary>
    public string Description { get; }

    public InferenceEngine Engine { get; }

    /// <summary>Makes constraints for this model's vocabulary.</summary>
    public ConstraintCompiler Constraints { get; }

    public DateTimeOffset Loaded { get; }

    /// <summary>Changes with every load.</summary>
    public string Version { get; } = Guid.NewGuid().ToString("N")[..12];

    /// <summary>Bytes of the longest token: text of so many bytes has at least one token.</summary>
    public int LongestToken { get; }

    /// <summary>Reads a checkpoint folder and starts an engine for it. Takes seconds to minutes.</summary>
    /// <exception cref="RhoException">The folder, the tokenizer or the options do not fit.</exception>
    public static ServedModel Load(ModelSource source, ServingOptions options, EngineMetrics metrics, ServiceHealth health, TimeProvider time, ILogger logger)
    {
        var tokenizer = Tokenizer.Load(source.Path);
        var device = Devices.Resolve(options.Device);
        var model = LanguageModel.Load(source.Path, device, options.Compute);
        DecodingModel? decoder = null;
        try
        {
            if (tokenizer.VocabularySize > model.Config.VocabularySize)
                throw new MismatchException($"{source.Path}: the tokenizer has {tokenizer.VocabularySize} tokens and the model {model.Config.VocabularySize}; they do not belong together");
            var weights = options.Weights == WeightFormat.Int8 ? "int8 weights, " : "";
            var active = model.ActiveParameters == model.Parameters ? "" : $"{Count(model.ActiveParameters)} a token, ";
            var description = $"{model.Config.ModelType} {Count(model.Parameters)} parameters, {active}{weights}{(model.Dtype == torch.ScalarType.BFloat16 ? "bfloat16" : "float32")}, {model.Device.ToString().ToLowerInvariant()}";
            decoder = DecodingModel.Create(model, new DecodingOptions
            {
                CacheBytes = options.CacheBytes,
                MaxBatchTokens = options.Engine.MaxStepTokens,
                Threads = options.Threads,
                Weights = options.Weights,
            });
            var ends = EndTokens(source.Path, model.Config, tokenizer);
            var engine = new InferenceEngine(source.Name, decoder, tokenizer, ends, options.Engine, metrics, health, time, logger);
            return new ServedModel(source, model.Config, tokenizer, ends, description, engine, time.GetUtcNow());
        }
        catch
        {
            if (decoder is null) model.Dispose();
            else decoder.Dispose();
            throw;
        }
    }

    /// <summary>What a token reads as on its own; its bytes, as "bytes:\xe2\x82", where they are no whole characters.</summary>
    public string TokenText(int id)
    {
        return id < _tokenTexts.Length ? _tokenTexts[id] ??= Read(TokenBytes(id).Span) : "";

        static string Read(ReadOnlySpan<byte> bytes)
        {
            if (Utf8.IsValid(bytes)) return Encoding.UTF8.GetString(bytes);
            var text = new StringBuilder("bytes:");
            foreach (var value in bytes) text.Append("\\x").Append(value.ToString("x2"));
            return text.ToString();
        }
    }

    /// <summary>The token's bytes; none for ids beyond the tokenizer's.</summary>
    public ReadOnlyMemory<byte> TokenBytes(int id)
    {
        try
        {
            return Tokenizer.TokenBytes(id);
        }
        catch (RhoException)
        {
            // Models pad their vocabulary to round sizes: such ids can come out, and have no text.
            return default;
        }
    }

    /// <summary>Keeps the model from being closed until the use is disposed; false when it is closed already.</summary>
    internal bool TryUse()
    {
        var uses = Volatile.Read(ref _uses);
        while (uses > 0)
        {
            var before = Interlocked.CompareExchange(ref _uses, uses + 1, uses);
            if (before == uses) return true;
            uses = before;
        }

        return false;
    }

    internal void EndUse()
    {
        if (Interlocked.Decrement(ref _uses) == 0) _unused.TrySetResult();
    }

    /// <summary>Waits for requests under way, and frees the model.</summary>
    /// <param name="patience">When it is cancelled, what still runs fails as unavailable.</param>
    internal async Task CloseAsync(CancellationToken patience)
    {
        EndUse();
        await _unused.Task;
        await Engine.CloseAsync(patience);
    }

    /// <summary>Tokens that end a text: those of generation_config.json, and what config and tokenizer say.</summary>
    private static HashSet<int> EndTokens(string path, ModelConfig config, Tokenizer tokenizer)
    {
        var ends = new HashSet<int>();
        if (config.EosTokenId is { } fromConfig) ends.Add(fromConfig);
        ends.UnionWith(config.OtherEosTokenIds);
        if (tokenizer.EosId is { } fromTokenizer) ends.Add(fromTokenizer);
        var file = System.IO.Path.Combine(path, "generation_config.json");
        if (!File.Exists(file)) return ends;
        try
        {
            using var json = JsonDocument.Parse(File.ReadAllBytes(file));
            if (!json.RootElement.TryGetProperty("eos_token_id", out var value)) return ends;
            if (value.ValueKind == JsonValueKind.Number) ends.Add(value.GetInt32());
            else if (value.ValueKind == JsonValueKind.Array) ends.UnionWith(value.EnumerateArray().Select(id => id.GetInt32()));
            return ends;
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException or FormatException)
        {
            throw new RhoException($"{file} is broken: {exception.Message}", exception);
        }
    }

    private static string Count(long parameters) => parameters switch
    {
        >= 1_000_000_000 => $"{parameters / 1e9:0.##}B",
        >= 1_000_000 => $"{parameters / 1e6:0.#}M",
        _ => $"{parameters / 1e3:0.#}K",
    };
}
