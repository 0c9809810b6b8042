namespace Rho.Tokenization.Tests;

internal static class Texts
{
    public static readonly string[] Sentences =
    [
        "The quick brown fox jumps over the lazy dog. The dog doesn't mind; it's 12345 years old!",
        "def add(a, b):\n    return a + b\n\n\nprint(add(1, 22))\n",
        "\\frac{1}{2} + \\sqrt{x^2 + y^2} = \\sum_{i=0}^{n} a_i",
        "Zażółć gęślą jaźń, Ünïcödé ñandú, Ελληνικά, русский, العربية, हिन्दी, 日本語 中文 한국어",
        "👩‍👩‍👧‍👦 🇩🇪 🏳️‍🌈 e\u0301 a\u0308\u0323 \u200d \u0000\u0001\u007f",
        "   leading and trailing   \t\t\n\n   \r\n",
        "",
    ];

    public static Tokenizer Train(int vocabulary = 400, BpePattern pattern = BpePattern.Llama3) =>
        BpeTrainer.Train(Sentences, new BpeTrainerOptions { VocabularySize = vocabulary, Pattern = pattern, Threads = 2 });
}
