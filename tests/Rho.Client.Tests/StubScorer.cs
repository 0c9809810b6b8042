using System.Diagnostics;
using System.Globalization;
using System.Reflection;
using System.Text.RegularExpressions;

namespace Rho.Client.Tests;

/// <summary>The real service over a simulated accelerator, in a process of its own that a test may kill, freeze and stop.</summary>
internal sealed partial class StubScorer : IAsyncDisposable
{
    private readonly Process _process;
    private readonly string _http;
    private readonly HttpClient _client = new();

    private StubScorer(Process process, string address, string http)
    {
        _process = process;
        Address = address;
        _http = http;
    }

    public string Address { get; }

    public long ResidentBytes
    {
        get
        {
            _process.Refresh();
            return _process.WorkingSet64;
        }
    }

    public static async Task<StubScorer> StartAsync(params string[] arguments)
    {
        var configuration = typeof(StubScorer).Assembly.GetCustomAttribute<AssemblyConfigurationAttribute>()!.Configuration;
        var folder = AppContext.BaseDirectory.Replace("Rho.Client.Tests", "Rho.Scoring.StubScorer", StringComparison.Ordinal);
        var process = Process.Start(new ProcessStartInfo(Path.Combine(folder, "Rho.Scoring.StubScorer"), arguments)
        {
            UseShellExecute = false,
            RedirectStandardOutput = true,
            Environment = { ["DOTNET_gcServer"] = "0" },
        }) ?? throw new InvalidOperationException($"the stub scorer ({configuration}) does not start");
        try
        {
            var line = await process.StandardOutput.ReadLineAsync().WaitAsync(TimeSpan.FromSeconds(60)) ?? "";
            var match = Listening().Match(line);
            if (!match.Success) throw new InvalidOperationException($"the stub scorer said '{line}'");
            return new StubScorer(process, match.Groups[1].Value, match.Groups[2].Value);
        }
        catch
        {
            process.Kill();
            process.Dispose();
            throw;
        }
    }

    /// <summary>As kill -9.</summary>
    public void Kill()
    {
        _process.Kill();
        _process.WaitForExit();
    }

    public Task FreezeAsync() => SignalAsync("-STOP");

    public Task ThawAsync() => SignalAsync("-CONT");

    /// <summary>As Kubernetes stops a pod. Returns how many tokens it has scored in its life.</summary>
    public async Task<long> StopAsync()
    {
        await SignalAsync("-TERM");
        var last = await _process.StandardOutput.ReadToEndAsync().WaitAsync(TimeSpan.FromSeconds(60));
        await _process.WaitForExitAsync().WaitAsync(TimeSpan.FromSeconds(60));
        return long.Parse(last["scored ".Length..], CultureInfo.InvariantCulture);
    }

    /// <summary>The sum of a metric over its labels.</summary>
    public async Task<double> MetricAsync(string name)
    {
        var text = await _client.GetStringAsync(new Uri($"http://{_http}/metrics")).WaitAsync(TimeSpan.FromSeconds(30));
        return text.Split('\n')
            .Where(line => line.StartsWith(name, StringComparison.Ordinal) && line.Length > name.Length && line[name.Length] is ' ' or '{' or '_')
            .Where(line => !line[name.Length..].StartsWith("_created", StringComparison.Ordinal))
            .Sum(line => double.Parse(line[(line.LastIndexOf(' ') + 1)..], CultureInfo.InvariantCulture));
    }

    public async Task<string> HealthAsync()
    {
        using var response = await _client.GetAsync(new Uri($"http://{_http}/healthz")).WaitAsync(TimeSpan.FromSeconds(30));
        return await response.Content.ReadAsStringAsync();
    }

    public ValueTask DisposeAsync()
    {
        if (!_process.HasExited) Kill();
        _process.Dispose();
        _client.Dispose();
        return ValueTask.CompletedTask;
    }

    private async Task SignalAsync(string signal)
    {
        using var kill = Process.Start("kill", [signal, _process.Id.ToString(CultureInfo.InvariantCulture)]);
        await kill.WaitForExitAsync().WaitAsync(TimeSpan.FromSeconds(10));
    }

    [GeneratedRegex(@"^listening on (\S+) (\S+)$")]
    private static partial Regex Listening();
}
