using System.Diagnostics.Metrics;
using Microsoft.Extensions.DependencyInjection;

namespace Rho.Hosting.Tests;

public sealed class MetricsTests : IDisposable
{
    private readonly ServiceProvider _services = new ServiceCollection().AddMetrics().BuildServiceProvider();
    private readonly PrometheusMetrics _metrics;
    private readonly Meter _meter;

    public MetricsTests()
    {
        var factory = _services.GetRequiredService<IMeterFactory>();
        _metrics = new PrometheusMetrics(factory);
        _meter = factory.Create("Rho.Test");
    }

    public void Dispose()
    {
        _metrics.Dispose();
        _services.Dispose();
    }

    [Fact]
    public void Counter_AddsUpByLabels()
    {
        var counter = _meter.CreateCounter<long>("test.tokens", "{token}", "Tokens scored.");
        counter.Add(2, new("source", "cache"), new KeyValuePair<string, object?>("a.b", 1));
        counter.Add(3, new("a.b", 1), new KeyValuePair<string, object?>("source", "cache"));
        counter.Add(1);
        Assert.Equal(
            """
            # HELP rho_test_tokens_total Tokens scored.
            # TYPE rho_test_tokens_total counter
            rho_test_tokens_total 1
            rho_test_tokens_total{a_b="1",source="cache"} 5

            """,
            Only("rho_test_tokens"));
    }

    [Fact]
    public void UpDownCounterAndGauge_AreGauges()
    {
        var queue = _meter.CreateUpDownCounter<int>("rho.test.queue.bytes", "By");
        queue.Add(10);
        queue.Add(-4);
        var last = _meter.CreateGauge<double>("rho.test.share", "1");
        last.Record(0.25);
        last.Record(0.5);
        Assert.Equal("# TYPE rho_test_queue_bytes gauge\nrho_test_queue_bytes 6\n", Only("rho_test_queue"));
        Assert.Equal("# TYPE rho_test_share_ratio gauge\nrho_test_share_ratio 0.5\n", Only("rho_test_share"));
    }

    [Fact]
    public void Observable_ValueGone_GoesFromTheText()
    {
        var values = new List<Measurement<long>> { new(7, new KeyValuePair<string, object?>("shard", "a")) };
        _meter.CreateObservableGauge("test.lag", () => values, "s");
        _meter.CreateObservableCounter("test.done", () => 41L);
        Assert.Contains("rho_test_lag_seconds{shard=\"a\"} 7\n", _metrics.Scrape(), StringComparison.Ordinal);
        values.Clear();
        Assert.Equal("", Only("rho_test_lag"));
        Assert.Contains("rho_test_done_total 41\n", _metrics.Scrape(), StringComparison.Ordinal);
        Assert.Contains("rho_test_done_total 41\n", _metrics.Scrape(), StringComparison.Ordinal);
    }

    [Fact]
    public void Histogram_BucketsAreCumulative()
    {
        var histogram = _meter.CreateHistogram("test.wait", "s", "Waiting.", null, new InstrumentAdvice<double> { HistogramBucketBoundaries = [0.1, 1] });
        foreach (var value in new[] { 0.05, 0.1, 0.5, 5 }) histogram.Record(value, new KeyValuePair<string, object?>("kind", "a"));
        Assert.Equal(
            """
            # HELP rho_test_wait_seconds Waiting.
            # TYPE rho_test_wait_seconds histogram
            rho_test_wait_seconds_bucket{kind="a",le="0.1"} 2
            rho_test_wait_seconds_bucket{kind="a",le="1"} 3
            rho_test_wait_seconds_bucket{kind="a",le="+Inf"} 4
            rho_test_wait_seconds_sum{kind="a"} 5.65
            rho_test_wait_seconds_count{kind="a"} 4

            """,
            Only("rho_test_wait"));
    }

