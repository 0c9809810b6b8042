using System.CommandLine;
using System.Globalization;
using System.Text.RegularExpressions;
using Rho.Cli.Quickstart;
using Rho.Hosting;
using Rho.Model;
using Rho.Scoring;
using Rho.TestSupport;
using static TorchSharp.torch;

namespace Rho.Benchmarks.Scoring;

/// <summary>A scorer in a process of its own, over a simulated accelerator of a fixed token rate or over a model with random weights.</summary>
internal sealed partial class ScorerProcess : IAsyncDisposable
{
    private readonly ChildProcess _process;
    private readonly HttpClient _http = new();
    private readonly Uri _metrics;

    private ScorerProcess(ChildProcess process, string[] ready)
    {
        _process = process;
        Address = ready[0];
        _metrics = new Uri($"http://{ready[1]}/metrics");
    }

    public string Address { get; }

    /// <summary>Of the process.</summary>
    public int Id => _process.Id;

    internal static Command Command()
    {
        var rate = new Option<double?>("--rate");
        var threads = new Option<int>("--threads") { DefaultValueFactory = _ => 1 };
        var redis = new Option<string?>("--redis");
        var cache = new Option<string?>("--cache");
        var command = new Command("replica", "A scorer of these measurements") { rate, threads, redis, cache };
        command.Hidden = true;
        command.SetAction(async (result, cancellation) =>
        {
            set_num_threads(result.GetValue(threads));
            IReferenceModel model = result.GetValue(rate) is { } tokens ? new HashModel { Rate = tokens } : Model();
            await using var host = await ScoringHost.StartAsync(Options(result.GetValue(redis), result.GetValue(cache)), [model], cancellation);
            Console.WriteLine($"listening on {host.Address.Authority} {host.HttpAddress!.Authority}");
            await Task.Delay(Timeout.Infinite, cancellation).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            return 0;
        });
        return command;
    }

    internal static ScoringOptions Options(string? redis, string? cache) => new()
    {
        Host = new RhoHostOptions { Service = "rho-scorer", GrpcPort = 0, HttpPort = 0, LogLevel = Microsoft.Extensions.Logging.LogLevel.Warning, DrainTimeout = TimeSpan.FromSeconds(5) },
        Redis = redis,
        CacheDirectory = cache,
    };

    /// <summary>Hidden 256, 4 layers, vocabulary 4,096, float32.</summary>
    internal static ReferenceModel Model() =>
        ReferenceModel.Of(LanguageModel.Create(Sizes.All["default"].Config(contextLength: 512), seed: 1, CPU, ComputeType.Float32), "sha256:" + new string('b', 64));

    public static async Task<ScorerProcess> StartAsync(params string[] arguments)
    {
        var process = ChildProcess.StartSelf(
            "replica", ["scoring", "replica", .. arguments], line => line.StartsWith("listening on ", StringComparison.Ordinal) ? line["listening on ".Length..] : null,
            environment: new Dictionary<string, string>(StringComparer.Ordinal) { ["OMP_NUM_THREADS"] = "1", ["DOTNET_gcServer"] = "0" });
        return new ScorerProcess(process, (await process.ReadyAsync(TimeSpan.FromMinutes(1), CancellationToken.None)).Split(' '));
    }

    /// <summary>Sum over a metric's series.</summary>
    public async Task<double> MetricAsync(string name)
    {
        var text = await _http.GetStringAsync(_metrics);
        return Regex.Matches(text, $@"^{name}(?:{{[^}}]*}})? (?<value>\S+)", RegexOptions.Multiline, TimeSpan.FromSeconds(1))
            .Sum(match => double.Parse(match.Groups["value"].Value, CultureInfo.InvariantCulture));
    }

    /// <summary>Resident memory, MB: now, or at its highest.</summary>
    public double Memory(bool highest)
    {
        var line = File.ReadLines($"/proc/{Id}/status").First(line => line.StartsWith(highest ? "VmHWM" : "VmRSS", StringComparison.Ordinal));
        return double.Parse(Digits().Match(line).Value, CultureInfo.InvariantCulture) / 1024;
    }

    public async ValueTask DisposeAsync()
    {
        _http.Dispose();
        await _process.DisposeAsync();
    }

    [GeneratedRegex(@"\d+")]
    private static partial Regex Digits();
}
