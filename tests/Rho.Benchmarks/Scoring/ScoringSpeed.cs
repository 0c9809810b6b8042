using System.CommandLine;
using System.Diagnostics;
using System.Diagnostics.Metrics;
using System.Globalization;
using Rho.Cli.Quickstart;
using Rho.Client;
using Rho.Formats;
using Rho.Model;
using Rho.Scoring;
using Rho.Scoring.Caching;
using Rho.TestSupport;

namespace Rho.Benchmarks.Scoring;

/// <summary>The scoring service: what serving from its cache and the way over gRPC cost, how replicas add up, and whether memory stays flat.</summary>
internal static class ScoringSpeed
{
    private const int Length = 512;

    internal static Command Command()
    {
        var parts = new (string Name, string Description, Func<WorkFolder, Task> Run)[]
        {
            ("cache", "Tokens per second from the cache of one replica, to .NET and to Python, and the time of each stage", CacheAsync),
            ("plumbing", "What the way over gRPC adds to calling the model in process", PlumbingAsync),
            ("replicas", "How replicas add up, with a simulated accelerator and with a model on one thread each", ReplicaScaling.RunAsync),
            ("padding", "Padding and fill of batches of sequences of mixed lengths", PaddingAsync),
            ("memory", "Peak memory of a replica over shards of growing size", MemoryAsync),
        };
        var command = new Command("scoring", "Measures the scoring service") { ScorerProcess.Command(), Soak.Command() };
        foreach (var (name, description, run) in parts)
        {
            var part = new Command(name, description);
            part.SetAction(async _ =>
            {
                using var work = new WorkFolder();
                await run(work);
                return 0;
            });
            command.Add(part);
        }

        command.SetAction(async _ =>
        {
            foreach (var part in parts)
            {
                Console.WriteLine($"\n{part.Name}: {part.Description}\n");
                using var work = new WorkFolder();
                await part.Run(work);
            }

            return 0;
        });
        return command;
    }

    private static async Task CacheAsync(WorkFolder work)
    {
        const int sequences = 16_384;
        using var shard = work.Shard("shard", sequences);
        var (redis, port) = await QuickstartRedis.StartAsync(logPath: null, CancellationToken.None);
        await using var _ = redis;
        Console.WriteLine("| cache | to | tokens/s | store read, ns/token | of it checksum | all, ns/token |");
        Console.WriteLine("| --- | --- | ---: | ---: | ---: | ---: |");
        foreach (var (name, arguments) in new[] { ("folder", new[] { "--cache", work["cache"] }), ("Redis", ["--redis", $"127.0.0.1:{port}"]) })
        {
            await using var replica = await ScorerProcess.StartAsync(["--rate", "0", .. arguments]);
            await using var client = Client(replica);
            await ReadAsync(client, shard);
            using var metrics = new ScoringMetrics();
            ILossStore store = name == "folder"
                ? new FolderLossStore(work["cache"], metrics, Microsoft.Extensions.Logging.Abstractions.NullLogger.Instance)
                : await RedisLossStore.ConnectAsync(new RedisOptions { Configuration = $"127.0.0.1:{port}" }, metrics, Microsoft.Extensions.Logging.Abstractions.NullLogger.Instance);
            await using var __ = store;
            var key = new ScoreKey((await client.DescribeAsync()).Fingerprint, shard.Sha256, "", new ScoreFormat(LossEncoding.F16), new ChunkGrid(sequences, Length));
            var read = await BestAsync(async () =>
            {
                for (var chunk = 0; chunk < key.Grid.Chunks;)
                    chunk += Math.Max(1, (await store.ReadAsync(key, chunk, Math.Min(8, key.Grid.Chunks - chunk), CancellationToken.None)).Count);
            });
            var payload = new byte[key.PayloadBytes(0)];
            var checksum = await BestAsync(() =>
            {
                for (var chunk = 0; chunk < key.Grid.Chunks; chunk++) key.Checksum(0, payload);
                return Task.CompletedTask;
            });
            var tokens = (double)sequences * Length;
            var all = await BestAsync(() => ReadAsync(client, shard));
            Console.WriteLine(Text($"| {name} | .NET | {tokens / all:N0} | {read / tokens * 1e9:0.0} | {checksum / tokens * 1e9:0.0} | {all / tokens * 1e9:0.0} |"));
            if (await PythonAsync(work["shard"], replica.Address) is { } python)
                Console.WriteLine(Text($"| {name} | Python | {tokens / python:N0} | {read / tokens * 1e9:0.0} | {checksum / tokens * 1e9:0.0} | {python / tokens * 1e9:0.0} |"));
        }
    }

