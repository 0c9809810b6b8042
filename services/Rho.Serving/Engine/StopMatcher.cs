using System.Text;

namespace Rho.Serving.Engine;

/// <summary>
/// Lets text through except what may still become a stop text: that is held back, so that nothing sent is ever taken back.
/// The earliest stop wins; of those that begin at one place the first to be complete.
/// </summary>
internal sealed class StopMatcher(IReadOnlyList<string> stops)
{
    private readonly StringBuilder _held = new();
    private readonly int _longest = stops.Count == 0 ? 0 : stops.Max(stop => stop.Length);

    /// <summary>Characters that are held back.</summary>
    public int Held => _held.Length;

    /// <summary>Takes text; returns what may be sent. When a stop text is complete it is named, and nothing after it is returned.</summary>
    public string Append(string text, out string? stop)
    {
        stop = null;
        if (_longest == 0) return text;
        _held.Append(text);
        var held = _held.ToString();
        var end = held.Length;
        foreach (var candidate in stops)
        {
            var index = held.IndexOf(candidate, StringComparison.Ordinal);
            if (index >= 0 && index < end)
            {
                end = index;
                stop = candidate;
            }
        }

        if (stop is null) end = held.Length - LongestBeginningAtEnd(held);
        _held.Clear();
        if (stop is null) _held.Append(held, end, held.Length - end);
        return held[..end];
    }

    /// <summary>What is held back, once no more text comes.</summary>
    public string Flush()
    {
        var rest = _held.ToString();
        _held.Clear();
        return rest;
    }

    /// <summary>Length of the longest end of a text that begins a stop text.</summary>
    private int LongestBeginningAtEnd(string text)
    {
        for (var length = Math.Min(_longest - 1, text.Length); length > 0; length--)
        {
            var tail = text.AsSpan(text.Length - length);
            foreach (var stop in stops)
            {
                if (stop.Length > length && stop.AsSpan().StartsWith(tail, StringComparison.Ordinal)) return length;
            }
        }

        return 0;
    }
}
