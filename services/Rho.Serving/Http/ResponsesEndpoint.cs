using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Rho.Hosting;
using Rho.Serving.Engine;
using Rho.Serving.Models;
using Rho.Serving.Tools;

namespace Rho.Serving.Http;

/// <summary>POST /v1/responses: OpenAI's newer form of chats, without what it stores.</summary>
internal sealed class ResponsesEndpoint(ModelRegistry registry, ServingOptions options, TimeProvider time)
{
    // What a response repeats of its request, and what stands there where the request says nothing.
    private static readonly (string Name, string Default)[] s_repeated =
    [
        ("instructions", "null"), ("max_output_tokens", "null"), ("metadata", "{}"), ("parallel_tool_calls", "true"), ("temperature", "1.0"), ("text", """{"format":{"type":"text"}}"""),
        ("tool_choice", "\"auto\""), ("tools", "[]"), ("top_p", "1.0"), ("user", "null"),
    ];

    public async Task AnswerAsync(HttpContext context)
    {
        using var body = await RequestBody.ReadAsync(context);
        var fields = new JsonFields(body.RootElement);
        ServedModel model;
        ChatRequest request;
        Generation generation;
        using (var use = registry.Use(fields.Text("model")))
        {
            model = use.Model;
            request = ResponsesRequest.Read(fields, model);
            generation = request.Submit(model, ClientIdentity.Of(context));
        }

        var response = new Response(body.RootElement, model, request, generation, time.GetUtcNow().ToUnixTimeSeconds());
        if (request.Options.Stream) await response.StreamAsync(context, new ServerSentEvents(context, options.ReaderTimeout));
        else await response.WholeAsync(context);
    }

    /// <summary>An accepted request and its answer as it comes.</summary>
    private sealed class Response(JsonElement body, ServedModel model, ChatRequest request, Generation generation, long created)
    {
        private readonly string _id = $"resp_{Guid.NewGuid():N}";
        private readonly List<Item> _items = [];
        private readonly ChatChoice _choice = new(request.Tools);
        private ServerSentEvents? _stream;
        private int _events;

        public async Task WholeAsync(HttpContext context)
        {
            await foreach (var chunk in generation.ReadAsync(context.RequestAborted))
            {
                foreach (var piece in _choice.Add(chunk)) await AddAsync(piece);
            }

            await EndAsync();
            await JsonBody.WriteAsync(context, json => Write(json, Status));
        }

        public Task StreamAsync(HttpContext context, ServerSentEvents stream)
        {
            _stream = stream;
            return stream.AnswerAsync(
                async () =>
                {
                    foreach (var name in new[] { "response.created", "response.in_progress" }) await SendAsync(name, json => WriteWhole(json, "in_progress"));
                    await foreach (var chunk in generation.ReadAsync(context.RequestAborted))
                    {
                        foreach (var piece in _choice.Add(chunk)) await AddAsync(piece);
                    }

                    await EndAsync();
                    await SendAsync($"response.{Status}", json => WriteWhole(json, Status));
                },
                exception => SendAsync("error", json =>
                {
                    json.WriteString("code", OpenAiErrors.Type(exception));
                    json.WriteString("message", ErrorStatus.ToMessage(exception));
                    json.WriteNull("param");
                }));

            void WriteWhole(Utf8JsonWriter json, string status)
            {
                json.WritePropertyName("response");
                Write(json, status);
            }
        }

        private string Status => _choice.Finish == FinishReason.Length ? "incomplete" : "completed";

        /// <summary>Adds a piece of text or of a call to the item that it belongs to.</summary>
        private async Task AddAsync(AnswerPiece piece)
        {
            if (_items.Count == 0 || _items[^1].Call != piece.Call)
            {
                await EndItemAsync("completed");
                var begun = new Item(_items.Count, piece.Call, piece.Call < 0 ? null : _choice.Calls[piece.Call]);
                _items.Add(begun);
                await SendAsync("response.output_item.added", json => WriteItem(json, begun, "in_progress"));
                if (begun.Function is null) await SendAsync("response.content_part.added", json => WritePart(json, begun));
            }

            var item = _items[^1];
            item.Text += piece.Text;
            if (piece.Text.Length == 0) return;
            await SendAsync(item.Function is null ? "response.output_text.delta" : "response.function_call_arguments.delta", json =>
            {
                WritePlace(json, item);
                json.WriteString("delta", piece.Text);
                if (item.Function is null) WriteNoScores(json);
            });
        }

        private async Task EndAsync()
        {
            // An answer without anything is a message without text.
            if (_items.Count == 0) await AddAsync(new AnswerPiece(-1, null, ""));
            await EndItemAsync(Status);
        }

        private async Task EndItemAsync(string status)
        {
            if (_items.Count == 0) return;
            var item = _items[^1];
            item.Status = status;
            await SendAsync(item.Function is null ? "response.output_text.done" : "response.function_call_arguments.done", json =>
            {
                WritePlace(json, item);
                if (item.Function is not null) json.WriteString("name", item.Function.Name);
                json.WriteString(item.Function is null ? "text" : "arguments", item.Text);
                if (item.Function is null) WriteNoScores(json);
            });
            if (item.Function is null) await SendAsync("response.content_part.done", json => WritePart(json, item));
            await SendAsync("response.output_item.done", json => WriteItem(json, item, status));
        }

