using System.Globalization;
using System.Text;
using System.Text.Json;

namespace Rho.Tokenization;

/// <summary>A stretch of text, and whether a pattern matched it.</summary>
internal readonly record struct TextSpan(int Start, int End, bool IsMatch);

/// <summary>Something to look for in text.</summary>
internal abstract class TextPattern
{
    /// <summary>The matches and what lies between them, together the whole text.</summary>
    public void Find(ReadOnlySpan<char> text, List<TextSpan> output)
    {
        var done = 0;
        Match(text, output, ref done);
        if (done < text.Length) output.Add(new TextSpan(done, text.Length, false));
    }

    protected abstract void Match(ReadOnlySpan<char> text, List<TextSpan> output, ref int done);

    protected static void Add(int start, int end, List<TextSpan> output, ref int done)
    {
        if (done < start) output.Add(new TextSpan(done, start, false));
        output.Add(new TextSpan(start, end, true));
        done = end;
    }

    /// <summary>Reads {"String": ...} or {"Regex": ...}.</summary>
    public static TextPattern Read(JsonPart part)
    {
        part.Allow("String", "Regex");
        var regex = part.OptionalText("Regex");
        if (regex is null)
        {
            var text = part.Text("String");
            return text.Length > 0 ? new LiteralPattern(text) : throw part.Error("an empty pattern is not supported");
        }

        try
        {
            return RegexPattern.Create(regex);
        }
        catch (RhoException error)
        {
            throw part.Error(error.Message);
        }
    }

    public virtual void Write(Utf8JsonWriter json) => throw new InvalidOperationException("This pattern is not from a file.");
}

internal sealed class LiteralPattern(string text) : TextPattern
{
    public string Text => text;

    protected override void Match(ReadOnlySpan<char> source, List<TextSpan> output, ref int done)
    {
        while (true)
        {
            var found = source[done..].IndexOf(text);
            if (found < 0) return;
            Add(done + found, done + found + text.Length, output, ref done);
        }
    }

    public override void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteString("String", text);
        json.WriteEndObject();
    }
}

internal sealed class RegexPattern : TextPattern
{
    private readonly string _text;
    private readonly OnigurumaPattern? _regex;

    private RegexPattern(string text, Splitter? known)
    {
        _text = text;
        Known = known;
        if (known is null) _regex = new OnigurumaPattern(text);
    }

    /// <summary>The hand-written splitter for this expression, if it is one of the well-known ones.</summary>
    public Splitter? Known { get; }

    public static RegexPattern Create(string text) => new(text, text switch
    {
        Gpt2Splitter.Pattern => Gpt2Splitter.Instance,
        LlamaSplitter.Llama3Pattern => LlamaSplitter.Llama3,
        LlamaSplitter.Qwen2Pattern => LlamaSplitter.Qwen2,
        _ => null,
    });

    /// <summary>The expression run as it is written, to compare hand-written splitters with.</summary>
    internal static RegexPattern CreateGeneric(string text) => new(text, null);

    protected override void Match(ReadOnlySpan<char> text, List<TextSpan> output, ref int done)
    {
        if (Known is { } splitter)
        {
            while (done < text.Length) Add(done, splitter.Next(text, done), output, ref done);
            return;
        }

        foreach (var match in _regex!.For(text).EnumerateMatches(text))
        {
            // An empty match is none where the last one ended, nor inside a character.
            if (match.Length == 0 && ((match.Index == done && output.Count > 0) || IsInsidePair(text, match.Index))) continue;
            Add(match.Index, match.Index + match.Length, output, ref done);
        }
    }

    private static bool IsInsidePair(ReadOnlySpan<char> text, int index) =>
        index > 0 && index < text.Length && char.IsHighSurrogate(text[index - 1]) && char.IsLowSurrogate(text[index]);

    public override void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteString("Regex", _text);
        json.WriteEndObject();
    }
}

/// <summary>Single characters of a kind.</summary>
internal sealed class CharacterPattern(Func<Rune, bool> matches) : TextPattern
{
    /// <summary>Nd, Nl and No.</summary>
    public static readonly CharacterPattern Numeric = new(rune => Rune.GetUnicodeCategory(rune)
        is UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber);

    public static readonly CharacterPattern WhiteSpace = new(Rune.IsWhiteSpace);

    public static readonly CharacterPattern Punctuation = new(rune => Rune.IsPunctuation(rune)
        || (rune.IsAscii && rune.Value > ' ' && rune.Value < 0x7F && !Rune.IsLetterOrDigit(rune)));

    public static CharacterPattern Only(char c) => new(rune => rune.Value == c);

    protected override void Match(ReadOnlySpan<char> text, List<TextSpan> output, ref int done)
    {
        for (var i = 0; i < text.Length;)
        {
            Rune.DecodeFromUtf16(text[i..], out var rune, out var length);
            if (matches(rune)) Add(i, i + length, output, ref done);
            i += length;
        }
    }
}

/// <summary>\w+|[^\w\s]+ with the word characters of Rust's regex crate.</summary>
internal sealed class WordPattern : TextPattern
{
    public static readonly WordPattern Instance = new();

    protected override void Match(ReadOnlySpan<char> text, List<TextSpan> output, ref int done)
    {
        for (var i = 0; i < text.Length;)
        {
            var start = i;
            var kind = Kind(text, ref i);
            while (i < text.Length)
            {
                var next = i;
                if (Kind(text, ref next) != kind) break;
                i = next;
            }

            if (kind != 0) Add(start, i, output, ref done);
        }
    }

    private static int Kind(ReadOnlySpan<char> text, ref int index)
    {
        Rune.DecodeFromUtf16(text[index..], out var rune, out var length);
        index += length;
        return Rune.IsWhiteSpace(rune) ? 0 : AddedTokenMatcher.IsWord(rune) ? 1 : 2;
    }
}
