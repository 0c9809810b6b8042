using System.Security.Cryptography;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace Rho.Tokenization;

internal sealed record TokenNames(string? Bos, string? Eos, string? Pad, string? Unknown);

/// <summary>What tokenizer.json describes: the stages of a tokenizer.</summary>
internal sealed record TokenizerParts
{
    public required TokenModel Model { get; init; }

    public IReadOnlyList<AddedToken> AddedTokens { get; init; } = [];

    public IReadOnlyList<Normalizer> Normalizers { get; init; } = [];

    public IReadOnlyList<PreTokenizer> PreTokenizers { get; init; } = [];

    public PostProcessor? PostProcessor { get; init; }

    public IReadOnlyList<DecoderStep> Decoders { get; init; } = [];

    /// <summary>The tokenizer.model that all this comes from, if it does not come from a tokenizer.json.</summary>
    public byte[]? SentencePiece { get; init; }

    /// <summary>The tokens with a role, where the model itself names them.</summary>
    public TokenNames Names { get; init; } = new(null, null, null, null);

    /// <summary>Reads tokenizer.json. Truncation and padding are left out: they are a caller's matter, not the tokenizer's.</summary>
    public static TokenizerParts Read(JsonPart part)
    {
        part.Allow("version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model");
        var normalizer = part.Find("normalizer");
        var cutting = part.Find("pre_tokenizer");
        PreTokenizer[] preTokenizers = cutting.IsNull ? [] : [.. PreTokenizer.Read(cutting)];
        if (preTokenizers.Take(preTokenizers.Length - 1).Any(step => step is ByteLevelPreTokenizer))
            throw cutting.Error("ByteLevel is supported as the last pre-tokenizer only");

        var model = part.Get("model");
        var added = part.Find("added_tokens");
        var post = part.Find("post_processor");
        var decoder = part.Find("decoder");
        return new TokenizerParts
        {
            Model = model.OptionalText("type") switch
            {
                "Unigram" when preTokenizers is [.., ByteLevelPreTokenizer] => throw model.Error("Unigram after a ByteLevel pre-tokenizer is not supported"),
                "Unigram" => UnigramModel.Read(model),
                "BPE" or null => BpeModel.Read(model, preTokenizers is [.., ByteLevelPreTokenizer]),
                var type => throw model.Error($"model '{type}' is not supported"),
            },
            AddedTokens = added.IsNull ? [] : [.. added.Items().Select(ReadAddedToken)],
            Normalizers = normalizer.IsNull ? [] : [.. Normalizer.Read(normalizer)],
            PreTokenizers = preTokenizers,
            PostProcessor = post.IsNull ? null : PostProcessor.Read(post),
            Decoders = decoder.IsNull ? [] : [.. DecoderStep.Read(decoder)],
        };
    }

    /// <summary>With what tokenizer_config.json says beyond tokenizer.json, as transformers takes it.</summary>
    public TokenizerParts With(TokenizerSettings settings)
    {
        var known = AddedTokens.Select(token => token.Content).ToHashSet(StringComparer.Ordinal);
        var parts = this with { AddedTokens = [.. AddedTokens, .. settings.AddedTokens.Where(token => known.Add(token.Content))] };

        // transformers' Llama classes, which also stand around a tokenizer.model, decide by these two settings alone.
        var llama = settings.TokenizerClass is "LlamaTokenizer" or "LlamaTokenizerFast" or "CodeLlamaTokenizer" or "CodeLlamaTokenizerFast";
        if (SentencePiece is null && !(llama && (settings.AddBos ?? settings.AddEos) is not null)) return parts;
        var before = parts.Named(settings.AddBos ?? true, settings.BosToken ?? Names.Bos);
        var after = parts.Named(settings.AddEos ?? false, settings.EosToken ?? Names.Eos);
        return parts with { PostProcessor = PostProcessor.Template(before, after) };
    }

    private (string, int)[] Named(bool wanted, string? token)
    {
        if (!wanted || token is null) return [];
        if (AddedTokens.FirstOrDefault(added => added.Content == token) is { } found) return [(token, found.Id)];
        return Model.Vocabulary.TryGet(token, out var id) ? [(token, id)] : [];
    }

