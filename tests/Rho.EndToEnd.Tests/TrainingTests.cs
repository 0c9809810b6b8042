using System.Collections.Concurrent;
using System.Net;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;
using Rho.Cli.Quickstart;

namespace Rho.EndToEnd.Tests;

/// <summary>Runs through the executable: exact resume, scores over the wire, the model served, and what malformed run files say.</summary>
[Collection(WorkshopCollection.Name)]
public sealed class TrainingTests(Workshop workshop) : IDisposable
{
    private const int Steps = 24;

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task Train_KilledAndResumed_EqualsUninterruptedBitForBit()
    {
        var (scorer, address) = await Services.StartScorerAsync(workshop.Reference, "--cache", _folder["cache"]);
        await using var _ = scorer;

        // A checkpoint every other step; killed once two of them are there.
        void Edit(JsonObject run)
        {
            UseScorer(run, address);
            run["checkpoints"] = new JsonObject { ["every_steps"] = 2, ["keep_last"] = 2 };
        }

        var (steps, _, _) = await InterruptAsync("killed", Edit, HasTwoCheckpoints, signal: 9);
        await RhoProgram.SucceedAsync("train", "--resume", _folder["killed"]);
        await RhoProgram.SucceedAsync("train", WriteRun("whole", run => UseScorer(run, address), steps));
        AssertSameModel("whole", "killed");
    }

    [Fact]
    public async Task Train_Terminated_WritesCheckpointAndSaysHowToGoOn()
    {
        var (steps, exitCode, output) = await InterruptAsync(
            "stopped",
            run => run["checkpoints"] = new JsonObject { ["every_steps"] = 0 },
            name => File.Exists(Metrics(name)) && File.ReadAllLines(Metrics(name)).Length > 4,
            signal: 15);
        Assert.Equal(143, exitCode);
        Assert.Contains($"rho train --resume {_folder["stopped"]}", output, StringComparison.Ordinal);
        await RhoProgram.SucceedAsync("train", "--resume", _folder["stopped"]);
        await RhoProgram.SucceedAsync("train", WriteRun("whole", _ => { }, steps));
        AssertSameModel("whole", "stopped");
    }

    [Fact]
    public async Task Train_FromScorerAndFromScoreFiles_SameModel()
    {
        var (scorer, address) = await Services.StartScorerAsync(workshop.Reference, "--cache", _folder["cache"]);
        await using (scorer)
        {
            await RhoProgram.SucceedAsync("train", WriteRun("streamed", run => UseScorer(run, address)));
            await RhoProgram.SucceedAsync("score", "--corpus", workshop.CorpusFolder, "--scorer", address, "--out", _folder["scores"]);
        }

        await RhoProgram.SucceedAsync("train", WriteRun("files", run => UseSource(run, new JsonObject { ["scores"] = _folder["scores"] })));
        AssertSameModel("streamed", "files");
    }

