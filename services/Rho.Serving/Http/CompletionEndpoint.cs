using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Rho.Serving.Engine;
using Rho.Serving.Models;

namespace Rho.Serving.Http;

/// <summary>POST /v1/completions.</summary>
internal sealed class CompletionEndpoint(ModelRegistry registry, ServingOptions options, TimeProvider time)
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
        var request = CompletionRequest.Read(fields, model);
        request.Sampling.Validate(model.Config.VocabularySize);

        var client = ClientIdentity.Of(context);
        var generations = new List<Generation>();
        try
        {
            foreach (var prompt in request.Prompts)
            {
                generations.Add(model.Engine.Submit(new GenerationRequest
                {
                    Prompt = prompt.Ids ?? Prompts.Encode(model, prompt.Text!, prompt.AddSpecialTokens, client),
                    Sampling = request.Sampling,
                    PromptLogProbabilities = request.Echo ? request.Sampling.LogProbabilities : null,
                    Priority = request.Priority,
                    Client = client,
                }));
            }
        }
        catch
        {
            // All prompts of a call are accepted, or none.
            foreach (var generation in generations) generation.Cancel();
            throw;
        }

        return new Call(request, model, generations, $"cmpl-{Guid.NewGuid():N}", time.GetUtcNow().ToUnixTimeSeconds());
    }

    private static async Task WholeAsync(HttpContext context, Call call)
    {
        var choices = Enumerable.Range(0, call.Answers.Choices).Select(_ => new WholeChoice()).ToArray();
        var prompts = call.Request.Prompts.Select(_ => new List<ScoredToken>()).ToArray();
        await foreach (var (prompt, chunk) in call.Answers.ReadAsync(context.RequestAborted))
        {
            if (chunk.IsPrompt) prompts[prompt].AddRange(chunk.Tokens);
            else choices[call.Number(prompt, chunk.Choice)].Add(chunk);
        }

        await JsonBody.WriteAsync(context, json =>
        {
            call.Begin(json);
            json.WriteStartArray("choices");
            for (var i = 0; i < choices.Length; i++)
            {
                var prompt = i / call.Request.Sampling.Choices;
                var scores = call.NewScores();
                scores?.Add(prompts[prompt]);
                scores?.Add(choices[i].Tokens);
                call.WriteChoice(json, i, call.EchoOf(prompt) + choices[i].Text, scores, choices[i].Finish, choices[i].StopReason);
            }

            json.WriteEndArray();
            call.Answers.WriteUsage(json);
            json.WriteEndObject();
        });
    }

    private async Task StreamAsync(HttpContext context, Call call)
    {
        var stream = new ServerSentEvents(context, options.ReaderTimeout);
        var scores = Enumerable.Range(0, call.Answers.Choices).Select(_ => call.NewScores()).ToArray();
        var echoed = new bool[call.Answers.Choices];
        await stream.AnswerAsync(SendChunksAsync, call.Request.IncludeUsage ? WriteUsage : null);

        async Task SendChunksAsync()
        {
            await foreach (var (prompt, chunk) in call.Answers.ReadAsync(context.RequestAborted))
            {
                // A prompt is echoed in each of its choices.
                var of = chunk.IsPrompt ? Enumerable.Range(0, call.Request.Sampling.Choices) : [chunk.Choice];
                foreach (var number in of.Select(choice => call.Number(prompt, choice)))
                {
                    var text = echoed[number] ? chunk.Text : call.EchoOf(prompt) + chunk.Text;
                    echoed[number] = true;
                    scores[number]?.Add(chunk.Tokens);
                    await stream.SendAsync(json =>
                    {
                        call.Begin(json);
                        json.WriteStartArray("choices");
                        call.WriteChoice(json, number, text, scores[number], chunk.Finish, chunk.StopReason);
                        json.WriteEndArray();
                        json.WriteEndObject();
                    });
                    scores[number]?.Clear();
                }
            }
        }

        void WriteUsage(Utf8JsonWriter json)
        {
            call.Begin(json);
            json.WriteStartArray("choices");
            json.WriteEndArray();
            call.Answers.WriteUsage(json);
            json.WriteEndObject();
        }
    }

    /// <summary>An accepted call and how its answer is written.</summary>
    private sealed class Call(CompletionRequest request, ServedModel model, IReadOnlyList<Generation> generations, string id, long created)
    {
        public CompletionRequest Request { get; } = request;

        public Answers Answers { get; } = new(model, generations);

        public int Number(int prompt, int choice) => (prompt * Request.Sampling.Choices) + choice;

        public string EchoOf(int prompt) => !Request.Echo ? ""
            : Request.Prompts[prompt].Text ?? model.Tokenizer.Decode(Request.Prompts[prompt].Ids, skipSpecialTokens: true);

        public CompletionScores? NewScores() => Request.Sampling.LogProbabilities is null ? null : new CompletionScores(model);

        public void Begin(Utf8JsonWriter json)
        {
            json.WriteStartObject();
            json.WriteString("id", id);
            json.WriteString("object", "text_completion");
            json.WriteNumber("created", created);
            json.WriteString("model", model.Name);
        }

        public void WriteChoice(Utf8JsonWriter json, int index, string text, CompletionScores? scores, FinishReason? finish, string? stopReason)
        {
            json.WriteStartObject();
            json.WriteNumber("index", index);
            json.WriteString("text", text);
            if (scores is null) json.WriteNull("logprobs");
            else scores.Write(json);
            json.WriteString("finish_reason", Answers.FinishName(finish));
            if (stopReason is not null) json.WriteString("stop_reason", stopReason);
            json.WriteEndObject();
        }
    }
}
