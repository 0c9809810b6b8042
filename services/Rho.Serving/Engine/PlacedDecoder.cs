using System.Text;
using Rho.Tokenization;

namespace Rho.Serving.Engine;

/// <summary>Turns tokens into text as they come, and says where in all of it each begins.</summary>
internal sealed class PlacedDecoder
{
    private readonly Tokenizer _tokenizer;
    private readonly StreamingDecoder _decoder;

    /// <param name="after">A token with a text of its own that comes before all others, and whose text is left out; null for none.</param>
    public PlacedDecoder(Tokenizer tokenizer, bool skipSpecialTokens, int? after = null)
    {
        _tokenizer = tokenizer;
        _decoder = tokenizer.CreateStreamingDecoder(skipSpecialTokens);
        if (after is { } token) _decoder.Append(token);
    }

    /// <summary>Characters (code points) of the text so far.</summary>
    public int Characters { get; private set; }

    /// <summary>The characters that a token completes; often none.</summary>
    /// <param name="place">Characters before the token, or before the character that it is a part of.</param>
    public string Append(int token, out int place)
    {
        var text = _decoder.Append(token);
        place = Characters + Count(text.AsSpan(0, text.Length - OwnLength(token, text)));
        Characters += Count(text);
        return text;
    }

    /// <summary>What is left, with U+FFFD for bytes that make no character.</summary>
    public string Flush()
    {
        var rest = _decoder.Flush();
        Characters += Count(rest);
        return rest;
    }

    /// <summary>Characters (code points) of a text.</summary>
    public static int Count(ReadOnlySpan<char> text)
    {
        var count = 0;
        foreach (var c in text)
        {
            if (!char.IsLowSurrogate(c)) count++;
        }

        return count;
    }

    /// <summary>How much of what comes out with a token is its own text: before it come characters of tokens that were held back.</summary>
    private int OwnLength(int token, string text)
    {
        if (text.Length == 0) return 0;
        var own = Encoding.UTF8.GetString(_tokenizer.TokenBytes(token).Span);
        return own.Length > 0 && text.EndsWith(own, StringComparison.Ordinal) ? own.Length : text.Length;
    }
}