        private Task SendAsync(string name, Action<Utf8JsonWriter> write) => _stream is null ? Task.CompletedTask : _stream.SendAsync(
            json =>
            {
                json.WriteStartObject();
                json.WriteString("type", name);
                json.WriteNumber("sequence_number", _events++);
                write(json);
                json.WriteEndObject();
            },
            name);

        private void Write(Utf8JsonWriter json, string status)
        {
            json.WriteStartObject();
            json.WriteString("id", _id);
            json.WriteString("object", "response");
            json.WriteNumber("created_at", created);
            json.WriteString("status", status);
            json.WriteBoolean("background", false);
            json.WriteNull("error");
            if (status == "incomplete")
            {
                json.WriteStartObject("incomplete_details");
                json.WriteString("reason", "max_output_tokens");
                json.WriteEndObject();
            }
            else
            {
                json.WriteNull("incomplete_details");
            }

            json.WriteString("model", model.Name);
            json.WriteString("system_fingerprint", model.Version);
            json.WriteStartArray("output");
            foreach (var item in _items) WriteItem(json, item);
            json.WriteEndArray();
            json.WriteNull("previous_response_id");
            json.WriteBoolean("store", false);
            json.WriteString("truncation", "disabled");
            foreach (var (name, absent) in s_repeated)
            {
                json.WritePropertyName(name);
                if (body.TryGetProperty(name, out var value) && value.ValueKind != JsonValueKind.Null) value.WriteTo(json);
                else json.WriteRawValue(absent);
            }

            if (status == "in_progress") json.WriteNull("usage");
            else WriteUsage(json);
            json.WriteEndObject();
        }

        private void WriteUsage(Utf8JsonWriter json)
        {
            var usage = generation.Usage;
            json.WriteStartObject("usage");
            json.WriteNumber("input_tokens", usage.PromptTokens);
            json.WriteStartObject("input_tokens_details");
            json.WriteNumber("cached_tokens", usage.CachedPromptTokens);
            json.WriteEndObject();
            json.WriteNumber("output_tokens", usage.CompletionTokens);
            json.WriteStartObject("output_tokens_details");
            json.WriteNumber("reasoning_tokens", 0);
            json.WriteEndObject();
            json.WriteNumber("total_tokens", usage.PromptTokens + usage.CompletionTokens);
            json.WriteEndObject();
        }

        private static void WriteItem(Utf8JsonWriter json, Item item, string status)
        {
            json.WriteNumber("output_index", item.Index);
            json.WritePropertyName("item");
            WriteItem(json, item, status, withContent: status != "in_progress");
        }

        private static void WriteItem(Utf8JsonWriter json, Item item) => WriteItem(json, item, item.Status, withContent: true);

        private static void WriteItem(Utf8JsonWriter json, Item item, string status, bool withContent)
        {
            json.WriteStartObject();
            json.WriteString("id", item.Id);
            json.WriteString("type", item.Function is null ? "message" : "function_call");
            json.WriteString("status", status);
            if (item.Function is { } function)
            {
                json.WriteString("call_id", function.Id);
                json.WriteString("name", function.Name);
                json.WriteString("arguments", withContent ? item.Text : "");
            }
            else
            {
                json.WriteString("role", "assistant");
                json.WriteStartArray("content");
                if (withContent) WriteText(json, item);
                json.WriteEndArray();
            }

            json.WriteEndObject();
        }

        private static void WritePart(Utf8JsonWriter json, Item item)
        {
            WritePlace(json, item);
            json.WritePropertyName("part");
            WriteText(json, item);
        }

        private static void WriteText(Utf8JsonWriter json, Item item)
        {
            json.WriteStartObject();
            json.WriteString("type", "output_text");
            json.WriteString("text", item.Text);
            json.WriteStartArray("annotations");
            json.WriteEndArray();
            WriteNoScores(json);
            json.WriteEndObject();
        }

        private static void WriteNoScores(Utf8JsonWriter json)
        {
            json.WriteStartArray("logprobs");
            json.WriteEndArray();
        }

        private static void WritePlace(Utf8JsonWriter json, Item item)
        {
            json.WriteString("item_id", item.Id);
            json.WriteNumber("output_index", item.Index);
            if (item.Function is null) json.WriteNumber("content_index", 0);
        }
    }

    /// <summary>One item of a response's output: a text, or a call.</summary>
    /// <param name="Call">The call's number; -1 for text.</param>
    private sealed record Item(int Index, int Call, ChatCall? Function)
    {
        public string Id { get; } = $"{(Function is null ? "msg" : "fc")}_{Guid.NewGuid():N}";

        public string Text { get; set; } = "";

        public string Status { get; set; } = "in_progress";
    }
}
