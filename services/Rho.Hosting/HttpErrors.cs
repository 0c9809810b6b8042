using Grpc.Core;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.Logging;

namespace Rho.Hosting;

/// <summary>
/// Turns the exceptions of HTTP endpoints into a status and a JSON body in the shape that OpenAI clients know, and says so when a gRPC
/// request could not be decoded: that happens before any interceptor, and the gRPC server calls it UNKNOWN.
/// </summary>
internal sealed partial class HttpErrors(RequestDelegate next, ILogger<HttpErrors> logger)
{
    public static bool IsGrpc(HttpRequest request) => request.ContentType?.StartsWith("application/grpc", StringComparison.OrdinalIgnoreCase) == true;

    public static Task Write(HttpContext context, Exception exception)
    {
        var status = ErrorStatus.ToHttp(exception);
        context.Response.StatusCode = status;
        if (exception is OverloadedException overloaded) context.Response.Headers.RetryAfter = ErrorStatus.RetryAfterSeconds(overloaded).ToString();
        if (exception is UnauthenticatedException) context.Response.Headers.WWWAuthenticate = "Bearer";
        var type = status switch
        {
            StatusCodes.Status401Unauthorized => "authentication_error",
            StatusCodes.Status429TooManyRequests => "rate_limit_error",
            < StatusCodes.Status500InternalServerError => "invalid_request_error",
            _ => "server_error",
        };
        return context.Response.WriteAsJsonAsync(new { error = new { message = ErrorStatus.ToMessage(exception), type, param = (string?)null, code = (string?)null } });
    }

    public async Task InvokeAsync(HttpContext context)
    {
        try
        {
            await next(context);
            if (IsGrpc(context.Request) && !context.Items.ContainsKey(ErrorInterceptor.Reached)) SayMalformed(context);
        }
        catch (Exception exception) when (!IsGrpc(context.Request) && !context.Response.HasStarted)
        {
            if (context.RequestAborted.IsCancellationRequested)
            {
                context.Response.StatusCode = StatusCodes.Status499ClientClosedRequest;
                return;
            }

            var status = ErrorStatus.ToHttp(exception);
            if (status == StatusCodes.Status500InternalServerError) Broken(context.Request.Method, context.Request.Path, exception);
            else Refused(context.Request.Method, context.Request.Path, status, exception.Message);
            await Write(context, exception);
        }
    }

    private static void SayMalformed(HttpContext context)
    {
        var trailers = context.Features.Get<IHttpResponseTrailersFeature>()?.Trailers;
        var status = trailers?.ContainsKey("grpc-status") == true ? trailers : context.Response.Headers;
        if (status["grpc-status"] != ((int)StatusCode.Unknown).ToString() || status.IsReadOnly) return;
        status["grpc-status"] = ((int)StatusCode.InvalidArgument).ToString();
        status["grpc-message"] = Uri.EscapeDataString(ErrorStatus.Malformed);
    }

    [LoggerMessage(LogLevel.Information, "{Method} {Path} answered {Status}: {Message}")]
    private partial void Refused(string method, string path, int status, string message);

    [LoggerMessage(LogLevel.Error, "{Method} {Path} failed")]
    private partial void Broken(string method, string path, Exception exception);
}
