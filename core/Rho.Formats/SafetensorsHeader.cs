using System.Text;
using System.Text.Json;

namespace Rho.Formats;

/// <summary>One tensor of a file. Offset in bytes: in a safetensors file from the first byte after the header, in others from the file's first.</summary>
public sealed record TensorEntry(string Name, ElementType Type, long[] Shape, long Offset, long ByteLength)
{
    public long Elements => ByteLength / Type.Size();

    public override string ToString() => $"{Name} {Type.Name()} [{string.Join(", ", Shape)}]";
}

/// <summary>
/// The JSON part of a safetensors file, checked as strictly as the format's own implementation does: known types, sizes that fit
/// shapes, no name twice, tensors that cover the data without overlap, hole or rest.
/// </summary>
internal sealed class SafetensorsHeader
{
    /// <summary>The limit that the format's own implementation sets.</summary>
    public const long MaxBytes = 100_000_000;

    private SafetensorsHeader(Dictionary<string, string> metadata, Dictionary<string, TensorEntry> tensors)
    {
        Metadata = metadata;
        Tensors = tensors;
    }

    public Dictionary<string, string> Metadata { get; }

    public Dictionary<string, TensorEntry> Tensors { get; }

    /// <summary>Parses and checks a header.</summary>
    /// <param name="path">For messages.</param>
    /// <param name="json">The header's bytes, without the eight that give its length.</param>
    /// <param name="dataLength">Bytes in the file after the header.</param>
    public static SafetensorsHeader Parse(string path, ReadOnlySpan<byte> json, long dataLength)
    {
        var metadata = new Dictionary<string, string>(StringComparer.Ordinal);
        var tensors = new Dictionary<string, TensorEntry>(StringComparer.Ordinal);
        var position = "";
        try
        {
            var reader = new Utf8JsonReader(json, new JsonReaderOptions { MaxDepth = 8 });
            Expect(ref reader, JsonTokenType.StartObject, path, "the header");
            while (reader.Read() && reader.TokenType != JsonTokenType.EndObject)
            {
                var name = reader.GetString()!;
                if (name == "__metadata__")
                {
                    position = "__metadata__";
                    if (metadata.Count > 0) throw Bad(path, "__metadata__ appears twice in the header");
                    ReadMetadata(ref reader, path, metadata);
                    continue;
                }

                position = $"tensor \"{name}\"";
                if (!tensors.TryAdd(name, ReadTensor(ref reader, path, name))) throw Bad(path, $"tensor \"{name}\" appears twice in the header");
            }

            position = "the end of the header";
            if (reader.Read()) throw Bad(path, "the header goes on after its JSON object");
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or DecoderFallbackException)
        {
            throw new RhoException($"{path}: not a valid safetensors file: the header is broken JSON{(position.Length > 0 ? $" near {position}" : "")}: {FirstLine(e.Message)}", e);
        }

        CheckLayout(path, tensors.Values, dataLength);
        return new SafetensorsHeader(metadata, tensors);
    }

    /// <summary>Lays tensors out one after another, larger elements first so that each is aligned, and writes the header with its length.</summary>
    public static byte[] Serialize(IReadOnlyList<TensorEntry> tensors, IReadOnlyDictionary<string, string>? metadata)
    {
        using var buffer = new MemoryStream();
        buffer.Write(stackalloc byte[8]);
        using (var writer = new Utf8JsonWriter(buffer))
        {
            writer.WriteStartObject();
            if (metadata is { Count: > 0 })
            {
                writer.WriteStartObject("__metadata__");
                foreach (var (key, value) in metadata.OrderBy(pair => pair.Key, StringComparer.Ordinal)) writer.WriteString(key, value);
                writer.WriteEndObject();
            }

            foreach (var tensor in tensors)
            {
                writer.WriteStartObject(tensor.Name);
                writer.WriteString("dtype", tensor.Type.Name());
                writer.WriteStartArray("shape");
                foreach (var size in tensor.Shape) writer.WriteNumberValue(size);
                writer.WriteEndArray();
                writer.WriteStartArray("data_offsets");
                writer.WriteNumberValue(tensor.Offset);
                writer.WriteNumberValue(tensor.Offset + tensor.ByteLength);
                writer.WriteEndArray();
                writer.WriteEndObject();
            }

            writer.WriteEndObject();
        }

        while (buffer.Length % 8 != 0) buffer.WriteByte((byte)' ');
        var bytes = buffer.ToArray();
        System.Buffers.Binary.BinaryPrimitives.WriteInt64LittleEndian(bytes, bytes.Length - 8);
        return bytes;
    }

    /// <summary>Bytes of a tensor, or null where the product does not fit in 63 bits or a size is negative.</summary>
    public static long? ByteLength(ElementType type, ReadOnlySpan<long> shape)
    {
        // A size of 0 makes the tensor empty, also beside sizes whose product would overflow.
        if (shape.Contains(0)) return shape.ContainsAnyInRange(long.MinValue, -1) ? null : 0;
        long bytes = type.Size();
        foreach (var size in shape)
        {
            if (size < 0 || bytes > long.MaxValue / size) return null;
            bytes *= size;
        }

        return bytes;
    }

