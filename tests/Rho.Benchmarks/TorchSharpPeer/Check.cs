using System.CommandLine;
using System.Globalization;
using Rho.Model;
using Rho.Model.Inference;
using Rho.Selection;
using Rho.Training;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Benchmarks.TorchSharpPeer;

/// <summary>That the TorchSharp program computes what Rho does, at a small size and from the same weights: losses, a selective step, and generation.</summary>
internal static class Check
{
    // 75 tokens have losses, of which 60 % are chosen.
    private static readonly Sizes s_sizes = new("check", "check", Hidden: 64, Layers: 3, Heads: 4, KeyValueHeads: 2, Vocabulary: 199, Length: 26, Batch: 3);

    internal static Command Command()
    {
        var command = new Command("check", "Checks that the TorchSharp program computes the same losses, gradients, steps and texts as Rho; the measurements begin with it.");
        command.SetAction(_ =>
        {
            Run(Console.Out);
            return 0;
        });
        return command;
    }

    /// <exception cref="RhoException">They differ by more than rounding.</exception>
    internal static void Run(TextWriter? log)
    {
        foreach (var type in new[] { ComputeType.Float32, ComputeType.BFloat16 })
        {
            using var model = Weights(type);
            using var peer = Copy(model, type);
            var tokens = new int[s_sizes.Tokens];
            var random = new Random(1);
            foreach (ref var token in tokens.AsSpan()) token = random.Next(s_sizes.Vocabulary);
            Losses(model, peer, type, tokens, log);
            if (type == ComputeType.Float32) Texts(model, peer, log);
            Step(model, peer, type, tokens, log);
        }
    }

    /// <summary>Random and large enough that every part of the model counts; in float32, rounded to the type.</summary>
    private static LanguageModel Weights(ComputeType type)
    {
        var model = LanguageModel.Create(s_sizes.Config(64), seed: 3, CPU, ComputeType.Float32);
        using var guard = no_grad();
        using var scope = NewDisposeScope();
        model.Flat.add_(0.1 * randn(model.Parameters, generator: new Generator(4)));
        if (type == ComputeType.BFloat16) model.Flat.copy_(model.Flat.to(bfloat16));
        return model;
    }

    private static Llama Copy(LanguageModel model, ComputeType type)
    {
        var peer = new Llama(s_sizes, longest: 64);
        using var guard = no_grad();
        using var scope = NewDisposeScope();
        foreach (var (name, parameter) in peer.named_parameters()) parameter.copy_(Of(model, name, model.Flat));
        peer.to(type.Resolve(CPU));
        return peer;
    }

    /// <summary>A parameter of the peer in a flat buffer of Rho's.</summary>
    private static Tensor Of(LanguageModel model, string name, Tensor flat)
    {
        var span = model.Layout[name == "lm_head.weight" ? name : $"model.{name}"];
        return flat.narrow(0, span.Offset, span.Count).view(span.Shape);
    }

    private static void Losses(LanguageModel model, Llama peer, ComputeType type, int[] tokens, TextWriter? log)
    {
        var losses = new float[tokens.Length];
        ReferenceModel.Of(model.CopyTo(CPU, type.Resolve(CPU)), "none").Score(tokens, s_sizes.Batch, s_sizes.Length, [], losses, CancellationToken.None);
        using var ids = Ids(tokens);
        Compare($"{type} losses", Program.Score(peer, ids), [.. losses.Where(loss => !float.IsNaN(loss))], type == ComputeType.Float32 ? 1e-5 : 0.1, log);
    }

