using System.Buffers;
using System.Text;
using System.Text.Json;
using System.Text.Unicode;
using Rho.Jinja;

namespace Rho.Data;

/// <summary>
/// Makes a document's text out of a record: the bytes themselves, a field, or a template over fields. One per thread and kind of file.
/// </summary>
internal abstract class RecordText
{
    /// <summary>The text in UTF-8, valid until the next record.</summary>
    public abstract ReadOnlySpan<byte> Text { get; }

    /// <summary>Makes the text; returns why it cannot, or null.</summary>
    public abstract string? Make(ReadOnlySpan<byte> record);

    /// <param name="columns">Column names of a table.</param>
    /// <param name="chat">The tokenizer's chat template, where the source has conversations.</param>
    /// <exception cref="RhoException">The source's template is broken, or names a column that the table lacks.</exception>
    public static RecordText For(InputFile file, CorpusSource source, string[]? columns, ChatTemplate? chat = null)
    {
        if (source.Messages is { } messages)
        {
            if (file.Format is not (SourceFormat.JsonLines or SourceFormat.Json)) throw new RhoException($"{file.Path}: conversations are read from JSON, not from {file.Format} files");
            return new ChatText(messages, chat!);
        }

        if (file.Format == SourceFormat.Text) return new PlainText();
        var recipe = TextRecipe.Of(source);
        if (file.Format is SourceFormat.JsonLines or SourceFormat.Json) return new JsonText(recipe);
        var missing = recipe.Fields.FirstOrDefault(field => !(columns ?? []).Contains(field, StringComparer.Ordinal));
        if (missing is not null) throw new RhoException($"{file.Path}: has no column \"{missing}\"; its header names {string.Join(", ", columns ?? [])}");
        return new TableText(recipe, columns!, file.Format == SourceFormat.Csv ? (byte)',' : (byte)'\t');
    }

    /// <summary>Why bytes are not UTF-8, or null where they are.</summary>
    protected static string? Utf8Fault(ReadOnlySpan<byte> bytes)
    {
        if (Utf8.IsValid(bytes)) return null;
        var at = 0;
        while (at < bytes.Length && Rune.DecodeFromUtf8(bytes[at..], out _, out var consumed) == OperationStatus.Done) at += consumed;
        var line = bytes[..at].Count((byte)'\n');
        return $"invalid UTF-8: byte 0x{bytes[at]:X2} at position {at - bytes[..at].LastIndexOf((byte)'\n')}{(line > 0 ? $" of line {line + 1} of the document" : "")}";
    }

    private sealed class PlainText : RecordText
    {
        private byte[] _text = [];
        private int _length;

        public override ReadOnlySpan<byte> Text => _text.AsSpan(0, _length);

        public override string? Make(ReadOnlySpan<byte> record)
        {
            if (Utf8Fault(record) is { } fault) return fault;
            if (_text.Length < record.Length) _text = new byte[Math.Max(record.Length, 2 * _text.Length)];
            record.CopyTo(_text);
            _length = record.Length;
            return null;
        }
    }

    private sealed class JsonText(TextRecipe recipe) : RecordText
    {
        private readonly byte[][] _names = [.. recipe.Fields.Select(Encoding.UTF8.GetBytes)];
        private readonly ArrayBufferWriter<byte>[] _values = [.. recipe.Fields.Select(_ => new ArrayBufferWriter<byte>())];
        private readonly JsonTokenType[] _types = new JsonTokenType[recipe.Fields.Count];
        private readonly ArrayBufferWriter<byte> _text = new();

        public override ReadOnlySpan<byte> Text => recipe.IsSingleField ? _values[0].WrittenSpan : _text.WrittenSpan;

