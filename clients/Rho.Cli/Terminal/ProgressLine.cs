using System.Diagnostics;
using System.Globalization;

namespace Rho.Cli.Terminal;

/// <summary>
/// One long piece of work on stderr: how far, how fast, how long still. On a terminal a line that redraws itself, elsewhere
/// a plain line every few seconds. Safe to report to from any thread.
/// </summary>
internal sealed class ProgressLine : IDisposable
{
    private static readonly TimeSpan LiveInterval = TimeSpan.FromMilliseconds(100), PlainInterval = TimeSpan.FromSeconds(5);

    private readonly Lock _gate = new();
    private readonly Stopwatch _clock = Stopwatch.StartNew();
    private RateMeter _rate = new();
    private readonly TextWriter _output;
    private readonly bool _live;
    private readonly string _title;
    private string _unit;
    private TimeSpan _shown;
    private bool _ended;

    /// <param name="title">What is done, such as "training clm".</param>
    /// <param name="unit">What is counted, such as "tokens"; empty where only the share done means something.</param>
    public ProgressLine(string title, string unit)
        : this(title, unit, Console.Error, IsTerminal)
    {
    }

    internal ProgressLine(string title, string unit, TextWriter output, bool live)
    {
        (_title, _unit, _output, _live) = (title, unit, output, live);
        if (_live) Show(_title + " ...");
    }

    /// <summary>Whether stderr redraws: a terminal that knows escapes.</summary>
    public static bool IsTerminal => !Console.IsErrorRedirected && Environment.GetEnvironmentVariable("TERM") is not (null or "" or "dumb");

    public TimeSpan Elapsed => _clock.Elapsed;

    /// <summary>Shows the state if the last one shown is old enough. <paramref name="total"/> is 0 where it is not known.</summary>
    public void Report(long done, long total, string? note = null)
    {
        lock (_gate)
        {
            if (_ended) return;
            var now = _clock.Elapsed;
            _rate.Add(now, done);
            if (now - _shown < (_live ? LiveInterval : PlainInterval)) return;
            _shown = now;
            var text = Describe(done, total, note);
            if (_live) Show(text);
            else _output.WriteLine(text);
        }
    }

    /// <summary>Writes a lasting line above.</summary>
    public void Print(string text)
    {
        lock (_gate)
        {
            if (_live) _output.Write("\r\e[K");
            _output.WriteLine(text);
        }
    }

    /// <summary>A next part of the same work counts from 0 in another unit.</summary>
    public void StartOver(string unit)
    {
        lock (_gate) (_unit, _rate) = (unit, new RateMeter());
    }

    /// <summary>Ends with a lasting line.</summary>
    public void Complete(string result) => End($"{(_live ? "\e[32m✓\e[0m" : "done:")} {_title}: {result} ({Durations.Short(_clock.Elapsed)})");

    /// <summary>Clears the line of work that did not complete.</summary>
    public void Dispose() => End(null);

    private void End(string? last)
    {
        lock (_gate)
        {
            if (_ended) return;
            _ended = true;
            if (_live) _output.Write("\r\e[K");
            if (last is not null) _output.WriteLine(last);
            _output.Flush();
        }
    }

    private string Describe(long done, long total, string? note)
    {
        var parts = new List<string>(4);
        if (total > 0) parts.Add((_live ? Bar((double)done / total) + " " : "") + $"{Math.Min(100, 100 * done / total)} %");
        else parts.Add($"{Quantities.Short(done)} {_unit}");
        if (_rate.PerSecond is > 0 and var perSecond)
        {
            if (_unit.Length > 0) parts.Add($"{Quantities.Short(perSecond)} {_unit}/s");
            if (total > done) parts.Add($"{Durations.Short(TimeSpan.FromSeconds((total - done) / perSecond))} left");
        }

        if (!string.IsNullOrEmpty(note)) parts.Add(note);
        return $"{_title}  {string.Join("  ", parts)}";
    }

    private void Show(string text)
    {
        // A line that wraps could not be cleared.
        var width = Math.Max(20, WindowWidth() - 1);
        _output.Write("\r\e[K" + (text.Length > width ? text[..width] : text));
        _output.Flush();
    }

    private static int WindowWidth()
    {
        try
        {
            return Console.WindowWidth is > 0 and var width ? width : 80;
        }
        catch (IOException)
        {
            return 80;
        }
    }

    private static string Bar(double share)
    {
        var filled = (int)Math.Round(16 * Math.Clamp(share, 0, 1));
        return new string('━', filled) + new string('╌', 16 - filled);
    }
}

/// <summary>Rate over the last ten seconds, so that a slow start is soon forgotten.</summary>
internal sealed class RateMeter
{
    private static readonly TimeSpan Window = TimeSpan.FromSeconds(10);
    private readonly Queue<(TimeSpan Time, long Done)> _samples = new();
    private (TimeSpan Time, long Done) _last;

    public double PerSecond { get; private set; }

    public void Add(TimeSpan time, long done)
    {
        if (_samples.Count == 0) _samples.Enqueue((time, done));
        // Ten samples a second at most: what is reported more often changes nothing.
        if (time - _last.Time >= TimeSpan.FromMilliseconds(100)) _samples.Enqueue(_last = (time, done));
        while (_samples.Count > 2 && time - _samples.Peek().Time > Window) _samples.Dequeue();
        var first = _samples.Peek();
        if (time > first.Time) PerSecond = (done - first.Done) / (time - first.Time).TotalSeconds;
    }
}

internal static class Durations
{
    /// <summary>Such as 4.2 s, 3:05 or 2:03:05.</summary>
    public static string Short(TimeSpan time) => time.TotalSeconds switch
    {
        < 60 => time.TotalSeconds.ToString("0.0", CultureInfo.InvariantCulture) + " s",
        < 3600 => time.ToString(@"m\:ss", CultureInfo.InvariantCulture),
        _ => $"{(int)time.TotalHours}{time.ToString(@"\:mm\:ss", CultureInfo.InvariantCulture)}",
    };
}

internal static class Quantities
{
    /// <summary>Three digits and a unit prefix: 950, 12.3k, 4.56M.</summary>
    public static string Short(double value) => value switch
    {
        >= 1e12 => Scaled(value / 1e12, "T"),
        >= 1e9 => Scaled(value / 1e9, "G"),
        >= 1e6 => Scaled(value / 1e6, "M"),
        >= 1e3 => Scaled(value / 1e3, "k"),
        _ => value.ToString(value < 10 && value != Math.Floor(value) ? "0.0" : "0", CultureInfo.InvariantCulture),
    };

    private static string Scaled(double value, string prefix) => value.ToString(value >= 100 ? "0" : value >= 10 ? "0.0" : "0.00", CultureInfo.InvariantCulture) + prefix;
}
