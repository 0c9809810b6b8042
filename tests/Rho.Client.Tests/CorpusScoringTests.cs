using Rho.Formats;
using Rho.Scoring;
using Rho.TestSupport;

namespace Rho.Client.Tests;

public sealed class CorpusScoringTests : IAsyncDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly List<IAsyncDisposable> _owned = [];

    public async ValueTask DisposeAsync()
    {
        for (var i = _owned.Count - 1; i >= 0; i--) await _owned[i].DisposeAsync().AsTask().WaitAsync(TestScoring.Patience);
        _folder.Dispose();
    }

    [Fact]
    public async Task Run_TwoScorers_WritesEveryShardAndReportsToTheEnd()
    {
        var corpus = Corpora.Create(_folder["corpus"], shards: 5);
        var client = await ConnectAsync(new HashModel(), new HashModel());
        var reports = new List<CorpusScoringProgress>();
        var description = await CorpusScoring.RunAsync(corpus, client, _folder["out"], new Sink(reports)).WaitAsync(TestScoring.Patience);

        Check(corpus);
        Assert.Equal(description.Reference, ScoresDescription.Load(_folder["out"]).Reference);
        Assert.Equal(new CorpusScoringProgress(140_000, 140_000, 5, 5, 0, reports[^1].TokensPerSecond, TimeSpan.Zero), reports[^1]);
        Assert.Empty(Directory.GetFiles(_folder["out"], "*.tmp"));
    }

    [Fact]
    public async Task Run_OneLargeShard_KeepsAllScorersBusy()
    {
        var corpus = Corpora.Create(_folder["corpus"], shards: 1, sequences: 4000);
        var models = new[] { new HashModel { Rate = 500_000 }, new HashModel { Rate = 500_000 } };
        await CorpusScoring.RunAsync(corpus, await ConnectAsync(models), _folder["out"]).WaitAsync(TestScoring.Patience);
        Check(corpus);
        Assert.All(models, model => Assert.InRange(model.TokensScored, 700_000, 2_100_000));
    }

    [Fact]
    public async Task Run_CancelledAndStartedAgain_GoesOnWithoutTheDoneShards()
    {
        var corpus = Corpora.Create(_folder["corpus"], shards: 6);
        var model = new HashModel { Rate = 60_000 };
        var client = await ConnectAsync(model);
        using var stop = new CancellationTokenSource();
        var sink = new Sink([], report =>
        {
            if (report.ShardsDone >= 2) stop.Cancel();
        });
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => CorpusScoring.RunAsync(corpus, client, _folder["out"], sink, streams: 1, stop.Token)).WaitAsync(TestScoring.Patience);
        Assert.False(File.Exists(_folder["out/scores.json"]));
        Assert.Empty(Directory.GetFiles(_folder["out"], "*.tmp"));
        Assert.Throws<NotFoundException>(() => ScoresDescription.Load(_folder["out"]));

        await CorpusScoring.RunAsync(corpus, client, _folder["out"]).WaitAsync(TestScoring.Patience);
        Check(corpus);
        Assert.InRange(model.TokensScored - 256, 168_000, 168_000 + 2 * 28_000);
    }

    [Fact]
    public async Task Run_FolderOfAnotherReference_IsLeftAlone()
    {
        var corpus = Corpora.Create(_folder["corpus"], shards: 2);
        await CorpusScoring.RunAsync(corpus, await ConnectAsync(new HashModel()), _folder["out"]).WaitAsync(TestScoring.Patience);
        var other = await ConnectAsync(new HashModel { Fingerprint = "sha256:" + new string('e', 64) });
        var error = await Assert.ThrowsAsync<MismatchException>(() => CorpusScoring.RunAsync(corpus, other, _folder["out"])).WaitAsync(TestScoring.Patience);
        Assert.Contains("choose another folder", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Run_CorpusOfAnotherTokenizer_IsRefusedBeforeAnyWork()
    {
        var corpus = Corpora.Create(_folder["corpus"], shards: 1);
        var client = await ConnectAsync(new HashModel { TokenizerFingerprint = "sha256:other" });
        await Assert.ThrowsAsync<MismatchException>(() => CorpusScoring.RunAsync(corpus, client, _folder["out"])).WaitAsync(TestScoring.Patience);
        Assert.False(Directory.Exists(_folder["out"]));
    }

    private void Check(Corpus corpus)
    {
        for (var i = 0; i < corpus.Shards.Count; i++)
        {
            using var shard = corpus.OpenShard(i);
            using var scores = ScoreFile.Open(Path.Combine(_folder["out"], corpus.Shards[i].File));
            var losses = new float[shard.Sequences * shard.Length];
            scores.Read(0, losses);
            Assert.Equal(TestScoring.Expected(shard, corpus.DocumentsSeeEachOther), losses);
        }
    }

    private async Task<ScorerClient> ConnectAsync(params HashModel[] models)
    {
        var addresses = new List<string>();
        foreach (var model in models)
        {
            var host = await TestScoring.StartAsync(model);
            _owned.Add(host);
            addresses.Add(host.Address.Authority);
        }

        var client = new ScorerClient(new ScorerClientOptions { Addresses = addresses });
        _owned.Add(client);
        return client;
    }

    private sealed class Sink(List<CorpusScoringProgress> reports, Action<CorpusScoringProgress>? also = null) : IProgress<CorpusScoringProgress>
    {
        public void Report(CorpusScoringProgress value)
        {
            reports.Add(value);
            also?.Invoke(value);
        }
    }
}
