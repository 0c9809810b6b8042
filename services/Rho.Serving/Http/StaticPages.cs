using Microsoft.AspNetCore.Http;

namespace Rho.Serving.Http;

/// <summary>The page to try a model with, and the OpenAPI document; both are part of the program.</summary>
internal static class StaticPages
{
    private static readonly Dictionary<string, (string Type, Lazy<byte[]> Content)> s_pages = new(StringComparer.Ordinal)
    {
        ["/"] = ("text/html; charset=utf-8", Resource("index.html")),
        ["/openapi.json"] = ("application/json; charset=utf-8", Resource("openapi.json")),
    };

    /// <summary>Answers a request for one of them; false for all others.</summary>
    public static async ValueTask<bool> TryWriteAsync(HttpContext context)
    {
        if (!HttpMethods.IsGet(context.Request.Method) || !s_pages.TryGetValue(context.Request.Path.Value ?? "", out var page)) return false;
        context.Response.ContentType = page.Type;
        context.Response.Headers.CacheControl = "no-cache";
        context.Response.Headers.ContentSecurityPolicy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'";
        await context.Response.Body.WriteAsync(page.Content.Value, context.RequestAborted);
        return true;
    }

    private static Lazy<byte[]> Resource(string name) => new(() =>
    {
        using var stream = typeof(StaticPages).Assembly.GetManifestResourceStream($"page/{name}")!;
        using var content = new MemoryStream();
        stream.CopyTo(content);
        return content.ToArray();
    });
}
