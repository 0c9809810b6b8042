using System.Diagnostics;
using System.Diagnostics.Metrics;
using Rho.Formats;
using Rho.Model;
using Rho.Scoring;
using Rho.TestSupport;

namespace Rho.Client.Tests;

/// <summary>The client against real servers: the same losses whatever happens to them.</summary>
public sealed class ScorerClientTests : IAsyncDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly List<IAsyncDisposable> _owned = [];

    public async ValueTask DisposeAsync()
    {
        for (var i = _owned.Count - 1; i >= 0; i--) await _owned[i].DisposeAsync().AsTask().WaitAsync(TestScoring.Patience);
        _folder.Dispose();
    }

    [Theory]
    [InlineData(true, 700)]
    [InlineData(false, 700)]
    [InlineData(false, 40_000)] // a sequence that comes in several messages
    public async Task ScoreShard_OneScorer_GivesTheModelsLosses(bool documentsSeeEachOther, int length)
    {
        using var shard = TestScoring.Shard(_folder["shard"], 70_000 / length, length, withDocuments: true);
        var client = Client(Address(await StartAsync(new HashModel())));
        Assert.Equal(TestScoring.Expected(shard, documentsSeeEachOther), await ReadAsync(client, shard, documentsSeeEachOther));
        Assert.Equal(TestScoring.Expected(shard, documentsSeeEachOther)[(length * 1)..], await ReadAsync(client, shard, documentsSeeEachOther, first: 1));
    }

    [Fact]
    public async Task ScoreShard_LargeVocabulary_SendsWideTokens()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 50, 900, vocabularySize: 120_000, withDocuments: true);
        var client = Client(Address(await StartAsync(new HashModel { VocabularySize = 120_000 })));
        Assert.Equal(TestScoring.Expected(shard, false), await ReadAsync(client, shard, documentsSeeEachOther: false));
    }

    [Theory]
    [InlineData(LossEncoding.F32, 0)]
    [InlineData(LossEncoding.Log8, 0.1)]
    public async Task ScoreShard_Encodings_KeepTheirPrecision(LossEncoding encoding, double tolerance)
    {
        using var shard = TestScoring.Shard(_folder["shard"], 5, 20_000);
        var client = Client(new ScorerClientOptions { Addresses = [Address(await StartAsync(new HashModel()))], Encoding = encoding });
        var tokens = new int[100_000];
        shard.Read(0, tokens);
        var exact = new float[100_000];
        new HashModel().Score(tokens, 5, 20_000, default, exact, default);
        var losses = await ReadAsync(client, shard);
        for (var i = 0; i < exact.Length; i++)
        {
            if (float.IsNaN(exact[i])) Assert.True(float.IsNaN(losses[i]));
            else Assert.Equal(exact[i], losses[i], tolerance);
        }
    }

    [Theory]
    [InlineData(700)]
    [InlineData(10_000)] // a sequence that comes in several messages
    public async Task ScoreShard_WithEntropyAndTopK_GivesThemForEachToken(int length)
    {
        using var shard = TestScoring.Shard(_folder["shard"], 40_000 / length, length, withDocuments: true);
        var client = Client(new ScorerClientOptions
        {
            Addresses = [Address(await StartAsync(new HashModel(), new ScoringOptions { CacheDirectory = _folder["cache"] }))],
            Entropy = true,
            TopK = 5,
        });
        var tokens = new int[shard.Sequences * length];
        shard.Read(0, tokens);
        for (var time = 0; time < 2; time++)
        {
            long next = 0;
            await foreach (var block in client.ScoreShardAsync(shard, documentsSeeEachOther: false))
            {
                for (var i = 0; i < block.Losses.Length; i++)
                {
                    var token = tokens[block.FirstSequence * length + i];
                    if (float.IsNaN(block.Losses[i]))
                    {
                        Assert.True(float.IsNaN(block.Scores.Entropies[i]) && float.IsNaN(block.Scores.TopLogProbabilities[i * 5 + 4]));
                        continue;
                    }

                    Assert.Equal(block.Losses[i] / 2, block.Scores.Entropies[i], 0.01);
                    Assert.Equal((token + 3) % 1000, block.Scores.TopIds[i * 5 + 3]);
                    Assert.Equal(-3.5f, block.Scores.TopLogProbabilities[i * 5 + 3]);
                }

                Assert.Equal(next, block.FirstSequence);
                next += block.Sequences;
            }

            Assert.Equal(shard.Sequences, next);
        }
    }

    [Fact]
    public async Task ScoreShard_MoreThanTheReferenceOffers_IsRefused()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 5, 700);
        var address = Address(await StartAsync(new HashModel { MaxTopK = 0 }));
        foreach (var options in new[] { new ScorerClientOptions { Addresses = [address], Entropy = true }, new ScorerClientOptions { Addresses = [address], TopK = 1 } })
            await Assert.ThrowsAsync<RhoException>(() => ReadAsync(Client(options), shard)).WaitAsync(TestScoring.Patience);
    }

    [Fact]
    public async Task ScoreShard_PartsOfAShard_AreScoredByReplicasAtTheSameTime()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 4000, 700);
        var models = new[] { new HashModel { Rate = 500_000 }, new HashModel { Rate = 500_000 } };
        var options = new ScoringOptions { CacheDirectory = _folder["cache"] };
        var client = Client(Address(await StartAsync(models[0], options)), Address(await StartAsync(models[1], options)));
        var segment = (await client.DescribeAsync()).SegmentSequences(700);
        var parts = await Task.WhenAll(Enumerable.Range(0, (int)((4000 + segment - 1) / segment)).Select(async i =>
        {
            var bytes = new List<byte>();
            await foreach (var block in client.ScoreShardEncodedAsync(shard, true, i * segment, Math.Min(4000, (i + 1) * segment))) bytes.AddRange(block.Scores.Losses.Span);
            return bytes;
        })).WaitAsync(TestScoring.Patience);

        var losses = new float[2_800_000];
        LossCodec.Decode(parts.SelectMany(part => part).ToArray(), LossEncoding.F16, losses);
        Assert.Equal(TestScoring.Expected(shard, true), losses);
        Assert.Equal(2_800_000, models.Sum(model => model.TokensScored - 256));
        Assert.All(models, model => Assert.InRange(model.TokensScored, 700_000, 2_100_000));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task ScoreShard_PartOfAShardThatTheScorerHasMet_SendsThePartsTokensOnly(bool documentsSeeEachOther)
    {
        using var shard = TestScoring.Shard(_folder["shard"], 300, 700, seed: 4711, withDocuments: true);
        var client = Client(Address(await StartAsync(new HashModel())));
        var expected = TestScoring.Expected(shard, documentsSeeEachOther);
        Assert.Equal(300 * 700, await ReadAsync(0, 10));
        Assert.Equal((161 - 92) * 700, await ReadAsync(100, 150)); // chunks have 23 sequences

        async Task<long> ReadAsync(int first, int end)
        {
            using var call = new Activity("test").Start(); // so that what other tests send is not counted
            var sent = 0L;
            using var meter = new MeterListener { InstrumentPublished = (instrument, listener) => { if (instrument.Name == "rho.client.tokens_sent") listener.EnableMeasurementEvents(instrument); } };
            meter.SetMeasurementEventCallback<long>((_, tokens, _, _) => { if (Activity.Current?.TraceId == call.TraceId) Interlocked.Add(ref sent, tokens); });
            meter.Start();
            var losses = new List<float>();
            await foreach (var block in client.ScoreShardEncodedAsync(shard, documentsSeeEachOther, first, end)) losses.AddRange(block.Scores.Decode().Losses);
            Assert.Equal(expected[(first * 700)..(end * 700)], losses);
            return Interlocked.Read(ref sent);
        }
    }

    [Fact]
    public async Task ScoreShard_ScorerIsCutOffMidway_GoesOnAtAnotherWithTheSameBytes()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 300, 700);
        var (first, second) = (new HashModel { Rate = 300_000, DependsOnBatch = true }, new HashModel { Rate = 300_000, DependsOnBatch = true });
        var undisturbed = await ReadAsync(Client(Address(await StartAsync(new HashModel { DependsOnBatch = true }))), shard);
        var (a, b) = (Proxy(await StartAsync(first)), Proxy(await StartAsync(second)));
        var client = Client(a.Address, b.Address);
        await client.DescribeAsync();
        foreach (var proxy in new[] { a, b }) proxy.ReachAt = 100_000;
        a.OnReached = () =>
        {
            b.ReachAt = long.MaxValue;
            a.Cut();
        };
        b.OnReached = () =>
        {
            a.ReachAt = long.MaxValue;
            b.Cut();
        };

        Assert.Equal(undisturbed, await ReadAsync(client, shard));
        Assert.True(first.TokensScored > 256 && second.TokensScored > 256);
    }

    [Fact]
    public async Task ScoreShard_ScorerFreezesMidway_GoesOnAtAnother()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 300, 700);
        var (a, b) = (Proxy(await StartAsync(new HashModel { Rate = 300_000 })), Proxy(await StartAsync(new HashModel { Rate = 300_000 })));
        var client = Client(new ScorerClientOptions { Addresses = [a.Address, b.Address], StallTimeout = TimeSpan.FromSeconds(6) });
        await client.DescribeAsync();
        foreach (var proxy in new[] { a, b }) proxy.ReachAt = 100_000;
        a.OnReached = () =>
        {
            b.ReachAt = long.MaxValue;
            a.Freeze();
        };
        b.OnReached = () =>
        {
            a.ReachAt = long.MaxValue;
            b.Freeze();
        };
        Assert.Equal(TestScoring.Expected(shard, true), await ReadAsync(client, shard));
    }

    [Fact]
    public async Task ScoreShard_ScorerFrozenFromTheStart_IsHedged()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 50, 700);
        var frozen = Proxy(await StartAsync(new HashModel()));
        var client = Client(new ScorerClientOptions
        {
            Addresses = [frozen.Address, Address(await StartAsync(new HashModel()))],
            HedgeAfter = TimeSpan.FromMilliseconds(300),
            ConnectTimeout = TimeSpan.FromSeconds(3),
        });
        await client.DescribeAsync();
        frozen.Freeze();
        for (var i = 0; i < 3; i++) Assert.Equal(TestScoring.Expected(shard, true), await ReadAsync(client, shard));
    }

    [Fact]
    public async Task ScoreShard_ScorerStopsInOrder_NothingIsScoredTwiceBeyondTheChunkInWork()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 1500, 700);
        var options = new ScoringOptions { CacheDirectory = _folder["cache"] };
        var (first, second) = (new HashModel { Rate = 300_000 }, new HashModel { Rate = 300_000 });
        var hosts = new Dictionary<string, (ScoringHost Host, HashModel Model)>(StringComparer.Ordinal);
        foreach (var model in new[] { first, second })
        {
            var host = await StartAsync(model, options);
            hosts.Add(Address(host), (host, model));
        }

        var client = Client([.. hosts.Keys]);
        var losses = new List<float>();
        Task? stopping = null;
        await foreach (var block in client.ScoreShardAsync(shard, true))
        {
            losses.AddRange(block.Losses);
            if (losses.Count > 60_000) stopping ??= hosts.Values.First(host => host.Model.TokensScored > 256).Host.DisposeAsync().AsTask();
        }

        await stopping!.WaitAsync(TestScoring.Patience);
        Assert.Equal(TestScoring.Expected(shard, true), losses);
        Assert.InRange(first.TokensScored + second.TokensScored - 512, 1_050_000, 1_050_000 + 2 * 16_100);
        Assert.True(second.TokensScored > 256 && first.TokensScored > 256);
    }

    [Fact]
    public async Task ScoreShard_SeveralAtOnce_SpreadOverScorersAndKeepOrder()
    {
        var shards = Enumerable.Range(0, 8).Select(i => TestScoring.Shard(_folder[$"shard{i}"], 60, 700, seed: i)).ToList();
        var models = Enumerable.Range(0, 3).Select(_ => new HashModel { Rate = 200_000 }).ToList();
        var hosts = new List<string>();
        foreach (var model in models) hosts.Add(Address(await StartAsync(model)));
        var client = Client([.. hosts]);
        var results = await Task.WhenAll(shards.Select(shard => ReadAsync(client, shard))).WaitAsync(TestScoring.Patience);
        for (var i = 0; i < shards.Count; i++) Assert.Equal(TestScoring.Expected(shards[i], true), results[i]);
        Assert.All(models, model => Assert.True(model.TokensScored > 256));
        shards.ForEach(shard => shard.Dispose());
    }

    [Fact]
    public async Task ScoreShard_ReaderStops_LeavesNoStreamBehind()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 400, 700);
        var client = Client(Address(await StartAsync(new HashModel { Rate = 200_000 })));
        await foreach (var _ in client.ScoreShardAsync(shard, true)) break;
        using var patience = new CancellationTokenSource(TestScoring.Patience);
        while ((await client.InfoAsync(patience.Token)).Single() is not { Streams: 0, QueuedTokens: 0 }) await Task.Delay(20, patience.Token);
    }

    [Fact]
    public async Task ScoreShard_NewScorerAppears_LongStreamMovesToIt()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 900, 700);
        var (busy, free) = (new HashModel { Rate = 150_000 }, new HashModel { Rate = 150_000 });
        var options = new ScoringOptions { CacheDirectory = _folder["cache"] };
        var client = Client(new ScorerClientOptions
        {
            Addresses = [Address(await StartAsync(busy, options)), Address(await StartAsync(free, options))],
            StreamLifetime = TimeSpan.FromMilliseconds(500),
        });
        Assert.Equal(TestScoring.Expected(shard, true), await ReadAsync(client, shard));
        Assert.True(busy.TokensScored > 256 && free.TokensScored > 256);
    }

    [Fact]
    public async Task ScoreShard_ShardFileWasChanged_IsDataLoss()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 50, 700);
        _ = shard.Sha256;
        using (var file = File.OpenHandle(_folder["shard"], FileMode.Open, FileAccess.Write, FileShare.ReadWrite)) RandomAccess.Write(file, [1, 1], RandomAccess.GetLength(file) - 2);
        var client = Client(Address(await StartAsync(new HashModel())));
        await Assert.ThrowsAsync<CorruptDataException>(() => ReadAsync(client, shard)).WaitAsync(TestScoring.Patience);
    }

    [Fact]
    public async Task ScoreShard_SequencesTooLong_SaysTheLimit()
    {
        using var shard = TestScoring.Shard(_folder["shard"], 50, 700);
        var client = Client(Address(await StartAsync(new HashModel { ContextLength = 512 })));
        var error = await Assert.ThrowsAsync<RhoException>(() => ReadAsync(client, shard)).WaitAsync(TestScoring.Patience);
        Assert.Contains("at most 512", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task ScoreShard_QueueFull_WaitsAsToldAndGetsThrough()
    {
        using var first = TestScoring.Shard(_folder["a"], 100, 700);
        using var second = TestScoring.Shard(_folder["b"], 100, 700, seed: 2);
        var host = Address(await StartAsync(new HashModel { Rate = 100_000 }, new ScoringOptions { MaxQueuedTokens = 80_000 }));
        var results = await Task.WhenAll(ReadAsync(Client(host), first), ReadAsync(Client(host), second)).WaitAsync(TestScoring.Patience);
        Assert.Equal(TestScoring.Expected(first, true), results[0]);
        Assert.Equal(TestScoring.Expected(second, true), results[1]);
    }

    [Fact]
    public async Task Describe_NobodyThere_NamesTheAddressAndGivesUp()
    {
        var client = Client(new ScorerClientOptions { Addresses = ["127.0.0.1:1"], ConnectTimeout = TimeSpan.FromSeconds(1) });
        var error = await Assert.ThrowsAsync<UnavailableException>(() => client.DescribeAsync()).WaitAsync(TestScoring.Patience);
        Assert.Contains("127.0.0.1:1", error.Message, StringComparison.Ordinal);
        Assert.Contains("Connection refused", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Describe_OneOfTwoIsThere_Answers()
    {
        var client = Client("127.0.0.1:1", Address(await StartAsync(new HashModel())));
        Assert.Equal(new HashModel().Fingerprint, (await client.DescribeAsync().WaitAsync(TestScoring.Patience)).Fingerprint);
    }

    [Fact]
    public async Task Describe_OtherTokenizer_FailsWithBothFingerprintsBeforeAnyWork()
    {
        var model = new HashModel();
        var client = Client(new ScorerClientOptions { Addresses = [Address(await StartAsync(model))], TokenizerFingerprint = "sha256:mine" });
        using var shard = TestScoring.Shard(_folder["shard"], 5, 700);
        var scored = model.TokensScored;
        var error = await Assert.ThrowsAsync<MismatchException>(() => ReadAsync(client, shard)).WaitAsync(TestScoring.Patience);
        Assert.Contains("sha256:mine", error.Message, StringComparison.Ordinal);
        Assert.Contains(model.TokenizerFingerprint, error.Message, StringComparison.Ordinal);
        Assert.Equal(scored, model.TokensScored);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task ScoreShard_ScorersOfDifferentModels_AreNotMixed(bool sameFingerprint)
    {
        var other = sameFingerprint ? new HashModel { Shift = 1 } : new HashModel { Fingerprint = "sha256:" + new string('c', 64) };
        var client = Client(Address(await StartAsync(new HashModel())), Address(await StartAsync(other)));
        using var shard = TestScoring.Shard(_folder["shard"], 5, 700);
        await Assert.ThrowsAsync<MismatchException>(async () =>
        {
            for (var i = 0; i < 50; i++) await ReadAsync(client, shard);
        }).WaitAsync(TestScoring.Patience);
    }

    [Fact]
    public async Task Score_SequencesOnTheFly_AllAnsweredAlsoWhenAScorerIsCutOff()
    {
        var random = new Random(4);
        var sequences = Enumerable.Range(0, 600).ToDictionary(i => (ulong)i, _ => Enumerable.Range(0, random.Next(2, 700)).Select(_ => random.Next(1000)).ToArray());
        var (a, b) = (Proxy(await StartAsync(new HashModel { Rate = 300_000 })), Proxy(await StartAsync(new HashModel { Rate = 300_000 })));
        var client = Client(a.Address, b.Address);
        await client.DescribeAsync();
        (a.ReachAt, a.OnReached) = (100_000, a.Cut);
        (b.ReachAt, b.OnReached) = (1_000_000, b.Cut);
        var answers = new Dictionary<ulong, float[]>();
        await foreach (var answer in client.ScoreAsync(sequences.Select(pair => new SequenceTokens(pair.Key, pair.Value)).ToAsyncEnumerable())) answers.Add(answer.Id, answer.Losses);

        Assert.Equal(600, answers.Count);
        foreach (var (id, losses) in answers)
        {
            var expected = new float[losses.Length];
            new HashModel().Score(sequences[id], 1, expected.Length, default, expected, default);
            Assert.Equal(TestScoring.Rounded(expected), losses);
        }
    }

    [Fact]
    public async Task Score_WithEntropyAndTopK_GivesThemForEachToken()
    {
        var sequences = new[] { 3, 700, 10_000 }.Select((length, i) => new SequenceTokens((ulong)i, [.. Enumerable.Range(0, length).Select(t => (t * 31 + i) % 1000)])).ToList();
        var client = Client(new ScorerClientOptions { Addresses = [Address(await StartAsync(new HashModel()))], Encoding = LossEncoding.F32, Entropy = true, TopK = 5 });
        var answered = 0;
        await foreach (var answer in client.ScoreAsync(sequences.ToAsyncEnumerable()))
        {
            answered++;
            var tokens = sequences[(int)answer.Id].Tokens;
            var expected = TokenScores.Room(tokens.Length, entropies: true, topK: 5);
            new HashModel().Score(tokens, 1, tokens.Length, [], expected, CancellationToken.None);
            Assert.Equal(expected.Losses, answer.Losses);
            Assert.Equal(TestScoring.Rounded(expected.Entropies), answer.Scores.Entropies);
            Assert.Equal(expected.TopIds, answer.Scores.TopIds);
            Assert.Equal(TestScoring.Rounded(expected.TopLogProbabilities), answer.Scores.TopLogProbabilities);
        }

        Assert.Equal(3, answered);
    }

    [Fact]
    public async Task Score_SourceFails_ThatIsWhatTheCallerSees()
    {
        var client = Client(Address(await StartAsync(new HashModel())));
        static async IAsyncEnumerable<SequenceTokens> Source()
        {
            yield return new SequenceTokens(1, [1, 2, 3]);
            await Task.Yield();
            throw new InvalidDataException("the caller's own");
        }

        await Assert.ThrowsAsync<InvalidDataException>(async () =>
        {
            await foreach (var _ in client.ScoreAsync(Source())) { }
        }).WaitAsync(TestScoring.Patience);
    }

    [Fact]
    public async Task Score_Documents_DoNotSeeEachOther()
    {
        var client = Client(Address(await StartAsync(new HashModel())));
        int[] tokens = [5, 6, 7, 8, 9, 0], documents = [0, 0, 1, 1, 2, -1];
        await foreach (var answer in client.ScoreAsync(new[] { new SequenceTokens(1, tokens, documents) }.ToAsyncEnumerable()))
            Assert.Equal([true, false, true, false, true, true], answer.Losses.Select(float.IsNaN));
    }

    [Fact]
    public async Task Coverage_AfterScoringOneShard_CountsIt()
    {
        var corpus = Corpora.Create(_folder["corpus"], shards: 3);
        var client = Client(Address(await StartAsync(new HashModel(), new ScoringOptions { CacheDirectory = _folder["cache"] })));
        using (var shard = corpus.OpenShard(1)) await ReadAsync(client, shard, corpus.DocumentsSeeEachOther);
        var coverage = await client.CoverageAsync(corpus).WaitAsync(TestScoring.Patience);
        Assert.Equal([ShardState.Missing, ShardState.Cached, ShardState.Missing], coverage.Select(shard => shard.State));
    }

    [Theory]
    [InlineData("")]
    [InlineData("host")]
    [InlineData("dns:///scorers")]
    [InlineData("host:port:x")]
    [InlineData("ftp://host:1")]
    [InlineData("http://host:1/path")]
    public void Open_BadAddress_SaysWhatIsExpected(string address)
    {
        var error = Assert.Throws<RhoException>(() => new ScorerClient(new ScorerClientOptions { Addresses = [address] }));
        Assert.Contains("expected host:port", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Open_DnsName_FindsItsAddresses()
    {
        var host = await StartAsync(new HashModel());
        var client = Client($"dns:///localhost:{host.Address.Port}");
        Assert.Equal(new HashModel().Fingerprint, (await client.DescribeAsync().WaitAsync(TestScoring.Patience)).Fingerprint);
    }

    private static string Address(ScoringHost host) => host.Address.Authority;

    private static async Task<float[]> ReadAsync(ScorerClient client, TokenShard shard, bool documentsSeeEachOther = true, long first = 0)
    {
        using var patience = new CancellationTokenSource(TestScoring.Patience);
        var losses = new List<float>();
        var next = first;
        await foreach (var block in client.ScoreShardAsync(shard, documentsSeeEachOther, first, patience.Token))
        {
            Assert.Equal(next, block.FirstSequence);
            next += block.Sequences;
            losses.AddRange(block.Losses);
        }

        Assert.Equal(shard.Sequences, next);
        return [.. losses];
    }

    private async Task<ScoringHost> StartAsync(HashModel model, ScoringOptions? options = null)
    {
        var host = await TestScoring.StartAsync(model, options);
        _owned.Add(host);
        return host;
    }

    private TcpProxy Proxy(ScoringHost host)
    {
        var proxy = new TcpProxy(host.Address);
        _owned.Add(proxy);
        return proxy;
    }

    private ScorerClient Client(params string[] addresses) => Client(new ScorerClientOptions { Addresses = addresses, Budget = TimeSpan.FromSeconds(50) });

    private ScorerClient Client(ScorerClientOptions options)
    {
        var client = new ScorerClient(options);
        _owned.Add(client);
        return client;
    }
}

internal static class Corpora
{
    public static Corpus Create(string directory, int shards, int sequences = 40, int length = 700)
    {
        Directory.CreateDirectory(directory);
        var entries = new List<ShardEntry>();
        for (var i = 0; i < shards; i++)
        {
            var name = $"shard-{i:00000}.safetensors";
            using var shard = TestScoring.Shard(Path.Combine(directory, name), sequences, length, seed: 100 + i, withDocuments: true);
            entries.Add(new ShardEntry(name, sequences, shard.Sha256));
        }

        Corpus.Save(directory, new CorpusDescription
        {
            TokenizerFingerprint = new HashModel().TokenizerFingerprint,
            VocabularySize = 1000,
            SequenceLength = length,
            DocumentsSeeEachOther = false,
            Sequences = sequences * shards,
            Tokens = sequences * shards * length - shards * (length / 4),
            Shards = entries,
        });
        return Corpus.Open(directory);
    }
}
