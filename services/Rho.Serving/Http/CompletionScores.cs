using System.Text.Json;
using Rho.Serving.Engine;
using Rho.Serving.Models;

namespace Rho.Serving.Http;

/// <summary>The logprobs object of a completion's choice. Text offsets go on over the pieces of a stream.</summary>
internal sealed class CompletionScores(ServedModel model)
{
    private readonly List<(ScoredToken Token, int Offset)> _tokens = [];
    private int _offset;

    public void Add(IEnumerable<ScoredToken> tokens)
    {
        foreach (var token in tokens)
        {
            _tokens.Add((token, _offset));
            // Special tokens are not part of the text.
            if (!model.Tokenizer.IsSpecial(token.Token)) _offset += model.TokenText(token.Token).Length;
        }
    }

    /// <summary>Forgets what was written.</summary>
    public void Clear() => _tokens.Clear();

    public void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject("logprobs");
        json.WriteStartArray("tokens");
        foreach (var (token, _) in _tokens) json.WriteStringValue(model.TokenText(token.Token));
        json.WriteEndArray();
        json.WriteStartArray("token_logprobs");
        foreach (var (token, _) in _tokens) json.WriteFinite(token.LogProbability);
        json.WriteEndArray();
        json.WriteStartArray("top_logprobs");
        foreach (var (token, _) in _tokens) WriteTop(json, token);
        json.WriteEndArray();
        json.WriteStartArray("text_offset");
        foreach (var (_, offset) in _tokens) json.WriteNumberValue(offset);
        json.WriteEndArray();
        json.WriteEndObject();
    }

    /// <summary>The most likely tokens, and the token itself if it is not among them, keyed by their text.</summary>
    private void WriteTop(Utf8JsonWriter json, ScoredToken token)
    {
        if (token.Top is null)
        {
            json.WriteNullValue();
            return;
        }

        // Tokens that are parts of characters can read alike. The likeliest of them stays, so that the largest value is always right.
        var written = new HashSet<string>(StringComparer.Ordinal);
        json.WriteStartObject();
        var self = new TokenAlternative(token.Token, token.LogProbability);
        foreach (var other in token.Top.Contains(self) ? token.Top : token.Top.Append(self))
        {
            var text = model.TokenText(other.Token);
            if (!written.Add(text)) continue;
            json.WritePropertyName(text);
            json.WriteFinite(other.LogProbability);
        }

        json.WriteEndObject();
    }
}
