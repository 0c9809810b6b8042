using Google.Protobuf;
using Grpc.AspNetCore.Server;
using Grpc.Core;
using Rho.Hosting;
using Rho.Model;
using Rho.Model.Inference;
using Rho.Protocol.Inference.V1;
using Rho.Serving.Engine;
using Rho.Serving.Models;

namespace Rho.Serving.Rpc;

/// <summary>rho.inference.v1 over the models that are served.</summary>
internal sealed class InferenceService(ModelRegistry registry, ServingOptions options, ServiceHealth health) : Inference.InferenceBase
{
    private const int MostInputs = 4096;
    private const int ScoresInFlight = 64;

    public override async Task Generate(GenerateRequest request, IServerStreamWriter<GenerateResponse> responses, ServerCallContext context)
    {
        RefuseWhileDraining();
        var (model, generation) = Submit(request, ClientIdentity.Of(context.GetHttpContext()));
        var writer = new PatientWriter<GenerateResponse>(responses, options.ReaderTimeout, context.CancellationToken);
        var id = Guid.NewGuid().ToString("N");
        var promptText = model.Tokenizer.CreateStreamingDecoder(skipSpecialTokens: false);
        var unfinished = generation.Request.Sampling.Choices;
        await foreach (var chunk in generation.ReadAsync(context.CancellationToken))
        {
            if (chunk.IsPrompt && !request.Echo) continue;
            var response = ToResponse(model, chunk, generation.Request.Sampling.LogProbabilities is not null);
            if (chunk.IsPrompt) response.Text = string.Concat(chunk.Tokens.Select(token => promptText.Append(token.Token)));
            response.RequestId = id;
            id = "";
            if (chunk.Finish is not null && --unfinished == 0) response.Usage = ToUsage(generation.Usage);
            await writer.WriteAsync(response);
        }
    }

    public override async Task Score(ScoreRequest request, IServerStreamWriter<ScoreResponse> responses, ServerCallContext context)
    {
        RefuseWhileDraining();
        if (request.Inputs.Count > MostInputs) throw new InvalidFieldException("inputs", $"{request.Inputs.Count} of them; {MostInputs} is the most");
        if (request.Top > SamplingSettings.MostAlternatives) throw new InvalidFieldException("top", $"{request.Top} is more than {SamplingSettings.MostAlternatives}");
        var client = ClientIdentity.Of(context.GetHttpContext());
        var writer = new PatientWriter<ScoreResponse>(responses, options.ReaderTimeout, context.CancellationToken);

        // A bounded number under way keeps the queue free for others, whatever the size of the call.
        var underWay = new Queue<(ServedModel Model, Generation Generation)>();
        try
        {
            for (var (next, sent) = (0, 0); sent < request.Inputs.Count; sent++)
            {
                for (; next < request.Inputs.Count && underWay.Count < ScoresInFlight; next++)
                {
                    try
                    {
                        underWay.Enqueue(Submit(request, next, client));
                    }
                    catch (OverloadedException) when (underWay.Count > 0)
                    {
                        // A call that has begun waits for room that its own inputs leave.
                        break;
                    }
                }

                var (model, generation) = underWay.Peek();
                await writer.WriteAsync(await ToScores(model, generation, sent, (int)request.Top, context.CancellationToken));
                underWay.Dequeue();
            }
        }
        finally
        {
            foreach (var (_, generation) in underWay) generation.Cancel();
        }
    }

    public override Task<TokenizeResponse> Tokenize(TokenizeRequest request, ServerCallContext context)
    {
        using var use = registry.Use(request.Model);
        var model = use.Model;
        var tokens = model.Tokenizer.Encode(request.Text, !request.HasAddSpecialTokens || request.AddSpecialTokens);
        return Task.FromResult(new TokenizeResponse { Tokens = { tokens }, Texts = { tokens.Select(model.TokenText) }, ContextLength = (uint)model.Engine.ContextLength });
    }

    public override Task<DetokenizeResponse> Detokenize(DetokenizeRequest request, ServerCallContext context)
    {
        using var use = registry.Use(request.Model);
        return Task.FromResult(new DetokenizeResponse { Text = use.Model.Tokenizer.Decode([.. request.Tokens]) });
    }

    public override Task<ListModelsResponse> ListModels(ListModelsRequest request, ServerCallContext context) =>
        Task.FromResult(new ListModelsResponse { Models = { registry.Models.Select(Describe) } });

    public override async Task<LoadModelResponse> LoadModel(LoadModelRequest request, ServerCallContext context)
    {
        RefuseUnlessChangesAreAllowed();
        if (request.Path.Length == 0) throw new InvalidFieldException("path", "the folder of a checkpoint is needed");
        var source = ModelSource.Parse(request.Path);
        if (request.Name.Length > 0) source = source with { Name = request.Name };
        var (model, swapped) = await registry.LoadAsync(source, context.CancellationToken, defaults => request.ComputeType switch
        {
            "" => defaults,
            "auto" => defaults with { Compute = ComputeType.Auto, Weights = WeightFormat.Model },
            "float32" => defaults with { Compute = ComputeType.Float32, Weights = WeightFormat.Model },
            "bfloat16" => defaults with { Compute = ComputeType.BFloat16, Weights = WeightFormat.Model },
            "int8" => defaults with { Weights = WeightFormat.Int8 },
            _ => throw new InvalidFieldException("compute_type", $"'{request.ComputeType}' is none of auto, float32, bfloat16, int8"),
        });
        return new LoadModelResponse { Model = Describe(model), Swapped = swapped };
    }

