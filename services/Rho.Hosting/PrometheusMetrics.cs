using System.Collections.Concurrent;
using System.Diagnostics.Metrics;
using System.Globalization;
using System.Text;

namespace Rho.Hosting;

/// <summary>
/// Collects System.Diagnostics.Metrics and writes them in Prometheus' text format 0.0.4. Meters whose name starts with "Rho" come out as
/// rho_*; those of the runtime and the web server under their own names, as do aliases (a meter "vllm"). Names get the unit and, for counters, _total appended.
/// Meters of another host in the same process (another <see cref="IMeterFactory"/>) are left out.
/// </summary>
internal sealed class PrometheusMetrics : IDisposable
{
    /// <summary>Series per metric; further ones are counted together under overflow="true", so that labels cannot exhaust memory.</summary>
    internal const int MaxSeries = 2000;

    public const string ContentType = "text/plain; version=0.0.4; charset=utf-8";

    private static readonly string[] Meters = ["Rho", "System.Runtime", "Microsoft.AspNetCore.Server.Kestrel", "Microsoft.AspNetCore.Hosting", "vllm"];
    private readonly Lock _scrape = new();
    private readonly ConcurrentDictionary<string, Family> _families = new(StringComparer.Ordinal);
    private readonly MeterListener _listener = new();

    public PrometheusMetrics(IMeterFactory meters)
    {
        _listener.InstrumentPublished = (instrument, listener) =>
        {
            if (!Array.Exists(Meters, name => instrument.Meter.Name.StartsWith(name, StringComparison.Ordinal))) return;
            if (instrument.Meter.Scope is IMeterFactory owner && owner != meters) return;
            if (Family.Create(instrument) is not { } family) return;
            family = _families.GetOrAdd(family.Name, family);
            listener.EnableMeasurementEvents(instrument, family);
        };
        _listener.SetMeasurementEventCallback<double>(static (instrument, value, tags, state) => ((Family)state!).Measure(instrument, value, tags));
        _listener.SetMeasurementEventCallback<float>(static (instrument, value, tags, state) => ((Family)state!).Measure(instrument, value, tags));
        _listener.SetMeasurementEventCallback<decimal>(static (instrument, value, tags, state) => ((Family)state!).Measure(instrument, (double)value, tags));
        _listener.SetMeasurementEventCallback<long>(static (instrument, value, tags, state) => ((Family)state!).Measure(instrument, value, tags));
        _listener.SetMeasurementEventCallback<int>(static (instrument, value, tags, state) => ((Family)state!).Measure(instrument, value, tags));
        _listener.SetMeasurementEventCallback<short>(static (instrument, value, tags, state) => ((Family)state!).Measure(instrument, value, tags));
        _listener.SetMeasurementEventCallback<byte>(static (instrument, value, tags, state) => ((Family)state!).Measure(instrument, value, tags));
        _listener.Start();
    }

    /// <summary>All metrics as text.</summary>
    public string Scrape()
    {
        lock (_scrape)
        {
            foreach (var family in _families.Values) family.BeginScrape();
            _listener.RecordObservableInstruments();
            var text = new StringBuilder();
            foreach (var (_, family) in _families.OrderBy(entry => entry.Key, StringComparer.Ordinal)) family.Write(text);
            return text.ToString();
        }
    }

    public void Dispose() => _listener.Dispose();

    /// <summary>One metric with all its series.</summary>
    private sealed class Family
    {
        private const string Overflow = "overflow=\"true\"";
        private readonly Lock _lock = new();
        private readonly Dictionary<string, Series> _series = new(StringComparer.Ordinal);
        private readonly string _help;
        private readonly string _type;
        private readonly double[] _bounds;

        private Family(string name, string type, string? help, double[] bounds) => (Name, _type, _help, _bounds) = (name, type, help ?? "", bounds);

        public string Name { get; }

