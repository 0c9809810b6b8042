using System.Globalization;
using System.Text;

namespace Rho.Tokenization;

[Flags]
internal enum CharacterClass : byte
{
    Other = 0,
    Letter = 1,
    Number = 2,
    Space = 4,
    Newline = 8,
    HighSurrogate = 16,
}

/// <summary>Unicode classes by table for the characters of the basic plane, by look-up for the others.</summary>
internal static class CharacterClasses
{
    private static readonly CharacterClass[] Table = Build();

    public static CharacterClass Of(char c) => Table[c];

    /// <summary>The class of the character that starts at <paramref name="index"/> and how many chars it takes.</summary>
    public static CharacterClass Of(ReadOnlySpan<char> text, int index, out int length)
    {
        var known = Table[text[index]];
        length = 1;
        if (known != CharacterClass.HighSurrogate) return known;
        if (index + 1 >= text.Length || !char.IsLowSurrogate(text[index + 1])) return CharacterClass.Other;
        length = 2;
        return Classify(Rune.GetUnicodeCategory(new Rune(text[index], text[index + 1])));
    }

    private static CharacterClass Classify(UnicodeCategory category) => category switch
    {
        <= UnicodeCategory.OtherLetter => CharacterClass.Letter,
        UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber => CharacterClass.Number,
        _ => CharacterClass.Other,
    };

    private static CharacterClass[] Build()
    {
        var table = new CharacterClass[char.MaxValue + 1];
        for (var c = 0; c <= char.MaxValue; c++)
        {
            table[c] = char.IsHighSurrogate((char)c) ? CharacterClass.HighSurrogate
                : c is '\r' or '\n' ? CharacterClass.Space | CharacterClass.Newline
                : char.IsWhiteSpace((char)c) ? CharacterClass.Space
                : Classify(char.GetUnicodeCategory((char)c));
        }

        return table;
    }
}