    private static void ReadMetadata(ref Utf8JsonReader reader, string path, Dictionary<string, string> metadata)
    {
        Expect(ref reader, JsonTokenType.StartObject, path, "__metadata__");
        while (reader.Read() && reader.TokenType != JsonTokenType.EndObject)
        {
            var key = reader.GetString()!;
            reader.Read();
            if (reader.TokenType != JsonTokenType.String) throw Bad(path, $"metadata \"{key}\" is not a string");
            if (!metadata.TryAdd(key, reader.GetString()!)) throw Bad(path, $"metadata \"{key}\" appears twice");
        }
    }

    private static TensorEntry ReadTensor(ref Utf8JsonReader reader, string path, string name)
    {
        Expect(ref reader, JsonTokenType.StartObject, path, $"tensor \"{name}\"");
        string? dtype = null;
        List<long>? shape = null, offsets = null;
        while (reader.Read() && reader.TokenType != JsonTokenType.EndObject)
        {
            var property = reader.GetString()!;
            var repeated = false;
            switch (property)
            {
                case "dtype":
                    reader.Read();
                    repeated = dtype is not null;
                    dtype = reader.TokenType == JsonTokenType.String ? reader.GetString()! : throw Bad(path, $"tensor \"{name}\": dtype is not a string");
                    break;
                case "shape":
                    repeated = shape is not null;
                    shape = ReadNumbers(ref reader, path, name, property);
                    break;
                case "data_offsets":
                    repeated = offsets is not null;
                    offsets = ReadNumbers(ref reader, path, name, property);
                    break;
                default:
                    reader.Read();
                    reader.Skip();
                    break;
            }

            if (repeated) throw Bad(path, $"tensor \"{name}\": {property} appears twice");
        }

        if (dtype is null || shape is null || offsets is null)
            throw Bad(path, $"tensor \"{name}\" has no {(dtype is null ? "dtype" : shape is null ? "shape" : "data_offsets")}");
        if (!ElementTypes.TryParse(dtype, out var type))
            throw Bad(path, $"tensor \"{name}\" has the unknown dtype \"{dtype}\"; known are {string.Join(", ", Enum.GetValues<ElementType>().Select(t => t.Name()))}");
        if (offsets.Count != 2 || offsets[1] < offsets[0])
            throw Bad(path, $"tensor \"{name}\": data_offsets [{string.Join(", ", offsets)}] are not a begin and an end");
        var sizes = shape.ToArray();
        var bytes = ByteLength(type, sizes) ?? throw Bad(path, $"tensor \"{name}\": shape [{string.Join(", ", shape)}] is too large");
        if (bytes != offsets[1] - offsets[0])
            throw Bad(path, $"tensor \"{name}\": {dtype} [{string.Join(", ", shape)}] takes {bytes} bytes, but data_offsets [{offsets[0]}, {offsets[1]}] hold {offsets[1] - offsets[0]}");
        return new TensorEntry(name, type, sizes, offsets[0], bytes);
    }

    private static List<long> ReadNumbers(ref Utf8JsonReader reader, string path, string name, string property)
    {
        Expect(ref reader, JsonTokenType.StartArray, path, $"tensor \"{name}\": {property}");
        var numbers = new List<long>();
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            if (reader.TokenType != JsonTokenType.Number || !reader.TryGetInt64(out var number) || number < 0)
                throw Bad(path, $"tensor \"{name}\": {property} holds something that is not a whole number from 0 up");
            numbers.Add(number);
        }

        return numbers;
    }

    private static void CheckLayout(string path, IEnumerable<TensorEntry> tensors, long dataLength)
    {
        long end = 0;
        TensorEntry? last = null;
        foreach (var tensor in tensors.OrderBy(t => t.Offset).ThenBy(t => t.ByteLength))
        {
            if (tensor.Offset < end)
                throw Bad(path, $"tensor \"{tensor.Name}\" starts at byte {tensor.Offset} of the data, inside tensor \"{last!.Name}\", which ends at {end}");
            if (tensor.Offset > end)
                throw Bad(path, $"bytes {end} to {tensor.Offset} of the data, before tensor \"{tensor.Name}\", belong to no tensor");
            end = tensor.Offset + tensor.ByteLength;
            if (end > dataLength)
                throw Bad(path, $"tensor \"{tensor.Name}\" ends at byte {end} of the data, but the file holds {dataLength}: it is truncated");
            if (tensor.Offset % tensor.Type.Size() != 0)
                throw Bad(path, $"tensor \"{tensor.Name}\" is misaligned: its offset {tensor.Offset} is not a multiple of the {tensor.Type.Size()} bytes of {tensor.Type.Name()}");
            last = tensor;
        }

        if (end < dataLength) throw Bad(path, $"the last {dataLength - end} bytes of the file belong to no tensor");
    }

    private static void Expect(ref Utf8JsonReader reader, JsonTokenType type, string path, string what)
    {
        if (!reader.Read() || reader.TokenType != type)
            throw Bad(path, $"{what} is not {(type == JsonTokenType.StartObject ? "an object" : "an array")}");
    }

    private static RhoException Bad(string path, string what) => new($"{path}: not a valid safetensors file: {what}");

    private static string FirstLine(string message) => message.AsSpan().IndexOf('\n') is var end and >= 0 ? message[..end].TrimEnd() : message;
}
