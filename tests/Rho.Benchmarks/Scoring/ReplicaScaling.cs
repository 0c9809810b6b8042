using System.Diagnostics;
using System.Globalization;
using Rho.Cli.Quickstart;
using Rho.Client;

namespace Rho.Benchmarks.Scoring;

/// <summary>
/// How replicas that share a corpus by Redis add up: tokens per second, the share of the time for which their models worked, and the
/// processor time of each part per token, which says how many cores the parts need between them.
/// </summary>
internal static class ReplicaScaling
{
    private const int Length = 512;

    public static async Task RunAsync(WorkFolder work)
    {
        Console.WriteLine("| model | replicas | tokens/s | of linear | models at work | client, ns/token | replicas, ns/token | Redis, ns/token | cores used |");
        Console.WriteLine("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
        foreach (var rate in new[] { 50_000, 200_000 })
            foreach (var count in new[] { 1, 2, 4, 8 })
                await MeasureAsync(work, $"simulated accelerator, {rate:N0} tokens/s", ["--rate", $"{rate}"], count, shards: 24 * count, sequences: rate / Length, vocabulary: 1000, single: rate);
        var single = 0.0;
        foreach (var count in new[] { 1, 2, 4 })
            single = await MeasureAsync(work, "hidden 256, 4 layers, one thread", [], count, shards: 8, sequences: 32, vocabulary: 4096, single);
    }

    /// <summary>Writes a row of the table; returns the speed of a single replica.</summary>
    private static async Task<double> MeasureAsync(WorkFolder work, string name, string[] arguments, int count, int shards, int sequences, int vocabulary, double single)
    {
        var (redis, port) = await QuickstartRedis.StartAsync(logPath: null, CancellationToken.None);
        await using var _ = redis;
        var replicas = await Task.WhenAll(Enumerable.Range(0, count).Select(i => ScorerProcess.StartAsync([.. arguments, "--redis", $"127.0.0.1:{port}"])));
        try
        {
            var corpus = work.Corpus($"corpus-{Guid.NewGuid():N}", shards, sequences, vocabulary);
            await using var client = new ScorerClient(new ScorerClientOptions { Addresses = [.. replicas.Select(replica => replica.Address)] });
            await client.DescribeAsync();
            var (start, before) = (Stopwatch.GetTimestamp(), Processor(redis.Id, replicas));
            await CorpusScoring.RunAsync(corpus, client, work[$"scores-{Guid.NewGuid():N}"]);
            var seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
            var used = Processor(redis.Id, replicas).Zip(before, (after, then) => after - then).ToArray();
            var atWork = (await Task.WhenAll(replicas.Select(replica => replica.MetricAsync("rho_scoring_batch_duration_seconds_sum")))).Sum() / seconds / count;
            var tokens = (double)corpus.Sequences * Length;
            if (single == 0) single = tokens / seconds;
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                $"| {name} | {count} | {tokens / seconds:N0} | {tokens / seconds / single / count:0.00} | {atWork:P0} | {used[0] / tokens * 1e9:0} | {used[1] / tokens * 1e9:0} | {used[2] / tokens * 1e9:0} | {used.Sum() / seconds:0.00} |"));
            return single;
        }
        finally
        {
            foreach (var replica in replicas) await replica.DisposeAsync();
        }
    }

    /// <summary>Processor seconds of the client, of all replicas and of Redis so far.</summary>
    private static double[] Processor(int redis, ScorerProcess[] replicas)
    {
        static double Of(int id)
        {
            using var process = Process.GetProcessById(id);
            return process.TotalProcessorTime.TotalSeconds;
        }

        return [Environment.CpuUsage.TotalTime.TotalSeconds, replicas.Sum(replica => Of(replica.Id)), Of(redis)];
    }
}
