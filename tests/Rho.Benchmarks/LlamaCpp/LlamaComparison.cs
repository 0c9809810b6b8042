using System.CommandLine;
using System.Globalization;
using System.Numerics.Tensors;
using LLama.Native;
using Rho.Model;
using Rho.Model.Inference;
using static TorchSharp.torch;

namespace Rho.Benchmarks.LlamaCpp;

/// <summary>
/// Generation beside llama.cpp with the same weights and threads: greedy decoding after a prompt of 64 tokens, and a prompt of 512, in float32,
/// bfloat16 and 8 bits. Both sides are the decoder alone, without a server's queue. Measured only if they compute the same model.
/// </summary>
internal static class LlamaComparison
{
    private const int Longest = 512;
    private const int Prompt = 64;
    private const int NewTokens = 64;

    private static readonly string[] s_kinds = ["decode-batch-1", "decode-batch-8", "prompt-512"];

    private static readonly Dictionary<string, (GgufType Gguf, ComputeType Compute, WeightFormat Weights)> s_formats = new(StringComparer.Ordinal)
    {
        ["float32"] = (GgufType.F32, ComputeType.Float32, WeightFormat.Model),
        ["bfloat16"] = (GgufType.BF16, ComputeType.BFloat16, WeightFormat.Model),
        ["8-bit"] = (GgufType.Q8_0, ComputeType.BFloat16, WeightFormat.Int8),
    };

    internal static Command Command()
    {
        var sizes = new Option<string[]>("--sizes") { Description = "hidden x layers", AllowMultipleArgumentsPerToken = true, DefaultValueFactory = _ => ["default", "512x8"] };
        sizes.AcceptOnlyFromAmong([.. Sizes.All.Keys]);
        var formats = new Option<string[]>("--weights") { Description = "How weights are stored", AllowMultipleArgumentsPerToken = true, DefaultValueFactory = _ => [.. s_formats.Keys] };
        formats.AcceptOnlyFromAmong([.. s_formats.Keys]);
        var kinds = new Option<string[]>("--modes") { Description = "What to measure", AllowMultipleArgumentsPerToken = true, DefaultValueFactory = _ => s_kinds };
        kinds.AcceptOnlyFromAmong(s_kinds);
        var rounds = new Option<int>("--rounds") { Description = "Pairs of processes per figure", HelpName = "N", DefaultValueFactory = _ => 3 };
        var steps = new Option<int>("--steps") { Description = "Measured steps per process", HelpName = "N", DefaultValueFactory = _ => 7 };
        var command = new Command("llama", "Generation beside llama.cpp (LLamaSharp) with the same weights, after a check that both compute the same") { sizes, formats, kinds, rounds, steps };
        command.SetAction(result => Run(
            [.. result.GetValue(sizes)!.Select(name => Sizes.All[name])], result.GetValue(formats)!, result.GetValue(kinds)!, result.GetValue(rounds), result.GetValue(steps)));
        command.Add(Worker());
        return command;
    }

    private static int Run(Sizes[] several, string[] formats, string[] kinds, int rounds, int steps)
    {
        var folder = Directory.CreateTempSubdirectory("rho-bench-").FullName;
        try
        {
            string File(Sizes sizes, string format) => Path.Combine(folder, $"{sizes.Key}-{format}.gguf");
            Console.WriteLine("| sizes | weights | log-probabilities apart, rms | Rho's from its float32 | llama.cpp's from it |");
            Console.WriteLine("| --- | --- | ---: | ---: | ---: |");
            foreach (var sizes in several) Agree(sizes, formats, format => File(sizes, format));
            Console.WriteLine();
            Console.WriteLine("| sizes | weights | what | Rho, tokens/s | llama.cpp, tokens/s | ratio |");
            Console.WriteLine("| --- | --- | --- | ---: | ---: | ---: |");
            foreach (var sizes in several)
            {
                foreach (var format in formats)
                {
                    foreach (var kind in kinds)
                    {
                        string[] worker = ["llama", "worker", "--sizes", sizes.Key, "--weights", format, "--mode", kind, "--steps", $"{steps}"];
                        // llama.cpp's threads meet after every operation: they spin for a while first, as GNU OpenMP has it where nobody sets a policy.
                        var pairs = Enumerable.Range(0, rounds).Select(_ => (
                            Rho: Measuring.Run(Environment.ProcessPath!, worker),
                            Other: Measuring.Run(Environment.ProcessPath!, [.. worker, "--gguf", File(sizes, format)], ("GOMP_SPINCOUNT", "300000")))).ToList();
                        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                            $"| {sizes.Name} | {format} | {kind} | {Measuring.Median(pairs.Select(pair => pair.Rho.TokensPerSecond)):N0} | {Measuring.Median(pairs.Select(pair => pair.Other.TokensPerSecond)):N0} | {Measuring.Median(pairs.Select(pair => pair.Other.StepMilliseconds / pair.Rho.StepMilliseconds)):0.00} |"));
                    }
                }
            }

