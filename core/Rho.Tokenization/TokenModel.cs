using System.Text.Json;

namespace Rho.Tokenization;

/// <summary>One token of a word: its id and how many of the word's UTF-8 bytes it stands for.</summary>
internal readonly record struct Symbol(int Id, int Bytes);

/// <summary>Turns words, as normalizer and pre-tokenizer leave them, into ids. Safe for many threads.</summary>
internal abstract class TokenModel
{
    public abstract Vocabulary Vocabulary { get; }

    public abstract void Encode(ReadOnlySpan<char> word, List<int> output);

    public abstract void Encode(ReadOnlySpan<char> word, List<Symbol> output);

    /// <summary>The model as tokenizer.json has it, with every default written out.</summary>
    public abstract void Write(Utf8JsonWriter json);
}
