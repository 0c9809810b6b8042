using System.Buffers.Binary;
using System.Text;

namespace Rho.Tokenization;

/// <summary>
/// SentencePiece's precompiled_charsmap: a double array of UTF-8 texts (as darts-clone writes it) whose values are places in
/// a table of replacements, each ended by a zero byte.
/// </summary>
internal sealed class CharacterMap
{
    private readonly uint[] _units;
    private readonly byte[] _replacements;
    private readonly string?[] _texts;

    public CharacterMap(ReadOnlySpan<byte> blob, string name)
    {
        if (blob.Length < 4) throw Broken(name);
        var size = BinaryPrimitives.ReadUInt32LittleEndian(blob);
        if (size > (uint)blob.Length - 4 || size % 4 != 0 || size == 0) throw Broken(name);
        _units = new uint[size / 4];
        for (var i = 0; i < _units.Length; i++) _units[i] = BinaryPrimitives.ReadUInt32LittleEndian(blob[(4 + i * 4)..]);
        _replacements = blob[(4 + (int)size)..].ToArray();
        _texts = new string?[_replacements.Length];
    }

    private static RhoException Broken(string name) => new($"{name}: precompiled_charsmap is damaged");

    /// <summary>The replacement for the longest text that the map has at <paramref name="index"/>.</summary>
    public string? Longest(ReadOnlySpan<char> text, int index, out int length) => Match(text, index, longest: true, out length);

    /// <summary>The replacement for the shortest one.</summary>
    public string? Shortest(ReadOnlySpan<char> text, int index) => Match(text, index, longest: false, out _);

    private string? Match(ReadOnlySpan<char> text, int index, bool longest, out int length)
    {
        var value = -1;
        length = 0;
        var units = _units;
        var node = Offset(units[0]);
        Span<byte> bytes = stackalloc byte[4];
        for (var at = index; at < text.Length;)
        {
            Rune.DecodeFromUtf16(text[at..], out var rune, out var taken);
            var count = rune.EncodeToUtf8(bytes);
            for (var i = 0; i < count; i++)
            {
                node ^= bytes[i];
                if (node >= units.Length) return Replacement(value);
                var unit = units[node];
                if ((unit & (1U << 31 | 0xFF)) != bytes[i]) return Replacement(value);
                node ^= Offset(unit);
                if ((unit >> 8 & 1) == 0) continue;
                if (node >= units.Length || i + 1 < count) return Replacement(value);
                value = (int)(units[node] & int.MaxValue);
                length = at + taken - index;
                if (!longest) return Replacement(value);
            }

            at += taken;
        }

        return Replacement(value);
    }

    private static uint Offset(uint unit) => unit >> 10 << (int)((unit & 1U << 9) >> 6);

    private string? Replacement(int value)
    {
        if ((uint)value >= (uint)_texts.Length) return null;
        return _texts[value] ??= Read(value);
    }

    private string Read(int value)
    {
        var rest = _replacements.AsSpan(value);
        var end = rest.IndexOf((byte)0);
        return Encoding.UTF8.GetString(end < 0 ? rest : rest[..end]);
    }
}

/// <summary>The longest of some texts at a place.</summary>
internal sealed class PrefixMatcher
{
    private readonly Dictionary<char, string[]> _byFirst;

    public PrefixMatcher(IEnumerable<string> texts) =>
        _byFirst = texts.GroupBy(text => text[0]).ToDictionary(group => group.Key, group => group.OrderByDescending(text => text.Length).ToArray());

    public string? Match(ReadOnlySpan<char> text, int index)
    {
        if (_byFirst.Count == 0 || !_byFirst.TryGetValue(text[index], out var candidates)) return null;
        foreach (var candidate in candidates)
        {
            if (text[index..].StartsWith(candidate)) return candidate;
        }

        return null;
    }
}