            return 0;
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    /// <summary>Writes the files, and compares log-probabilities of a text: in float32 within 1e-3, else llama.cpp may be off by a few times what Rho is.</summary>
    /// <exception cref="RhoException">They are not the same model.</exception>
    private static void Agree(Sizes sizes, string[] formats, Func<string, string> file)
    {
        using var model = Weights(sizes);
        var text = Tokens(sizes, 128, seed: 5);
        double[] exact;
        using (var decoder = Own(model, s_formats["float32"], sequences: 1)) exact = LogProbabilities(decoder, text);
        foreach (var format in formats)
        {
            var chosen = s_formats[format];
            Gguf.Write(file(format), model, chosen.Gguf);
            double[] own, other;
            using (var decoder = Own(model, chosen, sequences: 1)) own = LogProbabilities(decoder, text);
            using (var decoder = new LlamaCppDecoder(file(format), sequences: 1, Longest, exact: true)) other = LogProbabilities(decoder, text);
            var (apart, ours, theirs) = (Rms(own, other), Rms(own, exact), Rms(other, exact));
            var most = format == "float32" ? 1e-3 : 4 * ours;
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"| {sizes.Name} | {format} | {apart:0.0e+0} | {ours:0.0e+0} | {theirs:0.0e+0} |"));
            if (!(theirs <= most)) throw new RhoException(string.Create(CultureInfo.InvariantCulture, $"llama.cpp computes another model at {sizes.Name} in {format}: log-probabilities are {theirs:0.0e+0} from Rho's in float32, at most {most:0.0e+0} is rounding"));
        }
    }

    private static double Rms(double[] a, double[] b) => Math.Sqrt(a.Zip(b, (x, y) => (x - y) * (x - y)).Average());

    private static double[] LogProbabilities(IDecoder decoder, int[] text)
    {
        decoder.Forward([text], 0, all: true);
        var found = new double[text.Length - 1];
        for (var i = 0; i < found.Length; i++)
        {
            var logits = decoder.Logits(i);
            double most = TensorPrimitives.Max(logits), sum = 0;
            foreach (var logit in logits) sum += Math.Exp(logit - most);
            found[i] = logits[text[i + 1]] - most - Math.Log(sum);
        }

        return found;
    }

    private static Command Worker()
    {
        var sizes = Sizes.One();
        var format = new Option<string>("--weights") { Required = true };
        var mode = new Option<string>("--mode") { Required = true };
        var steps = new Option<int>("--steps") { Required = true };
        var gguf = new Option<string?>("--gguf") { Description = "llama.cpp's, instead of Rho" };
        var command = new Command("worker", "One figure, measured in this process") { sizes, format, mode, steps, gguf };
        command.Hidden = true;
        command.SetAction(result => Measure(Sizes.All[result.GetValue(sizes)!], s_formats[result.GetValue(format)!], result.GetValue(mode)!, result.GetValue(steps), result.GetValue(gguf)));
        return command;
    }

    private static int Measure(Sizes sizes, (GgufType, ComputeType, WeightFormat) format, string mode, int steps, string? gguf)
    {
        var batch = mode == "decode-batch-8" ? 8 : 1;
        using IDecoder decoder = gguf is null ? OwnOf(sizes, format, batch) : new LlamaCppDecoder(gguf, batch, Longest, exact: false);
        if (mode == "prompt-512")
        {
            var prompt = Tokens(sizes, Longest, seed: 6);
            Measuring.Report(mode, Longest, steps, () =>
            {
                decoder.Forward([prompt], 0, all: false);
                TensorPrimitives.IndexOfMax(decoder.Logits(0));
            });
            return 0;
        }

        decoder.Forward([.. Enumerable.Range(0, batch).Select(i => Tokens(sizes, Prompt, seed: i))], 0, all: false);
        int[][] first = [.. Enumerable.Range(0, batch).Select(i => new[] { TensorPrimitives.IndexOfMax(decoder.Logits(i)) })];
        Measuring.Report(mode, batch * NewTokens, steps, () =>
        {
            var last = first;
            for (var t = 0; t < NewTokens; t++)
            {
                decoder.Forward(last, Prompt + t, all: false);
                last = [.. Enumerable.Range(0, batch).Select(i => new[] { TensorPrimitives.IndexOfMax(decoder.Logits(i)) })];
            }
        });
        return 0;
    }

    private static RhoDecoder OwnOf(Sizes sizes, (GgufType, ComputeType, WeightFormat) format, int sequences)
    {
        using var model = Weights(sizes);
        return Own(model, format, sequences);
    }

    private static RhoDecoder Own(LanguageModel model, (GgufType Gguf, ComputeType Compute, WeightFormat Weights) format, int sequences) =>
        new(model.CopyTo(CPU, format.Compute.Resolve(CPU)), format.Weights, sequences, Longest);

    /// <summary>Random, and large enough for attention to look at some tokens more than at others: with a fresh model's, a wrong rotation would hardly show.</summary>
    private static LanguageModel Weights(Sizes sizes)
    {
        var model = LanguageModel.Create(sizes.Config(Longest), seed: 0, CPU, ComputeType.Float32);
        using var guard = no_grad();
        using var scope = NewDisposeScope();
        foreach (var span in model.Layout.Spans.Where(span => span.Name.EndsWith("q_proj.weight", StringComparison.Ordinal) || span.Name.EndsWith("k_proj.weight", StringComparison.Ordinal)))
            model.Flat.narrow(0, span.Offset, span.Count).mul_(3);
        return model;
    }

    private static int[] Tokens(Sizes sizes, int count, int seed)
    {
        var random = new Random(seed);
        return [.. Enumerable.Range(0, count).Select(_ => random.Next(sizes.Vocabulary))];
    }
}