    private static async Task PlumbingAsync(WorkFolder work)
    {
        const int sequences = 128, rounds = 3;
        using var shard = work.Shard("shard", sequences, vocabulary: 4096);
        using var direct = ScorerProcess.Model();
        await using var host = await ScoringHost.StartAsync(ScorerProcess.Options(null, null), [ScorerProcess.Model()]);
        await using var client = new ScorerClient(new ScorerClientOptions { Addresses = [host.Address.Authority] });
        var tokens = new int[sequences * Length];
        shard.Read(0, tokens);
        var losses = new float[tokens.Length];
        var chunk = new ChunkGrid(sequences, Length).ChunkSequences;
        var ratios = new List<(double Wall, double Processor, double Idle)>();
        var inModel = 0.0;
        using var batches = new MeterListener
        {
            InstrumentPublished = static (instrument, listener) =>
            {
                if (instrument is { Meter.Name: ScoringMetrics.MeterName, Name: "rho.scoring.batch_duration" }) listener.EnableMeasurementEvents(instrument);
            },
        };
        batches.SetMeasurementEventCallback<double>((_, seconds, _, _) => inModel += seconds);
        batches.Start();
        for (var round = 0; round <= rounds; round++)
        {
            var called = await Measure(() =>
            {
                for (var first = 0; first < sequences; first += chunk)
                {
                    var count = Math.Min(chunk, sequences - first) * Length;
                    direct.Score(tokens.AsSpan(first * Length, count), count / Length, Length, [], losses.AsSpan(first * Length, count), CancellationToken.None);
                }

                return Task.CompletedTask;
            });
            inModel = 0;
            var served = await Measure(() => ReadAsync(client, shard));
            if (round > 0) ratios.Add((served.Wall / called.Wall, served.Processor / called.Processor, (served.Wall - inModel) / served.Wall));
        }

        Console.WriteLine(Text($"hidden 256, 4 layers, vocabulary 4,096, float32, {sequences} sequences of {Length} tokens, median of {rounds} pairs: "));
        Console.WriteLine(Text($"through gRPC takes {Measuring.Median(ratios.Select(ratio => ratio.Wall)) - 1:+0.0%;-0.0%} wall time and {Measuring.Median(ratios.Select(ratio => ratio.Processor)) - 1:+0.0%;-0.0%} processor time against calls in process"));
        Console.WriteLine(Text($"the model was without work for {Measuring.Median(ratios.Select(ratio => ratio.Idle)):0.00%} of the time"));
    }

    private static async Task PaddingAsync(WorkFolder work)
    {
        await using var replica = await ScorerProcess.StartAsync("--rate", "400000", "--cache", work["cache"]);
        await using var client = Client(replica);
        var random = new Random(5);
        // Lengths as documents have them: log-normal, median 300, cut at 4,096.
        int Draw() => Math.Clamp((int)Math.Exp(5.7 + Math.Sqrt(-2 * Math.Log(1 - random.NextDouble())) * Math.Cos(2 * Math.PI * random.NextDouble())), 2, 4096);
        var sequences = Enumerable.Range(0, 6000).Select(i => new SequenceTokens((ulong)i, [.. Enumerable.Range(0, Draw()).Select(_ => random.Next(1000))])).ToList();
        await foreach (var _ in client.ScoreAsync(sequences.ToAsyncEnumerable()))
        {
        }

        var (scored, padding, batches) = (await replica.MetricAsync("rho_scoring_tokens_scored_total"), await replica.MetricAsync("rho_scoring_tokens_padding_total"), await replica.MetricAsync("rho_scoring_batches_total"));
        Console.WriteLine(Text($"{sequences.Count} sequences, {scored:N0} tokens: {padding / scored:0.0%} padding, {scored / batches / 16_384:0.00} of the budget of 16,384 tokens in each of {batches:N0} batches"));
    }

