using System.Text.Json;
using Microsoft.AspNetCore.Http;

namespace Rho.Serving.Http;

internal static class RequestBody
{
    /// <summary>Reads a JSON body. The server's limit on its size holds.</summary>
    /// <exception cref="RhoException">It is no JSON; the message says where.</exception>
    public static async Task<JsonDocument> ReadAsync(HttpContext context)
    {
        try
        {
            return await JsonDocument.ParseAsync(context.Request.Body, new JsonDocumentOptions { MaxDepth = 64 }, context.RequestAborted);
        }
        catch (JsonException exception)
        {
            throw new RhoException($"the body is no JSON: line {exception.LineNumber + 1}, byte {exception.BytePositionInLine + 1} is not what was expected", exception);
        }
    }
}
