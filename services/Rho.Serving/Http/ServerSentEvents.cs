using System.Buffers;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Http;

namespace Rho.Serving.Http;

/// <summary>Server-sent events. Gives up on a client that takes nothing for a set time.</summary>
internal sealed class ServerSentEvents(HttpContext context, TimeSpan patience)
{
    private readonly ArrayBufferWriter<byte> _buffer = new();

    /// <summary>Sends one JSON event; the first begins the response.</summary>
    /// <param name="name">The event's name; null for none.</param>
    public async Task SendAsync(Action<Utf8JsonWriter> write, string? name = null)
    {
        _buffer.ResetWrittenCount();
        if (name is not null) _buffer.Write(Encoding.UTF8.GetBytes($"event: {name}\n"));
        _buffer.Write("data: "u8);
        using (var json = new Utf8JsonWriter(_buffer, JsonBody.Options)) write(json);
        _buffer.Write("\n\n"u8);
        await FlushAsync();
    }

    /// <summary>
    /// Sends a whole answer: its chunks, its usage where that is asked for, and the end. An answer that fails on the way ends with an
    /// event that says why, and then without the end of the response (HTTP/1: no last chunk; HTTP/2: a reset stream), so that clients
    /// that know no such event do not take it for whole either.
    /// </summary>
    public Task AnswerAsync(Func<Task> sendChunks, Action<Utf8JsonWriter>? usage) => AnswerAsync(
        async () =>
        {
            await sendChunks();
            if (usage is not null) await SendAsync(usage);
            await EndAsync();
        },
        exception => SendAsync(json => OpenAiErrors.Write(json, exception)));

    /// <summary>As the other; what says the end and why an answer failed is given.</summary>
    public async Task AnswerAsync(Func<Task> sendAll, Func<Exception, Task> sendFailure)
    {
        try
        {
            await sendAll();
        }
        catch (Exception exception) when (context.Response.HasStarted && !context.RequestAborted.IsCancellationRequested)
        {
            await sendFailure(exception);
            // What leaves an endpoint once its response has begun breaks the response off.
            throw;
        }
    }

    /// <summary>Says that the answer is whole. Nothing else may say so.</summary>
    private async Task EndAsync()
    {
        _buffer.ResetWrittenCount();
        _buffer.Write("data: [DONE]\n\n"u8);
        await FlushAsync();
    }

    private async Task FlushAsync()
    {
        var response = context.Response;
        if (!response.HasStarted)
        {
            response.ContentType = "text/event-stream; charset=utf-8";
            response.Headers.CacheControl = "no-cache";
            response.Headers["X-Accel-Buffering"] = "no";
        }

        try
        {
            await response.Body.WriteAsync(_buffer.WrittenMemory, context.RequestAborted).AsTask().WaitAsync(patience, context.RequestAborted);
            await response.Body.FlushAsync(context.RequestAborted).WaitAsync(patience, context.RequestAborted);
        }
        catch (TimeoutException exception)
        {
            context.Abort();
            throw new OperationCanceledException($"the client read nothing for {patience.TotalSeconds} s", exception);
        }
    }
}

/// <summary>JSON responses that are written field by field.</summary>
internal static class JsonBody
{
    /// <summary>Text as it is: answers are full of characters that the default would escape.</summary>
    public static readonly JsonWriterOptions Options = new() { Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    public static async Task WriteAsync(HttpContext context, Action<Utf8JsonWriter> write)
    {
        var buffer = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(buffer, Options)) write(json);
        context.Response.ContentType = "application/json; charset=utf-8";
        context.Response.ContentLength = buffer.WrittenCount;
        await context.Response.Body.WriteAsync(buffer.WrittenMemory, context.RequestAborted);
    }

    /// <summary>JSON has no infinity and no NaN: null stands for what has no value.</summary>
    public static void WriteFinite(this Utf8JsonWriter json, float value)
    {
        if (float.IsFinite(value)) json.WriteNumberValue(value);
        else json.WriteNullValue();
    }
}
