using System.CommandLine;
using Grpc.Core;
using Grpc.Net.Client;
using Rho.Protocol.Inference.V1;

namespace Rho.Cli.Commands;

/// <summary>rho generate: asks a server to go on with a text, and prints what comes as it comes.</summary>
internal static class GenerateCommand
{
    public static Command Create()
    {
        var server = new Option<string>("--server") { Description = "The server's gRPC address", HelpName = "HOST:PORT", DefaultValueFactory = _ => "localhost:5002" };
        var prompt = new Option<string>("--prompt") { Description = "Text to go on with; - reads it from stdin", HelpName = "TEXT", Required = true };
        var model = new Option<string>("--model") { Description = "Which of the server's models", HelpName = "NAME", DefaultValueFactory = _ => "" };
        var tokens = new Option<uint>("--max-tokens") { Description = "New tokens at most", HelpName = "N", DefaultValueFactory = _ => 128 };
        var temperature = new Option<float>("--temperature") { Description = "0 takes the most likely token each time", HelpName = "T" };
        var topP = new Option<float>("--top-p") { Description = "Draw from the most likely tokens that together have this probability", HelpName = "P", DefaultValueFactory = _ => 1 };
        var seed = new Option<ulong?>("--seed") { Description = "Same seed, same text", HelpName = "N" };
        var stop = new Option<string[]>("--stop") { Description = "Text at which to end; several times for several", HelpName = "TEXT", DefaultValueFactory = _ => [] };
        var command = new ExampleCommand(
            "generate", "Let a server go on with a text.",
            "rho generate --server localhost:5002 --prompt 'Question: What is 3 + 4?'",
            "rho generate --prompt - --temperature 0.7 --seed 1 < prompt.txt") { server, prompt, model, tokens, temperature, topP, seed, stop };
        command.SetAction(async (result, cancellation) =>
        {
            var text = result.GetValue(prompt)!;
            if (text == "-") text = await Console.In.ReadToEndAsync(cancellation);
            var sampling = new SamplingParameters { MaxTokens = result.GetValue(tokens), Temperature = result.GetValue(temperature), TopP = result.GetValue(topP) };
            if (result.GetValue(seed) is { } chosen) sampling.Seed = chosen;
            sampling.Stop.AddRange(result.GetValue(stop)!);
            await GenerateAsync(result.GetValue(server)!, new GenerateRequest { Model = result.GetValue(model), Text = text, Sampling = sampling }, cancellation);
            return 0;
        });
        return command;
    }

    private static async Task GenerateAsync(string server, GenerateRequest request, CancellationToken cancellation)
    {
        var address = server.Contains("://", StringComparison.Ordinal) ? server : $"http://{server}";
        if (!Uri.TryCreate(address, UriKind.Absolute, out var uri)) throw new RhoException($"'{server}' is not an address such as localhost:5002");
        using var channel = GrpcChannel.ForAddress(uri);
        var headers = new Metadata();
        if (Environment.GetEnvironmentVariable("RHO_API_KEY") is { Length: > 0 } key) headers.Add("authorization", $"Bearer {key}");
        try
        {
            using var call = new Inference.InferenceClient(channel).Generate(request, headers, cancellationToken: cancellation);
            await foreach (var response in call.ResponseStream.ReadAllAsync(cancellation)) await Console.Out.WriteAsync(response.Text);
            await Console.Out.WriteLineAsync();
        }
        catch (RpcException exception) when (exception.StatusCode == StatusCode.Cancelled && cancellation.IsCancellationRequested)
        {
            throw new OperationCanceledException(exception.Message, exception, cancellation);
        }
        catch (RpcException exception)
        {
            throw new RhoException($"{server}: {Explain(exception)}", exception);
        }
    }

    private static string Explain(RpcException exception) => exception.StatusCode switch
    {
        StatusCode.Unavailable when exception.Status.DebugException is { } cause => $"no server answers ({Innermost(cause).Message})",
        StatusCode.Unauthenticated => $"{exception.Status.Detail} (the key is read from RHO_API_KEY)",
        _ => exception.Status.Detail,
    };

    private static Exception Innermost(Exception exception) => exception.InnerException is { } inner ? Innermost(inner) : exception;
}
