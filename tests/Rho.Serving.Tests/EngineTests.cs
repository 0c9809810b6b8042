using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using Rho.Hosting;
using Rho.Model;
using Rho.Model.Inference;
using Rho.Serving.Engine;
using Rho.Tokenization;

namespace Rho.Serving.Tests;

public sealed class EngineTests
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(60);

    [Fact]
    public async Task Generate_AloneOrAmongFifty_GivesTheSameTokens()
    {
        await using var engine = Create();
        var requests = Enumerable.Range(0, 50).Select(i => Request(i, i % 3 == 0 ? 0 : 0.9f)).ToArray();
        var alone = new List<int[]>();
        foreach (var request in requests) alone.Add(await TokensAsync(engine.Submit(request)));
        var together = await Task.WhenAll(requests.Select(engine.Submit).ToArray().Select(TokensAsync));
        for (var i = 0; i < requests.Length; i++) Assert.Equal(alone[i], together[i]);
    }

    [Fact]
    public async Task Generate_WithFewBlocks_PreemptsAndStillGivesTheSameTokens()
    {
        var requests = Enumerable.Range(0, 12).Select(i => Request(i, i % 2 == 0 ? 0 : 0.8f, newTokens: 80)).ToArray();
        await using var roomy = Create();
        var expected = await Task.WhenAll(requests.Select(roomy.Submit).ToArray().Select(TokensAsync));

        // 24 blocks: about four of the twelve at a time, and less as they grow.
        await using var tight = Create(blocks: 24);
        var generations = requests.Select(tight.Submit).ToArray();
        var actual = await Task.WhenAll(generations.Select(TokensAsync));
        for (var i = 0; i < requests.Length; i++) Assert.Equal(expected[i], actual[i]);
        Assert.True(tight.Preemptions > 0);
        Assert.Equal(24, tight.State.Blocks);
        await IdleAsync(tight);
    }

    [Fact]
    public async Task Generate_AgainWithTheSameBeginning_ReusesItAndGivesTheSameTokens()
    {
        await using var engine = Create();
        await using var forgetful = Create(new EngineOptions { ReusePrefixes = false });
        var prompt = Prompt(3, 100);
        var request = new GenerationRequest { Prompt = prompt, Sampling = new SamplingSettings { Temperature = 0, MaxTokens = 30 } };
        var expected = await TokensAsync(forgetful.Submit(request));
        Assert.Equal(expected, await TokensAsync(engine.Submit(request)));
        var second = engine.Submit(request);
        Assert.Equal(expected, await TokensAsync(second));
        Assert.Equal(96, second.Usage.CachedPromptTokens);

        // With other tokens after 50 only the blocks before are reused.
        int[] changed = [.. prompt[..50], .. Prompt(9, 50)];
        var third = engine.Submit(request with { Prompt = changed });
        Assert.Equal(await TokensAsync(forgetful.Submit(request with { Prompt = changed })), await TokensAsync(third));
        Assert.Equal(48, third.Usage.CachedPromptTokens);
    }

    /// <summary>Each token is the likeliest after all before it, with the angles of a sequence of their number.</summary>
    [Fact]
    public async Task Generate_LongRope_BeyondTheOriginalContext_IsComputedAnew()
    {
        var folder = TestModels.LongRope(original: 48);
        await using var engine = Create(folder: folder);
        await using var forgetful = Create(new EngineOptions { ReusePrefixes = false, MaxStepTokens = 32 }, folder: folder);
        using var decoder = DecodingModel.Create(LanguageModel.Load(folder, TorchSharp.torch.CPU, ComputeType.Float32), new DecodingOptions { CacheBytes = 4 << 20 });
        Assert.Equal(48, decoder.RecomputeBeyond);
        async Task CheckAsync(InferenceEngine by, int[] prompt, int cached)
        {
            var generation = by.Submit(new GenerationRequest { Prompt = prompt, Sampling = new SamplingSettings { Temperature = 0, MaxTokens = 40, IgnoreEos = true } });
            var tokens = await TokensAsync(generation);
            Assert.Equal(40, tokens.Length);
            Assert.Equal(cached, generation.Usage.CachedPromptTokens);
            List<int> all = [.. prompt];
            var logits = new float[decoder.Config.VocabularySize];
            foreach (var token in tokens)
            {
                var batch = new ForwardBatch();
                batch.AddOutput(batch.Add(all.ToArray(), 0, [.. Enumerable.Range(0, 10)]) + all.Count - 1);
                decoder.Forward(batch);
                decoder.Logits(0, 1, logits);
                Assert.Equal(Kernels.Softmax.IndexOfMax(logits), token);
                all.Add(token);
            }
        }

        await CheckAsync(engine, Prompt(3, 30), cached: 0);
        await CheckAsync(engine, Prompt(3, 30), cached: 16);
        // A prompt that goes beyond it takes nothing that was computed for a shorter sequence, but of those that have grown so long.
        int[] other = [.. Prompt(3, 30)[..16], .. Prompt(8, 60)];
        await CheckAsync(engine, other, cached: 16);
        await CheckAsync(engine, [.. Prompt(5, 40), .. Prompt(6, 30)], cached: 0);
        await CheckAsync(engine, Prompt(5, 40), cached: 0);
        await CheckAsync(engine, [.. Prompt(5, 40), .. Prompt(6, 30)], cached: 64);
        await CheckAsync(forgetful, Prompt(3, 30), cached: 0);
        await CheckAsync(forgetful, other, cached: 0);
        Assert.Equal(0, engine.Preemptions);
        await IdleAsync(engine);
    }

    [Fact]
    public async Task Score_AfterTheCacheHoldsThePrompt_EqualsTheFirstScoreAndIsWhole()
    {
        await using var engine = Create(new EngineOptions { MaxStepTokens = 64, LogitsBytes = 1 << 14 });
        var request = new GenerationRequest { Prompt = Prompt(4, 150), Sampling = new SamplingSettings { MaxTokens = 0 }, PromptLogProbabilities = 2 };
        var first = await ChunksAsync(engine.Submit(request));
        await TokensAsync(engine.Submit(request with { PromptLogProbabilities = null, Sampling = new SamplingSettings { MaxTokens = 5 } }));
        var second = await ChunksAsync(engine.Submit(request));
        var scores = first.SelectMany(chunk => chunk.Tokens).ToArray();
        Assert.Equal(request.Prompt, scores.Select(score => score.Token));
        Assert.True(float.IsNaN(scores[0].LogProbability));
        Assert.All(scores.Skip(1), score => Assert.InRange(score.LogProbability, -100, 0));
        Assert.Equal(scores.Skip(1).Select(score => score.LogProbability), second.SelectMany(chunk => chunk.Tokens).Skip(1).Select(score => score.LogProbability));
        Assert.Equal(FinishReason.Length, first[^1].Finish);
    }

    [Fact]
    public async Task Cancel_FreesTheBlocksWithinAStep()
    {
        var gate = new EngineGate();
        gate.Hold();
        await using var engine = Create(time: gate);
        var others = engine.Submit(Request(1, 0, newTokens: 300));
        var generation = engine.Submit(Request(2, 0, newTokens: 400));
        gate.Hold(readings: 30);
        await using (var chunks = generation.ReadAsync().GetAsyncEnumerator())
        {
            Assert.True(await chunks.MoveNextAsync());
            await TestServer.UntilAsync(() => engine.State.Running == 2);
            gate.Hold();
        }

        // Leaving the loop cancelled it. The step under way ends, and before the next it is gone, while the other runs on. The clock is
        // read several times in a step, and given free one reading at a time: no more than one further step can be missed.
        var steps = engine.Steps;
        await TestServer.UntilAsync(() =>
        {
            if (engine.State.Running == 1) return true;
            gate.Hold(readings: 1);
            return false;
        });
        Assert.InRange(engine.Steps - steps, 0, 2);
        gate.Open();
        others.Cancel();
        await IdleAsync(engine);
    }

    [Fact]
    public async Task Submit_QueueFull_IsOverloadedUntilThereIsRoom()
    {
        var gate = new EngineGate();
        gate.Hold(readings: 20);
        await using var engine = Create(new EngineOptions { MaxSequences = 1, MaxWaitingRequests = 2, MaxWaitingTokens = 60 }, time: gate);
        var running = engine.Submit(Request(1, 0, newTokens: 400));
        await using var chunks = running.ReadAsync().GetAsyncEnumerator();
        Assert.True(await chunks.MoveNextAsync());
        var waiting = engine.Submit(Request(2, 0, newTokens: 2));
        var tokens = Assert.Throws<OverloadedException>(() => engine.Submit(new GenerationRequest { Prompt = Prompt(1, 100) }));
        Assert.Contains("prompt tokens wait", tokens.Message, StringComparison.Ordinal);
        Assert.InRange(tokens.RetryAfter.TotalSeconds, 1, 60);
        var choices = new GenerationRequest { Prompt = Prompt(1, 10), Sampling = new SamplingSettings { Choices = 8 } };
        Assert.Contains("80 more", Assert.Throws<OverloadedException>(() => engine.Submit(choices)).Message, StringComparison.Ordinal);
        engine.Submit(Request(3, 0, newTokens: 2));
        Assert.Contains("2 requests wait", Assert.Throws<OverloadedException>(() => engine.Submit(Request(4, 0))).Message, StringComparison.Ordinal);
        running.Cancel();
        gate.Open();
        Assert.Equal(2, (await TokensAsync(waiting)).Length);
    }

    [Fact]
    public async Task UnreadAnswer_HoldsItsSequence_AndNoOther()
    {
        await using var engine = Create(new EngineOptions { MaxUnreadChunks = 8 });
        var request = Request(1, 0, newTokens: 200);
        var unread = engine.Submit(request);
        var expected = await TokensAsync(engine.Submit(request));
        Assert.Equal(200, expected.Length);
        Assert.InRange(unread.Usage.CompletionTokens, 1, 9);
        Assert.Equal(1, engine.Unfinished);
        Assert.Equal(expected, await TokensAsync(unread));
    }

    [Fact]
    public async Task Schedule_PriorityFirst_ThenFairBetweenClients()
    {
        var gate = new EngineGate();
        gate.Hold(readings: 10);
        await using var engine = Create(new EngineOptions { MaxSequences = 1, ReusePrefixes = false }, time: gate);
        var blocker = engine.Submit(Request(0, 0, newTokens: 60));
        var requests = new List<(string Name, Generation Generation)>();
        void Add(string name, string client, int priority) =>
            requests.Add((name, engine.Submit(Request(1, 0, newTokens: 8) with { Client = client, Priority = priority })));

        // One client with many requests, another that comes later with one, and an urgent one last.
        for (var i = 0; i < 4; i++) Add($"many{i}", "many", 0);
        Add("single", "single", 0);
        Add("urgent", "many", 5);
        gate.Open();
        await TokensAsync(blocker);
        foreach (var (_, generation) in requests) await TokensAsync(generation);
        var order = requests.OrderBy(request => request.Generation.FirstToken).Select(request => request.Name).ToList();
        Assert.Equal("urgent", order[0]);
        Assert.True(order.IndexOf("single") <= 2, string.Join(' ', order));
        Assert.Equal(order.Where(name => name.StartsWith("many", StringComparison.Ordinal)).Order(StringComparer.Ordinal), order.Where(name => name.StartsWith("many", StringComparison.Ordinal)));
    }

    [Fact]
    public async Task LongPrompt_DoesNotStallThoseThatRun()
    {
        var gate = new EngineGate();
        gate.Hold();
        await using var engine = Create(new EngineOptions { MaxStepTokens = 32, MaxSequences = 8 }, context: 2048, time: gate);
        var running = engine.Submit(Request(1, 0, newTokens: 200));
        var longOne = engine.Submit(new GenerationRequest { Prompt = Prompt(2, 1500), Sampling = new SamplingSettings { MaxTokens = 1, Temperature = 0 } });
        gate.Open();
        await TokensAsync(longOne);
        await TokensAsync(running);
        // Pieces of the long prompt took part in steps that gave the other its tokens: they cost no steps of their own.
        Assert.Equal(200, running.Usage.CompletionTokens);
        Assert.True(running.FirstToken < longOne.FirstToken);
        Assert.InRange(engine.Steps, 200, 203);
    }

    [Fact]
    public async Task Sampling_Settings_DoWhatTheySay()
    {
        await using var engine = Create();
        var prompt = Prompt(5, 20);
        async Task<int[]> Draw(SamplingSettings settings) => await TokensAsync(engine.Submit(new GenerationRequest { Prompt = prompt, Sampling = settings with { MaxTokens = settings.MaxTokens ?? 40, IgnoreEos = true } }));

        var greedy = await Draw(new SamplingSettings { Temperature = 0 });
        Assert.Equal(greedy, await Draw(new SamplingSettings { Temperature = 1, TopK = 1 }));
        Assert.Equal(greedy, await Draw(new SamplingSettings { Temperature = 1, TopP = 1e-6f }));
        Assert.Equal(greedy, await Draw(new SamplingSettings { Temperature = 1, MinP = 1 }));
        Assert.Equal(greedy, await Draw(new SamplingSettings { Temperature = 0.001f }));
        var seeded = await Draw(new SamplingSettings { Seed = 42 });
        Assert.Equal(seeded, await Draw(new SamplingSettings { Seed = 42 }));
        Assert.NotEqual(seeded, await Draw(new SamplingSettings { Seed = 43 }));
        Assert.NotEqual(await Draw(new SamplingSettings()), await Draw(new SamplingSettings()));

        var biased = await Draw(new SamplingSettings { Temperature = 0, LogitBias = new Dictionary<int, float> { [77] = 100 } });
        Assert.All(biased, token => Assert.Equal(77, token));
        Assert.DoesNotContain(greedy[0], await Draw(new SamplingSettings { Temperature = 0, LogitBias = new Dictionary<int, float> { [greedy[0]] = -100 } }));
        var presence = await Draw(new SamplingSettings { Temperature = 0, LogitBias = new Dictionary<int, float> { [77] = 30, [78] = 29.5f }, PresencePenalty = 2 });
        Assert.Equal([77, 78], presence[..2]);
        var frequency = await Draw(new SamplingSettings { Temperature = 0, FrequencyPenalty = 2, LogitBias = new Dictionary<int, float> { [77] = 90, [78] = 89 } });
        Assert.Equal(77, frequency[0]);
        Assert.InRange(frequency.Count(token => token == 78), 15, 25);
        var repeated = await Draw(new SamplingSettings { Temperature = 0, RepetitionPenalty = 100 });
        Assert.Equal(repeated.Length, repeated.Distinct().Count());
    }

    [Fact]
    public async Task Sampling_Distribution_IsThatOfTheLogProbabilities()
    {
        await using var engine = Create();
        var prompt = Prompt(6, 10);
        const int Draws = 1000;
        var counts = new Dictionary<int, int>();
        TokenAlternative[]? top = null;
        for (var i = 0; i < Draws / 50; i++)
        {
            var generation = engine.Submit(new GenerationRequest { Prompt = prompt, Sampling = new SamplingSettings { MaxTokens = 1, Choices = 50, Seed = (ulong)i, LogProbabilities = 20, IgnoreEos = true } });
            foreach (var token in (await ChunksAsync(generation)).SelectMany(chunk => chunk.Tokens))
            {
                counts[token.Token] = counts.GetValueOrDefault(token.Token) + 1;
                top = token.Top;
            }
        }

        Assert.Equal(Draws, counts.Values.Sum());
        foreach (var alternative in top!.Take(8))
        {
            var p = Math.Exp(alternative.LogProbability);
            var deviation = 5 * Math.Sqrt(Draws * p * (1 - p));
            Assert.InRange(counts.GetValueOrDefault(alternative.Token), (Draws * p) - deviation, (Draws * p) + deviation);
        }
    }

    [Fact]
    public async Task Ends_StopTokensMinTokensAndConstraint()
    {
        await using var engine = Create();
        var prompt = Prompt(7, 12);
        var free = await TokensAsync(engine.Submit(new GenerationRequest { Prompt = prompt, Sampling = new SamplingSettings { Temperature = 0, MaxTokens = 20, IgnoreEos = true } }));
        var stop = free[6];
        var first = Array.IndexOf(free, stop);
        var stopped = await ChunksAsync(engine.Submit(new GenerationRequest { Prompt = prompt, Sampling = new SamplingSettings { Temperature = 0, MaxTokens = 20, IgnoreEos = true, StopTokens = [stop] } }));
        Assert.Equal(free[..(first + 1)], stopped.SelectMany(chunk => chunk.Tokens).Select(token => token.Token));
        Assert.Equal((FinishReason.Stop, $"token:{stop}"), (stopped[^1].Finish, stopped[^1].StopReason));
        var later = await TokensAsync(engine.Submit(new GenerationRequest { Prompt = prompt, Sampling = new SamplingSettings { Temperature = 0, MaxTokens = 20, MinTokens = 15, IgnoreEos = true, StopTokens = [stop] } }));
        Assert.True(later.Length >= 15);
        Assert.DoesNotContain(stop, later[..14]);
    }

    internal static async Task<int[]> TokensAsync(Generation generation) => [.. (await ChunksAsync(generation)).SelectMany(chunk => chunk.Tokens).Select(token => token.Token)];

    private static async Task<List<GenerationChunk>> ChunksAsync(Generation generation)
    {
        using var patience = new CancellationTokenSource(s_patience);
        var chunks = new List<GenerationChunk>();
        await foreach (var chunk in generation.ReadAsync(patience.Token)) chunks.Add(chunk);
        return chunks;
    }

    private static Task IdleAsync(InferenceEngine engine) =>
        TestServer.UntilAsync(() => engine.Unfinished == 0 && engine.State.BlocksHeld == 0, () => engine.State.ToString());

    private static int[] Prompt(int seed, int length)
    {
        var random = new Random(seed);
        return [.. Enumerable.Range(0, length).Select(_ => random.Next(10, TestModels.Tokenizer.VocabularySize))];
    }

    private static GenerationRequest Request(int seed, float temperature, int newTokens = 24) => new()
    {
        Prompt = Prompt(seed, 10 + (seed * 7 % 40)),
        Sampling = new SamplingSettings { Temperature = temperature, Seed = (ulong)seed, MaxTokens = newTokens, IgnoreEos = true },
        Client = $"client {seed % 4}",
    };

    private static InferenceEngine Create(EngineOptions? options = null, int blocks = 400, int context = 512, EngineGate? time = null, string? folder = null)
    {
        options ??= new EngineOptions();
        folder ??= TestModels.Folder(context: context);
        var model = LanguageModel.Load(folder, TorchSharp.torch.CPU, ComputeType.Float32);
        // 2 layers, 2 key-value heads of 16, keys and values, 16 positions, 4 bytes each.
        var decoder = DecodingModel.Create(model, new DecodingOptions { CacheBytes = blocks * 2L * 2 * 16 * 2 * 16 * 4, MaxBatchTokens = options.MaxStepTokens, Threads = 2 });
        Assert.Equal(blocks, decoder.Blocks);
        var meters = new ServiceCollection().AddMetrics().BuildServiceProvider().GetRequiredService<System.Diagnostics.Metrics.IMeterFactory>();
        return new InferenceEngine(
            "test", decoder, Tokenizer.Load(folder), [TestModels.Tokenizer.EosId!.Value], options, new EngineMetrics(meters, vllmNames: false),
            new ServiceHealth(TimeProvider.System, TimeSpan.FromMinutes(2)), time ?? TimeProvider.System, NullLogger.Instance);
    }
}
