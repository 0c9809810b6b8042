using System.Globalization;
using System.Text;
using System.Text.Json;

namespace Rho.Tokenization;

/// <summary>Changes text before it is cut; one of tokenizer.json's normalizer types.</summary>
internal abstract class Normalizer
{
    /// <summary>Writes the changed text to <paramref name="target"/>, which is empty; false when it stays as it is.</summary>
    public abstract bool Apply(Passage source, Passage target);

    public abstract void Write(Utf8JsonWriter json);

    public static IEnumerable<Normalizer> Read(JsonPart part)
    {
        var type = part.Text("type");
        switch (type)
        {
            case "Sequence":
                part.Allow("type", "normalizers");
                return part.Get("normalizers").Items().SelectMany(Read).ToArray();
            case "NFC":
                part.Allow("type");
                return [new FormNormalizer(type, NormalizationForm.FormC)];
            case "NFD":
                part.Allow("type");
                return [new FormNormalizer(type, NormalizationForm.FormD)];
            case "NFKC":
                part.Allow("type");
                return [new FormNormalizer(type, NormalizationForm.FormKC)];
            case "NFKD":
                part.Allow("type");
                return [new FormNormalizer(type, NormalizationForm.FormKD)];
            case "Lowercase":
                part.Allow("type");
                return [new LowercaseNormalizer()];
            case "Prepend":
                part.Allow("type", "prepend");
                return [new PrependNormalizer(part.Text("prepend"))];
            case "Replace":
                part.Allow("type", "pattern", "content");
                return [new ReplaceNormalizer(TextPattern.Read(part.Get("pattern")), part.Text("content"))];
            case "Precompiled":
                part.Allow("type", "precompiled_charsmap");
                return [new PrecompiledNormalizer(part.Get("precompiled_charsmap"))];
            case "Strip":
                part.Allow("type", "strip_left", "strip_right");
                return [new StripNormalizer(part.Flag("strip_left", true), part.Flag("strip_right", true))];
            default:
                throw part.Error($"normalizer '{type}' is not supported");
        }
    }

    protected static void WriteType(Utf8JsonWriter json, string type)
    {
        json.WriteStartObject();
        json.WriteString("type", type);
    }
}

internal sealed class FormNormalizer(string type, NormalizationForm form) : Normalizer
{
    public override bool Apply(Passage source, Passage target) => UnicodeNormalization.Apply(form, source, target);

    public override void Write(Utf8JsonWriter json)
    {
        WriteType(json, type);
        json.WriteEndObject();
    }
}

/// <summary>Every character in lower case, one by one (so without rules for the ends of words).</summary>
internal sealed class LowercaseNormalizer : Normalizer
{
    public override bool Apply(Passage source, Passage target)
    {
        var text = source.Text;
        Span<char> lower = stackalloc char[2];
        for (var i = 0; i < text.Length;)
        {
            Rune.DecodeFromUtf16(text[i..], out var rune, out var length);
            if (rune.Value == 0x130)
            {
                target.Append("i\u0307", source, i, length);
            }
            else
            {
                var written = Rune.ToLowerInvariant(rune).EncodeToUtf16(lower);
                target.Append(lower[..written], source, i, length);
            }

            i += length;
        }

        return true;
    }

    public override void Write(Utf8JsonWriter json)
    {
        WriteType(json, "Lowercase");
        json.WriteEndObject();
    }
}

internal sealed class PrependNormalizer(string prepend) : Normalizer
{
    public override bool Apply(Passage source, Passage target)
    {
        if (source.Length == 0) return false;
        target.Append(prepend, source, 0, char.IsHighSurrogate(source.Text[0]) ? 2 : 1);
        target.Append(source, 0, source.Length);
        return true;
    }

    public override void Write(Utf8JsonWriter json)
    {
        WriteType(json, "Prepend");
        json.WriteString("prepend", prepend);
        json.WriteEndObject();
    }
}

internal sealed class ReplaceNormalizer(TextPattern pattern, string content) : Normalizer
{
    public override bool Apply(Passage source, Passage target)
    {
        if (pattern is LiteralPattern { Text: [var only] } && content is [var other])
        {
            target.Append(source, 0, source.Length);
            target.Replace(0, target.Length, only, other);
            return true;
        }

        var stretches = new List<TextSpan>();
        pattern.Find(source.Text, stretches);
        foreach (var (start, end, isMatch) in stretches)
        {
            if (isMatch) target.Append(content, source, start, end - start);
            else target.Append(source, start, end - start);
        }

        return true;
    }

    public override void Write(Utf8JsonWriter json)
    {
        WriteType(json, "Replace");
        json.WritePropertyName("pattern");
        pattern.Write(json);
        json.WriteString("content", content);
        json.WriteEndObject();
    }
}

internal sealed class StripNormalizer(bool left, bool right) : Normalizer
{
    public override bool Apply(Passage source, Passage target)
    {
        var text = source.Text;
        var start = left ? text.Length - text.TrimStart().Length : 0;
        var end = right ? Math.Max(start, text.TrimEnd().Length) : text.Length;
        target.Append(source, start, end - start);
        return true;
    }

    public override void Write(Utf8JsonWriter json)
    {
        WriteType(json, "Strip");
        json.WriteBoolean("strip_left", left);
        json.WriteBoolean("strip_right", right);
        json.WriteEndObject();
    }
}

/// <summary>
/// SentencePiece's character map as Hugging Face tokenizers applies it: to whole clusters of up to five bytes, otherwise
/// character by character, by the shortest entry that the cluster or character starts with.
/// </summary>
internal sealed class PrecompiledNormalizer : Normalizer
{
    private readonly string _encoded;
    private readonly CharacterMap _map;

    public PrecompiledNormalizer(JsonPart part)
    {
        _encoded = part.Text();
        var bytes = new byte[_encoded.Length];
        if (!Convert.TryFromBase64String(_encoded, bytes, out var count)) throw part.Error("not base64");
        _map = new CharacterMap(bytes.AsSpan(0, count), part.Path);
    }

    public override bool Apply(Passage source, Passage target)
    {
        var text = source.Text;
        for (var i = 0; i < text.Length;)
        {
            var length = StringInfo.GetNextTextElementLength(text[i..]);
            var cluster = text.Slice(i, length);
            if (Encoding.UTF8.GetByteCount(cluster) < 6 && _map.Shortest(cluster, 0) is { } replacement)
            {
                target.Append(replacement, source, i, length);
                i += length;
                continue;
            }

            for (var end = i + length; i < end;)
            {
                var taken = char.IsHighSurrogate(text[i]) ? 2 : 1;
                if (_map.Shortest(text.Slice(i, taken), 0) is { } single) target.Append(single, source, i, taken);
                else target.Append(source, i, taken);
                i += taken;
            }
        }

        return true;
    }

    public override void Write(Utf8JsonWriter json)
    {
        WriteType(json, "Precompiled");
        json.WriteString("precompiled_charsmap", _encoded);
        json.WriteEndObject();
    }
}