        public override string? Make(ReadOnlySpan<byte> record)
        {
            if (Utf8Fault(record) is { } fault) return fault;
            Array.Clear(_types);
            try
            {
                var reader = new Utf8JsonReader(record);
                if (reader.Read() && reader.TokenType != JsonTokenType.StartObject) return $"a JSON object is needed, not {Describe(reader.TokenType)}";
                while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName) ReadProperty(ref reader);
                reader.Read();
            }
            catch (JsonException e)
            {
                return $"broken JSON at position {e.BytePositionInLine + 1}: {Reason(e.Message)}";
            }
            catch (InvalidOperationException)
            {
                return "broken JSON: a string holds half of a surrogate pair";
            }

            for (var i = 0; i < _types.Length; i++)
            {
                if (_types[i] == JsonTokenType.None) return $"no field \"{recipe.Fields[i]}\"; it has {FieldNames(record)}";
                if (_types[i] == JsonTokenType.String) continue;
                if (recipe.IsSingleField || _types[i] is not (JsonTokenType.Number or JsonTokenType.True or JsonTokenType.False))
                    return $"field \"{recipe.Fields[i]}\" is {Describe(_types[i])}, not a string";
            }

            if (recipe.IsSingleField) return null;
            _text.ResetWrittenCount();
            foreach (var (literal, field) in recipe.Parts) _text.Write(field < 0 ? literal : _values[field].WrittenSpan);
            return null;
        }

        private void ReadProperty(ref Utf8JsonReader reader)
        {
            var field = -1;
            for (var i = 0; i < _names.Length; i++)
                if (reader.ValueTextEquals(_names[i])) field = i;
            reader.Read();
            if (field < 0)
            {
                reader.Skip();
                return;
            }

            // Where a name comes twice the last one counts, as in most JSON readers.
            _types[field] = reader.TokenType;
            var value = _values[field];
            value.ResetWrittenCount();
            if (reader.TokenType == JsonTokenType.String) value.Advance(reader.CopyString(value.GetSpan(reader.ValueSpan.Length + 1)));
            else if (reader.TokenType is JsonTokenType.Number or JsonTokenType.True or JsonTokenType.False) value.Write(reader.ValueSpan);
            else reader.Skip();
        }

        private static string FieldNames(ReadOnlySpan<byte> record)
        {
            var names = new List<string>();
            var reader = new Utf8JsonReader(record);
            reader.Read();
            while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
            {
                names.Add($"\"{reader.GetString()}\"");
                reader.Skip();
            }

            return names.Count == 0 ? "none" : string.Join(", ", names.Take(8)) + (names.Count > 8 ? ", ..." : "");
        }

        private static string Describe(JsonTokenType type) => type switch
        {
            JsonTokenType.StartObject => "an object",
            JsonTokenType.StartArray => "an array",
            JsonTokenType.Number => "a number",
            JsonTokenType.True or JsonTokenType.False => "a boolean",
            JsonTokenType.Null => "null",
            _ => "a string",
        };

