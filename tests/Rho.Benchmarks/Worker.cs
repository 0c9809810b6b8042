using System.CommandLine;
using System.Globalization;
using Rho.Model;
using Rho.Selection;
using Rho.Torch;
using Rho.Training;
using static TorchSharp.torch;

namespace Rho.Benchmarks;

/// <summary>Measures one mode of this implementation in a process of its own, as the peer does, and prints the same line.</summary>
internal static class Worker
{
    internal static Command Command()
    {
        var sizes = Sizes.One();
        var dtype = new Option<string>("--dtype") { DefaultValueFactory = _ => "float32" };
        var mode = new Option<string>("--mode") { DefaultValueFactory = _ => "score" };
        var steps = new Option<int>("--steps") { DefaultValueFactory = _ => 7 };
        var device = new Option<string>("--device") { DefaultValueFactory = _ => "cpu" };
        var ratio = new Option<double>("--ratio") { Description = "Share of the tokens that a selective step keeps", DefaultValueFactory = _ => 0.6 };
        var backward = new Option<BackwardRows>("--backward");
        var (length, batch) = (Sizes.LengthOption(), Sizes.BatchOption());
        var command = new Command("worker", "One figure, measured in this process") { sizes, dtype, mode, steps, length, batch, device, ratio, backward };
        command.Hidden = true;
        command.SetAction(result => Run(
            Sizes.All[result.GetValue(sizes)!].With(result.GetValue(length), result.GetValue(batch)), result.GetValue(dtype)!, result.GetValue(mode)!, result.GetValue(steps),
            Devices.Resolve(result.GetValue(device)!), result.GetValue(ratio), result.GetValue(backward)));
        return command;
    }

    private static int Run(Sizes sizes, string dtype, string mode, int steps, Device device, double ratio, BackwardRows backward)
    {
        set_num_threads(Environment.ProcessorCount);
        var config = sizes.Config(sizes.Length);
        var compute = dtype == "bfloat16" ? ComputeType.BFloat16 : ComputeType.Float32;
        var random = new Random(0);
        var tokens = new int[sizes.Tokens];
        foreach (ref var token in tokens.AsSpan()) token = random.Next(sizes.Vocabulary);
        Action step;
        var made = sizes.Tokens;
        if (mode.StartsWith("generate-batch-", StringComparison.Ordinal))
        {
            (step, made) = GenerationSpeed.Step(config, compute, device, int.Parse(mode["generate-batch-".Length..], CultureInfo.InvariantCulture));
        }
        else if (mode == "score")
        {
            var reference = ReferenceModel.Of(LanguageModel.Create(config, 0, device, compute), "none");
            var losses = new float[tokens.Length];
            step = () => reference.Score(tokens, sizes.Batch, sizes.Length, [], losses, CancellationToken.None);
        }
        else
        {
            step = TrainingStep(config, compute, device, new TokenBatch(tokens, sizes.Batch, sizes.Length, null), ratio: mode == "slm-cached" ? ratio : 1, backward, random);
        }

        Measuring.Report(mode, made, steps, step);
        return 0;
    }

    private static Action TrainingStep(ModelConfig config, ComputeType compute, Device device, TokenBatch batch, double ratio, BackwardRows backward, Random random)
    {
        var model = new TrainingModel(LanguageModel.Create(config, 0, device, ComputeType.Float32), new TrainingOptions { Compute = compute, Backward = backward });
        var optimizer = new AdamW(model.Parameters, model.Gradients, model.Layout, new OptimizerSection());
        var reference = new float[batch.Tokens.Length];
        foreach (ref var loss in reference.AsSpan()) loss = (float)(Math.Log(config.VocabularySize) + random.NextDouble());
        var (losses, weights) = (new float[reference.Length], new float[reference.Length]);
        var selector = new TopTokens(new ExcessLoss());
        TokenWeighting weighting = (current, shares) =>
            selector.Select(new TokenLosses { Current = current, Reference = reference, Length = batch.Length }, ratio, shares);
        return () =>
        {
            var result = model.AccumulateGradients(batch, weighting, losses, weights);
            // Clipped at norm 1 of the mean gradient, as the peer does.
            var norm = optimizer.GradientNorm() / result.WeightSum;
            optimizer.Step(1e-4, Math.Min(1, 1 / norm) / result.WeightSum);
            model.WeightsChanged();
        };
    }
}
