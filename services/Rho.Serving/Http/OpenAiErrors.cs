using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;
using Rho.Hosting;

namespace Rho.Serving.Http;

/// <summary>Error objects as OpenAI clients read them: message, type, the parameter at fault, and a code.</summary>
internal static partial class OpenAiErrors
{
    /// <summary>Answers an endpoint's exception, unless the answer has begun or the client has gone.</summary>
    public static async ValueTask<object?> Guard(EndpointFilterInvocationContext invocation, EndpointFilterDelegate next)
    {
        var context = invocation.HttpContext;
        try
        {
            return await next(invocation);
        }
        catch (Exception exception) when (!context.Response.HasStarted && !context.RequestAborted.IsCancellationRequested)
        {
            if (ErrorStatus.ToHttp(exception) == StatusCodes.Status500InternalServerError)
                Failed((ILogger)context.RequestServices.GetService(typeof(ILogger<InvalidFieldException>))!, context.Request.Path, exception);
            context.Response.StatusCode = ErrorStatus.ToHttp(exception);
            if (exception is OverloadedException overloaded)
                context.Response.Headers.RetryAfter = Math.Max(1, (long)Math.Ceiling(overloaded.RetryAfter.TotalSeconds)).ToString();
            await JsonBody.WriteAsync(context, json => Write(json, exception));
            return Results.Empty;
        }
    }

    public static void Write(Utf8JsonWriter json, Exception exception)
    {
        var parameter = exception switch
        {
            InvalidFieldException field => field.Field,
            NotFoundException => "model",
            ContextLengthException => "prompt",
            _ => null,
        };
        Write(json, ErrorStatus.ToMessage(exception), Type(exception), parameter, exception switch
        {
            ContextLengthException => "context_length_exceeded",
            NotFoundException => "model_not_found",
            OverloadedException => "queue_full",
            _ => null,
        });
    }

    /// <summary>The kind of error, as OpenAI names it.</summary>
    public static string Type(Exception exception) => ErrorStatus.ToHttp(exception) switch
    {
        StatusCodes.Status429TooManyRequests => "rate_limit_error",
        StatusCodes.Status404NotFound => "not_found_error",
        < StatusCodes.Status500InternalServerError => "invalid_request_error",
        _ => "server_error",
    };

    /// <summary>The answer to a path or method that the server does not have.</summary>
    public static void WriteUnrouted(Utf8JsonWriter json, HttpRequest request) =>
        Write(json, $"there is no {request.Method} {request.Path} here; GET /openapi.json lists what there is", "not_found_error", null, "unknown_url");

    private static void Write(Utf8JsonWriter json, string message, string type, string? parameter, string? code)
    {
        json.WriteStartObject();
        json.WriteStartObject("error");
        json.WriteString("message", message);
        json.WriteString("type", type);
        json.WriteString("param", parameter);
        json.WriteString("code", code);
        json.WriteEndObject();
        json.WriteEndObject();
    }

    [LoggerMessage(LogLevel.Error, "{Path} failed")]
    private static partial void Failed(ILogger logger, PathString path, Exception exception);
}
