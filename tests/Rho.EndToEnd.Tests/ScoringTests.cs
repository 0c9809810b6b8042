using System.Globalization;
using System.Text.RegularExpressions;
using Rho.Cli.Quickstart;

namespace Rho.EndToEnd.Tests;

/// <summary>Reference losses of a corpus are the same bytes, however they came about.</summary>
[Collection(WorkshopCollection.Name)]
public sealed partial class ScoringTests(Workshop workshop) : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task Score_OneScorerThenItsCache_SameBytes()
    {
        var (scorer, address) = await Services.StartScorerAsync(workshop.Reference, "--cache", _folder["cache"]);
        await using (scorer)
        {
            await ScoreAsync(address, "fresh");
            var again = await RhoProgram.RunAsync("score", "--corpus", workshop.CorpusFolder, "--scorer", address, "--out", _folder["cached"]);
            Assert.Contains("from the scorers' cache", again.Error, StringComparison.Ordinal);
        }

        AssertSameFiles("fresh", "cached");
    }

    [Fact]
    public async Task Score_TwoScorersOverRedisAndOneKilledHalfWay_SameBytes()
    {
        var (alone, aloneAddress) = await Services.StartScorerAsync(workshop.Reference, "--cache", _folder["cache"]);
        await using (alone) await ScoreAsync(aloneAddress, "one");

        await using (var pair = await ScorerPair.StartAsync(workshop.Reference)) await ScoreAsync(pair.Addresses, "two");

        await using (var pair = await ScorerPair.StartAsync(workshop.Reference))
        {
            var scoring = ScoreAsync(pair.Addresses, "killed");
            await pair.WaitForTokensAsync(20_000);
            pair.First.Signal(9);
            await scoring;
            await pair.First.WaitForExitAsync(new CancellationTokenSource(RhoProgram.Patience).Token);
        }

        AssertSameFiles("one", "two");
        AssertSameFiles("one", "killed");
    }

    [Fact]
    public async Task Score_Interrupted_GoesOnWithTheFilesItHas()
    {
        var (scorer, address) = await Services.StartScorerAsync(workshop.Reference, "--cache", _folder["cache"]);
        await using var _ = scorer;
        var first = RhoProgram.Start(_ => null, "score", "--corpus", workshop.CorpusFolder, "--scorer", address, "--out", _folder["interrupted"]);
        await using (first)
        {
            await WaitAsync(() => Directory.Exists(_folder["interrupted"]) && Directory.EnumerateFiles(_folder["interrupted"], "shard-*.safetensors").Any());
            first.Signal(2);
            await first.WaitForExitAsync(new CancellationTokenSource(RhoProgram.Patience).Token);
            // On a fast machine the last shard may be written before the signal comes.
            Assert.Contains(first.ExitCode, new[] { 130, 0 });
        }

        Assert.DoesNotContain(Directory.EnumerateFiles(_folder["interrupted"]), path => path.EndsWith(".tmp", StringComparison.Ordinal));
        await ScoreAsync(address, "interrupted");
        await ScoreAsync(address, "whole");
        AssertSameFiles("whole", "interrupted");
    }

    private Task ScoreAsync(string addresses, string name) =>
        RhoProgram.SucceedAsync("score", "--corpus", workshop.CorpusFolder, "--scorer", addresses, "--out", _folder[name]);

    private void AssertSameFiles(string expected, string actual)
    {
        var names = Directory.EnumerateFiles(_folder[expected]).Select(Path.GetFileName).Order(StringComparer.Ordinal).ToList();
        Assert.NotEmpty(names);
        Assert.Equal(names, Directory.EnumerateFiles(_folder[actual]).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        foreach (var name in names)
            Assert.True(File.ReadAllBytes(Path.Combine(_folder[expected], name!)).AsSpan().SequenceEqual(File.ReadAllBytes(Path.Combine(_folder[actual], name!))), $"{name} differs between {expected} and {actual}");
    }

    private static async Task WaitAsync(Func<bool> condition)
    {
        using var patience = new CancellationTokenSource(RhoProgram.Patience);
        while (!condition()) await Task.Delay(1, patience.Token);
    }

    /// <summary>Two scorer processes with a Redis between them.</summary>
    private sealed partial class ScorerPair : IAsyncDisposable
    {
        private readonly HttpClient _http = new() { Timeout = TimeSpan.FromSeconds(10) };
        private ChildProcess? _redis;

        public required ChildProcess First { get; init; }

        public required ChildProcess Second { get; init; }

        public required string Addresses { get; init; }

        public static async Task<ScorerPair> StartAsync(string reference)
        {
            var (redis, address) = await Services.StartRedisAsync();
            var (first, firstAddress) = await Services.StartScorerAsync(reference, "--http", "0", "--redis", address, "--lease", "2");
            var (second, secondAddress) = await Services.StartScorerAsync(reference, "--http", "0", "--redis", address, "--lease", "2");
            return new ScorerPair { _redis = redis, First = first, Second = second, Addresses = $"{firstAddress},{secondAddress}" };
        }

        /// <summary>Waits until the first scorer has put so many tokens through its model.</summary>
        public async Task WaitForTokensAsync(long tokens)
        {
            await WaitForAsync(async () =>
            {
                var address = HttpAddress().Match(First.Output);
                if (!address.Success) return false;
                var text = await _http.GetStringAsync(new Uri($"{address.Groups["address"].Value}metrics"));
                var match = TokensScored().Match(text);
                return match.Success && double.Parse(match.Groups["count"].Value, CultureInfo.InvariantCulture) >= tokens;
            });
        }

        public async ValueTask DisposeAsync()
        {
            await First.DisposeAsync();
            await Second.DisposeAsync();
            if (_redis is not null) await _redis.DisposeAsync();
            _http.Dispose();
        }

        private static async Task WaitForAsync(Func<Task<bool>> condition)
        {
            using var patience = new CancellationTokenSource(RhoProgram.Patience);
            while (!await condition()) await Task.Delay(10, patience.Token);
        }

        [GeneratedRegex(@"HTTP.* (?<address>http://\S+/)")]
        private static partial Regex HttpAddress();

        [GeneratedRegex(@"^rho_scoring_tokens_scored_total\S* (?<count>\S+)$", RegexOptions.Multiline | RegexOptions.ExplicitCapture)]
        private static partial Regex TokensScored();
    }
}
