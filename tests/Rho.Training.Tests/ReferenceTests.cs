using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Rho.Client;
using Rho.Formats;
using Rho.Hosting;
using Rho.Model;
using Rho.Scoring;
using TorchSharp;

namespace Rho.Training.Tests;

public sealed class ReferenceTests : IDisposable
{
    private readonly World _world = new();
    private readonly List<string> _warnings = [];

    public void Dispose() => _world.Dispose();

    /// <summary>A reference whose loss for a token is its place in the shard, and that fails when told to.</summary>
    private sealed class FakeSource : IReferenceSource
    {
        public Func<long, Task> OnBlock { get; set; } = _ => Task.CompletedTask;

        public Func<LossBlock, LossBlock> Change { get; set; } = block => block;

        public float Offset { get; init; }

        public int Opened { get; private set; }

        public string? Tokenizer { get; init; }

        public bool GivesEntropies { get; init; }

        public int TopK { get; init; }

        public Task<ReferenceIdentity> IdentifyAsync(CancellationToken cancellation) =>
            Task.FromResult(new ReferenceIdentity($"fake{Offset}", Tokenizer, null, null, "a fake"));

        public async IAsyncEnumerable<LossBlock> ReadAsync(TokenShard shard, bool documentsSeeEachOther, long firstSequence, [EnumeratorCancellation] CancellationToken cancellation)
        {
            Opened++;
            for (var first = firstSequence; first < shard.Sequences; first += 3)
            {
                await OnBlock(first).WaitAsync(cancellation);
                var count = (int)Math.Min(3, shard.Sequences - first);
                var losses = Enumerable.Range(0, count * shard.Length).Select(i => i % shard.Length == 0 ? float.NaN : (first * shard.Length + i) / 1000f + Offset).ToArray();
                yield return Change(new LossBlock(first, count, shard.Length, new TokenScores(losses)));
            }
        }

        public ValueTask DisposeAsync() => ValueTask.CompletedTask;
    }

    private (TrainingData Data, ReferenceSection Section) Setup(int sources = 1, UnavailablePolicy policy = UnavailablePolicy.Wait, double patience = 0.3)
    {
        var corpus = _world.Corpus($"corpus{Guid.NewGuid():N}", [20]);
        var section = new ReferenceSection
        {
            Sources = [.. Enumerable.Range(1, sources).Select(i => new ReferenceSourceSection { Scores = "x", Weight = i })],
            WhenUnavailable = policy,
            PatienceSeconds = patience,
        };
        return (new TrainingData(new DataSection { Corpora = [new CorpusSection { Path = corpus }], ShuffleTokens = 8 * World.Length }, 1), section);
    }

    private Task<CombinedReference> ConnectAsync((TrainingData Data, ReferenceSection Section) setup, params IReferenceSource[] sources)
    {
        var next = 0;
        return CombinedReference.ConnectAsync(setup.Section, _ => sources[next++], setup.Data, message =>
        {
            lock (_warnings) _warnings.Add(message);
        }, CancellationToken.None);
    }

    private static async Task<List<PreparedBatch>> TakeAsync(TrainingData data, CombinedReference loader, int count)
    {
        using var pipeline = new BatchPipeline(data, loader, null, 4, 0, 1, [0], false, CancellationToken.None);
        return await Task.Run(() => Enumerable.Range(0, count).Select(_ =>
        {
            Assert.True(pipeline.Take(out var batch, CancellationToken.None));
            return batch;
        }).ToList()).WaitAsync(World.Patience);
    }

    private static void HasLossesOfItsTokens(PreparedBatch batch)
    {
        for (var i = 0; i < batch.Reference!.Tokens; i++)
        {
            var expected = i % World.Length == 0 ? float.NaN : (batch.Origins[i / World.Length].Sequence * World.Length + i % World.Length) / 1000f;
            Assert.Equal(expected, batch.Reference.Losses[i]);
        }
    }

    [Fact]
    public async Task Pipeline_Losses_AreThoseOfTheSequences()
    {
        var setup = Setup();
        using var data = setup.Data;
        await using var loader = await ConnectAsync(setup, new FakeSource());
        Assert.All(await TakeAsync(data, loader, 12), HasLossesOfItsTokens);
    }

    [Fact]
    public async Task Source_FailsNowAndThen_IsAskedAgainFromWhereItWas()
    {
        var setup = Setup(patience: 30);
        using var data = setup.Data;
        var failures = 0;
        var source = new FakeSource { OnBlock = first => first >= 6 && failures++ is 0 or 2 ? throw new UnavailableException("away") : Task.CompletedTask };
        await using var loader = await ConnectAsync(setup, source);
        Assert.All(await TakeAsync(data, loader, 5), HasLossesOfItsTokens);
        Assert.True(source.Opened >= 3);
        Assert.True(loader.TimeSpent >= TimeSpan.Zero);
    }