    private static AddedToken ReadAddedToken(JsonPart part)
    {
        part.Allow("id", "content", "special", "normalized", "lstrip", "rstrip", "single_word");
        return AddedToken.Read(part, part.Get("id").TokenId());
    }

    public void Write(Stream stream)
    {
        using var json = new Utf8JsonWriter(stream, new JsonWriterOptions { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping });
        json.WriteStartObject();
        json.WriteString("version", "1.0");
        json.WriteNull("truncation");
        json.WriteNull("padding");
        json.WriteStartArray("added_tokens");
        foreach (var token in AddedTokens.OrderBy(token => token.Id)) WriteAddedToken(json, token, withSpecial: true);
        json.WriteEndArray();
        WriteSteps(json, "normalizer", "normalizers", [.. Normalizers.Select<Normalizer, Action<Utf8JsonWriter>>(step => step.Write)]);
        WriteSteps(json, "pre_tokenizer", "pretokenizers", [.. PreTokenizers.Select<PreTokenizer, Action<Utf8JsonWriter>>(step => step.Write)]);
        json.WritePropertyName("post_processor");
        if (PostProcessor is null) json.WriteNullValue();
        else PostProcessor.Write(json);
        WriteSteps(json, "decoder", "decoders", [.. Decoders.Select<DecoderStep, Action<Utf8JsonWriter>>(step => step.Write)]);
        json.WritePropertyName("model");
        Model.Write(json);
        json.WriteEndObject();
    }

    /// <summary>added_tokens.json: ids by token.</summary>
    public void WriteAddedTokens(Stream stream)
    {
        using var json = new Utf8JsonWriter(stream, new JsonWriterOptions { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping });
        json.WriteStartObject();
        foreach (var token in AddedTokens) json.WriteNumber(token.Content, token.Id);
        json.WriteEndObject();
    }

    private static void WriteSteps(Utf8JsonWriter json, string name, string listName, Action<Utf8JsonWriter>[] steps)
    {
        json.WritePropertyName(name);
        if (steps.Length == 0)
        {
            json.WriteNullValue();
            return;
        }

        if (steps.Length == 1)
        {
            steps[0](json);
            return;
        }

        json.WriteStartObject();
        json.WriteString("type", "Sequence");
        json.WriteStartArray(listName);
        foreach (var step in steps) step(json);
        json.WriteEndArray();
        json.WriteEndObject();
    }

    private static void WriteAddedToken(Utf8JsonWriter json, AddedToken token, bool withSpecial)
    {
        json.WriteStartObject();
        json.WriteNumber("id", token.Id);
        json.WriteString("content", token.Content);
        json.WriteBoolean("single_word", token.SingleWord);
        json.WriteBoolean("lstrip", token.LeftStrip);
        json.WriteBoolean("rstrip", token.RightStrip);
        json.WriteBoolean("normalized", token.Normalized);
        if (withSpecial) json.WriteBoolean("special", token.Special);
        json.WriteEndObject();
    }

    /// <summary>
    /// "sha256:" and the hash of all that decides about ids, written in one fixed form, so that a file saved again by other
    /// software (defaults spelled out, merges as arrays, another order of the vocabulary) keeps its fingerprint.
    /// </summary>
    public string Fingerprint()
    {
        using var stream = new MemoryStream();
        using (var json = new Utf8JsonWriter(stream))
        {
            json.WriteStartArray();
            json.WriteStartArray();
            foreach (var token in AddedTokens.OrderBy(token => token.Id)) WriteAddedToken(json, token, withSpecial: false);
            json.WriteEndArray();
            json.WriteStartArray();
            foreach (var step in Normalizers) step.Write(json);
            json.WriteEndArray();
            json.WriteStartArray();
            foreach (var step in PreTokenizers) step.Write(json);
            json.WriteEndArray();
            json.WriteStringValue($"{string.Join(',', PostProcessor?.Prefix ?? [])}|{string.Join(',', PostProcessor?.Suffix ?? [])}");
            Model.Write(json);
            json.WriteEndArray();
        }

        return "sha256:" + Convert.ToHexStringLower(SHA256.HashData(stream.GetBuffer().AsSpan(0, (int)stream.Length)));
    }
}