        /// <summary>The family that an instrument belongs to; null for a kind of instrument that is not known.</summary>
        public static Family? Create(Instrument instrument)
        {
            var kind = instrument.GetType().IsGenericType ? instrument.GetType().GetGenericTypeDefinition() : null;
            var type = kind == typeof(Counter<>) || kind == typeof(ObservableCounter<>) ? "counter"
                : kind == typeof(UpDownCounter<>) || kind == typeof(ObservableUpDownCounter<>) || kind == typeof(Gauge<>) || kind == typeof(ObservableGauge<>) ? "gauge"
                : kind == typeof(Histogram<>) ? "histogram"
                : null;
            if (type is null) return null;
            return new Family(PrometheusNames.Metric(instrument, type), type, instrument.Description, type == "histogram" ? PrometheusNames.Bounds(instrument) : []);
        }

        public void Measure(Instrument instrument, double value, ReadOnlySpan<KeyValuePair<string, object?>> tags)
        {
            var labels = PrometheusNames.Labels(tags);
            lock (_lock)
            {
                if (!_series.TryGetValue(labels, out var series))
                {
                    if (_series.Count >= MaxSeries) labels = Overflow;
                    if (!_series.TryGetValue(labels, out series)) _series[labels] = series = new Series(_bounds.Length + 1);
                }

                if (_type == "histogram") series.Record(value, _bounds);
                else if (instrument.IsObservable) series.Observe(value);
                else if (IsGauge(instrument)) series.Value = value;
                else series.Value += value;
            }
        }

        /// <summary>Observed values are asked for anew; what is not observed again has gone.</summary>
        public void BeginScrape()
        {
            lock (_lock)
            {
                foreach (var (labels, _) in _series.Where(entry => entry.Value.IsObserved).ToList()) _series.Remove(labels);
            }
        }

        public void Write(StringBuilder text)
        {
            lock (_lock)
            {
                if (_series.Count == 0) return;
                if (_help.Length > 0) text.Append("# HELP ").Append(Name).Append(' ').Append(PrometheusNames.EscapeHelp(_help)).Append('\n');
                text.Append("# TYPE ").Append(Name).Append(' ').Append(_type).Append('\n');
                foreach (var (labels, series) in _series.OrderBy(entry => entry.Key, StringComparer.Ordinal))
                {
                    if (_type == "histogram") WriteHistogram(text, labels, series);
                    else Line(text, Name, labels, series.Value);
                }
            }
        }

        private static bool IsGauge(Instrument instrument) => instrument.GetType().GetGenericTypeDefinition() == typeof(Gauge<>);

        private static void Line(StringBuilder text, string name, string labels, double value)
        {
            text.Append(name);
            if (labels.Length > 0) text.Append('{').Append(labels).Append('}');
            text.Append(' ').Append(PrometheusNames.Number(value)).Append('\n');
        }

        private void WriteHistogram(StringBuilder text, string labels, Series series)
        {
            var separator = labels.Length > 0 ? "," : "";
            var below = 0L;
            for (var i = 0; i <= _bounds.Length; i++)
            {
                below += series.Buckets[i];
                var bound = i < _bounds.Length ? PrometheusNames.Number(_bounds[i]) : "+Inf";
                Line(text, $"{Name}_bucket", $"{labels}{separator}le=\"{bound}\"", below);
            }

            Line(text, $"{Name}_sum", labels, series.Value);
            Line(text, $"{Name}_count", labels, below);
        }
    }

    private sealed class Series(int buckets)
    {
        public double Value { get; set; }

        public bool IsObserved { get; private set; }

        public long[] Buckets { get; } = new long[buckets];

        public void Observe(double value)
        {
            // Two instruments with the same name, such as two engines' queues, add up.
            Value += value;
            IsObserved = true;
        }

        public void Record(double value, double[] bounds)
        {
            if (double.IsNaN(value)) return;
            Value += value;
            var index = Array.BinarySearch(bounds, value);
            Buckets[index < 0 ? ~index : index]++;
        }
    }
}

