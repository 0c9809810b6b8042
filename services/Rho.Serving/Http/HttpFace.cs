using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Cors.Infrastructure;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.FileProviders;
using Rho.Hosting;

namespace Rho.Serving.Http;

/// <summary>The OpenAI-compatible face.</summary>
internal static class HttpFace
{
    private const string RequestId = "X-Request-Id";

    public static void AddServices(IServiceCollection services)
    {
        services.AddCors();
        services.AddSingleton<CompletionEndpoint>();
        services.AddSingleton<ChatEndpoint>();
        services.AddSingleton<ResponsesEndpoint>();
        services.AddSingleton<ModelEndpoints>();
    }

    /// <summary>What comes before access control: request ids, CORS with its preflights, and the page, which holds no secrets.</summary>
    public static void UseBefore(WebApplication app, ServingOptions options)
    {
        app.Use((context, next) =>
        {
            if (HttpMethods.IsPost(context.Request.Method) || HttpMethods.IsGet(context.Request.Method)) context.Response.Headers[RequestId] = IdOf(context.Request);
            return next(context);
        });
        if (options.CorsOrigins.Count > 0) app.UseCors(policy => Allow(policy, options.CorsOrigins));
        app.UseFileServer(Pages());
        app.Use(async (context, next) =>
        {
            await next(context);
            if (IsUnrouted(context)) await JsonBody.WriteAsync(context, json => OpenAiErrors.WriteUnrouted(json, context.Request));
        });
    }

    public static void Map(WebApplication app)
    {
        var health = app.Services.GetRequiredService<ServiceHealth>();
        var group = app.MapGroup("").AddEndpointFilter(OpenAiErrors.Guard);
        var completions = app.Services.GetRequiredService<CompletionEndpoint>();
        var models = app.Services.GetRequiredService<ModelEndpoints>();
        group.MapPost("/v1/completions", Working(completions.AnswerAsync, health));
        group.MapPost("/v1/chat/completions", Working(app.Services.GetRequiredService<ChatEndpoint>().AnswerAsync, health));
        group.MapPost("/v1/responses", Working(app.Services.GetRequiredService<ResponsesEndpoint>().AnswerAsync, health));
        group.MapGet("/v1/models", (HttpContext context) => models.ListAsync(context));
        // Names may have slashes, which clients write as they are or escaped; routing leaves these as they come.
        group.MapGet("/v1/models/{**name}", (HttpContext context, string name) => models.GetAsync(context, name.Replace("%2F", "/", StringComparison.OrdinalIgnoreCase)));
        group.MapPost("/tokenize", (HttpContext context) => models.TokenizeAsync(context));
        group.MapPost("/detokenize", (HttpContext context) => models.DetokenizeAsync(context));
        group.MapGet("/tokenizer_info", (HttpContext context) => models.TokenizerInfoAsync(context));
        // As vLLM's clients and load balancers ask.
        group.MapGet("/health", () => Results.StatusCode(health.Report().Serving ? StatusCodes.Status200OK : StatusCodes.Status503ServiceUnavailable));
        group.MapMethods("/ping", ["GET", "POST"], () => Results.StatusCode(health.Report().Serving ? StatusCodes.Status200OK : StatusCodes.Status503ServiceUnavailable));
        group.MapGet("/version", (HttpContext context) => ModelEndpoints.VersionAsync(context));
    }

    private static void Allow(CorsPolicyBuilder policy, IReadOnlyList<string> origins)
    {
        policy.WithMethods("GET", "POST", "OPTIONS").AllowAnyHeader().WithExposedHeaders(RequestId, "Retry-After").SetPreflightMaxAge(TimeSpan.FromMinutes(10));
        if (origins.Contains("*")) policy.AllowAnyOrigin();
        else policy.WithOrigins([.. origins]);
    }

    /// <summary>The page to try a model with, and the OpenAPI document; both are part of the program.</summary>
    private static FileServerOptions Pages()
    {
        var options = new FileServerOptions { FileProvider = new EmbeddedFileProvider(typeof(HttpFace).Assembly, "page") };
        options.StaticFileOptions.OnPrepareResponse = context =>
        {
            var headers = context.Context.Response.Headers;
            headers.CacheControl = "no-cache";
            headers.ContentSecurityPolicy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'";
        };
        return options;
    }

    /// <summary>Nothing answered: the path or its method is none of the server's. gRPC says so itself.</summary>
    private static bool IsUnrouted(HttpContext context) =>
        context.Response is { HasStarted: false, ContentType: null, StatusCode: StatusCodes.Status404NotFound or StatusCodes.Status405MethodNotAllowed }
        && context.Request.ContentType?.StartsWith("application/grpc", StringComparison.OrdinalIgnoreCase) != true && !HttpMethods.IsHead(context.Request.Method);

    private static Func<HttpContext, Task> Working(Func<HttpContext, Task> endpoint, ServiceHealth health) => context =>
        health.Draining.IsCancellationRequested ? throw new UnavailableException("the server is stopping") : endpoint(context);

    /// <summary>The caller's id where it is one, else a new one.</summary>
    private static string IdOf(HttpRequest request)
    {
        var given = request.Headers[RequestId].ToString();
        return given.Length is > 0 and <= 128 && given.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' or '.' or ':') ? given : Guid.NewGuid().ToString("N");
    }
}
