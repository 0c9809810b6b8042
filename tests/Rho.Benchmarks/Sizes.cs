using System.CommandLine;
using Rho.Model;

namespace Rho.Benchmarks;

/// <summary>One model and batch size to measure; the names are the peer's options.</summary>
internal sealed record Sizes(string Key, string Name, int Hidden, int Layers, int Heads, int KeyValueHeads, int Vocabulary, int Length, int Batch)
{
    internal static IReadOnlyDictionary<string, Sizes> All { get; } = new[]
    {
        new Sizes("default", "default", 256, 4, 8, 4, 4096, 256, 8),
        new Sizes("512x8", "512x8, vocab 32,000", 512, 8, 8, 4, 32_000, 512, 4),
        new Sizes("256x4", "256x4, vocab 128,000", 256, 4, 8, 4, 128_000, 512, 2),
        new Sizes(TinyLlama, "TinyLlama 1.1B", 2048, 22, 32, 4, 32_000, 2048, 4),
    }.ToDictionary(sizes => sizes.Key, StringComparer.Ordinal);

    /// <summary>For accelerators: no default of measurements on a CPU.</summary>
    private const string TinyLlama = "tinyllama";

    private const string Description = "hidden x layers; default: 256 x 4, vocabulary 4,096";

    internal static Option<string[]> Several() => new Option<string[]>("--sizes")
    {
        Description = Description,
        AllowMultipleArgumentsPerToken = true,
        DefaultValueFactory = _ => [.. All.Keys.Where(key => key != TinyLlama)],
    }.With(option => option.AcceptOnlyFromAmong([.. All.Keys]));

    internal static Option<string> One() => new Option<string>("--sizes")
    {
        Description = Description,
        DefaultValueFactory = _ => "default",
    }.With(option => option.AcceptOnlyFromAmong([.. All.Keys]));

    internal static Option<int?> LengthOption() => Positive("--length", "Tokens of a sequence, instead of the sizes' own");

    internal static Option<int?> BatchOption() => Positive("--batch", "Sequences of a batch, instead of the sizes' own");

    private static Option<int?> Positive(string name, string description) => new Option<int?>(name) { Description = description, HelpName = "N" }.With(option =>
        option.Validators.Add(result =>
        {
            if (result.GetValueOrDefault<int?>() is < 1) result.AddError($"{name} must be at least 1");
        }));

    /// <summary>With another length or batch, which the name then says.</summary>
    internal Sizes With(int? length, int? batch) => (length ?? Length, batch ?? Batch) == (Length, Batch) ? this
        : this with { Length = length ?? Length, Batch = batch ?? Batch, Name = $"{Name}, {batch ?? Batch} x {length ?? Length} tokens" };

    internal int Intermediate => Key == TinyLlama ? 5632 : (int)Math.Ceiling(Hidden * 8 / 3.0 / 32) * 32;

    internal ModelConfig Config(int contextLength) => new()
    {
        VocabularySize = Vocabulary,
        HiddenSize = Hidden,
        IntermediateSize = Intermediate,
        Layers = Layers,
        Heads = Heads,
        KeyValueHeads = KeyValueHeads,
        HeadSize = Hidden / Heads,
        ContextLength = contextLength,
    };

    internal int Tokens => Batch * Length;
}
