using System.Security.Cryptography;
using System.Text.Json;

namespace Rho.Tokenization;

/// <summary>
/// SentencePiece's own normalization: the character map, blanks made visible, one put in front (or at the end), runs of them
/// shortened (sentencepiece/src/normalizer.cc).
/// </summary>
internal sealed class SentencePieceNormalizer : Normalizer
{
    private readonly SentencePieceFile _file;
    private readonly CharacterMap? _map;
    private readonly PrefixMatcher _untouched;
    private readonly char _blank;

    /// <param name="untouched">Finds user-defined symbols, which stay as they are.</param>
    public SentencePieceNormalizer(SentencePieceFile file, PrefixMatcher untouched, string name)
    {
        _file = file;
        _map = file.CharacterMap.Length == 0 ? null : new CharacterMap(file.CharacterMap, name);
        _untouched = untouched;
        _blank = file.EscapeBlanks ? '\u2581' : ' ';
    }

    public override bool Apply(Passage source, Passage target)
    {
        var text = source.Text;
        var at = 0;
        if (_file.RemoveExtraBlanks)
        {
            while (at < text.Length && Next(text, at, out var taken) is " ") at += taken;
        }

        // Nothing but blanks is nothing.
        if (at == text.Length) return true;
        if (_file.AddDummyPrefix && !_file.BlankAsSuffix) target.Append([_blank], source, at, 0);
        if (_map is null && !_file.RemoveExtraBlanks && !source.IsTracked)
        {
            var start = target.Length;
            target.Append(source, 0, text.Length);
            target.Replace(start, target.Length, ' ', _blank);
            at = text.Length;
        }

        var afterBlank = _file.RemoveExtraBlanks;
        while (at < text.Length)
        {
            var written = Next(text, at, out var taken);
            if (afterBlank) written = written.TrimStart(' ');
            if (!written.IsEmpty)
            {
                var start = target.Length;
                target.Append(written, source, at, 0);
                target.Replace(start, target.Length, ' ', _blank);
                afterBlank = _file.RemoveExtraBlanks && written[^1] == ' ';
            }

            at += taken;
        }

        var end = source.IsTracked ? source.Origin(at, at).Start : 0;
        if (_file.RemoveExtraBlanks)
        {
            var kept = target.Text.TrimEnd(_blank).Length;
            if (kept < target.Length)
            {
                if (source.IsTracked) end = target.Origin(kept, kept).Start;
                target.Shorten(kept);
            }
        }

        if (_file.AddDummyPrefix && _file.BlankAsSuffix) target.Append([_blank], source, source.IsTracked ? end - source.Origin(0, 0).Start : 0, 0);
        target.CloseGaps(end);
        return true;
    }

    /// <summary>What the next characters become: a user-defined symbol, a replacement, or the one character itself.</summary>
    private ReadOnlySpan<char> Next(ReadOnlySpan<char> text, int at, out int taken)
    {
        if (_untouched.Match(text, at) is { } symbol)
        {
            taken = symbol.Length;
            return symbol;
        }

        if (_map?.Longest(text, at, out taken) is { } replacement) return replacement;
        taken = char.IsHighSurrogate(text[at]) ? 2 : 1;
        return text.Slice(at, taken);
    }

    public override void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteString("type", "SentencePiece");
        json.WriteString("map", Convert.ToHexStringLower(SHA256.HashData(_file.CharacterMap)));
        json.WriteBoolean("add_dummy_prefix", _file.AddDummyPrefix);
        json.WriteBoolean("remove_extra_whitespaces", _file.RemoveExtraBlanks);
        json.WriteBoolean("escape_whitespaces", _file.EscapeBlanks);
        json.WriteBoolean("treat_whitespace_as_suffix", _file.BlankAsSuffix);
        json.WriteEndObject();
    }
}
