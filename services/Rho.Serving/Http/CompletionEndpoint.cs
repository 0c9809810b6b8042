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
        if (call.Options.Stream) await StreamAsync(context, call);
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
        var prompts = request.Prompts.Select(prompt => prompt.Ids ?? Prompts.Encode(model, prompt.Text!, prompt.AddSpecialTokens, client, prompt.Last)).ToList();
        model.Engine.CheckPossible(prompts.Count, prompts.Sum(prompt => (long)prompt.Length) * request.Sampling.Choices);
        var generations = new List<Generation>();
        try
        {
            foreach (var prompt in prompts)
            {
                generations.Add(model.Engine.Submit(new GenerationRequest
                {
                    Prompt = prompt,
                    ContinuesText = true,
                    Sampling = request.Sampling,
                    PromptLogProbabilities = request.PromptLogProbabilities,
                    Priority = -request.Options.Priority,
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
                var echo = call.EchoOf(prompt);
                var scores = call.NewScores();
                if (echo is not null) scores?.AddPrompt(prompts[prompt], echo);
                scores?.Add(choices[i].Tokens, echo);
                call.WriteChoice(json, i, echo?.Text + choices[i].Text, scores, choices[i].Tokens, choices[i].Finish, choices[i].StopReason, prompts[prompt], withPrompt: true);
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
        var begun = new bool[call.Answers.Choices];
        await stream.AnswerAsync(SendChunksAsync, call.Options.IncludeUsage ? WriteUsage : null);

        async Task SendChunksAsync()
        {
            await foreach (var (prompt, chunk) in call.Answers.ReadAsync(context.RequestAborted))
            {
                // A prompt is echoed in each of its choices.
                var of = chunk.IsPrompt ? Enumerable.Range(0, call.Request.Sampling.Choices) : [chunk.Choice];
                call.Answers.Count(chunk);
                foreach (var number in of.Select(choice => call.Number(prompt, choice)))
                {
                    var echo = call.EchoOf(prompt);
                    var first = !begun[number];
                    var text = first ? echo?.Text + chunk.Text : chunk.Text;
                    begun[number] = true;
                    if (chunk.IsPrompt) scores[number]?.AddPrompt(chunk.Tokens, echo!);
                    else scores[number]?.Add(chunk.Tokens, echo);
                    var tokens = chunk.IsPrompt ? [] : chunk.Tokens;
                    await stream.SendAsync(json =>
                    {
                        call.Begin(json);
                        json.WriteStartArray("choices");
                        call.WriteChoice(json, number, text, scores[number], tokens, chunk.Finish, chunk.StopReason, [], withPrompt: first);
                        json.WriteEndArray();
                        call.Answers.WriteUsageSoFar(json, call.Options);
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
        private readonly PromptEcho?[] _echoes = new PromptEcho?[request.Prompts.Count];

        public CompletionRequest Request { get; } = request;

        public AnswerOptions Options => Request.Options;

        public Answers Answers { get; } = new(model, generations);

        public int Number(int prompt, int choice) => (prompt * Request.Sampling.Choices) + choice;

        /// <summary>The prompt as the answer repeats it; null where it does not.</summary>
        public PromptEcho? EchoOf(int prompt) => Request.Echo ? _echoes[prompt] ??= PromptEcho.Of(model, Request.Prompts[prompt], Answers.Prompt(prompt)) : null;

        public CompletionScores? NewScores() => Request.Sampling.LogProbabilities is { } count ? new CompletionScores(Answers, Options, count) : null;

        public void Begin(Utf8JsonWriter json)
        {
            json.WriteStartObject();
            json.WriteString("id", id);
            json.WriteString("object", "text_completion");
            json.WriteNumber("created", created);
            json.WriteString("model", model.Name);
            json.WriteString("system_fingerprint", model.Version);
        }

        /// <param name="prompt">The prompt's scores, where they are wanted.</param>
        /// <param name="withPrompt">Whether what there is to say of the prompt comes here.</param>
        public void WriteChoice(
            Utf8JsonWriter json, int index, string text, CompletionScores? scores, IReadOnlyList<ScoredToken> tokens, FinishReason? finish, string? stopReason,
            IReadOnlyList<ScoredToken> prompt, bool withPrompt)
        {
            json.WriteStartObject();
            json.WriteNumber("index", index);
            json.WriteString("text", text);
            if (scores is null) json.WriteNull("logprobs");
            else scores.Write(json);
            json.WriteString("finish_reason", Answers.FinishName(finish));
            if (stopReason is not null) json.WriteString("stop_reason", stopReason);
            if (withPrompt && Options.PromptLogProbabilities is { } count) Answers.WritePromptScores(json, prompt, count);
            if (Options.ReturnTokenIds)
            {
                if (withPrompt) Answers.WriteIds(json, "prompt_token_ids", Answers.Prompt(index / Request.Sampling.Choices));
                Answers.WriteIds(json, "token_ids", tokens.Select(token => token.Token));
            }

            json.WriteEndObject();
        }
    }
}
