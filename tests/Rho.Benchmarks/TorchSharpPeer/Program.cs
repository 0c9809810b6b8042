using System.CommandLine;
using System.Globalization;
using TorchSharp;
using TorchSharp.Modules;
using static TorchSharp.torch;

namespace Rho.Benchmarks.TorchSharpPeer;

/// <summary>
/// The peer on the same libtorch: scoring, training steps and generation as TorchSharp's users write them, after torch_llama.py. Measured in a
/// process of its own with the options of <see cref="Worker"/>.
/// </summary>
/// <remarks>
/// In bfloat16 the weights are bfloat16 and so are, as in torch_llama.py, the gradients and both moments: TorchSharp's AdamW makes moments of
/// its parameters' type. Losses are float32 in both. Rho keeps
/// float32 weights with a bfloat16 copy, float32 gradients and float32 moments: 18 bytes a parameter against 8 here.
/// </remarks>
internal static class Program
{
    private const int Prompt = 64;
    private const int NewTokens = 64;
    private const double Ratio = 0.6;

    internal static Command Command()
    {
        var (sizes, length, batch) = (Sizes.One(), Sizes.LengthOption(), Sizes.BatchOption());
        var dtype = new Option<string>("--dtype") { DefaultValueFactory = _ => "float32" };
        var mode = new Option<string>("--mode") { DefaultValueFactory = _ => "score" };
        var steps = new Option<int>("--steps") { DefaultValueFactory = _ => 7 };
        var command = new Command("peer", "One figure of the TorchSharp program, measured in this process") { sizes, dtype, mode, steps, length, batch };
        command.Hidden = true;
        command.SetAction(result => Run(
            Sizes.All[result.GetValue(sizes)!].With(result.GetValue(length), result.GetValue(batch)),
            result.GetValue(dtype) == "bfloat16" ? bfloat16 : float32, result.GetValue(mode)!, result.GetValue(steps)));
        return command;
    }

    private static int Run(Sizes sizes, ScalarType dtype, string mode, int steps)
    {
        Rho.Torch.LibTorch.Load();
        set_num_threads(Environment.ProcessorCount);
        random.manual_seed(0);
        var generated = mode.StartsWith("generate-batch-", StringComparison.Ordinal) ? int.Parse(mode["generate-batch-".Length..], CultureInfo.InvariantCulture) : 0;
        using var model = new Llama(sizes, Math.Max(sizes.Length, Prompt + NewTokens));
        model.to(dtype);
        using var optimizer = mode is "clm" or "slm-cached" ? Optimizer(model) : null;
        using var ids = randint(sizes.Vocabulary, [sizes.Batch, sizes.Length]);
        using var reference = Math.Log(sizes.Vocabulary) + rand(sizes.Batch * (sizes.Length - 1));
        using var prompt = randint(sizes.Vocabulary, [1, Prompt]);
        using var prompts = prompt.repeat(Math.Max(generated, 1), 1);
        Action step = mode switch
        {
            "score" => () => Score(model, ids),
            "clm" => () => Train(model, optimizer!, ids, reference: null),
            "slm-cached" => () => Train(model, optimizer!, ids, reference),
            _ when generated > 0 => () => Generate(model, sizes.Layers, prompts, NewTokens),
            _ => throw new RhoException($"--mode {mode}: there is score, clm, slm-cached and generate-batch-N"),
        };
        Measuring.Report(mode, generated > 0 ? generated * NewTokens : sizes.Tokens, steps, step);
        return 0;
    }

    internal static AdamW Optimizer(Llama model) => optim.AdamW(model.parameters(), lr: 1e-4, beta1: 0.9, beta2: 0.95, weight_decay: 0.1);

    /// <summary>Losses of all tokens but each sequence's first, in nats. [B, T] to [B * (T - 1)]</summary>
    internal static float[] Score(Llama model, Tensor ids)
    {
        using var mode = inference_mode();
        using var scope = NewDisposeScope();
        return TokenLosses(model, ids).data<float>().ToArray();
    }

    /// <summary>A step on all tokens, or on those whose losses exceed the reference's most.</summary>
    internal static void Train(Llama model, AdamW optimizer, Tensor ids, Tensor? reference)
    {
        using var scope = NewDisposeScope();
        model.zero_grad();
        var losses = TokenLosses(model, ids);
        Tensor loss;
        if (reference is null)
        {
            loss = losses.mean();
        }
        else
        {
            var excess = losses.detach() - reference;
            var (_, chosen) = excess.topk((int)(excess.NumberOfElements * Ratio));
            var mask = zeros_like(excess).index_fill_(0, chosen, 1);
            loss = (losses * mask).sum() / mask.sum();
        }

        loss.backward();
        nn.utils.clip_grad_norm_(model.parameters(), 1.0);
        optimizer.step();
    }

    /// <summary>Greedy continuations. [B, prompt] to [B][newTokens]</summary>
    internal static long[][] Generate(Llama model, int layers, Tensor prompts, int newTokens)
    {
        using var mode = inference_mode();
        using var cache = new KeyValueCache(layers);
        var texts = Enumerable.Range(0, (int)prompts.shape[0]).Select(_ => new long[newTokens]).ToArray();
        var (token, position) = (prompts.alias(), 0L);
        for (var i = 0; i < newTokens; i++)
        {
            using var scope = NewDisposeScope();
            var next = model.forward(token, position, cache).argmax(-1).MoveToOuterDisposeScope(); // [B, 1]
            position += token.shape[1];
            token.Dispose();
            token = next;
            var made = token.data<long>();
            for (var b = 0; b < texts.Length; b++) texts[b][i] = made[b];
        }

        token.Dispose();
        return texts;
    }

    private static Tensor TokenLosses(Llama model, Tensor ids)
    {
        using var scope = NewDisposeScope();
        var logits = model.forward(ids, 0, null).narrow(1, 0, ids.shape[1] - 1);
        var targets = ids.narrow(1, 1, ids.shape[1] - 1);
        return nn.functional.cross_entropy(logits.reshape(-1, logits.shape[2]).to(float32), targets.reshape(-1), reduction: nn.Reduction.None).MoveToOuterDisposeScope();
    }
}
