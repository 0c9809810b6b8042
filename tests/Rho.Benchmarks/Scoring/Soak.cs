using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using Rho.Client;
using Rho.Formats;
using Rho.Scoring;
using TorchSharp;

namespace Rho.Benchmarks.Scoring;

/// <summary>A mixed load over a real model for minutes: new shards, cached ones, single sequences, clients that leave; then what is left of it.</summary>
internal static class Soak
{
    private const int Clients = 8;
    private static readonly TimeSpan Sample = TimeSpan.FromSeconds(1);

    internal static Command Command()
    {
        var minutes = new Option<double>("--minutes") { Description = "How long", HelpName = "N", DefaultValueFactory = _ => 10 };
        var command = new Command("soak", "A mixed load for minutes: growth of memory, tensors and streams left") { minutes };
        command.SetAction(async result =>
        {
            using var work = new WorkFolder();
            await RunAsync(work, TimeSpan.FromMinutes(result.GetValue(minutes)));
            return 0;
        });
        return command;
    }

    private static async Task RunAsync(WorkFolder work, TimeSpan time)
    {
        var model = ScorerProcess.Model();
        await using var host = await ScoringHost.StartAsync(ScorerProcess.Options(null, work["cache"]), [model]);
        var address = host.Address.Authority;
        await using var observer = new ScorerClient(new ScorerClientOptions { Addresses = [address] });
        await observer.DescribeAsync();
        var tensors = torch.Tensor.TotalCount;
        using var stop = new CancellationTokenSource();
        var calls = 0;
        var running = Task.WhenAll(Enumerable.Range(0, Clients).Select(i => Task.Run(() => LoadAsync(work, address, i, () => Interlocked.Increment(ref calls), stop.Token))));
        var samples = new List<(double Minutes, double Megabytes)>();
        var live = new List<double>();      // megabytes of managed objects in use: what the collector would keep
        var start = Stopwatch.GetTimestamp();
        while (Stopwatch.GetElapsedTime(start) < time)
        {
            await Task.Delay(Sample);
            using var self = Process.GetCurrentProcess();
            samples.Add((Stopwatch.GetElapsedTime(start).TotalMinutes, self.WorkingSet64 / 1048576.0));
            if (Stopwatch.GetElapsedTime(start) >= time * (live.Count + 1) / 4) live.Add(GC.GetTotalMemory(forceFullCollection: true) / 1048576.0);
        }

        await stop.CancelAsync();
        await running.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (running.Exception?.InnerExceptions.FirstOrDefault(e => e is not OperationCanceledException) is { } failure) throw failure;
        Client.ScorerInfo info;
        do info = (await observer.InfoAsync())[0];
        while ((info.Streams > 0 || info.QueuedTokens > 0) && Stopwatch.GetElapsedTime(start) < time + TimeSpan.FromMinutes(1));

        var half = samples[(samples.Count / 2)..];
        var (x, y) = (half.Average(sample => sample.Minutes), half.Average(sample => sample.Megabytes));
        var slope = half.Sum(sample => (sample.Minutes - x) * (sample.Megabytes - y)) / half.Sum(sample => (sample.Minutes - x) * (sample.Minutes - x));
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"{time.TotalMinutes:0.#} min, {calls:N0} calls of {Clients} clients: memory {samples[0].Megabytes:N0} MB at first, {y:N0} MB in the second half, slope there {slope:+0.00;-0.00} MB/min; managed objects in use at each quarter {string.Join(", ", live.Select(megabytes => megabytes.ToString("0.0", CultureInfo.InvariantCulture)))} MB; left: {torch.Tensor.TotalCount - tensors} tensors, {info.Streams} streams, {info.QueuedTokens} queued tokens"));
    }

    private static async Task LoadAsync(WorkFolder work, string address, int index, Action counted, CancellationToken cancellation)
    {
        var random = new Random(index);
        await using var client = new ScorerClient(new ScorerClientOptions { Addresses = [address] });
        using var again = work.Shard($"again-{index}", sequences: 8, vocabulary: 4096, seed: 1000 + index);
        for (var round = 0; !cancellation.IsCancellationRequested; round++, counted())
        {
            switch (random.Next(4))
            {
                case 0:
                    using (var shard = work.Shard($"new-{index}", sequences: 4, vocabulary: 4096, seed: (index << 20) + round)) await ReadAsync(client, shard, int.MaxValue, cancellation);
                    break;
                case 1:
                    await ReadAsync(client, again, int.MaxValue, cancellation);
                    break;
                case 2:
                    await ReadAsync(client, again, random.Next(1, 3), cancellation);
                    break;
                default:
                    var sequences = Enumerable.Range(0, 6).Select(i => new SequenceTokens((ulong)i, [.. Enumerable.Range(0, random.Next(2, 500)).Select(_ => random.Next(4096))]));
                    await foreach (var _ in client.ScoreAsync(sequences.ToAsyncEnumerable(), cancellation))
                    {
                    }

                    break;
            }
        }
    }

    /// <summary>Reads so many blocks and leaves.</summary>
    private static async Task ReadAsync(ScorerClient client, TokenShard shard, int blocks, CancellationToken cancellation)
    {
        await foreach (var _ in client.ScoreShardAsync(shard, documentsSeeEachOther: true, cancellation: cancellation))
            if (--blocks == 0)
                return;
    }
}