    private static async Task MemoryAsync(WorkFolder work)
    {
        Console.WriteLine("| tokens of the shard | peak resident memory of the replica, MB |");
        Console.WriteLine("| ---: | ---: |");
        foreach (var sequences in new[] { 2_048, 8_192, 32_768, 131_072 })
        {
            await using var replica = await ScorerProcess.StartAsync("--rate", "0", "--cache", work[$"cache-{sequences}"]);
            await using var client = Client(replica);
            using var shard = work.Shard($"shard-{sequences}", sequences);
            await ReadAsync(client, shard);
            Console.WriteLine(Text($"| {(long)sequences * Length:N0} | {replica.Memory(highest: true):N0} |"));
        }
    }

    /// <summary>Seconds that rho_client takes for the shard, in a process of its own; null where Debian's Python lacks what it needs.</summary>
    private static async Task<double?> PythonAsync(string shard, string address)
    {
        const string script = """
            import sys, time
            from rho_client import ScorerClient, TokenShard
            shard = TokenShard.open(sys.argv[1])
            shard.sha256
            best = 1e9
            with ScorerClient(sys.argv[2]) as client:
                for _ in range(3):
                    start = time.perf_counter()
                    count = sum(block.losses.size for block in client.score_shard(shard))
                    best = min(best, time.perf_counter() - start)
            assert count == shard.tokens.size
            print(best)
            """;
        var root = new DirectoryInfo(AppContext.BaseDirectory);
        while (root is not null && !Directory.Exists(Path.Combine(root.FullName, "clients", "python"))) root = root.Parent;
        if (root is null || !File.Exists("/usr/bin/python3")) return null;
        using var process = Process.Start(new ProcessStartInfo("/usr/bin/python3", ["-c", script, shard, address])
        {
            RedirectStandardOutput = true,
            UseShellExecute = false,
            Environment = { ["PYTHONPATH"] = Path.Combine(root.FullName, "clients", "python"), ["PYTHONDONTWRITEBYTECODE"] = "1" },
        })!;
        var output = await process.StandardOutput.ReadToEndAsync();
        await process.WaitForExitAsync();
        return process.ExitCode == 0 ? double.Parse(output, CultureInfo.InvariantCulture) : null;
    }

    private static ScorerClient Client(ScorerProcess replica) => new(new ScorerClientOptions { Addresses = [replica.Address] });

    private static async Task ReadAsync(ScorerClient client, TokenShard shard)
    {
        await foreach (var _ in client.ScoreShardAsync(shard, documentsSeeEachOther: true))
        {
        }
    }

    /// <summary>The least of five times, seconds.</summary>
    private static async Task<double> BestAsync(Func<Task> action)
    {
        var best = double.MaxValue;
        for (var round = 0; round < 5; round++) best = Math.Min(best, (await Measure(action)).Wall);
        return best;
    }

    private static async Task<(double Wall, double Processor)> Measure(Func<Task> action)
    {
        var (start, before) = (Stopwatch.GetTimestamp(), Environment.CpuUsage.TotalTime);
        await action();
        return (Stopwatch.GetElapsedTime(start).TotalSeconds, (Environment.CpuUsage.TotalTime - before).TotalSeconds);
    }

    private static string Text(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
