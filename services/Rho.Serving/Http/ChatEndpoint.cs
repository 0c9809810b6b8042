using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Rho.Serving.Engine;
using Rho.Serving.Models;

namespace Rho.Serving.Http;

/// <summary>POST /v1/chat/completions.</summary>
internal sealed class ChatEndpoint(ModelRegistry registry, ServingOptions options, TimeProvider time)
{
    public async Task AnswerAsync(HttpContext context)
    {
        var call = await SubmitAsync(context);
        if (call.Request.Stream) await StreamAsync(context, call);
        else await WholeAsync(context, call);
    }

    private async Task<Call> SubmitAsync(HttpContext context)
    {
        using var body = await RequestBody.ReadAsync(context);
        var fields = new JsonFields(body.RootElement);
        using var use = registry.Use(fields.Text("model"));
        var model = use.Model;
        var request = ChatRequest.Read(fields, model);
        request.Sampling.Validate(model.Config.VocabularySize);
        var client = ClientIdentity.Of(context);
        var generation = model.Engine.Submit(new GenerationRequest
        {
            Prompt = Prompts.EncodeChat(model, template => template.Render(request.Messages, request.AddGenerationPrompt, request.TemplateVariables), client),
            Sampling = request.Sampling,
            Priority = request.Priority,
            Client = client,
        });
        return new Call(request, model, generation, $"chatcmpl-{Guid.NewGuid():N}", time.GetUtcNow().ToUnixTimeSeconds());
    }

    private static async Task WholeAsync(HttpContext context, Call call)
    {
        var choices = Enumerable.Range(0, call.Answers.Choices).Select(_ => new WholeChoice()).ToArray();
        await foreach (var (_, chunk) in call.Answers.ReadAsync(context.RequestAborted)) choices[chunk.Choice].Add(chunk);
        await JsonBody.WriteAsync(context, json =>
        {
            call.Begin(json, "chat.completion");
            json.WriteStartArray("choices");
            for (var i = 0; i < choices.Length; i++)
            {
                json.WriteStartObject();
                json.WriteNumber("index", i);
                json.WriteStartObject("message");
                json.WriteString("role", "assistant");
                json.WriteString("content", choices[i].Text.ToString());
                json.WriteNull("refusal");
                json.WriteEndObject();
                call.WriteScores(json, choices[i].Tokens);
                Call.WriteFinish(json, choices[i].Finish, choices[i].StopReason);
                json.WriteEndObject();
            }

            json.WriteEndArray();
            call.Answers.WriteUsage(json);
            json.WriteEndObject();
        });
    }

    private async Task StreamAsync(HttpContext context, Call call)
    {
        var stream = new ServerSentEvents(context, options.ReaderTimeout);
        var begun = new bool[call.Answers.Choices];
        await stream.AnswerAsync(SendChunksAsync, call.Request.IncludeUsage ? WriteUsage : null);

        async Task SendChunksAsync()
        {
            await foreach (var (_, chunk) in call.Answers.ReadAsync(context.RequestAborted))
            {
                if (!begun[chunk.Choice])
                {
                    begun[chunk.Choice] = true;
                    await stream.SendAsync(json => call.WriteDelta(json, chunk.Choice, "", [], role: true));
                }

                if (chunk.Text.Length > 0 || chunk.Tokens.Count > 0) await stream.SendAsync(json => call.WriteDelta(json, chunk.Choice, chunk.Text, chunk.Tokens));
                if (chunk.Finish is not null) await stream.SendAsync(json => call.WriteDelta(json, chunk.Choice, null, [], finish: chunk.Finish, stopReason: chunk.StopReason));
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
        public ChatRequest Request { get; } = request;

        public Answers Answers { get; } = new(model, [generation]);

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
            Utf8JsonWriter json, int choice, string? text, IReadOnlyList<ScoredToken> tokens, bool role = false, FinishReason? finish = null, string? stopReason = null)
        {
            Begin(json, "chat.completion.chunk");
            json.WriteStartArray("choices");
            json.WriteStartObject();
            json.WriteNumber("index", choice);
            json.WriteStartObject("delta");
            if (role) json.WriteString("role", "assistant");
            if (text is not null) json.WriteString("content", text);
            json.WriteEndObject();
            if (tokens.Count > 0) WriteScores(json, tokens);
            else json.WriteNull("logprobs");
            WriteFinish(json, finish, stopReason);
            json.WriteEndObject();
            json.WriteEndArray();
            json.WriteEndObject();
        }

        public static void WriteFinish(Utf8JsonWriter json, FinishReason? finish, string? stopReason)
        {
            json.WriteString("finish_reason", Answers.FinishName(finish));
            if (stopReason is not null) json.WriteString("stop_reason", stopReason);
        }

        public void WriteScores(Utf8JsonWriter json, IReadOnlyList<ScoredToken> tokens)
        {
            if (Request.Sampling.LogProbabilities is null)
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
            json.WriteString("token", model.TokenText(token.Token));
            json.WritePropertyName("logprob");
            json.WriteFinite(token.LogProbability);
            json.WriteStartArray("bytes");
            foreach (var value in model.TokenBytes(token.Token).Span) json.WriteNumberValue(value);
            json.WriteEndArray();
        }
    }
}
