using System.Collections.Concurrent;
using System.Diagnostics;
using Rho.Scoring;
using Rho.TestSupport;

namespace Rho.Client.Tests;

/// <summary>One trace from a caller through the client and the service to Redis; batches, which may be of many streams, link to it.</summary>
public sealed class TraceTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly ConcurrentQueue<Activity> _ended = new();
    private readonly ActivityListener _listener;

    public TraceTests()
    {
        _listener = new ActivityListener
        {
            ShouldListenTo = source => source.Name.StartsWith("Rho", StringComparison.Ordinal) || source.Name is "Microsoft.AspNetCore" or "Grpc.Net.Client" or "System.Net.Http" or "test",
            Sample = static (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllDataAndRecorded,
            ActivityStopped = _ended.Enqueue,
        };
        ActivitySource.AddActivityListener(_listener);
    }

    public void Dispose()
    {
        _listener.Dispose();
        _folder.Dispose();
    }

    [Fact]
    public async Task ScoreShard_IsOneTrace_FromTheCallerToRedis()
    {
        await using var redis = await RedisServer.StartAsync();
        await using var host = await TestScoring.StartAsync(new HashModel(), new ScoringOptions { Redis = redis.Address });
        await using var client = new ScorerClient(new ScorerClientOptions { Addresses = [host.Address.Authority] });
        using var shard = TestScoring.Shard(_folder["shard"], 60, 700);

        var scored = await TracedAsync(async () => Assert.Equal(42_000, await client.ScoreShardAsync(shard, true).Select(block => block.Losses.Length).SumAsync()));
        var call = await SpanAsync(scored, "score shard", parent: scored.Context.SpanId);
        var served = await SpanAsync(scored, "Microsoft.AspNetCore.Hosting.HttpRequestIn", parent: null, span => (string?)span.GetTagItem("rho.shard") == shard.Sha256);
        Assert.Contains(call.SpanId, Ancestors(served));
        foreach (var operation in new[] { "ReadAsync", "TryLeaseAsync", "WriteAsync" })
        {
            var command = await SpanAsync(scored, $"redis {operation}", parent: null);
            Assert.Contains(served.SpanId, Ancestors(command));
            Assert.Equal("redis", command.GetTagItem("db.system"));
        }

        // Three chunks, of which each is a batch.
        await EventuallyAsync(() => Batches(scored).Count() == 3);
        Assert.All(Batches(scored), batch => Assert.Contains(batch.Links, link => Ancestors(scored.TraceId, link.Context.SpanId).Contains(served.SpanId)));
        Assert.Equal(42_000, Batches(scored).Sum(batch => (int)batch.GetTagItem("rho.tokens")!));

        var cached = await TracedAsync(async () => Assert.Equal(42_000, await client.ScoreShardAsync(shard, true).Select(block => block.Losses.Length).SumAsync()));
        await SpanAsync(cached, "redis ReadAsync", parent: null);
        await SpanAsync(cached, "Microsoft.AspNetCore.Hosting.HttpRequestIn", parent: null);
        Assert.Empty(Batches(cached));
    }

    [Fact]
    public async Task Score_BatchOfSeveralStreams_LinksToEach()
    {
        using var begun = new SemaphoreSlim(0);
        using var go = new ManualResetEventSlim();
        var model = new HashModel();
        await using var host = await TestScoring.StartAsync(model);
        await using var client = new ScorerClient(new ScorerClientOptions { Addresses = [host.Address.Authority] });
        await client.DescribeAsync();
        model.OnBatch = _ =>
        {
            begun.Release();
            go.Wait(TestScoring.Patience);
        };
        var first = TracedAsync(() => ScoreOneAsync(client, 1));
        Assert.True(await begun.WaitAsync(TestScoring.Patience));

        // While the first one's batch waits, the others' sequences come together in the queue.
        var others = new[] { TracedAsync(() => ScoreOneAsync(client, 2)), TracedAsync(() => ScoreOneAsync(client, 3)) };
        using var http = new HttpClient();
        await EventuallyAsync(async () => (await http.GetStringAsync(new Uri(host.HttpAddress!, "/metrics"))).Contains("rho_health_waiting 3\n", StringComparison.Ordinal));
        go.Set();
        await Task.WhenAll([first, .. others]).WaitAsync(TestScoring.Patience);
        foreach (var caller in new[] { await first, await others[0], await others[1] })
        {
            await SpanAsync(caller, "score sequences", parent: caller.Context.SpanId);
            await EventuallyAsync(() => Batches(caller).Any());
        }

        Assert.Same(Assert.Single(Batches(await others[0])), Assert.Single(Batches(await others[1])));
        Assert.NotSame(Assert.Single(Batches(await first)), Assert.Single(Batches(await others[0])));
    }

    private static async Task ScoreOneAsync(ScorerClient client, ulong id) =>
        Assert.Equal(1, await client.ScoreAsync(new[] { new SequenceTokens(id, [.. Enumerable.Range(0, 100)]) }.ToAsyncEnumerable()).CountAsync());

    /// <summary>The span of a caller that did something.</summary>
    private static async Task<Activity> TracedAsync(Func<Task> work)
    {
        using var source = new ActivitySource("test");
        using var activity = source.StartActivity("caller")!;
        await work();
        return activity;
    }

    private IEnumerable<Activity> Batches(Activity caller) =>
        _ended.Where(span => span.OperationName == "score batch" && span.Links.Any(link => link.Context.TraceId == caller.TraceId));

    /// <summary>A span of a trace, once it has ended.</summary>
    private async Task<Activity> SpanAsync(Activity caller, string name, ActivitySpanId? parent, Func<Activity, bool>? condition = null)
    {
        Activity? found = null;
        await EventuallyAsync(() => (found = _ended.FirstOrDefault(span =>
            span.TraceId == caller.TraceId && span.OperationName == name && (parent is null || span.ParentSpanId == parent) && (condition is null || condition(span)))) is not null);
        return found!;
    }

    private IReadOnlyCollection<ActivitySpanId> Ancestors(Activity span) => Ancestors(span.TraceId, span.ParentSpanId);

    /// <summary>A span and those around it.</summary>
    private HashSet<ActivitySpanId> Ancestors(ActivityTraceId trace, ActivitySpanId span)
    {
        var ancestors = new HashSet<ActivitySpanId>();
        while (ancestors.Add(span) && _ended.FirstOrDefault(other => other.TraceId == trace && other.SpanId == span) is { } activity) span = activity.ParentSpanId;
        return ancestors;
    }

    private static Task EventuallyAsync(Func<bool> condition) => EventuallyAsync(() => Task.FromResult(condition()));

    private static async Task EventuallyAsync(Func<Task<bool>> condition)
    {
        using var patience = new CancellationTokenSource(TestScoring.Patience);
        while (!await condition()) await Task.Delay(20, patience.Token);
    }
}
