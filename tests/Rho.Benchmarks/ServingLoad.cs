using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using System.Net;
using Microsoft.Extensions.Logging;
using Rho.Hosting;
using Rho.Model;
using Rho.Serving;
using Rho.Serving.Engine;
using static TorchSharp.torch;

namespace Rho.Benchmarks;

/// <summary>
/// The inference endpoint under load: clients that stream completions over HTTP (prompt of 64 tokens, 64 new ones), more and more of
/// them, until the queue refuses some. Prints a table row per number of clients.
/// </summary>
internal static class ServingLoad
{
    private const int NewTokens = 64;

    internal static Command Command()
    {
        var sizes = Sizes.One();
        var dtype = new Option<string>("--dtype") { Description = "Element type of the products", DefaultValueFactory = _ => "bfloat16" };
        dtype.AcceptOnlyFromAmong("float32", "bfloat16");
        var seconds = new Option<int>("--seconds") { Description = "How long each number of clients is kept up", HelpName = "N", DefaultValueFactory = _ => 10 };
        var command = new Command("serving", "Latency and throughput of the inference endpoint as load grows") { sizes, dtype, seconds };
        command.SetAction((result, _) => RunAsync(Sizes.All[result.GetValue(sizes)!], result.GetValue(dtype)!, result.GetValue(seconds)));
        return command;
    }

    private static async Task<int> RunAsync(Sizes sizes, string dtype, int seconds)
    {
        var folder = Directory.CreateTempSubdirectory("rho-load-").FullName;
        try
        {
            var tokenizer = GenerationSpeed.SmallTokenizer();
            var config = sizes.Config(2048);
            using (var model = LanguageModel.Create(config, 0, CPU, ComputeType.Float32)) model.Save(Path.Combine(folder, "model"), tokenizer);
            var options = new ServingOptions
            {
                Host = new RhoHostOptions { Service = "rho-load", HttpPort = 0, LogLevel = LogLevel.Warning },
                Models = [new ModelSource("model", Path.Combine(folder, "model"))],
                Compute = dtype == "bfloat16" ? ComputeType.BFloat16 : ComputeType.Float32,
                Device = "cpu",
                Engine = new EngineOptions { MaxSequences = 64, MaxWaitingRequests = 64 },
            };
            await using var app = ServingHost.Build(options);
            await ServingHost.LoadAsync(app, options, CancellationToken.None);
            await app.StartRhoAsync();
            using var http = new HttpClient(new SocketsHttpHandler { MaxConnectionsPerServer = 1024 }) { BaseAddress = app.GetRhoAddresses().Http };
            Console.WriteLine($"Serving {sizes.Name}, {dtype}: streams of {NewTokens} tokens over HTTP");
            Console.WriteLine();
            Console.WriteLine("| clients | tokens/s | first token p50, ms | p99 | between tokens p50, ms | p99 | refused (429) |");
            Console.WriteLine("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
            await LoadAsync(http, sizes, 2, 2);
            foreach (var clients in new[] { 1, 8, 16, 32, 64, 128, 192 }) Print(clients, await LoadAsync(http, sizes, clients, seconds), seconds);
            await app.StopAsync();
            return 0;
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static async Task<Load> LoadAsync(HttpClient http, Sizes sizes, int clients, int seconds)
    {
        var load = new Load();
        var end = Stopwatch.GetTimestamp() + (seconds * Stopwatch.Frequency);
        await Task.WhenAll(Enumerable.Range(0, clients).Select(async client =>
        {
            var random = new Random(client);
            while (Stopwatch.GetTimestamp() < end) await StreamAsync(http, sizes, random, load, end);
        }));
        return load;
    }

    private static async Task StreamAsync(HttpClient http, Sizes sizes, Random random, Load load, long end)
    {
        var prompt = string.Join(',', Enumerable.Range(0, 64).Select(_ => random.Next(sizes.Vocabulary).ToString(CultureInfo.InvariantCulture)));
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/completions")
        {
            Content = new StringContent($$"""{"prompt": [{{prompt}}], "max_tokens": {{NewTokens}}, "temperature": 0.8, "stream": true, "ignore_eos": true, "logprobs": 0}"""),
        };
        var last = Stopwatch.GetTimestamp();
        using var response = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
        if (response.StatusCode == HttpStatusCode.TooManyRequests)
        {
            load.Refuse();
            await Task.Delay(response.Headers.RetryAfter?.Delta ?? TimeSpan.FromSeconds(1));
            return;
        }

        response.EnsureSuccessStatusCode();
        using var reader = new StreamReader(await response.Content.ReadAsStreamAsync());
        var first = true;
        while (await reader.ReadLineAsync() is { } line)
        {
            if (!line.StartsWith("data: {", StringComparison.Ordinal)) continue;
            var now = Stopwatch.GetTimestamp();
            load.Token(first, Stopwatch.GetElapsedTime(last, now).TotalMilliseconds, now <= end);
            (first, last) = (false, now);
        }
    }

    private static void Print(int clients, Load load, int seconds) => Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
        $"| {clients} | {load.Tokens / (double)seconds:N0} | {Percentile(load.First, 0.5):0.0} | {Percentile(load.First, 0.99):0.0} | {Percentile(load.Between, 0.5):0.0} | {Percentile(load.Between, 0.99):0.0} | {load.Refused} |"));

    private static double Percentile(List<double> values, double share)
    {
        if (values.Count == 0) return double.NaN;
        values.Sort();
        return values[(int)Math.Min(values.Count - 1, share * values.Count)];
    }

    private sealed class Load
    {
        private readonly Lock _lock = new();

        public List<double> First { get; } = [];

        public List<double> Between { get; } = [];

        public int Tokens { get; private set; }

        public int Refused { get; private set; }

        public void Refuse()
        {
            lock (_lock) Refused++;
        }

        public void Token(bool first, double milliseconds, bool inTime)
        {
            lock (_lock)
            {
                (first ? First : Between).Add(milliseconds);
                if (inTime) Tokens++;
            }
        }
    }
}