    [Fact]
    public async Task Source_StaysAway_WaitPolicy_WaitsWithMessagesAndGoesOn()
    {
        var setup = Setup(policy: UnavailablePolicy.Wait);
        using var data = setup.Data;
        bool Warned()
        {
            lock (_warnings) return _warnings.Exists(warning => warning.Contains("away; waiting", StringComparison.Ordinal));
        }

        await using var loader = await ConnectAsync(setup, new FakeSource { OnBlock = _ => Warned() ? Task.CompletedTask : throw new UnavailableException("away") });
        Assert.All(await TakeAsync(data, loader, 3), HasLossesOfItsTokens);
        Assert.True(Warned());
    }

    [Fact]
    public async Task Source_StaysAway_ClmPolicy_GoesOnWithoutLosses()
    {
        var setup = Setup(policy: UnavailablePolicy.Clm);
        using var data = setup.Data;
        await using var loader = await ConnectAsync(setup, new FakeSource { OnBlock = first => first >= 9 ? throw new UnavailableException("away") : Task.CompletedTask });
        var batches = await TakeAsync(data, loader, 5);
        Assert.All(batches.Take(2), HasLossesOfItsTokens);
        Assert.Contains(batches.Skip(2), batch => batch.WithoutReference && batch.Reference is null);
        Assert.All(batches.Where(batch => !batch.WithoutReference), HasLossesOfItsTokens);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Source_StaysAwayOrHangs_StopPolicy_EndsWithTheReason(bool hangs)
    {
        var setup = Setup(policy: UnavailablePolicy.Stop);
        using var data = setup.Data;
        await using var loader = await ConnectAsync(setup, new FakeSource { OnBlock = first => first < 9 ? Task.CompletedTask : hangs ? Task.Delay(Timeout.Infinite) : throw new UnavailableException("away") });
        var error = await Assert.ThrowsAsync<UnavailableException>(() => TakeAsync(data, loader, 5));
        Assert.Contains("from sequence 9", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Source_SendsWrongLosses_IsRefused()
    {
        static LossBlock With(LossBlock block, float[] losses) => block with { Scores = new TokenScores(losses) };
        foreach (var change in new Func<LossBlock, LossBlock>[]
        {
            block => block with { FirstSequence = block.FirstSequence + 1 },
            block => With(block, [.. block.Losses.Select(loss => -loss - 1)]),
            block => With(block, block.Losses[1..]),
            block => With(block, [.. block.Losses.Select(_ => float.PositiveInfinity)]),
        })
        {
            var setup = Setup(policy: UnavailablePolicy.Clm);
            using var data = setup.Data;
            await using var loader = await ConnectAsync(setup, new FakeSource { Change = change });
            await Assert.ThrowsAsync<CorruptDataException>(() => TakeAsync(data, loader, 5));
        }
    }

    [Fact]
    public async Task Source_OtherTokenizer_IsRefusedBeforeAnyWork()
    {
        var setup = Setup();
        using var data = setup.Data;
        var source = new FakeSource { Tokenizer = "another" };
        Assert.Contains("losses of other tokens", (await Assert.ThrowsAsync<MismatchException>(() => ConnectAsync(setup, source))).Message, StringComparison.Ordinal);
        Assert.Equal(0, source.Opened);
    }

    [Fact]
    public async Task Sources_Two_AreMixedByLikelihood()
    {
        var setup = Setup(sources: 2);
        using var data = setup.Data;
        await using var loader = await ConnectAsync(setup, new FakeSource(), new FakeSource { Offset = 1 });
        var batch = (await TakeAsync(data, loader, 1))[0];
        for (var t = 1; t < World.Length; t++)
        {
            var a = (batch.Origins[0].Sequence * World.Length + t) / 1000.0;
            Assert.Equal(-Math.Log(1.0 / 3 * Math.Exp(-a) + 2.0 / 3 * Math.Exp(-(a + 1))), batch.Reference!.Losses[t], 1e-5);
        }

        Assert.Contains("fake0", loader.Fingerprint, StringComparison.Ordinal);
        Assert.Contains("fake1", loader.Fingerprint, StringComparison.Ordinal);
    }

    private async Task<ScoringHost> ScorerAsync(string checkpoint, int port = 0) => await ScoringHost.StartAsync(
        new ScoringOptions { Host = new RhoHostOptions { Service = "rho-scorer", GrpcPort = port, DrainTimeout = TimeSpan.FromSeconds(1) }, CacheDirectory = _world.At("cache") },
        [ReferenceModel.Load(checkpoint, torch.CPU, ComputeType.Float32)]).WaitAsync(World.Patience);

    [Fact]
    public async Task Run_ScorersOverGrpc_OneDiesOnTheWay_EqualsARunWithOne()
    {
        var corpus = _world.Corpus("corpus", [40, 30], documentsSeeEachOther: false, padded: true);
        var checkpoint = _world.Checkpoint("reference", 77);
        await using var first = await ScorerAsync(checkpoint);
        var second = await ScorerAsync(checkpoint);
        var one = await World.RunAsync(TrainingRun.Start(_world.Run("one", corpus, _world.Slm($$"""{ "scorers": ["{{first.Address.Authority}}"] }"""))));
        var run = TrainingRun.Start(_world.Run("two", corpus, _world.Slm($$"""{ "scorers": ["{{second.Address.Authority}}", "{{first.Address.Authority}}"] }""")));
        var killed = false;
        run.SelectionObserver = batch =>
        {
            if (batch.Step < 3 || killed) return;
            killed = true;
            second.DisposeAsync().AsTask().Wait(World.Patience);
        };
        var two = await World.RunAsync(run);
        Assert.Equal(World.Weights(one.Model!), World.Weights(two.Model!));
        var started = JsonNode.Parse(File.ReadLines(_world.At("two/metrics.jsonl")).First())!;
        Assert.Contains("parameters", started["reference"]!.GetValue<string>(), StringComparison.Ordinal);
    }

    /// <summary>The same run with the reference in process, behind a scorer and in score files.</summary>
    [Theory]
    [InlineData("\"by\": \"reference_entropy\"")]
    [InlineData("\"by\": \"divergence\", \"top_k\": 6")]
    public async Task Run_ByWhatReferencesSayOfDistributions_AllSourcesSayTheSame(string selector)
    {
        var corpus = _world.Corpus("corpus", [40], padded: true);
        var checkpoint = _world.Checkpoint("reference", 77);
        await using var scorer = await ScorerAsync(checkpoint);
        await using (var client = new ScorerClient(new ScorerClientOptions { Addresses = [scorer.Address.Authority], Entropy = true, TopK = 9 })) // More than is looked at.
            await CorpusScoring.RunAsync(Formats.Corpus.Open(corpus), client, _world.At("scores")).WaitAsync(World.Patience);
        async Task<List<SelectedBatch>> BatchesAsync(string name, string source)
        {
            var batches = new List<SelectedBatch>();
            var run = TrainingRun.Start(_world.Run(name, corpus, _world.Slm(source, $", \"selector\": {{ {selector} }}"), steps: 3));
            run.SelectionObserver = batches.Add;
            await World.RunAsync(run);
            return batches;
        }

        var own = await BatchesAsync("own", $$"""{ "model": "{{checkpoint}}" }""");
        foreach (var other in new[] { await BatchesAsync("served", $$"""{ "scorers": ["{{scorer.Address.Authority}}"] }"""), await BatchesAsync("files", """{ "scores": "scores" }""") })
        {
            Assert.Equal(own.Count, other.Count);
            foreach (var (a, b) in own.Zip(other))
            {
                Assert.Equal(a.Batch.Tokens.Tokens, b.Batch.Tokens.Tokens);
                var (x, y) = (a.Batch.Reference!, b.Batch.Reference!);
                Close(x.Entropies, y.Entropies);
                Close(x.TopLogProbabilities, y.TopLogProbabilities);
                Assert.Equal(x.TopIds, y.TopIds);
                Assert.True(x.Entropies.Length > 0 || x.TopK == 6);
                // F16 moves what is next to the threshold; entropies of random weights all lie within a few of its steps.
                if (x.TopK > 0) Assert.InRange(a.Weights.Zip(b.Weights).Count(pair => pair.First != pair.Second), 0, 4);
            }
        }

        if (own[0].Batch.Reference!.Entropies.Length == 0) return;
        foreach (var batch in own)
        {
            var kept = Enumerable.Range(0, batch.Weights.Length).Where(i => batch.Weights[i] > 0).Max(i => batch.Batch.Reference!.Entropies[i]);
            var dropped = Enumerable.Range(0, batch.Weights.Length).Where(i => batch.Weights[i] == 0 && !float.IsNaN(batch.Losses[i])).Min(i => batch.Batch.Reference!.Entropies[i]);
            Assert.True(kept <= dropped);
        }
    }

    /// <summary>Values that came through F16.</summary>
    private static void Close(float[] expected, float[] actual)
    {
        Assert.Equal(expected.Length, actual.Length);
        for (var i = 0; i < expected.Length; i++)
            Assert.True(float.IsNaN(expected[i]) ? float.IsNaN(actual[i]) : Math.Abs(expected[i] - actual[i]) <= 1e-3 * (0.1 + Math.Abs(expected[i])), $"at {i}: {expected[i]} in process, {actual[i]} from elsewhere");
    }

    [Theory]
    [InlineData("\"by\": \"reference_entropy\"", "has no entropies")]
    [InlineData("\"by\": \"divergence\"", "has the 3 most likely tokens, divergence looks at 8; write scores with: rho score --top-k 8")]
    public async Task Run_ScoreFilesWithoutWhatIsLookedAt_AreRefused(string selector, string expected)
    {
        var corpus = _world.Corpus("corpus", [40]);
        var scores = _world.Scores("scores", corpus, _world.Checkpoint("reference", 77), topK: 3);
        var run = _world.Run("out", corpus, _world.Slm($$"""{ "scores": "{{scores}}" }""", $", \"selector\": {{ {selector} }}"));
        Assert.Contains(expected, (await Assert.ThrowsAsync<MismatchException>(() => World.RunAsync(TrainingRun.Start(run)))).Message, StringComparison.Ordinal);
        Assert.False(Directory.Exists(run.Output));
    }

    [Theory]
    [InlineData("\"by\": \"divergence\"", "micro_batch")]
    [InlineData("\"by\": \"divergence\"", "global_batch")]
    [InlineData("\"by\": \"reference_entropy\"", "micro_batch")]
    public async Task Run_ByTheMovingAveragesDistributions_ResumesExactly(string selector, string scope)
    {
        var corpus = _world.Corpus("corpus", [40, 30], padded: true);
        var extra = $$"""
            "objective": { "kind": "slm", "scope": "{{scope}}", "selector": { {{selector}} }, "clm_steps": 2 }, "reference": { "moving_average_decay": 0.9 },
            """;
        var whole = await World.RunAsync(TrainingRun.Start(_world.Run("whole", corpus, extra)));
        var cut = TrainingRun.Start(_world.Run("cut", corpus, extra));
        using var stop = new CancellationTokenSource();
        cut.SelectionObserver = batch =>
        {
            if (batch.Step == 6) stop.Cancel();
        };
        Assert.Equal(RunState.Stopped, (await World.RunAsync(cut, stop.Token)).State);
        var resumed = await World.RunAsync(TrainingRun.Resume(_world.At("cut")));
        Assert.Equal(World.Weights(whole.Model!), World.Weights(resumed.Model!));
        var last = File.ReadLines(_world.At("whole/metrics.jsonl")).Last(line => line.StartsWith("{\"event\":\"step\"", StringComparison.Ordinal));
        Assert.Equal(0.6, JsonNode.Parse(last)!["selected_share"]!.GetValue<double>(), 0.02);
    }

    [Fact]
    public async Task Source_SendsWrongDistributions_IsRefused()
    {
        static LossBlock With(LossBlock block, float entropy, int k, int id, float logProbability) => block with
        {
            Scores = new TokenScores(block.Losses)
            {
                Entropies = [.. block.Losses.Select(_ => entropy)],
                TopIds = [.. Enumerable.Repeat(id, block.Losses.Length * k)],
                TopLogProbabilities = [.. Enumerable.Repeat(logProbability, block.Losses.Length * k)],
            },
        };
        async Task ReadAsync(Func<LossBlock, LossBlock> change)
        {
            var setup = Setup(policy: UnavailablePolicy.Clm);
            using var data = setup.Data;
            await using var loader = await ConnectAsync(setup, new FakeSource { Change = change, GivesEntropies = true, TopK = 2 });
            var batch = (await TakeAsync(data, loader, 1))[0];
            Assert.Equal(3, batch.Reference!.Entropies[1]);
            Assert.Equal(7, batch.Reference!.TopIds[5]);
        }

        await ReadAsync(block => With(block, 3, 2, 7, -1));
        foreach (var change in new Func<LossBlock, LossBlock>[]
        {
            block => block,
            block => With(block, -1, 2, 7, -1),
            block => With(block, float.NaN, 2, 7, -1),
            block => With(block, 3, 3, 7, -1),
            block => With(block, 3, 2, -7, -1),
            block => With(block, 3, 2, 7, 1),
            block => With(block, 3, 2, 7, float.NaN),
        }) await Assert.ThrowsAsync<CorruptDataException>(() => ReadAsync(change));
    }

    [Fact]
    public async Task Run_ScorerUnreachable_IsOneClearError()
    {
        var run = _world.Run("out", _world.Corpus("corpus", [40]), _world.Slm("""{ "scorers": ["127.0.0.1:1"] }"""));
        run = run with { Reference = run.Reference with { PatienceSeconds = 1 } };
        var error = await Assert.ThrowsAsync<UnavailableException>(() => World.RunAsync(TrainingRun.Start(run)));
        Assert.StartsWith("reference.sources[0]: no scorer of 127.0.0.1:1", error.Message, StringComparison.Ordinal);
        Assert.False(Directory.Exists(run.Output));
    }
}
