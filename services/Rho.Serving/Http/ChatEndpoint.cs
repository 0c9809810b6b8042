using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Rho.Serving.Engine;
using Rho.Serving.Models;
using Rho.Serving.Tools;

namespace Rho.Serving.Http;

/// <summary>POST /v1/chat/completions.</summary>
internal sealed class ChatEndpoint(ModelRegistry registry, ServingOptions options, TimeProvider time)
{
    public async Task AnswerAsync(HttpContext context)
    {
        var call = await SubmitAsync(context);
        if (call.Options.Stream) await StreamAsync(context, call);
        else await WholeAsync(context, call);
    }

    private async Task<Call> SubmitAsync(HttpContext context)
    {
        using var body = await RequestBody.ReadAsync(context);
        var fields = new JsonFields(body.RootElement);
        using var use = registry.Use(fields.Text("model"));
        var model = use.Model;
        var request = ChatRequest.Read(fields, model);
        var generation = request.Submit(model, ClientIdentity.Of(context));
        return new Call(request, model, generation, $"chatcmpl-{Guid.NewGuid():N}", time.GetUtcNow().ToUnixTimeSeconds());
    }

    private static async Task WholeAsync(HttpContext context, Call call)
    {
        var choices = call.NewChoices();
        var prompt = new List<ScoredToken>();
        await foreach (var (_, chunk) in call.Answers.ReadAsync(context.RequestAborted))
        {
            if (chunk.IsPrompt) prompt.AddRange(chunk.Tokens);
            else choices[chunk.Choice].Add(chunk);
        }

        await JsonBody.WriteAsync(context, json =>
        {
            call.Begin(json, "chat.completion");
            json.WriteStartArray("choices");
            for (var i = 0; i < choices.Length; i++)
            {
                var choice = choices[i];
                json.WriteStartObject();
                json.WriteNumber("index", i);
                json.WriteStartObject("message");
                json.WriteString("role", "assistant");
                json.WriteString("content", choice.Calls.Count > 0 && choice.Text.Length == 0 ? null : choice.Text.ToString());
                json.WriteNull("refusal");
                if (choice.Calls.Count > 0)
                {
                    json.WriteStartArray("tool_calls");
                    foreach (var function in choice.Calls)
                    {
                        json.WriteStartObject();
                        Call.WriteFunction(json, function.Id, function.Name, function.Arguments.ToString());
                        json.WriteEndObject();
                    }

                    json.WriteEndArray();
                }

                json.WriteEndObject();
                call.WriteScores(json, choice.Tokens);
                call.WriteEnd(json, choice, choice.Tokens, finished: true);
                json.WriteEndObject();
            }

            json.WriteEndArray();
            if (call.Options.PromptLogProbabilities is { } count) call.Answers.WritePromptScores(json, prompt, count);
            if (call.Options.ReturnTokenIds) Answers.WriteIds(json, "prompt_token_ids", call.Answers.Prompt(0));
            call.Answers.WriteUsage(json);
            json.WriteEndObject();
        });
    }

    private async Task StreamAsync(HttpContext context, Call call)
    {
        var stream = new ServerSentEvents(context, options.ReaderTimeout);
        var choices = call.NewChoices();
        var begun = new bool[choices.Length];
        await stream.AnswerAsync(SendChunksAsync, call.Options.IncludeUsage ? WriteUsage : null);

        async Task SendChunksAsync()
        {
            await foreach (var (_, chunk) in call.Answers.ReadAsync(context.RequestAborted))
            {
                var choice = choices[chunk.Choice];
                call.Answers.Count(chunk);
                if (!begun[chunk.Choice])
                {
                    begun[chunk.Choice] = true;
                    await stream.SendAsync(json => call.WriteDelta(json, chunk.Choice, choice, delta =>
                    {
                        delta.WriteString("role", "assistant");
                        delta.WriteString("content", "");
                    }, withPrompt: true));
                }

                var tokens = chunk.Tokens;
                foreach (var piece in choice.Add(chunk))
                {
                    await stream.SendAsync(json => call.WriteDelta(json, chunk.Choice, choice, delta => Call.WritePiece(delta, choice, piece), tokens));
                    tokens = [];
                }

                // Tokens without text of their own, and those of a call that is not known yet.
                if (tokens.Count > 0 && (call.Options.ReturnTokenIds || call.HasScores))
                    await stream.SendAsync(json => call.WriteDelta(json, chunk.Choice, choice, delta => delta.WriteString("content", ""), tokens));
                if (chunk.Finish is not null) await stream.SendAsync(json => call.WriteDelta(json, chunk.Choice, choice, _ => { }, finished: true));
            }
        }

        void WriteUsage(Utf8JsonWriter json)
        {
            call.Begin(json, "chat.completion.chunk");
            json.WriteStartArray("choices");
            json.WriteEndArray();
            call.Answers.WriteUsage(json);
            json.WriteEndObject();
        }
    }

