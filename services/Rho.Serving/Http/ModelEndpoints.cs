using System.Text.Json;
using Microsoft.AspNetCore.Http;
using Rho.Serving.Models;

namespace Rho.Serving.Http;

/// <summary>/v1/models, /tokenize, /detokenize, /tokenizer_info and /version.</summary>
internal sealed class ModelEndpoints(ModelRegistry registry)
{
    public Task ListAsync(HttpContext context) => JsonBody.WriteAsync(context, json =>
    {
        json.WriteStartObject();
        json.WriteString("object", "list");
        json.WriteStartArray("data");
        foreach (var model in registry.Models) Write(json, model);
        json.WriteEndArray();
        json.WriteEndObject();
    });

    public async Task GetAsync(HttpContext context, string name)
    {
        using var use = registry.Use(name);
        var model = use.Model;
        await JsonBody.WriteAsync(context, json => Write(json, model));
    }

    public async Task TokenizeAsync(HttpContext context)
    {
        using var body = await RequestBody.ReadAsync(context);
        var fields = new JsonFields(body.RootElement);
        using var use = registry.Use(fields.Text("model"));
        var model = use.Model;
        var withTexts = fields.Flag("return_token_strs") ?? false;
        int[] tokens;
        if (fields.Text("prompt") is { } text)
        {
            tokens = model.Tokenizer.Encode(text, fields.Flag("add_special_tokens") ?? true);
        }
        else if (fields.Has("messages"))
        {
            var chat = ChatPrompt.Read(fields, ToolFields.Read(fields, model, nested: true));
            tokens = model.Tokenizer.Encode(chat.Render(model), chat.AddSpecialTokens);
        }
        else
        {
            throw new InvalidFieldException("prompt", "it is missing; a text, or messages instead, is needed");
        }

        fields.End();
        await JsonBody.WriteAsync(context, json =>
        {
            json.WriteStartObject();
            json.WriteNumber("count", tokens.Length);
            json.WriteNumber("max_model_len", model.Engine.ContextLength);
            json.WriteStartArray("tokens");
            foreach (var token in tokens) json.WriteNumberValue(token);
            json.WriteEndArray();
            if (withTexts)
            {
                json.WriteStartArray("token_strs");
                foreach (var token in tokens) json.WriteStringValue(model.Tokenizer.IdToToken(token));
                json.WriteEndArray();
            }

            json.WriteEndObject();
        });
    }

    public async Task DetokenizeAsync(HttpContext context)
    {
        using var body = await RequestBody.ReadAsync(context);
        var fields = new JsonFields(body.RootElement);
        using var use = registry.Use(fields.Text("model"));
        var model = use.Model;
        var tokens = fields.Many("tokens", JsonFields.Whole) ?? throw new InvalidFieldException("tokens", "it is missing");
        fields.End();
        var text = model.Tokenizer.Decode([.. tokens]);
        await JsonBody.WriteAsync(context, json =>
        {
            json.WriteStartObject();
            json.WriteString("prompt", text);
            json.WriteEndObject();
        });
    }

    /// <summary>What tokenizer_config.json says, with the special tokens' texts, as evaluation harnesses read it.</summary>
    public async Task TokenizerInfoAsync(HttpContext context)
    {
        using var use = registry.Use(context.Request.Query["model"]);
        var model = use.Model;
        var file = Path.Combine(model.Path, "tokenizer_config.json");
        using var stored = File.Exists(file) ? JsonDocument.Parse(await File.ReadAllBytesAsync(file, context.RequestAborted)) : null;
        await JsonBody.WriteAsync(context, json =>
        {
            json.WriteStartObject();
            var written = new HashSet<string>(StringComparer.Ordinal);
            foreach (var (name, id) in new[] { ("bos_token", model.Tokenizer.BosId), ("eos_token", model.Tokenizer.EosId), ("pad_token", model.Tokenizer.PadId), ("unk_token", model.Tokenizer.UnknownId) })
            {
                written.Add(name);
                json.WriteString(name, id is { } token ? model.Tokenizer.IdToToken(token) : null);
            }

            json.WriteString("chat_template", model.Tokenizer.ChatTemplate?.Source);
            json.WriteNumber("vocab_size", model.Tokenizer.VocabularySize);
            json.WriteNumber("model_max_length", model.Engine.ContextLength);
            written.UnionWith(["chat_template", "vocab_size", "model_max_length"]);
            foreach (var property in stored?.RootElement.EnumerateObject() ?? default)
            {
                if (written.Add(property.Name)) property.WriteTo(json);
            }

            if (written.Add("tokenizer_class")) json.WriteString("tokenizer_class", "PreTrainedTokenizerFast");
            json.WriteEndObject();
        });
    }

    /// <summary>The program's version.</summary>
    public static Task VersionAsync(HttpContext context) => JsonBody.WriteAsync(context, json =>
    {
        json.WriteStartObject();
        json.WriteString("version", typeof(ModelEndpoints).Assembly.GetName().Version!.ToString(3));
        json.WriteEndObject();
    });

    private static void Write(Utf8JsonWriter json, ServedModel model)
    {
        json.WriteStartObject();
        json.WriteString("id", model.Name);
        json.WriteString("object", "model");
        json.WriteNumber("created", model.Loaded.ToUnixTimeSeconds());
        json.WriteString("owned_by", "rho");
        json.WriteString("root", model.Path);
        json.WriteNull("parent");
        json.WriteNumber("max_model_len", model.Engine.ContextLength);
        json.WriteString("description", model.Description);
        json.WriteEndObject();
    }
}
