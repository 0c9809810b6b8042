using System.Buffers;
using System.Globalization;
using System.Text;

namespace Rho.Tokenization;

/// <summary>A token that is looked for in the text before the model sees it.</summary>
/// <param name="Special">Left out by Decode when special tokens are skipped.</param>
/// <param name="Normalized">Looked for in the normalized text, not in the raw one.</param>
/// <param name="LeftStrip">Takes white space on its left with it.</param>
/// <param name="RightStrip">Takes white space on its right with it.</param>
/// <param name="SingleWord">Only matches where no letter, digit or underscore adjoins.</param>
internal sealed record AddedToken(int Id, string Content, bool Special, bool Normalized, bool LeftStrip, bool RightStrip, bool SingleWord)
{
    public static AddedToken Read(JsonPart part, int id) => new(
        id,
        part.Text("content"),
        part.Flag("special", false),
        part.Flag("normalized", !part.Flag("special", false)),
        part.Flag("lstrip", false),
        part.Flag("rstrip", false),
        part.Flag("single_word", false));
}

/// <summary>Finds added tokens in text: the leftmost, and of several there the longest.</summary>
internal sealed class AddedTokenMatcher
{
    private readonly SearchValues<string> _any;
    private readonly Dictionary<char, (string Text, AddedToken Token)[]> _byFirst;

    /// <param name="tokens">The tokens with the text to look for, which is not empty.</param>
    public AddedTokenMatcher(IReadOnlyCollection<(string Text, AddedToken Token)> tokens)
    {
        _any = SearchValues.Create([.. tokens.Select(token => token.Text)], StringComparison.Ordinal);
        _byFirst = tokens.GroupBy(token => token.Text[0])
            .ToDictionary(group => group.Key, group => group.OrderByDescending(token => token.Text.Length).ThenBy(token => token.Token.Id).ToArray());
    }

    /// <summary>The next token at or after <paramref name="search"/>, which moves behind what was matched.</summary>
    /// <param name="taken">Where the text begins that no earlier token has taken; moves behind the token.</param>
    /// <param name="start">Where the token, with the white space it takes, starts.</param>
    public AddedToken? Next(ReadOnlySpan<char> text, ref int search, ref int taken, out int start)
    {
        while (true)
        {
            var found = text[search..].IndexOfAny(_any);
            if (found < 0)
            {
                search = text.Length;
                start = text.Length;
                return null;
            }

            start = search + found;
            var (content, token) = Longest(text[start..]);
            var stop = start + content.Length;
            search = stop;
            if (token.SingleWord && (EndsWithWord(text[..start]) || StartsWithWord(text[stop..]))) continue;
            if (token.LeftStrip) start = Math.Max(taken, text[..start].TrimEnd().Length);
            if (token.RightStrip) stop = text.Length - text[stop..].TrimStart().Length;
            taken = stop;
            return token;
        }
    }

    private (string Text, AddedToken Token) Longest(ReadOnlySpan<char> text)
    {
        foreach (var candidate in _byFirst[text[0]])
        {
            if (text.StartsWith(candidate.Text)) return candidate;
        }

        throw new InvalidOperationException("The search found a token that is not there.");
    }

    private static bool EndsWithWord(ReadOnlySpan<char> text) =>
        !text.IsEmpty && Rune.DecodeLastFromUtf16(text, out var last, out _) == OperationStatus.Done && IsWord(last);

    private static bool StartsWithWord(ReadOnlySpan<char> text) =>
        !text.IsEmpty && Rune.DecodeFromUtf16(text, out var first, out _) == OperationStatus.Done && IsWord(first);

    /// <summary>\w: letters, marks, decimal digits, letter numbers, connectors, joiners.</summary>
    internal static bool IsWord(Rune rune) => Rune.GetUnicodeCategory(rune) switch
    {
        <= UnicodeCategory.LetterNumber => true,
        UnicodeCategory.ConnectorPunctuation => true,
        _ => rune.Value is 0x200C or 0x200D or (>= 0x24B6 and <= 0x24E9) or (>= 0x1F130 and <= 0x1F149) or (>= 0x1F150 and <= 0x1F169) or (>= 0x1F170 and <= 0x1F189),
    };
}