/// <summary>How .NET's names, units and tags become Prometheus'.</summary>
internal static class PrometheusNames
{
    // OpenTelemetry's advice for durations of calls, in seconds, with longer ones for batches and steps.
    private static readonly double[] Seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];
    private static readonly double[] Powers = [.. Enumerable.Range(0, 25).Select(power => Math.Pow(2, power))];

    public static string Metric(Instrument instrument, string type)
    {
        var name = Sanitize(instrument.Name, allowColon: true);
        if (instrument.Meter.Name.StartsWith("Rho", StringComparison.Ordinal) && !name.StartsWith("rho_", StringComparison.Ordinal)) name = "rho_" + name;
        var unit = Unit(instrument.Unit, type);
        if (unit.Length > 0 && !name.EndsWith("_" + unit, StringComparison.Ordinal) && !name.Contains($"_{unit}_", StringComparison.Ordinal)) name += "_" + unit;
        if (type == "counter" && !name.EndsWith("_total", StringComparison.Ordinal)) name += "_total";
        return name;
    }

    public static string Labels(ReadOnlySpan<KeyValuePair<string, object?>> tags)
    {
        if (tags.Length == 0) return "";
        var labels = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach (var (key, value) in tags) labels[Sanitize(key, allowColon: false)] = Convert.ToString(value, CultureInfo.InvariantCulture) ?? "";
        return string.Join(',', labels.Select(label => $"{label.Key}=\"{EscapeLabel(label.Value)}\""));
    }

    /// <summary>The bounds that the instrument advises; otherwise seconds for durations and powers of two for all else.</summary>
    public static double[] Bounds(Instrument instrument) => instrument switch
    {
        Histogram<double> { Advice.HistogramBucketBoundaries: { } bounds } => [.. bounds],
        Histogram<float> { Advice.HistogramBucketBoundaries: { } bounds } => [.. bounds.Select(bound => (double)bound)],
        Histogram<long> { Advice.HistogramBucketBoundaries: { } bounds } => [.. bounds.Select(bound => (double)bound)],
        Histogram<int> { Advice.HistogramBucketBoundaries: { } bounds } => [.. bounds.Select(bound => (double)bound)],
        { Unit: "s" } => Seconds,
        { Unit: "ms" } => [.. Seconds.Select(bound => bound * 1000)],
        _ => Powers,
    };

    public static string Number(double value) => value switch
    {
        double.PositiveInfinity => "+Inf",
        double.NegativeInfinity => "-Inf",
        double.NaN => "NaN",
        _ => value.ToString("R", CultureInfo.InvariantCulture),
    };

    public static string EscapeHelp(string text) => text.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\n", "\\n", StringComparison.Ordinal);

    private static string EscapeLabel(string text) => EscapeHelp(text).Replace("\"", "\\\"", StringComparison.Ordinal);

    private static string Unit(string? unit, string type)
    {
        if (string.IsNullOrEmpty(unit)) return "";
        if (unit == "1") return type == "gauge" ? "ratio" : "";
        var parts = unit.Split('/', 2);
        var first = Word(parts[0]);
        if (parts.Length == 1) return first;
        var second = "per_" + Word(parts[1]).TrimEnd('s');
        return first.Length == 0 ? second : $"{first}_{second}";
    }

    // UCUM's codes; annotations such as {token} say what is counted and are no unit.
    private static string Word(string code) => code switch
    {
        "ns" => "nanoseconds",
        "us" => "microseconds",
        "ms" => "milliseconds",
        "s" => "seconds",
        "min" => "minutes",
        "h" => "hours",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "%" => "percent",
        _ when code.StartsWith('{') => "",
        _ => Sanitize(code, allowColon: false),
    };

    private static string Sanitize(string name, bool allowColon)
    {
        var text = new StringBuilder(name.Length + 1);
        foreach (var c in name)
        {
            var next = char.IsAsciiLetterOrDigit(c) || (allowColon && c == ':') ? c : '_';
            if (next != '_' || text.Length == 0 || text[^1] != '_') text.Append(next);
        }

        if (text.Length == 0 || char.IsAsciiDigit(text[0])) text.Insert(0, '_');
        return text.ToString();
    }
}
