using Rho.Scoring.Work;

namespace Rho.Scoring.Tests;

public sealed class FairQueueTests
{
    [Fact]
    public void Dequeue_OneClientAskedForMuch_OthersStillGetTheirShare()
    {
        var queue = new FairQueue();
        for (var i = 0; i < 10; i++) queue.Enqueue(Work("greedy", 100));
        for (var i = 0; i < 2; i++) queue.Enqueue(Work("modest", 100));

        Assert.Equal(["greedy", "modest", "greedy", "modest", "greedy"], Take(queue, 5));
    }

    [Fact]
    public void Dequeue_WorkOfDifferentSizes_SharesTokensNotTurns()
    {
        var queue = new FairQueue();
        for (var i = 0; i < 20; i++)
        {
            queue.Enqueue(Work("large", 300));
            queue.Enqueue(Work("small", 100));
        }

        var first = Take(queue, 12);
        Assert.Equal(3, first.Count(name => name == "large"));
        Assert.Equal(9, first.Count(name => name == "small"));
    }

    [Fact]
    public void Dequeue_ClientComesBackAfterLong_IsNotPaidForItsAbsence()
    {
        var queue = new FairQueue();
        for (var i = 0; i < 100; i++) queue.Enqueue(Work("busy", 100));
        Take(queue, 50);
        for (var i = 0; i < 10; i++) queue.Enqueue(Work("late", 100));

        var next = Take(queue, 10);
        Assert.Equal(5, next.Count(name => name == "late"));
    }

    [Fact]
    public void Remove_QueuedWork_IsNeverTaken()
    {
        var queue = new FairQueue();
        var gone = Work("a", 1);
        queue.Enqueue(gone);
        queue.Enqueue(Work("b", 1));

        Assert.True(queue.Remove(gone));
        Assert.False(queue.Remove(gone));
        Assert.Equal(["b"], Take(queue, 5));
        Assert.Equal(0, queue.Count);
    }

    [Fact]
    public void Dequeue_OnlyShareable_LeavesWorkThatMayNotShare()
    {
        var queue = new FairQueue();
        queue.Enqueue(Work("fixed", 10));
        queue.Enqueue(Work("free", 10, mayShare: true));

        var first = Work("free", 5, mayShare: true);
        Assert.Equal("free", queue.Dequeue(joining: first)!.Client);
        Assert.Null(queue.Dequeue(joining: first));
        Assert.Equal("fixed", queue.Dequeue()!.Client);
    }

    internal static ScoringWork Work(string client, int length, bool mayShare = false, int sequences = 1, CancellationToken cancellation = default) => new()
    {
        Client = client,
        Tokens = [.. Enumerable.Range(0, sequences * length).Select(i => i % 1000)],
        Sequences = sequences,
        Length = length,
        MayShareBatch = mayShare,
        Format = new Formats.ScoreFormat(Formats.LossEncoding.F16),
        Cancellation = cancellation,
    };

    private static List<string> Take(FairQueue queue, int count)
    {
        var names = new List<string>();
        while (names.Count < count && queue.Dequeue() is { } work) names.Add(work.Client);
        return names;
    }
}
