namespace Rho.Serving.Engine;

/// <summary>Turns a continuation's tokens into text that can be sent, and keeps each token back until its text can be.</summary>
internal sealed class TextStream(PlacedDecoder decoder, IReadOnlyList<string> stops)
{
    private readonly StopMatcher _matcher = new(stops);
    private readonly Queue<(ScoredToken Token, long Start, long End)> _held = [];
    private long _decoded;
    private long _sent;

    /// <summary>Takes a token; returns what can be sent now.</summary>
    /// <param name="mayStop">False lets stop texts through.</param>
    /// <param name="stop">The stop text that is now complete; nothing comes after it.</param>
    public (string Text, List<ScoredToken> Tokens) Append(ScoredToken token, bool mayStop, out string? stop)
    {
        var text = decoder.Append(token.Token, out var place);
        Hold(token, text, place);
        stop = null;
        return Release(mayStop ? _matcher.Append(text, out stop) : _matcher.Flush() + text, stop is not null);
    }

    /// <summary>Takes a token that has no text, and all that was held back.</summary>
    public (string Text, List<ScoredToken> Tokens) End(ScoredToken? last)
    {
        var rest = decoder.Flush();
        _decoded += rest.Length;
        if (last is { } token) Hold(token, "", decoder.Characters);
        var text = _matcher.Append(rest, out var stop);
        return Release(stop is null ? text + _matcher.Flush() : text, cut: true);
    }

    private void Hold(ScoredToken token, string text, int place)
    {
        _held.Enqueue((token with { TextOffset = place }, _decoded, _decoded + text.Length));
        _decoded += text.Length;
    }

    private (string Text, List<ScoredToken> Tokens) Release(string text, bool cut)
    {
        _sent += text.Length;
        var tokens = new List<ScoredToken>();
        // At the end, a token of which some text was sent goes out too; one that begins behind the cut does not.
        while (_held.TryPeek(out var next) && (next.End <= _sent || (cut && next.Start < _sent)))
        {
            tokens.Add(next.Token);
            _held.Dequeue();
        }

        return (text, tokens);
    }
}
