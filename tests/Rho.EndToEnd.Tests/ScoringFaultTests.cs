using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.RegularExpressions;
using Rho.Cli.Quickstart;
using Rho.TestSupport;

namespace Rho.EndToEnd.Tests;

/// <summary>
/// What befalls scorers in the field, done to real processes and a real Redis while <c>rho score</c> reads a corpus: all losses arrive,
/// the same bytes as undisturbed. (tests/Rho.Client.Tests/FaultTests does more of it over a simulated accelerator and counts the work lost.)
/// </summary>
[Collection(WorkshopCollection.Name)]
public sealed partial class ScoringFaultTests(Workshop workshop) : IAsyncLifetime
{
    private readonly TemporaryFolder _folder = new();
    private readonly List<IAsyncDisposable> _owned = [];
    private readonly HttpClient _http = new() { Timeout = TimeSpan.FromSeconds(10) };

    private string Undisturbed => Path.Combine(Path.GetDirectoryName(workshop.CorpusFolder)!, "undisturbed");

    public async ValueTask InitializeAsync()
    {
        // Once for all of these tests.
        if (File.Exists(Path.Combine(Undisturbed, "scores.json"))) return;
        var (scorer, address) = await Services.StartScorerAsync(workshop.Reference, "--cache", _folder["cache"]);
        await using (scorer) await RhoProgram.SucceedAsync("score", "--corpus", workshop.CorpusFolder, "--scorer", address, "--out", Undisturbed);
    }

    public async ValueTask DisposeAsync()
    {
        for (var i = _owned.Count - 1; i >= 0; i--) await _owned[i].DisposeAsync();
        _http.Dispose();
        _folder.Dispose();
    }

    [Fact]
    public async Task RedisKilledAndBackEmpty_SameBytesAndCachedAgain()
    {
        var redis = await RedisAsync();
        var scorer = await ScorerAsync("--redis", redis.Address);
        var scoring = ScoreAsync(scorer.Address, "during");
        await WaitForTokensAsync(20_000, scorer);
        redis.Kill();
        await WaitForTokensAsync(60_000, scorer);
        await redis.RestartAsync();
        await scoring;
        AssertUndisturbed("during");

        await EventuallyAsync(async () => await MetricAsync(scorer, "rho_scoring_cache_available") == 1);
        await ScoreAsync(scorer.Address, "after");
        AssertUndisturbed("after");
    }

    [Fact]
    [Trait("Category", "Slow")]
    public async Task CachedValuesDamagedAndCutShort_AreScoredAgain()
    {
        var redis = await RedisAsync();
        var scorer = await ScorerAsync("--redis", redis.Address);
        await ScoreAsync(scorer.Address, "first");
        // Of all chunks a third is damaged, a third cut short; the rest stays.
        var damaged = await redis.CommandAsync(
            "EVAL",
            """
            local n = 0
            for i, k in ipairs(redis.call('KEYS', '*:f16:*')) do
              if i % 3 == 1 then redis.call('SETRANGE', k, 100, 'damaged') n = n + 1 end
              if i % 3 == 2 then redis.call('SET', k, redis.call('GETRANGE', k, 0, 999)) n = n + 1 end
            end
            return n
            """, "0");
        Assert.True(int.Parse(damaged[1..], CultureInfo.InvariantCulture) >= 5, damaged);
        await ScoreAsync(scorer.Address, "again");
        AssertUndisturbed("first");
        AssertUndisturbed("again");
        Assert.True(await MetricAsync(scorer, "rho_scoring_cache_corrupt_total") > 0);
    }

    [Fact]
    public async Task RollingRestartUnderLoad_NoBatchFails()
    {
        var redis = await RedisAsync();
        var ports = new[] { FreePort(), FreePort() };
        var scorers = new[] { await ScorerAsync(ports[0], "--redis", redis.Address), await ScorerAsync(ports[1], "--redis", redis.Address) };
        var scoring = ScoreAsync($"{scorers[0].Address},{scorers[1].Address}", "rolled");
        await WaitForTokensAsync(20_000, scorers);
        foreach (var (old, port) in scorers.Zip(ports))
        {
            old.Process.Signal(15);
            Assert.Contains(await ExitAsync(old.Process), new[] { 0, 143 });
            await ScorerAsync(port, "--redis", redis.Address);
        }

        await scoring;
        AssertUndisturbed("rolled");
    }

    [Fact]
    [Trait("Category", "Slow")] // as long as it takes to count a silent scorer as dead
    public async Task ScorerFrozen_OtherGoesOn()
    {
        var redis = await RedisAsync();
        var scorers = new[] { await ScorerAsync("--redis", redis.Address, "--lease", "2"), await ScorerAsync("--redis", redis.Address, "--lease", "2") };
        var scoring = ScoreAsync($"{scorers[0].Address},{scorers[1].Address}", "frozen");
        await WaitForTokensAsync(20_000, scorers);
        scorers[0].Process.Signal(19);
        try
        {
            await scoring;
        }
        finally
        {
            scorers[0].Process.Signal(18);
        }

        AssertUndisturbed("frozen");
    }