    public override async Task<UnloadModelResponse> UnloadModel(UnloadModelRequest request, ServerCallContext context)
    {
        RefuseUnlessChangesAreAllowed();
        await registry.UnloadAsync(request.Name, context.CancellationToken);
        return new UnloadModelResponse();
    }

    private (ServedModel, Generation) Submit(GenerateRequest request, string client)
    {
        using var use = registry.Use(request.Model);
        var model = use.Model;
        var settings = SamplingMapping.ToSettings(request.Sampling ?? new SamplingParameters(), model);
        settings.Validate(model.Config.VocabularySize);
        IReadOnlyList<int> prompt = request.PromptCase switch
        {
            GenerateRequest.PromptOneofCase.Text => Prompts.Encode(model, request.Text, addSpecialTokens: true, client),
            GenerateRequest.PromptOneofCase.Tokens => request.Tokens.Ids,
            GenerateRequest.PromptOneofCase.Chat => Prompts.Encode(model, Render(model, request.Chat), addSpecialTokens: false, client),
            _ => throw new InvalidFieldException("prompt", "none is given: set text, tokens or chat"),
        };
        return (model, model.Engine.Submit(new GenerationRequest
        {
            Prompt = prompt,
            ContinuesText = request.PromptCase != GenerateRequest.PromptOneofCase.Chat,
            Sampling = settings,
            PromptLogProbabilities = request.Echo ? settings.LogProbabilities ?? 0 : null,
            Priority = request.Priority,
            Client = client,
        }));
    }

    private (ServedModel, Generation) Submit(ScoreRequest request, int index, string client)
    {
        using var use = registry.Use(request.Model);
        var model = use.Model;
        var input = request.Inputs[index];
        IReadOnlyList<int> tokens = input.InputCase switch
        {
            ScoreInput.InputOneofCase.Text => Prompts.Encode(model, input.Text, addSpecialTokens: true, client),
            ScoreInput.InputOneofCase.Tokens => input.Tokens.Ids,
            _ => throw new InvalidFieldException($"inputs[{index}]", "it is empty: set text or tokens"),
        };
        return (model, model.Engine.Submit(new GenerationRequest
        {
            Prompt = tokens,
            Sampling = new SamplingSettings { MaxTokens = 0 },
            PromptLogProbabilities = (int)request.Top,
            Priority = request.Priority,
            Client = client,
        }));
    }

    private static string Render(ServedModel model, ChatMessages chat) => Prompts.Render(
        model, template => template.Render([.. chat.Messages.Select(message => new Jinja.ChatMessage(message.Role, message.Content))], addGenerationPrompt: true));

    private static async Task<ScoreResponse> ToScores(ServedModel model, Generation generation, int index, int top, CancellationToken cancellation)
    {
        var response = new ScoreResponse { Index = (uint)index };
        await foreach (var chunk in generation.ReadAsync(cancellation))
        {
            foreach (var token in chunk.Tokens)
            {
                response.Tokens.Add(token.Token);
                response.LogProbabilities.Add(token.LogProbability);
                response.Greedy.Add(token.IsMostLikely);
                if (top == 0) continue;
                var alternatives = new TokenAlternatives();
                alternatives.Tokens.AddRange((token.Top ?? []).Select(other => ToMessage(model, other)));
                response.Top.Add(alternatives);
            }
        }

        return response;
    }

    private static GenerateResponse ToResponse(ServedModel model, GenerationChunk chunk, bool withLogProbabilities)
    {
        var response = new GenerateResponse
        {
            Choice = (uint)chunk.Choice,
            Text = chunk.Text,
            StopReason = chunk.StopReason ?? "",
            FinishReason = chunk.Finish switch
            {
                Engine.FinishReason.Stop => Protocol.Inference.V1.FinishReason.Stop,
                Engine.FinishReason.Length => Protocol.Inference.V1.FinishReason.Length,
                _ => Protocol.Inference.V1.FinishReason.Unspecified,
            },
        };
        foreach (var token in chunk.Tokens)
        {
            var message = new GeneratedToken { Id = token.Token };
            if (withLogProbabilities && !float.IsNaN(token.LogProbability)) message.LogProbability = token.LogProbability;
            if (withLogProbabilities && token.Top is { } top) message.Top.AddRange(top.Select(other => ToMessage(model, other)));
            response.Tokens.Add(message);
        }

        return response;
    }

    private static TokenLogProbability ToMessage(ServedModel model, TokenAlternative token) => new()
    {
        Token = token.Token,
        Text = model.TokenText(token.Token),
        Raw = ByteString.CopyFrom(model.TokenBytes(token.Token).Span),
        LogProbability = token.LogProbability,
    };

    private static Usage ToUsage(GenerationUsage usage) => new()
    {
        PromptTokens = (uint)usage.PromptTokens,
        CompletionTokens = (uint)usage.CompletionTokens,
        CachedPromptTokens = (uint)usage.CachedPromptTokens,
    };

    private static ModelDescription Describe(ServedModel model) => new()
    {
        Name = model.Name,
        Path = model.Path,
        Architecture = model.Description,
        ContextLength = (uint)model.Engine.ContextLength,
        VocabularySize = (uint)model.Config.VocabularySize,
        LoadedUnixSeconds = model.Loaded.ToUnixTimeSeconds(),
        Version = model.Version,
    };

    private void RefuseUnlessChangesAreAllowed()
    {
        if (!options.AllowModelChanges)
            throw new RpcException(new Status(StatusCode.PermissionDenied, "this server does not load or unload models on request; start it with model changes allowed"));
    }

    private void RefuseWhileDraining()
    {
        if (health.Draining.IsCancellationRequested) throw new UnavailableException("the server is stopping");
    }
}