    /// <summary>A collector that keeps what is sent by OTLP over HTTP; names travel as plain text within the protobuf messages.</summary>
    [Fact]
    public async Task Train_OtlpEndpointInTheEnvironment_SendsSpansAndMetrics()
    {
        var received = new ConcurrentDictionary<string, string>(StringComparer.Ordinal);
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.WebHost.ConfigureKestrel(kestrel => kestrel.Listen(IPAddress.Loopback, 0));
        await using var collector = builder.Build();
        collector.MapPost("/v1/{signal}", async (string signal, HttpContext context) =>
        {
            using var body = new MemoryStream();
            await context.Request.Body.CopyToAsync(body);
            received.AddOrUpdate($"{signal} {context.Request.ContentType}", _ => Encoding.Latin1.GetString(body.ToArray()), (_, before) => before + Encoding.Latin1.GetString(body.ToArray()));
            context.Response.ContentType = "application/x-protobuf";
        });
        await collector.StartAsync().WaitAsync(RhoProgram.Patience);

        var result = await RhoProgram.RunAsync(["train", WriteRun("told", _ => { })], new Dictionary<string, string>(StringComparer.Ordinal)
        {
            ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.Urls.Single(),
            ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf",
            ["OTEL_RESOURCE_ATTRIBUTES"] = "deployment.environment=trial",
        });
        Assert.True(result.ExitCode == 0, result.Error);
        await collector.StopAsync().WaitAsync(RhoProgram.Patience);

        var traces = received["traces application/x-protobuf"];
        foreach (var name in new[] { "rho-train", "trial", "training.run", "training.step", "training.evaluation", "training.checkpoint" }) Assert.Contains(name, traces, StringComparison.Ordinal);
        var metrics = received["metrics application/x-protobuf"];
        foreach (var name in new[] { "rho-train", "rho.training.loss", "rho.training.tokens", "rho.training.step.duration", "rho.training.held_out_loss", "clean" }) Assert.Contains(name, metrics, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Train_CollectorIsAway_TrainsAllTheSame()
    {
        var result = await RhoProgram.RunAsync(["train", WriteRun("untold", _ => { })], new Dictionary<string, string>(StringComparer.Ordinal) { ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:1" });
        Assert.True(result.ExitCode == 0, result.Error);
        Assert.True(Directory.Exists(_folder["untold/final"]));
    }

    [Fact]
    public async Task Serve_TrainedModel_AnswersOverHttpAndThroughGenerate()
    {
        await RhoProgram.SucceedAsync("train", WriteRun("run", _ => { }));
        var addresses = (Grpc: "", Http: "");
        var server = RhoProgram.Start(
            line =>
            {
                if (!line.StartsWith("listening on ", StringComparison.Ordinal)) return null;
                var words = line.Split(' ');
                addresses = (words[Array.IndexOf(words, "(gRPC)") - 1], words[Array.IndexOf(words, "(HTTP)") - 1]);
                return line;
            },
            "serve", "--model", $"tiny={_folder["run"]}/final", "--grpc", "0", "--http", "0", "--cache-mib", "16");
        await using (server)
        {
            await server.ReadyAsync(TimeSpan.FromSeconds(60), CancellationToken.None);
            using var http = new HttpClient { BaseAddress = new Uri(addresses.Http), Timeout = TimeSpan.FromSeconds(60) };
            using var content = new StringContent("""{"model": "tiny", "prompt": "Question: What is", "max_tokens": 12, "temperature": 0}""", System.Text.Encoding.UTF8, "application/json");
            using var response = await http.PostAsync("/v1/completions", content);
            using var body = JsonDocument.Parse(await response.Content.ReadAsStringAsync());
            var overHttp = body.RootElement.GetProperty("choices")[0].GetProperty("text").GetString();

            var generated = await RhoProgram.SucceedAsync("generate", "--server", addresses.Grpc, "--prompt", "Question: What is", "--max-tokens", "12");
            Assert.Equal(overHttp + "\n", generated);

            server.Signal(15);
            await server.WaitForExitAsync(Patience());
            Assert.Equal(0, server.ExitCode);
        }
    }

    [Fact]
    public async Task Generate_NoServer_SaysSo() =>
        Assert.Contains("127.0.0.1:1: no server answers", await RhoProgram.FailAsync("generate", "--server", "127.0.0.1:1", "--prompt", "a"), StringComparison.Ordinal);

    [Theory]
    [InlineData("objective", """{ "kind": "slm", "ratio": 1.5 }""", "objective.ratio")]
    [InlineData("steps", "\"many\"", "steps")]
    [InlineData("stepz", "3", "stepz")]
    [InlineData("model", """{ "from": "/nowhere" }""", "/nowhere")]
    public async Task Train_MalformedRunFile_NamesTheField(string field, string value, string expected)
    {
        var message = await RhoProgram.FailAsync("train", WriteRun("run", run => run[field] = JsonNode.Parse(value)));
        Assert.Contains(expected, message, StringComparison.Ordinal);
        Assert.False(Directory.Exists(Path.Combine(_folder["run"], "final")));
    }

    [Fact]
    public async Task Train_BrokenJson_NamesFileAndLine()
    {
        await File.WriteAllTextAsync(_folder["run.json"], "{\n  \"output\": oops\n}");
        var message = await RhoProgram.FailAsync("train", _folder["run.json"]);
        Assert.Contains(_folder["run.json"], message, StringComparison.Ordinal);
        Assert.Contains("line 2", message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Train_ScorerUnreachable_NamesTheAddressAndLeavesNoModel()
    {
        var message = await RhoProgram.FailAsync("train", WriteRun("run", run => UseScorer(run, "127.0.0.1:1")));
        Assert.Contains("127.0.0.1:1", message, StringComparison.Ordinal);
        Assert.False(Directory.Exists(Path.Combine(_folder["run"], "final")));
    }

    [Fact]
    public async Task Train_TwoThingsOrNone_IsWrongUsage()
    {
        Assert.Equal(2, (await RhoProgram.RunAsync("train")).ExitCode);
        Assert.Equal(2, (await RhoProgram.RunAsync("train", "run.json", "--resume", "runs")).ExitCode);
    }

    /// <summary>
    /// Starts a run and sends it a signal once it is ready for it. A run that was at its end before the signal came is made anew
    /// with more steps. Returns the steps, and what the interrupted process left.
    /// </summary>
    private async Task<(int Steps, int ExitCode, string Output)> InterruptAsync(string name, Action<JsonObject> edit, Func<string, bool> ready, int signal)
    {
        using var patience = new CancellationTokenSource(RhoProgram.Patience);
        for (var steps = Steps; ; steps *= 4)
        {
            var process = RhoProgram.Start(line => null, "train", WriteRun(name, edit, steps));
            await using (process)
            {
                while (!process.HasExited && !ready(name)) await Task.Delay(5, patience.Token);
                process.Signal(signal);
                await process.WaitForExitAsync(patience.Token);
                if (!Directory.Exists(Path.Combine(_folder[name], "final"))) return (steps, process.ExitCode, process.Output);
            }

            Directory.Delete(_folder[name], recursive: true);
        }
    }

    private string WriteRun(string name, Action<JsonObject> edit, int steps = Steps)
    {
        var run = new JsonObject
        {
            ["output"] = _folder[name],
            ["model"] = new JsonObject
            {
                ["config"] = new JsonObject { ["hidden_size"] = 64, ["layers"] = 2, ["heads"] = 2 },
                ["tokenizer"] = workshop.TokenizerFolder,
            },
            ["data"] = new JsonObject { ["corpora"] = new JsonArray(new JsonObject { ["path"] = workshop.CorpusFolder }) },
            ["batch"] = new JsonObject { ["sequences"] = 4 },
            ["steps"] = steps,
            ["schedule"] = new JsonObject { ["learning_rate"] = 0.003, ["warmup_steps"] = 2 },
            ["evaluation"] = new JsonObject { ["every_steps"] = 6, ["sets"] = new JsonArray(new JsonObject { ["name"] = "clean", ["corpus"] = workshop.HeldOutFolder, ["max_sequences"] = 4 }) },
        };
        edit(run);
        File.WriteAllText(_folder[$"{name}.json"], run.ToJsonString());
        return _folder[$"{name}.json"];
    }

    private static void UseScorer(JsonObject run, string address) => UseSource(run, new JsonObject { ["scorers"] = new JsonArray(address) });

    private static void UseSource(JsonObject run, JsonObject source)
    {
        run["objective"] = new JsonObject { ["kind"] = "slm", ["ratio"] = 0.5 };
        run["reference"] = new JsonObject { ["sources"] = new JsonArray(source) };
    }

    private void AssertSameModel(string expected, string actual)
    {
        var path = Path.Combine("final", "model.safetensors");
        Assert.True(
            File.ReadAllBytes(Path.Combine(_folder[expected], path)).AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(_folder[actual], path))),
            $"the model of {actual} is not that of {expected}");
    }

    private string Metrics(string name) => Path.Combine(_folder[name], "metrics.jsonl");

    private bool HasTwoCheckpoints(string name)
    {
        var checkpoints = Path.Combine(_folder[name], "checkpoints");
        return Directory.Exists(checkpoints) && Directory.EnumerateDirectories(checkpoints).Count(path => !path.EndsWith(".tmp", StringComparison.Ordinal)) >= 2;
    }

    private static CancellationToken Patience() => new CancellationTokenSource(RhoProgram.Patience).Token;
}
