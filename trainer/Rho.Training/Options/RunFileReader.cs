using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;

namespace Rho.Training;

/// <summary>Reads run files: syntax, then fields and bounds by the records' own types and attributes, then rules across fields.</summary>
internal static class RunFileReader
{
    internal static readonly JsonSerializerOptions Json = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        Converters = { new JsonStringEnumConverter(JsonNamingPolicy.SnakeCaseLower, allowIntegerValues: false) },
        TypeInfoResolver = new DefaultJsonTypeInfoResolver(),
        ReadCommentHandling = JsonCommentHandling.Skip,
        AllowTrailingCommas = true,
        AllowDuplicateProperties = false,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        WriteIndented = true,
        Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    internal static RunFile Load(string path)
    {
        string text;
        try
        {
            text = File.ReadAllText(path);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new NotFoundException($"{path}: no such run file");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new RhoException($"{path}: cannot be read: {e.Message}", e);
        }

        return Parse(text, Path.GetDirectoryName(Path.GetFullPath(path))!, path);
    }

    internal static RunFile Parse(string json, string baseDirectory, string source)
    {
        var errors = new List<string>();
        RunFile run;
        try
        {
            using var document = JsonDocument.Parse(json, new JsonDocumentOptions { CommentHandling = JsonCommentHandling.Skip, AllowTrailingCommas = true, AllowDuplicateProperties = false });
            Check(document.RootElement, Json.GetTypeInfo(typeof(RunFile)), "", errors);
            ThrowIfAny(errors, source);
            run = document.RootElement.Deserialize<RunFile>(Json)!;
        }
        catch (JsonException e)
        {
            throw new RhoException($"{source}: not valid JSON, {(e.LineNumber is { } line ? $"line {line + 1}, column {e.BytePositionInLine + 1}: " : "")}{FirstSentence(e.Message)}", e);
        }

        RunFileRules.Check(run, errors);
        ThrowIfAny(errors, source);
        return RunFilePaths.Resolve(run, baseDirectory);
    }

    private static void ThrowIfAny(List<string> errors, string source)
    {
        if (errors.Count > 0) throw new RhoException($"{source}: {string.Join("; ", errors)}");
    }

    private static string FirstSentence(string message)
    {
        var end = message.IndexOf(" LineNumber:", StringComparison.Ordinal);
        return end < 0 ? message : message[..end];
    }

    /// <summary>Compares a value with its type, field by field, so that each error names its field.</summary>
    private static void Check(JsonElement value, JsonTypeInfo type, string path, List<string> errors)
    {
        switch (type.Kind)
        {
            case JsonTypeInfoKind.Object when value.ValueKind == JsonValueKind.Object:
                CheckFields(value, type, path, errors);
                break;
            case JsonTypeInfoKind.Enumerable when value.ValueKind == JsonValueKind.Array:
                var element = Json.GetTypeInfo(type.ElementType!);
                var index = 0;
                foreach (var item in value.EnumerateArray()) Check(item, element, $"{path}[{index++}]", errors);
                break;
            case JsonTypeInfoKind.None when Fits(value, Nullable.GetUnderlyingType(type.Type) ?? type.Type):
                break;
            default:
                errors.Add($"{(path.Length == 0 ? "the file" : path)} is {Describe(value)}, to be {Expected(type)}");
                break;
        }
    }

    private static void CheckFields(JsonElement value, JsonTypeInfo type, string path, List<string> errors)
    {
        string At(string name) => path.Length == 0 ? name : $"{path}.{name}";
        foreach (var field in value.EnumerateObject())
        {
            var property = type.Properties.FirstOrDefault(p => p.Name == field.Name);
            if (property is null)
            {
                if (path.Length == 0 && field.Name == "$schema") continue;
                errors.Add($"{At(field.Name)} is not known; {(path.Length == 0 ? "the file" : path)} has {string.Join(", ", type.Properties.Select(p => p.Name))}");
                continue;
            }

            if (field.Value.ValueKind == JsonValueKind.Null && IsOptional(property)) continue;
            var before = errors.Count;
            Check(field.Value, Json.GetTypeInfo(property.PropertyType), At(field.Name), errors);
            if (errors.Count == before && Bounds(property) is { } bounds && !Within(field.Value.GetDouble(), bounds))
                errors.Add($"{At(field.Name)} is {field.Value.GetRawText()}, to be {DescribeBounds(bounds)}");
        }

        foreach (var property in type.Properties)
            if (property.IsRequired && !value.TryGetProperty(property.Name, out _)) errors.Add($"{At(property.Name)} is missing");
    }

    internal static bool IsOptional(JsonPropertyInfo property) =>
        Nullable.GetUnderlyingType(property.PropertyType) is not null || (!property.PropertyType.IsValueType && property.IsSetNullable);

    internal static RangeAttribute? Bounds(JsonPropertyInfo property) =>
        property.AttributeProvider?.GetCustomAttributes(typeof(RangeAttribute), inherit: false).OfType<RangeAttribute>().FirstOrDefault();

    private static bool Within(double value, RangeAttribute bounds)
    {
        var (low, high) = (Convert.ToDouble(bounds.Minimum), Convert.ToDouble(bounds.Maximum));
        return (bounds.MinimumIsExclusive ? value > low : value >= low) && (bounds.MaximumIsExclusive ? value < high : value <= high);
    }

    private static string DescribeBounds(RangeAttribute bounds)
    {
        var low = $"{(bounds.MinimumIsExclusive ? "above" : "at least")} {bounds.Minimum}";
        return Convert.ToDouble(bounds.Maximum) >= int.MaxValue ? low : $"{low} and {(bounds.MaximumIsExclusive ? "below" : "at most")} {bounds.Maximum}";
    }

    private static bool Fits(JsonElement value, Type type)
    {
        if (type.IsEnum) return value.ValueKind == JsonValueKind.String && Names(type).Contains(value.GetString());
        if (type == typeof(string)) return value.ValueKind == JsonValueKind.String;
        if (type == typeof(bool)) return value.ValueKind is JsonValueKind.True or JsonValueKind.False;
        if (value.ValueKind != JsonValueKind.Number) return false;
        return type == typeof(int) ? value.TryGetInt32(out _) : type == typeof(long) ? value.TryGetInt64(out _) : double.IsFinite(value.GetDouble());
    }

    internal static IEnumerable<string> Names(Type type) => Enum.GetNames(type).Select(JsonNamingPolicy.SnakeCaseLower.ConvertName);

    private static string Describe(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Object => "an object",
        JsonValueKind.Array => "a list",
        JsonValueKind.String => $"\"{value.GetString()}\"",
        _ => value.GetRawText(),
    };

    private static string Expected(JsonTypeInfo type)
    {
        if (type.Kind == JsonTypeInfoKind.Object) return "an object";
        if (type.Kind == JsonTypeInfoKind.Enumerable) return "a list";
        var plain = Nullable.GetUnderlyingType(type.Type) ?? type.Type;
        if (plain.IsEnum) return string.Join(", ", Names(plain).Select(name => $"\"{name}\"").SkipLast(1)) + $" or \"{Names(plain).Last()}\"";
        if (plain == typeof(string)) return "a text";
        if (plain == typeof(bool)) return "true or false";
        return plain == typeof(double) ? "a number" : "a whole number";
    }
}
