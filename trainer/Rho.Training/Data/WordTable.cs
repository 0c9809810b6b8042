using Rho.Tokenization;

namespace Rho.Training;

/// <summary>
/// Which tokens go on a word: a token whose first character is a letter or digit, after one whose last character is. Spaces, line
/// ends and punctuation end words, whichever side of the token boundary they are on.
/// </summary>
internal sealed class WordTable
{
    private readonly bool[] _startsInside;
    private readonly bool[] _endsInside;

    public WordTable(Tokenizer tokenizer, int vocabularySize)
    {
        _startsInside = new bool[vocabularySize];
        _endsInside = new bool[vocabularySize];
        for (var id = 0; id < Math.Min(vocabularySize, tokenizer.VocabularySize); id++)
        {
            if (tokenizer.IsSpecial(id)) continue;
            var bytes = tokenizer.TokenBytes(id).Span;
            if (bytes.IsEmpty) continue;
            _startsInside[id] = IsInside(bytes[0]);
            _endsInside[id] = IsInside(bytes[^1]);
        }
    }

    /// <summary>Numbers words through a batch: neighbours with one number belong together.</summary>
    public int[] Number(ReadOnlySpan<int> tokens)
    {
        var words = new int[tokens.Length];
        for (var i = 1; i < tokens.Length; i++)
            words[i] = _endsInside[tokens[i - 1]] && _startsInside[tokens[i]] ? words[i - 1] : words[i - 1] + 1;
        return words;
    }

    /// <summary>Bytes from 0x80 on are parts of characters beyond ASCII, most of them letters.</summary>
    private static bool IsInside(byte value) => char.IsAsciiLetterOrDigit((char)value) || value >= 0x80;
}
