using System.CommandLine;
using System.Globalization;
using Rho.Formats;
using Rho.Model;
using Rho.Model.Inference;
using static TorchSharp.torch;

namespace Rho.Benchmarks;

/// <summary>What bfloat16 and 8-bit weights cost a served model: its loss on a corpus beside float32's, token by token, on the CPU.</summary>
internal static class WeightFormats
{
    private static readonly (string Name, ComputeType Compute, WeightFormat Weights)[] s_formats =
    [
        ("float32", ComputeType.Float32, WeightFormat.Model),
        ("bfloat16", ComputeType.BFloat16, WeightFormat.Model),
        ("float32, int8 weights", ComputeType.Float32, WeightFormat.Int8),
        ("bfloat16, int8 weights", ComputeType.BFloat16, WeightFormat.Int8),
    ];

    internal static Command Command()
    {
        var model = new Option<string>("--model") { Description = "Checkpoint folder", HelpName = "DIR", Required = true };
        var corpus = new Option<string>("--corpus") { Description = "Corpus folder, made with the model's tokenizer", HelpName = "DIR", Required = true };
        var tokens = new Option<int>("--tokens") { Description = "How many of its tokens at most", HelpName = "N", DefaultValueFactory = _ => 200_000 };
        var command = new Command("weights", "Loss with 8-bit weights and with bfloat16 beside float32's") { model, corpus, tokens };
        command.SetAction(result => Run(result.GetValue(model)!, result.GetValue(corpus)!, result.GetValue(tokens)));
        return command;
    }

    private static int Run(string folder, string corpus, int tokens)
    {
        Console.WriteLine("| weights | tokens | loss, nats | difference | standard error | same most likely token |");
        Console.WriteLine("| --- | ---: | ---: | ---: | ---: | ---: |");
        List<(double Loss, int Best)>? exact = null;
        foreach (var (name, compute, weights) in s_formats)
        {
            using var decoder = DecodingModel.Create(LanguageModel.Load(folder, CPU, compute), new DecodingOptions { CacheBytes = 256 << 20, Weights = weights });
            var scores = Score(decoder, corpus, tokens);
            exact ??= scores;
            var differences = scores.Zip(exact, (a, b) => a.Loss - b.Loss).ToList();
            var mean = differences.Average();
            var error = Math.Sqrt(differences.Sum(d => (d - mean) * (d - mean)) / differences.Count / differences.Count);
            var same = scores.Zip(exact, (a, b) => a.Best == b.Best ? 1.0 : 0).Average();
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"| {name} | {scores.Count:N0} | {scores.Average(s => s.Loss):0.00000} | {(mean < 0 ? "" : "+")}{mean:0.00000} | {error:0.00000} | {same:0.00%} |"));
        }

        return 0;
    }

    /// <summary>Each token's loss within its sequence of the corpus, and the token that was most likely in its place.</summary>
    private static List<(double Loss, int Best)> Score(DecodingModel decoder, string folder, int tokens)
    {
        var corpus = Corpus.Open(folder);
        if (corpus.VocabularySize > decoder.Config.VocabularySize)
            throw new MismatchException($"{folder} has a vocabulary of {corpus.VocabularySize} tokens and the model {decoder.Config.VocabularySize}: they do not belong together");
        var length = Math.Min(corpus.SequenceLength, Math.Min(decoder.Config.ContextLength, decoder.MaxBatchTokens));
        int[] blocks = [.. Enumerable.Range(0, (length + DecodingModel.BlockTokens - 1) / DecodingModel.BlockTokens)];
        var (sequence, documents) = (new int[corpus.SequenceLength], new int[corpus.SequenceLength]);
        var logits = new float[(length - 1) * decoder.Config.VocabularySize];
        var batch = new ForwardBatch();
        var scores = new List<(double, int)>();
        for (var i = 0; i < corpus.Shards.Count && scores.Count < tokens; i++)
        {
            using var shard = corpus.OpenShard(i);
            for (var s = 0L; s < shard.Sequences && scores.Count < tokens; s++)
            {
                shard.Read(s, sequence);
                shard.ReadDocuments(s, documents);
                batch.Clear();
                batch.Add(sequence.AsSpan(0, length), 0, blocks);
                for (var row = 0; row + 1 < length; row++) batch.AddOutput(row);
                decoder.Forward(batch);
                decoder.Logits(0, length - 1, logits);
                for (var row = 0; row + 1 < length; row++)
                {
                    // -1 is padding.
                    if (documents[row + 1] >= 0) scores.Add(Of(logits.AsSpan(row * decoder.Config.VocabularySize, decoder.Config.VocabularySize), sequence[row + 1]));
                }
            }
        }

        return scores;
    }

    private static (double Loss, int Best) Of(ReadOnlySpan<float> logits, int token)
    {
        var best = 0;
        for (var i = 1; i < logits.Length; i++) best = logits[i] > logits[best] ? i : best;
        double sum = 0;
        foreach (var logit in logits) sum += Math.Exp(logit - logits[best]);
        return (Math.Log(sum) - (logits[token] - (double)logits[best]), best);
    }
}
