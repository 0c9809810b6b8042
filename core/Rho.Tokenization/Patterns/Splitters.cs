namespace Rho.Tokenization;

/// <summary>Cuts a text into adjoining words, each found from where the one before it ended.</summary>
internal abstract class Splitter
{
    /// <summary>The end of the word that starts at <paramref name="start"/>; always beyond it.</summary>
    public abstract int Next(ReadOnlySpan<char> text, int start);

    protected static int LettersEnd(ReadOnlySpan<char> text, int index) => RunEnd(text, index, CharacterClass.Letter);

    /// <summary>The end of the run of characters of exactly this class.</summary>
    protected static int RunEnd(ReadOnlySpan<char> text, int index, CharacterClass wanted)
    {
        while (index < text.Length && CharacterClasses.Of(text, index, out var length) == wanted) index += length;
        return index;
    }

    /// <summary>The end of \s+(?!\S)|\s+ from <paramref name="start"/>, given the end of the run of white space.</summary>
    protected static int SpacesEnd(ReadOnlySpan<char> text, int start, int end) =>
        end == text.Length || end == start + 1 ? end : end - 1;

    protected static int SpaceRunEnd(ReadOnlySpan<char> text, int index)
    {
        while (index < text.Length && (CharacterClasses.Of(text[index]) & CharacterClass.Space) != CharacterClass.Other) index++;
        return index;
    }
}

/// <summary>GPT-2's pattern, by hand: see <see cref="Pattern"/>.</summary>
internal sealed class Gpt2Splitter : Splitter
{
    public const string Pattern = @"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

    public static readonly Gpt2Splitter Instance = new();

    public override int Next(ReadOnlySpan<char> text, int start)
    {
        var first = text[start];
        if (first == '\'' && start + 1 < text.Length)
        {
            switch (text[start + 1])
            {
                case 's' or 't' or 'm' or 'd':
                    return start + 2;
                case 'r' or 'v' when start + 2 < text.Length && text[start + 2] == 'e':
                case 'l' when start + 2 < text.Length && text[start + 2] == 'l':
                    return start + 3;
            }
        }

        var body = first == ' ' && start + 1 < text.Length ? start + 1 : start;
        var kind = CharacterClasses.Of(text, body, out var length);
        if ((kind & CharacterClass.Space) == CharacterClass.Other) return RunEnd(text, body + length, kind);
        return SpacesEnd(text, start, SpaceRunEnd(text, start));
    }
}

/// <summary>The patterns of Llama 3 (up to three digits to a word) and Qwen2 (one digit), by hand.</summary>
internal sealed class LlamaSplitter(int digits) : Splitter
{
    public const string Llama3Pattern =
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    public const string Qwen2Pattern =
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    public static readonly LlamaSplitter Llama3 = new(3);
    public static readonly LlamaSplitter Qwen2 = new(1);

    public override int Next(ReadOnlySpan<char> text, int start)
    {
        var first = text[start];
        if (first == '\'')
        {
            var contraction = ContractionLength(text[(start + 1)..]);
            if (contraction > 0) return start + 1 + contraction;
        }

        var kind = CharacterClasses.Of(text, start, out var length);
        var next = start + length;
        if (kind == CharacterClass.Letter) return LettersEnd(text, next);
        if (kind == CharacterClass.Number)
        {
            for (var taken = 1; taken < digits && next < text.Length; taken++)
            {
                if (CharacterClasses.Of(text, next, out length) != CharacterClass.Number) break;
                next += length;
            }

            return next;
        }

        var following = CharacterClass.Space;
        var followingLength = 0;
        if (next < text.Length) following = CharacterClasses.Of(text, next, out followingLength);
        if (following == CharacterClass.Letter && (kind & CharacterClass.Newline) == CharacterClass.Other) return LettersEnd(text, next + followingLength);

        if (kind == CharacterClass.Other || (first == ' ' && following == CharacterClass.Other && followingLength > 0))
        {
            var end = RunEnd(text, next, CharacterClass.Other);
            while (end < text.Length && text[end] is '\r' or '\n') end++;
            return end;
        }

        var run = SpaceRunEnd(text, start);
        var newline = text[start..run].LastIndexOfAny('\r', '\n');
        return newline >= 0 ? start + newline + 1 : SpacesEnd(text, start, run);
    }

    /// <summary>Length of s, t, re, ve, m, ll or d in any case; U+017F folds to s.</summary>
    private static int ContractionLength(ReadOnlySpan<char> text)
    {
        if (text.IsEmpty) return 0;
        switch (text[0])
        {
            case 's' or 'S' or 't' or 'T' or 'm' or 'M' or 'd' or 'D' or '\u017F':
                return 1;
            case 'r' or 'R' or 'v' or 'V':
                return text.Length > 1 && text[1] is 'e' or 'E' ? 2 : 0;
            case 'l' or 'L':
                return text.Length > 1 && text[1] is 'l' or 'L' ? 2 : 0;
            default:
                return 0;
        }
    }
}