    /// <summary>An accepted call and how its answer is written.</summary>
    private sealed class Call(ChatRequest request, ServedModel model, Generation generation, string id, long created)
    {
        public AnswerOptions Options => request.Options;

        public Answers Answers { get; } = new(model, [generation]);

        public bool HasScores => request.Sampling.LogProbabilities is not null;

        public ChatChoice[] NewChoices() => [.. Enumerable.Range(0, Answers.Choices).Select(_ => new ChatChoice(request.Tools))];

        public void Begin(Utf8JsonWriter json, string kind)
        {
            json.WriteStartObject();
            json.WriteString("id", id);
            json.WriteString("object", kind);
            json.WriteNumber("created", created);
            json.WriteString("model", model.Name);
            json.WriteString("system_fingerprint", model.Version);
        }

        public void WriteDelta(
            Utf8JsonWriter json, int index, ChatChoice choice, Action<Utf8JsonWriter> write, IReadOnlyList<ScoredToken>? tokens = null, bool withPrompt = false, bool finished = false)
        {
            Begin(json, "chat.completion.chunk");
            if (withPrompt && Options.ReturnTokenIds) Answers.WriteIds(json, "prompt_token_ids", Answers.Prompt(0));
            json.WriteStartArray("choices");
            json.WriteStartObject();
            json.WriteNumber("index", index);
            json.WriteStartObject("delta");
            write(json);
            json.WriteEndObject();
            if (tokens is { Count: > 0 }) WriteScores(json, tokens);
            else json.WriteNull("logprobs");
            WriteEnd(json, choice, tokens ?? [], finished);
            json.WriteEndObject();
            json.WriteEndArray();
            Answers.WriteUsageSoFar(json, Options);
            json.WriteEndObject();
        }

        /// <summary>A delta's new text, a call's beginning, or more of a call's arguments.</summary>
        public static void WritePiece(Utf8JsonWriter json, ChatChoice choice, AnswerPiece piece)
        {
            if (piece.Call < 0)
            {
                json.WriteString("content", piece.Text);
                return;
            }

            json.WriteStartArray("tool_calls");
            json.WriteStartObject();
            json.WriteNumber("index", piece.Call);
            if (piece.Name is not null)
            {
                WriteFunction(json, choice.Calls[piece.Call].Id, piece.Name, piece.Text);
            }
            else
            {
                json.WriteStartObject("function");
                json.WriteString("arguments", piece.Text);
                json.WriteEndObject();
            }

            json.WriteEndObject();
            json.WriteEndArray();
        }

        public static void WriteFunction(Utf8JsonWriter json, string id, string name, string arguments)
        {
            json.WriteString("id", id);
            json.WriteString("type", "function");
            json.WriteStartObject("function");
            json.WriteString("name", name);
            json.WriteString("arguments", arguments);
            json.WriteEndObject();
        }

        /// <summary>Why the choice ended, where it has, and the ids of the tokens.</summary>
        public void WriteEnd(Utf8JsonWriter json, ChatChoice choice, IReadOnlyList<ScoredToken> tokens, bool finished)
        {
            json.WriteString("finish_reason", finished ? choice.FinishName : null);
            if (finished && choice.StopReason is not null) json.WriteString("stop_reason", choice.StopReason);
            if (Options.ReturnTokenIds) Answers.WriteIds(json, "token_ids", tokens.Select(token => token.Token));
        }

        public void WriteScores(Utf8JsonWriter json, IReadOnlyList<ScoredToken> tokens)
        {
            if (!HasScores)
            {
                json.WriteNull("logprobs");
                return;
            }

            json.WriteStartObject("logprobs");
            json.WriteStartArray("content");
            foreach (var token in tokens)
            {
                json.WriteStartObject();
                WriteScore(json, new TokenAlternative(token.Token, token.LogProbability));
                json.WriteStartArray("top_logprobs");
                foreach (var other in token.Top ?? [])
                {
                    json.WriteStartObject();
                    WriteScore(json, other);
                    json.WriteEndObject();
                }

                json.WriteEndArray();
                json.WriteEndObject();
            }

            json.WriteEndArray();
            json.WriteNull("refusal");
            json.WriteEndObject();
        }

        private void WriteScore(Utf8JsonWriter json, TokenAlternative token)
        {
            json.WriteString("token", Answers.TokenName(token.Token, Options));
            json.WritePropertyName("logprob");
            json.WriteFinite(token.LogProbability);
            json.WriteStartArray("bytes");
            foreach (var value in model.TokenBytes(token.Token).Span) json.WriteNumberValue(value);
            json.WriteEndArray();
        }
    }
}
