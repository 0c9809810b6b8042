using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json;
using System.Threading.Channels;
using Rho.Serving.Engine;
using Rho.Serving.Models;

namespace Rho.Serving.Http;

/// <summary>The generations of one HTTP call: one per prompt, each with its choices.</summary>
internal sealed class Answers(ServedModel model, IReadOnlyList<Generation> generations)
{
    private int _sent;

    /// <summary>Choices of all prompts: choice c of prompt p has number p * n + c.</summary>
    public int Choices => generations.Sum(generation => generation.Request.Sampling.Choices);

    /// <summary>Pieces of all answers as they come, with the number of their prompt.</summary>
    public async IAsyncEnumerable<(int Prompt, GenerationChunk Chunk)> ReadAsync([EnumeratorCancellation] CancellationToken cancellation)
    {
        if (generations.Count == 1)
        {
            await foreach (var chunk in generations[0].ReadAsync(cancellation)) yield return (0, chunk);
            yield break;
        }

        // A bounded channel: a client that reads slowly holds the pumps, and these the sequences.
        var merged = Channel.CreateBounded<(int, GenerationChunk)>(256);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var pumps = Task.WhenAll(generations.Select((generation, prompt) => PumpAsync(generation, prompt, merged.Writer, stop.Token)));
        _ = pumps.ContinueWith(done => merged.Writer.TryComplete(done.Exception?.InnerException), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
        try
        {
            await foreach (var item in merged.Reader.ReadAllAsync(cancellation)) yield return item;
        }
        finally
        {
            await stop.CancelAsync();
            await pumps.ContinueWith(_ => { }, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
        }
    }

    public IReadOnlyList<int> Prompt(int prompt) => generations[prompt].Request.Prompt;

    /// <summary>What a token is called in log-probabilities.</summary>
    public string TokenName(int token, AnswerOptions options) => options.TokensAsIds ? $"token_id:{token}" : model.TokenText(token);

    public static void WriteIds(Utf8JsonWriter json, string name, IEnumerable<int> tokens)
    {
        json.WriteStartArray(name);
        foreach (var token in tokens) json.WriteNumberValue(token);
        json.WriteEndArray();
    }

    /// <summary>prompt_logprobs as vLLM has them: for each token of the prompt the likeliest tokens by id, and the token itself.</summary>
    /// <param name="count">How many likeliest tokens.</param>
    public void WritePromptScores(Utf8JsonWriter json, IEnumerable<ScoredToken> prompt, int count)
    {
        json.WriteStartArray("prompt_logprobs");
        foreach (var token in prompt)
        {
            if (token.Top is null)
            {
                json.WriteNullValue();
                continue;
            }

            json.WriteStartObject();
            Write(token.Token, token.LogProbability, token.Rank);
            for (var i = 0; i < Math.Min(count, token.Top.Length); i++)
            {
                if (token.Top[i].Token != token.Token) Write(token.Top[i].Token, token.Top[i].LogProbability, i + 1);
            }

            json.WriteEndObject();
        }

        json.WriteEndArray();

        void Write(int id, float logProbability, int rank)
        {
            json.WriteStartObject(id.ToString(CultureInfo.InvariantCulture));
            json.WritePropertyName("logprob");
            json.WriteFinite(logProbability);
            json.WriteNumber("rank", rank);
            json.WriteString("decoded_token", model.TokenText(id));
            json.WriteEndObject();
        }
    }

    /// <summary>Counts what a stream sends, for <see cref="WriteUsageSoFar"/>.</summary>
    public void Count(GenerationChunk chunk) => _sent += chunk.IsPrompt ? 0 : chunk.Tokens.Count;

    /// <summary>In a piece of a stream that ends with usage: the usage so far where that is asked for, else null, as OpenAI has it.</summary>
    public void WriteUsageSoFar(Utf8JsonWriter json, AnswerOptions options)
    {
        if (options.ContinuousUsage) WriteUsage(json, _sent);
        else if (options.IncludeUsage) json.WriteNull("usage");
    }

    public void WriteUsage(Utf8JsonWriter json) => WriteUsage(json, generations.Sum(generation => generation.Usage.CompletionTokens));

    private void WriteUsage(Utf8JsonWriter json, int completion)
    {
        var prompt = generations.Sum(generation => generation.Usage.PromptTokens);
        json.WriteStartObject("usage");
        json.WriteNumber("prompt_tokens", prompt);
        json.WriteNumber("completion_tokens", completion);
        json.WriteNumber("total_tokens", prompt + completion);
        json.WriteStartObject("prompt_tokens_details");
        json.WriteNumber("cached_tokens", generations.Sum(generation => generation.Usage.CachedPromptTokens));
        json.WriteEndObject();
        json.WriteEndObject();
    }

    public static string? FinishName(FinishReason? reason) => reason switch
    {
        FinishReason.Stop => "stop",
        FinishReason.Length => "length",
        _ => null,
    };

    private static async Task PumpAsync(Generation generation, int prompt, ChannelWriter<(int, GenerationChunk)> writer, CancellationToken cancellation)
    {
        try
        {
            await foreach (var chunk in generation.ReadAsync(cancellation)) await writer.WriteAsync((prompt, chunk), cancellation);
        }
        catch (Exception exception) when (exception is not OperationCanceledException)
        {
            // The first failure ends the call; what others still send no longer matters.
            writer.TryComplete(exception);
        }
    }
}

/// <summary>One choice of an answer that is returned whole.</summary>
internal sealed class WholeChoice
{
    public StringBuilder Text { get; } = new();

    public List<ScoredToken> Tokens { get; } = [];

    public FinishReason? Finish { get; private set; }

    public string? StopReason { get; private set; }

    public void Add(GenerationChunk chunk)
    {
        Text.Append(chunk.Text);
        Tokens.AddRange(chunk.Tokens);
        Finish = chunk.Finish ?? Finish;
        StopReason = chunk.StopReason ?? StopReason;
    }
}
