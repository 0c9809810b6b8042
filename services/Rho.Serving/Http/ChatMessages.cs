using System.Text.Json;

namespace Rho.Serving.Http;

/// <summary>The messages of a conversation, as chat templates take them.</summary>
internal static class ChatMessages
{
    /// <summary>Checks the messages and brings their contents, which may be lists of text parts, into one text each; arguments of calls become objects.</summary>
    public static JsonElement Read(JsonElement messages)
    {
        if (messages.ValueKind != JsonValueKind.Array || messages.GetArrayLength() == 0) throw JsonFields.Wrong("messages", "a list of at least one message", messages);
        return JsonSerializer.SerializeToElement(messages.EnumerateArray().Select((message, i) => ReadMessage(message, $"messages[{i}].")));
    }

    /// <summary>A content that is a text or a list of parts that are texts.</summary>
    public static string ReadContent(JsonElement content, string path, params ReadOnlySpan<string> partTypes)
    {
        if (content.ValueKind != JsonValueKind.Array) return JsonFields.Text(content, path);
        var text = "";
        var i = 0;
        foreach (var part in content.EnumerateArray())
        {
            var fields = new JsonFields(part, $"{path}[{i}].");
            var type = fields.Text("type");
            if (type is null || !partTypes.Contains(type)) throw new InvalidFieldException($"{path}[{i}].type", $"'{type}' is not supported; only text is");
            text += fields.Text(type == "refusal" ? "refusal" : "text") ?? throw new InvalidFieldException($"{path}[{i}].text", "it is missing");
            fields.Skip(NeutralFields.ContentPart);
            fields.End();
            i++;
        }

        return text;
    }

    /// <summary>A call of a function, with its arguments as the object that templates write out.</summary>
    /// <param name="arguments">JSON.</param>
    public static Dictionary<string, object> Call(string? id, string name, string? arguments, string path)
    {
        var call = new Dictionary<string, object>(StringComparer.Ordinal)
        {
            ["type"] = "function",
            ["function"] = new Dictionary<string, object>(StringComparer.Ordinal) { ["name"] = name, ["arguments"] = ReadArguments(arguments, path) },
        };
        if (id is not null) call["id"] = id;
        return call;
    }

    private static Dictionary<string, object> ReadMessage(JsonElement element, string path)
    {
        var fields = new JsonFields(element, path);
        var role = fields.Text("role") ?? throw new InvalidFieldException(path + "role", "it is missing");
        // The newer name of the same; templates know the older.
        var message = new Dictionary<string, object>(StringComparer.Ordinal) { ["role"] = role == "developer" ? "system" : role };
        if (fields.Take("content") is { } content) message["content"] = ReadContent(content, path + "content", "text", "refusal");
        else if (role == "assistant") message["content"] = "";
        else throw new InvalidFieldException(path + "content", "it is missing");
        if (fields.Many("tool_calls", ReadCall) is { Count: > 0 } calls) message["tool_calls"] = calls;
        foreach (var name in new[] { "name", "tool_call_id", "reasoning_content" })
        {
            if (fields.Text(name) is { } text) message[name] = text;
        }

        fields.Skip(NeutralFields.Message);
        fields.End();
        return message;
    }

    private static Dictionary<string, object> ReadCall(JsonElement element, string path)
    {
        var fields = new JsonFields(element, path + ".");
        if (fields.Text("type") is { } type && type != "function") throw new InvalidFieldException(path + ".type", $"'{type}' is not supported; only function is");
        // Streams number the calls, and clients send what they gathered.
        fields.Whole("index");
        var id = fields.Text("id");
        var function = fields.Object("function") ?? throw new InvalidFieldException(path + ".function", "it is missing");
        var name = function.Text("name") ?? throw new InvalidFieldException(path + ".function.name", "it is missing");
        var arguments = function.Text("arguments");
        function.End();
        fields.End();
        return Call(id, name, arguments, path + ".function.arguments");
    }

    private static JsonElement ReadArguments(string? arguments, string path)
    {
        if (string.IsNullOrWhiteSpace(arguments)) return JsonElement.Parse("{}");
        try
        {
            var value = JsonElement.Parse(arguments);
            return value.ValueKind == JsonValueKind.Object ? value : throw JsonFields.Wrong(path, "JSON of an object", value);
        }
        catch (JsonException)
        {
            throw new InvalidFieldException(path, "it is no JSON; JSON of an object is needed");
        }
    }
}
