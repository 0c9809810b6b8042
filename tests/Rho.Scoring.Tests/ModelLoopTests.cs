using Rho.Model;
using Rho.Scoring.Work;
using Rho.TestSupport;

namespace Rho.Scoring.Tests;

public sealed class ModelLoopTests
{
    [Fact]
    public async Task Score_SequencesOfDifferentLengthsTogether_EqualsEachAlone()
    {
        using var metrics = new ScoringMetrics();
        using var gate = new ManualResetEventSlim();
        using var model = new HashModel { OnBatch = _ => gate.Wait() };
        using var loop = new ModelLoop(model, 4096, metrics);
        var works = Enumerable.Range(1, 200).Select(length => FairQueueTests.Work($"client {length % 3}", length, mayShare: true)).ToList();

        var scored = works.Select(loop.ScoreAsync).ToList();
        gate.Set(); // once all wait: how they are packed is not a matter of timing
        await Task.WhenAll(scored).WaitAsync(TestScoring.Patience);

        Assert.InRange(model.Batches, 1, 100);
        foreach (var work in works)
        {
            var alone = new float[work.Count];
            model.Score(work.Tokens, 1, work.Length, default, alone, CancellationToken.None);
            Assert.Equal(alone, work.Scores!.Losses.AsSpan(work.FirstScore, work.Count).ToArray());
        }
    }

    [Fact]
    public async Task Score_ManyLengthsWaiting_FillsBatchesWithoutPadding()
    {
        using var metrics = new ScoringMetrics();
        using var gate = new ManualResetEventSlim();
        var batches = new List<int>();
        using var model = new HashModel();
        model.OnBatch = tokens =>
        {
            gate.Wait();
            batches.Add(tokens.Length);
        };
        using var loop = new ModelLoop(model, 4096, metrics);
        var random = new Random(5);
        var hold = loop.ScoreAsync(FairQueueTests.Work("x", 5));
        var works = Enumerable.Range(0, 500).Select(i => FairQueueTests.Work($"client {i % 3}", random.Next(1, 600), mayShare: true)).ToList();

        var scored = works.Select(loop.ScoreAsync).ToList();
        gate.Set(); // once all wait
        await Task.WhenAll([hold, .. scored]).WaitAsync(TestScoring.Patience);

        Assert.Equal(works.Sum(work => work.Count) + 5, batches.Sum());
        Assert.All(batches, count => Assert.InRange(count, 1, 4096));
        Assert.InRange(batches.Skip(1).SkipLast(1).Average() / 4096, 0.9, 1);
    }

    [Fact]
    public async Task Score_SequenceAboveTheBudget_IsABatchOfItsOwn()
    {
        using var metrics = new ScoringMetrics();
        using var model = new HashModel();
        using var loop = new ModelLoop(model, 4096, metrics);
        var works = new[] { FairQueueTests.Work("c", 5000, mayShare: true), FairQueueTests.Work("c", 4500, mayShare: true) };
        await Task.WhenAll(works.Select(loop.ScoreAsync)).WaitAsync(TestScoring.Patience);
        Assert.Equal(2, model.Batches);
    }

    [Fact]
    public async Task Score_CancelledWhileQueued_FreesItsWork()
    {
        using var metrics = new ScoringMetrics();
        using var gate = new ManualResetEventSlim();
        using var model = new HashModel { OnBatch = _ => gate.Wait() };
        using var loop = new ModelLoop(model, 4096, metrics);
        using var cancel = new CancellationTokenSource();
        var first = loop.ScoreAsync(FairQueueTests.Work("a", 10));
        var cancelled = loop.ScoreAsync(FairQueueTests.Work("b", 20, cancellation: cancel.Token));
        var last = loop.ScoreAsync(FairQueueTests.Work("c", 30));

        await cancel.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => cancelled).WaitAsync(TestScoring.Patience);
        gate.Set();
        await Task.WhenAll(first, last).WaitAsync(TestScoring.Patience);

        Assert.Equal(40, model.TokensScored);
    }

    [Fact]
    public async Task Score_ModelFailsOnOneSequenceOfABatch_OthersAreScored()
    {
        using var metrics = new ScoringMetrics();
        using var gate = new ManualResetEventSlim();
        using var model = new HashModel();
        model.OnBatch = tokens =>
        {
            gate.Wait();
            if (tokens.Contains(999)) throw new InvalidOperationException("boom");
        };
        using var loop = new ModelLoop(model, 4096, metrics);
        var hold = loop.ScoreAsync(FairQueueTests.Work("x", 5));
        var good = Enumerable.Range(0, 4).Select(i => loop.ScoreAsync(FairQueueTests.Work($"good {i}", 100, mayShare: true))).ToList();
        var poison = FairQueueTests.Work("bad", 100, mayShare: true);
        poison.Tokens[7] = 999;
        var bad = loop.ScoreAsync(poison);

        gate.Set();
        await Task.WhenAll([hold, .. good]).WaitAsync(TestScoring.Patience);
        await Assert.ThrowsAsync<InvalidOperationException>(() => bad).WaitAsync(TestScoring.Patience);
        await loop.ScoreAsync(FairQueueTests.Work("after", 5)).WaitAsync(TestScoring.Patience);
    }

    [Fact]
    public async Task Dispose_WithWorkQueued_FailsItAsUnavailable()
    {
        using var metrics = new ScoringMetrics();
        using var model = new HashModel { Rate = 10 };
        var loop = new ModelLoop(model, 4096, metrics);
        var works = Enumerable.Range(0, 3).Select(_ => loop.ScoreAsync(FairQueueTests.Work("a", 1000))).ToList();

        loop.Dispose();

        foreach (var work in works) await Assert.ThrowsAsync<UnavailableException>(() => work).WaitAsync(TestScoring.Patience);
    }
}

public sealed class AdmissionTests
{
    [Fact]
    public void Admit_PastTheLimit_SaysWhenToComeBack()
    {
        var admission = new Admission(1000, () => 100);
        using var first = admission.Admit(900);
        var refused = Assert.Throws<OverloadedException>(() => admission.Admit(600));
        Assert.Equal(TimeSpan.FromSeconds(5), refused.RetryAfter);
        first.Done(500);
        using var second = admission.Admit(600);
        Assert.Equal(1000, admission.QueuedTokens);
        Assert.Equal(TimeSpan.FromSeconds(10), admission.ExpectedWait);
    }

    [Fact]
    public void Admit_NothingQueued_TakesWorkOfAnySize()
    {
        var admission = new Admission(10, () => 0);
        admission.Admit(1_000_000).Dispose();
        Assert.Equal(0, admission.QueuedTokens);
    }

    [Fact]
    public void Done_MoreThanAdmitted_FreesNoMore()
    {
        var admission = new Admission(1000, () => 0);
        using var other = admission.Admit(100);
        using (var work = admission.Admit(50)) work.Done(80);
        Assert.Equal(100, admission.QueuedTokens);
    }
}
