using System.Text.Json;
using Rho.Serving.Engine;

namespace Rho.Serving.Http;

/// <summary>The logprobs object of a completion's choice, or of a piece of it.</summary>
/// <param name="count">Most likely tokens to name.</param>
internal sealed class CompletionScores(Answers answers, AnswerOptions options, int count)
{
    private readonly List<(ScoredToken Token, int Offset)> _tokens = [];
    private int _echoed;

    /// <summary>Adds tokens of the prompt, which come in order.</summary>
    public void AddPrompt(IEnumerable<ScoredToken> tokens, PromptEcho echo)
    {
        foreach (var token in tokens) _tokens.Add((token, echo.Offsets[_echoed++]));
    }

    /// <summary>Adds tokens of the continuation.</summary>
    /// <param name="echo">The text before it; null for none.</param>
    public void Add(IEnumerable<ScoredToken> tokens, PromptEcho? echo)
    {
        foreach (var token in tokens) _tokens.Add((token, (echo?.Length ?? 0) + token.TextOffset));
    }

    /// <summary>Forgets what was written.</summary>
    public void Clear() => _tokens.Clear();

    public void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject("logprobs");
        json.WriteStartArray("tokens");
        foreach (var (token, _) in _tokens) json.WriteStringValue(answers.TokenName(token.Token, options));
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

        // Two tokens can read alike. The likelier of them stays, so that the largest value is always right.
        var written = new HashSet<string>(StringComparer.Ordinal);
        json.WriteStartObject();
        var self = new TokenAlternative(token.Token, token.LogProbability);
        var top = token.Top.Take(count);
        foreach (var other in top.Contains(self) ? top : top.Append(self))
        {
            var text = answers.TokenName(other.Token, options);
            if (!written.Add(text)) continue;
            json.WritePropertyName(text);
            json.WriteFinite(other.LogProbability);
        }

        json.WriteEndObject();
    }
}