    [Fact]
    public async Task ScorerFrozen_InterruptedScoringEndsBeforeItWouldCountAsDead()
    {
        var scorer = await ScorerAsync("--cache", _folder["other"]);
        scorer.Process.Signal(19);
        try
        {
            var scoring = RhoProgram.Start(_ => null, "score", "--corpus", workshop.CorpusFolder, "--scorer", scorer.Address, "--out", _folder["interrupted"]);
            await using (scoring)
            {
                // By then it has found the scorer's port open and waits for an answer.
                await EventuallyAsync(() => Task.FromResult(Connections(scorer.Port) > 0));
                var start = System.Diagnostics.Stopwatch.GetTimestamp();
                scoring.Signal(2);
                Assert.Equal(130, await ExitAsync(scoring));
                Assert.InRange(System.Diagnostics.Stopwatch.GetElapsedTime(start).TotalSeconds, 0, 10);
            }
        }
        finally
        {
            scorer.Process.Signal(18);
        }
    }

    /// <summary>Connections to a local port that are established.</summary>
    private static int Connections(int port) => System.Net.NetworkInformation.IPGlobalProperties.GetIPGlobalProperties().GetActiveTcpConnections()
        .Count(connection => connection.RemoteEndPoint.Port == port && connection.State == System.Net.NetworkInformation.TcpState.Established);

    private static async Task<int> ExitAsync(ChildProcess process)
    {
        using var patience = new CancellationTokenSource(RhoProgram.Patience);
        await process.WaitForExitAsync(patience.Token);
        return process.ExitCode;
    }

    private static async Task EventuallyAsync(Func<Task<bool>> condition)
    {
        using var patience = new CancellationTokenSource(RhoProgram.Patience);
        while (!await condition()) await Task.Delay(5, patience.Token);
    }

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    private Task ScoreAsync(string addresses, string name) =>
        RhoProgram.SucceedAsync("score", "--corpus", workshop.CorpusFolder, "--scorer", addresses, "--out", _folder[name]);

    private async Task<RedisServer> RedisAsync()
    {
        var redis = await RedisServer.StartAsync();
        _owned.Add(redis);
        return redis;
    }

    private Task<Scorer> ScorerAsync(params string[] arguments) => ScorerAsync(0, arguments);

    private async Task<Scorer> ScorerAsync(int port, params string[] arguments)
    {
        var process = RhoProgram.Start(
            line => line.StartsWith("listening on ", StringComparison.Ordinal) ? line["listening on ".Length..] : null,
            ["scorer", "--reference", workshop.Reference, "--port", $"{port}", "--http", "0", .. arguments]);
        _owned.Add(process);
        var address = await process.ReadyAsync(RhoProgram.Patience, CancellationToken.None);
        // It is logged on another stream, which may be read later.
        await EventuallyAsync(() => Task.FromResult(HttpAddress().IsMatch(process.Output)));
        return new Scorer(process, address, new Uri(HttpAddress().Match(process.Output).Groups["address"].Value));
    }

    private async Task<double> MetricAsync(Scorer scorer, string name)
    {
        var text = await _http.GetStringAsync(new Uri(scorer.Http, "metrics"));
        return Regex.Matches(text, $@"^{name}(?:{{[^}}]*}})? (?<value>\S+)", RegexOptions.Multiline, TimeSpan.FromSeconds(1))
            .Sum(match => double.Parse(match.Groups["value"].Value, CultureInfo.InvariantCulture));
    }

    /// <summary>Waits until scorers have put so many tokens through their models.</summary>
    private Task WaitForTokensAsync(long tokens, params Scorer[] scorers) => EventuallyAsync(async () =>
    {
        var scored = 0.0;
        foreach (var scorer in scorers) scored += await MetricAsync(scorer, "rho_scoring_tokens_scored_total");
        return scored >= tokens;
    });

    private void AssertUndisturbed(string actual)
    {
        var names = Directory.EnumerateFiles(Undisturbed).Select(Path.GetFileName).Order(StringComparer.Ordinal).ToList();
        Assert.NotEmpty(names);
        Assert.Equal(names, Directory.EnumerateFiles(_folder[actual]).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        foreach (var name in names)
            Assert.True(File.ReadAllBytes(Path.Combine(Undisturbed, name!)).AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(_folder[actual], name!))), $"{name} differs between undisturbed and {actual}");
    }

    [GeneratedRegex(@"HTTP.* (?<address>http://\S+/)", RegexOptions.ExplicitCapture)]
    private static partial Regex HttpAddress();

    private sealed record Scorer(ChildProcess Process, string Address, Uri Http)
    {
        public int Port => int.Parse(Address[(Address.LastIndexOf(':') + 1)..], CultureInfo.InvariantCulture);
    }
}
