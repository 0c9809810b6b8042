using System.Text;
using System.Text.Json.Nodes;
using Rho.Model;
using TorchSharp;

namespace Rho.Training.Tests;

/// <summary>Runs that train a mixture of experts.</summary>
public sealed class MixtureTests : IDisposable
{
    private readonly World _world = new();

    public void Dispose() => _world.Dispose();

    /// <summary>A small mixture whose routers are so sure of themselves that few experts have most of the tokens.</summary>
    internal static string Uneven(World world)
    {
        var config = World.SmallModel with { ModelType = "qwen3_moe", QueryKeyNorm = true, Experts = 8, ExpertsPerToken = 2, ExpertSize = 16, NormalizedExperts = true };
        using var model = LanguageModel.Create(config, 4, torch.CPU, ComputeType.Float32);
        using (torch.no_grad())
        {
            foreach (var span in model.Layout.Spans.Where(span => span.Name.EndsWith("mlp.gate.weight", StringComparison.Ordinal)))
            {
                using var router = model.Flat.narrow(0, span.Offset, span.Count);
                router.mul_(20);
            }
        }

        model.Save(world.At("uneven"), World.Tokenizer);
        return world.At("uneven");
    }

    private async Task<List<JsonNode>> TrainAsync(string output, string from, double balance, string extra = "")
    {
        var run = _world.Run(output, "corpus", extra, steps: 30) with { Model = new ModelSection { From = from } };
        await World.RunAsync(TrainingRun.Start(run with { Loss = run.Loss with { RouterBalance = balance }, Metrics = run.Metrics with { Tensorboard = true } }));
        return [.. File.ReadLines(Path.Combine(run.Output, "metrics.jsonl")).Select(line => JsonNode.Parse(line)!).Where(line => line["event"]!.GetValue<string>() == "step")];
    }

    [Theory]
    [InlineData("")]
    [InlineData("\"objective\": { \"kind\": \"slm\", \"ratio\": 0.3, \"selector\": { \"by\": \"current_loss\" } },")]
    public async Task Run_RouterBalance_EndsMoreBalancedThanWithout(string objective)
    {
        _world.Corpus("corpus", [60, 60], padded: true);
        var from = Uneven(_world);
        // So small a weight that it is measured only.
        var without = await TrainAsync("without", from, 1e-12, objective);
        var with = await TrainAsync("with", from, 1, objective);
        double Mean(IEnumerable<JsonNode> steps, string field) => steps.TakeLast(5).Average(step => step[field]!.GetValue<double>());
        Assert.Equal(without[0]["router_balance"]!.GetValue<double>(), with[0]["router_balance"]!.GetValue<double>());
        Assert.InRange(Mean(with, "router_balance"), 2 - 1e-9, 2 + ((Mean(without, "router_balance") - 2) / 2));
        Assert.InRange(Mean(with, "busiest_expert_share"), 1.0 / 8, 0.9 * Mean(without, "busiest_expert_share"));
        // Balance does not come instead of learning.
        Assert.True(Mean(with, "all_loss") < with[0]["all_loss"]!.GetValue<double>() - 0.3);
        var events = Encoding.Latin1.GetString(await File.ReadAllBytesAsync(Directory.EnumerateFiles(Path.Combine(_world.At("with"), "tensorboard")).Single(), TestContext.Current.CancellationToken));
        foreach (var tag in new[] { "router/balance", "router/busiest_expert_share" }) Assert.Contains(tag, events, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Run_WithoutRouterBalance_HasNoSuchMetrics()
    {
        _world.Corpus("corpus", [60, 60]);
        foreach (var step in await TrainAsync("out", Uneven(_world), 0))
        {
            Assert.Null(step["router_balance"]);
            Assert.Null(step["busiest_expert_share"]);
        }
    }

    [Fact]
    public async Task Run_RouterBalanceOfAModelWithoutExperts_IsRefused()
    {
        var run = _world.Run("out", _world.Corpus("corpus", [40])) with { Loss = new LossSection { RouterBalance = 0.01 } };
        var error = await Assert.ThrowsAnyAsync<RhoException>(() => World.RunAsync(TrainingRun.Start(run)));
        Assert.Contains("loss.router_balance is 0.01, but a model of type llama has no experts", error.Message, StringComparison.Ordinal);
        Assert.False(Directory.Exists(run.Output));
    }

    /// <summary>A token is multiplied with 6 N: of a mixture, N without the experts that it does not take.</summary>
    [Fact]
    public void FlopsPerToken_OfAMixture_CountsTheExpertsThatATokenTakes()
    {
        using var model = LanguageModel.Load(Uneven(_world), torch.CPU, ComputeType.Float32);
        var (one, attention) = (3L * 32 * 16, 12.0 * 2 * 4 * 8 * World.Length);
        Assert.Equal(model.Parameters - (2 * 6 * one), model.ActiveParameters);
        Assert.Equal((6 * (model.Parameters - (2 * 6 * one) - (290 * 32))) + attention, RunPlan.FlopsPerToken(model.Config, model.ActiveParameters, World.Length));
    }
}