        private static string Reason(string message)
        {
            // The reader's message ends in a sentence with line and byte, which is said already.
            var end = message.IndexOf(" LineNumber", StringComparison.Ordinal);
            return (end < 0 ? message : message[..end]).TrimEnd('.', ' ');
        }
    }

    private sealed class ChatText(string field, ChatTemplate template) : RecordText
    {
        private byte[] _text = [];

        public override ReadOnlySpan<byte> Text => _text;

        public override string? Make(ReadOnlySpan<byte> record)
        {
            if (Utf8Fault(record) is { } fault) return fault;
            try
            {
                using var document = JsonDocument.Parse(record.ToArray());
                if (document.RootElement.ValueKind != JsonValueKind.Object) return "a JSON object is needed";
                if (!document.RootElement.TryGetProperty(field, out var messages)) return $"no field \"{field}\"";
                if (MessagesFault(messages) is { } wrong) return $"field \"{field}\": {wrong}";
                var variables = document.RootElement.TryGetProperty("tools", out var tools) ? new Dictionary<string, JsonElement>(StringComparer.Ordinal) { ["tools"] = tools } : null;
                _text = Encoding.UTF8.GetBytes(template.Render(messages, addGenerationPrompt: false, variables));
                return null;
            }
            catch (JsonException e)
            {
                return $"broken JSON at position {e.BytePositionInLine + 1}";
            }
            catch (InvalidOperationException)
            {
                return "broken JSON: a string holds half of a surrogate pair";
            }
            catch (RhoException e)
            {
                return e.Message;
            }
        }

        private static string? MessagesFault(JsonElement messages)
        {
            if (messages.ValueKind != JsonValueKind.Array || messages.GetArrayLength() == 0) return "an array of messages is needed";
            foreach (var message in messages.EnumerateArray())
            {
                if (message.ValueKind != JsonValueKind.Object || !message.TryGetProperty("role", out var role) || role.ValueKind != JsonValueKind.String)
                    return "each message is to be an object with a role";
            }

            return null;
        }
    }

    private sealed class TableText(TextRecipe recipe, string[] columns, byte delimiter) : RecordText
    {
        private readonly int[] _columnOf = [.. recipe.Fields.Select(field => Array.IndexOf(columns, field))];
        private readonly List<Range> _fields = [];
        private readonly ArrayBufferWriter<byte> _text = new();
        private byte[] _unquoted = [];

        public override ReadOnlySpan<byte> Text => _text.WrittenSpan;

        public override string? Make(ReadOnlySpan<byte> record)
        {
            if (Utf8Fault(record) is { } fault) return fault;
            if (_unquoted.Length < record.Length) _unquoted = new byte[Math.Max(record.Length, 2 * _unquoted.Length)];
            TableRow.Split(record, delimiter, _fields, _unquoted);
            if (_fields.Count != columns.Length) return $"the row has {_fields.Count} fields, the header {columns.Length}";
            _text.ResetWrittenCount();
            foreach (var (literal, field) in recipe.Parts) _text.Write(field < 0 ? literal : _unquoted.AsSpan(_fields[_columnOf[field]]));
            return null;
        }
    }
}

/// <summary>A field or a parsed template: literal bytes and field numbers in turn.</summary>
internal sealed record TextRecipe(IReadOnlyList<string> Fields, IReadOnlyList<(byte[] Literal, int Field)> Parts, bool IsSingleField)
{
    /// <exception cref="RhoException">The template is broken.</exception>
    public static TextRecipe Of(CorpusSource source)
        => source.Template is { } template ? Parse(template) : new TextRecipe([source.Field], [([], 0)], IsSingleField: true);

    private static TextRecipe Parse(string template)
    {
        var fields = new List<string>();
        var parts = new List<(byte[], int)>();
        var literal = new StringBuilder();
        for (var i = 0; i < template.Length; i++)
        {
            var next = i + 1 < template.Length ? template[i + 1] : '\0';
            switch (template[i])
            {
                case '\\' when next is 'n' or 't' or '\\':
                    literal.Append(next switch { 'n' => '\n', 't' => '\t', _ => '\\' });
                    i++;
                    break;
                case '{' or '}' when next == template[i]:
                    literal.Append(next);
                    i++;
                    break;
                case '{':
                    var end = template.IndexOf('}', i);
                    if (end < 0) throw Broken("a { has no }");
                    var name = template[(i + 1)..end];
                    if (name.Length == 0) throw Broken("{} names no field");
                    if (literal.Length > 0) parts.Add((Encoding.UTF8.GetBytes(literal.ToString()), -1));
                    literal.Clear();
                    if (!fields.Contains(name, StringComparer.Ordinal)) fields.Add(name);
                    parts.Add(([], fields.IndexOf(name)));
                    i = end;
                    break;
                case '}':
                    throw Broken("a } has no {");
                default:
                    literal.Append(template[i]);
                    break;
            }
        }

        if (fields.Count == 0) throw Broken("it names no field, such as {text}");
        if (literal.Length > 0) parts.Add((Encoding.UTF8.GetBytes(literal.ToString()), -1));
        return new TextRecipe(fields, parts, IsSingleField: false);

        RhoException Broken(string what) => new($"template \"{template}\": {what}; write {{{{ and }}}} for braces");
    }
}
