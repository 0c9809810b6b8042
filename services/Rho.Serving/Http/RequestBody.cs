using System.Buffers.Text;
using System.Text;
using System.Text.Json;
using System.Text.Unicode;
using Microsoft.AspNetCore.Http;

namespace Rho.Serving.Http;

internal static class RequestBody
{
    /// <summary>
    /// Reads a JSON body. The server's limit on its size holds. Bytes and escapes that are no characters (invalid UTF-8, halves of
    /// surrogate pairs) become U+FFFD, wherever they stand, as the tokenizer has them.
    /// </summary>
    /// <exception cref="RhoException">It is no JSON; the message says where.</exception>
    public static async Task<JsonDocument> ReadAsync(HttpContext context)
    {
        try
        {
            using var body = new MemoryStream();
            await context.Request.Body.CopyToAsync(body, context.RequestAborted);
            return JsonDocument.Parse(WellFormed(body.GetBuffer().AsMemory(0, (int)body.Length)), new JsonDocumentOptions { MaxDepth = 64 });
        }
        catch (JsonException exception)
        {
            throw new RhoException($"the body is no JSON: line {exception.LineNumber + 1}, byte {exception.BytePositionInLine + 1} is not what was expected", exception);
        }
    }

    private static ReadOnlyMemory<byte> WellFormed(Memory<byte> json)
    {
        ReadOnlySpan<byte> mark = [0xEF, 0xBB, 0xBF];
        if (json.Span.StartsWith(mark)) json = json[mark.Length..];
        if (!Utf8.IsValid(json.Span)) json = Encoding.UTF8.GetBytes(Encoding.UTF8.GetString(json.Span));
        ReplaceHalves(json.Span);
        return json;
    }

    /// <summary>Writes \ufffd over every escaped half of a surrogate pair whose other half is not there.</summary>
    private static void ReplaceHalves(Span<byte> json)
    {
        for (var i = 0; i < json.Length;)
        {
            var next = json[i..].IndexOf((byte)'\\');
            if (next < 0) return;
            i += next;
            var unit = EscapeAt(json[i..]);
            if (char.IsHighSurrogate((char)unit) && json.Length > i + 6 && char.IsLowSurrogate((char)EscapeAt(json[(i + 6)..])))
            {
                i += 12;
                continue;
            }

            if (unit is >= 0xD800 and <= 0xDFFF) "\\ufffd"u8.CopyTo(json[i..]);
            i += unit > 0 ? 6 : 2;
        }
    }

    /// <summary>The UTF-16 unit of an escape \uXXXX; 0 where none stands.</summary>
    private static int EscapeAt(ReadOnlySpan<byte> json) =>
        json is [(byte)'\\', (byte)'u', _, _, _, _, ..] && Utf8Parser.TryParse(json.Slice(2, 4), out int unit, out var used, 'x') && used == 4 ? unit : 0;
}