    private static void Texts(LanguageModel model, Llama peer, TextWriter? log)
    {
        const int Prompt = 7, Length = 27;
        using var prompts = arange(2 * Prompt).reshape(2, Prompt);
        using var decoder = DecodingModel.Create(model.CopyTo(CPU, float32), new DecodingOptions { CacheBytes = 1 << 20 });
        var made = Program.Generate(peer, s_sizes.Layers, prompts, Length - Prompt);
        for (var i = 0; i < made.Length; i++)
        {
            int[] text = [.. Enumerable.Range(i * Prompt, Prompt), .. made[i].Select(token => (int)token)];
            var batch = new ForwardBatch();
            batch.Add(text, 0, [0, 1]);
            for (var row = Prompt - 1; row < Length - 1; row++) batch.AddOutput(row);
            decoder.Forward(batch);
            var logits = new float[(Length - Prompt) * s_sizes.Vocabulary];
            decoder.Logits(0, Length - Prompt, logits);
            var most = logits.Chunk(s_sizes.Vocabulary).Select(row => (float)row.IndexOf(row.Max()));
            Compare($"generated tokens {i}", [.. text[Prompt..].Select(token => (float)token)], [.. most], 0, log);
        }
    }

    private static void Step(LanguageModel model, Llama peer, ComputeType type, int[] tokens, TextWriter? log)
    {
        var reference = new float[tokens.Length];
        var random = new Random(2);
        foreach (ref var loss in reference.AsSpan()) loss = (float)(Math.Log(s_sizes.Vocabulary) + random.NextDouble());

        using var guard = no_grad();
        using var scope = NewDisposeScope();
        var before = model.Flat.clone();
        var training = new TrainingModel(model.CopyTo(CPU, float32), new TrainingOptions { Compute = type });
        // The peer's AdamW decays norms too.
        using var optimizer = new AdamW(training.Parameters, training.Gradients, training.Layout, new OptimizerSection { DecayNorms = true });
        var selector = new TopTokens(new ExcessLoss());
        var result = training.AccumulateGradients(
            new TokenBatch(tokens, s_sizes.Batch, s_sizes.Length, null),
            (current, shares) => selector.Select(new TokenLosses { Current = current, Reference = reference, Length = s_sizes.Length }, 0.6, shares),
            new float[tokens.Length], new float[tokens.Length]);
        var scale = Math.Min(1, result.WeightSum / optimizer.GradientNorm()) / result.WeightSum;
        var gradients = training.Gradients * scale;
        optimizer.Step(1e-4, scale);

        var candidates = tensor(reference).view(s_sizes.Batch, s_sizes.Length).narrow(1, 1, s_sizes.Length - 1).reshape(-1);
        using (enable_grad()) Program.Train(peer, Program.Optimizer(peer), Ids(tokens), candidates);

        Tensor Flat(Func<TorchSharp.Modules.Parameter, Tensor> value)
        {
            var flat = zeros_like(before);
            foreach (var (name, parameter) in peer.named_parameters()) Of(model, name, flat).copy_(value(parameter));
            return flat;
        }

        CompareNorms($"{type} gradients", Flat(parameter => parameter.grad!), gradients, type == ComputeType.Float32 ? 1e-4 : 0.05, log);
        // A bfloat16 weight does not move by less than a 256th of itself: the peer's steps are not Rho's there.
        if (type == ComputeType.Float32) CompareNorms($"{type} steps", Flat(parameter => parameter) - before, training.Parameters - before, 1e-2, log);
        training.Dispose();
    }

    private static Tensor Ids(int[] tokens) => tensor(tokens, int64).view(s_sizes.Batch, s_sizes.Length);

    private static void Compare(string what, float[] peer, float[] rho, double most, TextWriter? log) =>
        Judge(what, peer.Length == rho.Length ? peer.Zip(rho, (a, b) => Math.Abs((double)a - b)).Max() : double.NaN, most, log);

    private static void CompareNorms(string what, Tensor peer, Tensor rho, double most, TextWriter? log) => Judge(what, ((peer - rho).norm() / rho.norm()).item<float>(), most, log);

    private static void Judge(string what, double difference, double most, TextWriter? log)
    {
        log?.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{what}: {difference:0.0e+0} apart, at most {most}"));
        if (!(difference <= most)) throw new RhoException(string.Create(CultureInfo.InvariantCulture, $"the TorchSharp program does not compute what Rho does: {what} are {difference:0.0e+0} apart, at most {most} is rounding"));
    }
}
