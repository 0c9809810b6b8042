using Microsoft.AspNetCore.Http;

namespace Rho.Serving.Http;

/// <summary>Cross-origin calls from browsers, for the origins that the operator names.</summary>
internal static class Cors
{
    /// <summary>Adds the headers an allowed origin needs; true when the request was a preflight and is answered.</summary>
    public static bool Apply(HttpContext context, IReadOnlyList<string> origins)
    {
        var origin = context.Request.Headers.Origin.ToString();
        if (origin.Length == 0 || origins.Count == 0) return false;
        var headers = context.Response.Headers;
        headers.Append("Vary", "Origin");
        if (!origins.Contains("*") && !origins.Contains(origin, StringComparer.OrdinalIgnoreCase)) return false;
        headers.AccessControlAllowOrigin = origins.Contains("*") ? "*" : origin;
        headers.AccessControlExposeHeaders = "X-Request-Id, Retry-After";
        if (!HttpMethods.IsOptions(context.Request.Method) || context.Request.Headers.AccessControlRequestMethod.Count == 0) return false;
        headers.AccessControlAllowMethods = "GET, POST, OPTIONS";
        var asked = context.Request.Headers.AccessControlRequestHeaders.ToString();
        headers.AccessControlAllowHeaders = asked.Length > 0 ? asked : "authorization, content-type";
        headers.AccessControlMaxAge = "600";
        context.Response.StatusCode = StatusCodes.Status204NoContent;
        return true;
    }
}
