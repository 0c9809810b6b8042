using System.Text;
using Rho.Serving.Engine;
using Rho.Serving.Models;

namespace Rho.Serving.Http;

/// <summary>A prompt as an answer repeats it: its text, and where in it each token begins.</summary>
/// <param name="Offsets">In characters (code points), one per token.</param>
internal sealed record PromptEcho(string Text, IReadOnlyList<int> Offsets)
{
    /// <summary>Characters of the text.</summary>
    public int Length { get; } = PlacedDecoder.Count(Text);

    /// <summary>A prompt that was given as text and has all of its tokens is repeated as it was given; any other is spelt out, special tokens too.</summary>
    public static PromptEcho Of(ServedModel model, CompletionRequest.Prompt prompt, IReadOnlyList<int> tokens)
    {
        if (prompt.Text is { } text && prompt.Last is null)
        {
            var spans = model.Tokenizer.EncodeWithOffsets(text, prompt.AddSpecialTokens);
            if (spans.Select(span => span.Id).SequenceEqual(tokens))
            {
                var (at, characters) = (0, 0);
                var offsets = new int[spans.Count];
                for (var i = 0; i < offsets.Length; i++)
                {
                    if (spans[i].Start > at)
                    {
                        characters += PlacedDecoder.Count(text.AsSpan(at, spans[i].Start - at));
                        at = spans[i].Start;
                    }

                    // Tokens that the tokenizer adds have no place of their own: they stand before the text or after it.
                    offsets[i] = spans[i].End == 0 && at > 0 ? PlacedDecoder.Count(text) : characters;
                }

                return new PromptEcho(text, offsets);
            }
        }

        var decoder = new PlacedDecoder(model.Tokenizer, skipSpecialTokens: false);
        var written = new StringBuilder();
        var places = new List<int>();
        foreach (var token in tokens)
        {
            written.Append(decoder.Append(token, out var place));
            places.Add(place);
        }

        return new PromptEcho(written.Append(decoder.Flush()).ToString(), places);
    }
}
