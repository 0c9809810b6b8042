namespace Rho.Benchmarks;

/// <summary>One model and batch size to measure; the names are the peer's options.</summary>
internal sealed record Sizes(string Name, int Hidden, int Layers, int Heads, int KeyValueHeads, int Vocabulary, int Length, int Batch)
{
    internal static readonly Sizes Default = new("default", 256, 4, 8, 4, 4096, 256, 8);
    internal static readonly Sizes Large = new("512x8, vocab 32,000", 512, 8, 8, 4, 32_000, 512, 4);
    internal static readonly Sizes Wide = new("256x4, vocab 128,000", 256, 4, 8, 4, 128_000, 512, 2);

    internal static IReadOnlyList<Sizes> All => [Default, Large, Wide];

    internal int Intermediate => (int)Math.Ceiling(Hidden * 8 / 3.0 / 32) * 32;

    internal int Tokens => Batch * Length;

    internal IEnumerable<string> Arguments(string dtype, int steps, string mode) =>
    [
        "--hidden", $"{Hidden}", "--layers", $"{Layers}", "--heads", $"{Heads}", "--kv-heads", $"{KeyValueHeads}", "--vocab", $"{Vocabulary}", "--seq", $"{Length}",
        "--batch", mode.StartsWith("generate", StringComparison.Ordinal) ? "8" : $"{Batch}", "--intermediate", $"{Intermediate}", "--dtype", dtype, "--steps", $"{steps}", "--threads", $"{Environment.ProcessorCount}", "--modes", mode.StartsWith("generate", StringComparison.Ordinal) ? "generate" : mode,
    ];
}