    [Fact]
    public void Text_IsEscaped()
    {
        _meter.CreateCounter<long>("test.odd", description: "a\\b\nc").Add(1, new KeyValuePair<string, object?>("text", "q\"\\\n"));
        Assert.Equal("# HELP rho_test_odd_total a\\\\b\\nc\n# TYPE rho_test_odd_total counter\nrho_test_odd_total{text=\"q\\\"\\\\\\n\"} 1\n", Only("rho_test_odd"));
    }

    [Theory]
    [InlineData("rho.scorer.tokens_per_second", "", "rho_scorer_tokens_per_second")]
    [InlineData("rho.disk", "By/s", "rho_disk_bytes_per_second")]
    [InlineData("rho.rate", "{token}/s", "rho_rate_per_second")]
    [InlineData("rho.step.duration.seconds", "s", "rho_step_duration_seconds")]
    [InlineData("rho..odd--name", "{x}", "rho_odd_name")]
    public void Names_FollowPrometheus(string name, string unit, string expected)
    {
        var gauge = _meter.CreateGauge<double>(name, unit);
        gauge.Record(1);
        Assert.Contains($"\n{expected} 1\n", "\n" + _metrics.Scrape(), StringComparison.Ordinal);
    }

    [Fact]
    public void Labels_WithoutEnd_AreCountedTogether()
    {
        var counter = _meter.CreateCounter<long>("test.many");
        for (var i = 0; i < PrometheusMetrics.MaxSeries + 50; i++) counter.Add(1, new KeyValuePair<string, object?>("id", i));
        var lines = Only("rho_test_many").Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(1 + PrometheusMetrics.MaxSeries + 1, lines.Length);
        Assert.Contains("rho_test_many_total{overflow=\"true\"} 50", lines);
    }

    [Fact]
    public void OtherHosts_Meters_AreLeftOut()
    {
        using var other = new ServiceCollection().AddMetrics().BuildServiceProvider();
        other.GetRequiredService<IMeterFactory>().Create("Rho.Test").CreateCounter<long>("test.foreign").Add(1);
        Assert.Equal("", Only("rho_test_foreign"));
    }

    [Fact]
    public async Task Endpoint_ShowsCallsHealthAndRuntime()
    {
        await using var host = await ProbeHost.Start();
        using var channel = host.Channel();
        using var http = host.Http();
        await new Probe.ProbeClient(channel).UnaryAsync(new ProbeRequest { Action = "ok" });
        host.Health.NotReady("model", "loading");

        using var response = await http.GetAsync("/metrics");
        var text = await response.Content.ReadAsStringAsync();
        Assert.Equal("text/plain; version=0.0.4; charset=utf-8", response.Content.Headers.ContentType!.ToString());
        Assert.Contains("rho_rpc_duration_seconds_count{code=\"OK\",method=\"/rho.hosting.tests.Probe/Unary\"} 1\n", text, StringComparison.Ordinal);
        Assert.Contains("rho_health_ready 0\n", text, StringComparison.Ordinal);
        Assert.Contains("rho_health_live 1\n", text, StringComparison.Ordinal);
        Assert.Contains("# TYPE dotnet_gc_collections_total counter\n", text, StringComparison.Ordinal);
        Assert.Contains("kestrel_active_connections", text, StringComparison.Ordinal);
        // One TYPE line a metric, and no line twice: what Prometheus insists on.
        var names = text.Split('\n').Where(line => line.Length > 0 && line[0] != '#').Select(line => line[..line.LastIndexOf(' ')]).ToList();
        Assert.Equal(names.Count, names.Distinct(StringComparer.Ordinal).Count());
        var types = text.Split('\n').Where(line => line.StartsWith("# TYPE", StringComparison.Ordinal)).Select(line => line.Split(' ')[2]).ToList();
        Assert.Equal(types.Count, types.Distinct(StringComparer.Ordinal).Count());
    }

    private string Only(string prefix) => string.Concat(_metrics.Scrape().Split('\n').Where(line => line.StartsWith(prefix, StringComparison.Ordinal) || line.Contains($" {prefix}", StringComparison.Ordinal)).Select(line => line + "\n"));
}
