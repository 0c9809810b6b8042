using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;

namespace Rho.Tokenization;

/// <summary>
/// Unicode normalization forms (UAX #15). Its own, because .NET's leaves text as it is where globalization is invariant,
/// and because tokens need to know which characters each result came from.
/// </summary>
internal static class UnicodeNormalization
{
    private const int HangulFirst = 0xAC00;
    private const int HangulCount = 11172;
    private const int LeadFirst = 0x1100;
    private const int VowelFirst = 0x1161;
    private const int TrailFirst = 0x11A7;
    private const int Vowels = 21;
    private const int Trails = 28;
    private const int PageBits = 7;
    private const byte SafeEverywhere = 15;

    private static readonly Lazy<Tables> Data = new(Load);

    private sealed class Tables
    {
        public readonly short[] Pages = new short[0x110000 >> PageBits];
        public readonly List<Entry> Entries = [];
        public readonly Dictionary<long, int> Compositions = [];

        public Entry? Find(int codePoint)
        {
            var page = Pages[codePoint >> PageBits];
            return page == 0 ? null : Entries[page + (codePoint & ((1 << PageBits) - 1))];
        }
    }

    private sealed record Entry(byte CombiningClass, byte Safe, int[] Canonical, int[] Compatibility);

    /// <summary>A character under way, with the part of the source it came from.</summary>
    private readonly record struct Element(int CodePoint, byte CombiningClass, int Start, int End);

    /// <summary>Writes the normalized text to <paramref name="target"/>; false, and nothing written, if it is so already.</summary>
    public static bool Apply(NormalizationForm form, Passage source, Passage target)
    {
        var text = source.Text;
        var limit = form switch
        {
            NormalizationForm.FormC => '\u0300',
            NormalizationForm.FormKC or NormalizationForm.FormKD => '\u00A0',
            _ => '\u00C0',
        };
        if (text.IndexOfAnyExceptInRange('\0', (char)(limit - 1)) < 0) return false;

        var safeBit = form switch
        {
            NormalizationForm.FormC => 1,
            NormalizationForm.FormD => 2,
            NormalizationForm.FormKC => 4,
            _ => 8,
        };
        var compatibility = form is NormalizationForm.FormKC or NormalizationForm.FormKD;
        var compose = form is NormalizationForm.FormC or NormalizationForm.FormKC;
        var tables = Data.Value;
        var elements = new List<Element>();
        var copied = 0;
        var lastSafe = -1;
        var changed = false;
        for (var i = 0; i < text.Length;)
        {
            var codePoint = CodePointAt(text, i, out var length);
            if (IsSafe(tables, codePoint, safeBit))
            {
                lastSafe = i;
                i += length;
                continue;
            }

            // From the last character that nothing before it can change, to the next one that nothing before it changes.
            var start = lastSafe >= copied ? lastSafe : i;
            var end = i + length;
            while (end < text.Length)
            {
                codePoint = CodePointAt(text, end, out length);
                if (IsSafe(tables, codePoint, safeBit)) break;
                end += length;
            }

            target.Append(source, copied, start - copied);
            elements.Clear();
            for (var at = start; at < end; at += length)
            {
                codePoint = CodePointAt(text, at, out length);
                Decompose(tables, codePoint, at, at + length, compatibility, elements);
            }

            Order(elements);
            if (compose) Compose(tables, elements);
            Write(elements, source, target);
            copied = end;
            i = end;
            changed = true;
        }

        if (changed) target.Append(source, copied, text.Length - copied);
        return changed;
    }

    private static int CodePointAt(ReadOnlySpan<char> text, int index, out int length)
    {
        Rune.DecodeFromUtf16(text[index..], out var rune, out length);
        return rune.Value;
    }

    private static bool IsSafe(Tables tables, int codePoint, int safeBit)
    {
        if ((uint)(codePoint - HangulFirst) < HangulCount) return (safeBit & (1 | 4)) != 0;
        return tables.Find(codePoint) is not { } entry || (entry.Safe & safeBit) != 0;
    }

    private static void Decompose(Tables tables, int codePoint, int start, int end, bool compatibility, List<Element> elements)
    {
        var syllable = codePoint - HangulFirst;
        if ((uint)syllable < HangulCount)
        {
            elements.Add(new Element(LeadFirst + syllable / (Vowels * Trails), 0, start, end));
            elements.Add(new Element(VowelFirst + syllable % (Vowels * Trails) / Trails, 0, start, end));
            if (syllable % Trails != 0) elements.Add(new Element(TrailFirst + syllable % Trails, 0, start, end));
            return;
        }

        if (tables.Find(codePoint) is not { } entry)
        {
            elements.Add(new Element(codePoint, 0, start, end));
            return;
        }

        var parts = compatibility ? entry.Compatibility : entry.Canonical;
        if (parts.Length == 0)
        {
            elements.Add(new Element(codePoint, entry.CombiningClass, start, end));
            return;
        }

        foreach (var part in parts) elements.Add(new Element(part, tables.Find(part)?.CombiningClass ?? 0, start, end));
    }

    /// <summary>Marks after a base character, by combining class, keeping the order of equal ones.</summary>
    private static void Order(List<Element> elements)
    {
        for (var i = 0; i < elements.Count; i++)
        {
            if (elements[i].CombiningClass == 0) continue;
            var end = i + 1;
            while (end < elements.Count && elements[end].CombiningClass != 0) end++;
            if (end - i > 1)
            {
                var marks = elements.GetRange(i, end - i).OrderBy(mark => mark.CombiningClass).ToArray();
                for (var k = 0; k < marks.Length; k++) elements[i + k] = marks[k];
            }

            i = end - 1;
        }
    }

    private static void Compose(Tables tables, List<Element> elements)
    {
        var list = CollectionsMarshal.AsSpan(elements);
        var kept = 0;
        var starter = -1;
        var lastClass = -1;
        foreach (var element in list)
        {
            // Blocked when something of the same or a higher class stands between.
            if (starter >= 0
                && lastClass < element.CombiningClass
                && TryCompose(tables, list[starter].CodePoint, element.CodePoint, out var composed))
            {
                list[starter] = new Element(composed, 0, list[starter].Start, Math.Max(list[starter].End, element.End));
                continue;
            }

            if (element.CombiningClass == 0)
            {
                starter = kept;
                lastClass = -1;
            }
            else
            {
                lastClass = element.CombiningClass;
            }

            list[kept++] = element;
        }

        elements.RemoveRange(kept, elements.Count - kept);
    }

    private static bool TryCompose(Tables tables, int first, int second, out int composed)
    {
        var lead = first - LeadFirst;
        var vowel = second - VowelFirst;
        if ((uint)lead < 19 && (uint)vowel < Vowels)
        {
            composed = HangulFirst + (lead * Vowels + vowel) * Trails;
            return true;
        }

        var syllable = first - HangulFirst;
        var trail = second - TrailFirst;
        if ((uint)syllable < HangulCount && syllable % Trails == 0 && trail is > 0 and < Trails)
        {
            composed = first + trail;
            return true;
        }

        return tables.Compositions.TryGetValue((long)first << 32 | (uint)second, out composed);
    }

    private static void Write(List<Element> elements, Passage source, Passage target)
    {
        Span<char> chars = stackalloc char[2];
        foreach (var element in elements)
        {
            var length = new Rune(element.CodePoint).EncodeToUtf16(chars);
            target.Append(chars[..length], source, element.Start, element.End - element.Start);
        }
    }

    private static Tables Load()
    {
        var tables = new Tables();
        using var stream = typeof(UnicodeNormalization).Assembly.GetManifestResourceStream("normalization.txt")!;
        using var reader = new StreamReader(stream);
        var none = new Entry(0, SafeEverywhere, [], []);
        tables.Entries.Add(none);
        while (reader.ReadLine() is { } line)
        {
            if (line.StartsWith('#')) continue;
            var fields = line.Split(';');
            var codePoint = int.Parse(fields[0], NumberStyles.HexNumber);
            var canonical = CodePoints(fields[3]);
            var compatibility = CodePoints(fields[4]);
            ref var page = ref tables.Pages[codePoint >> PageBits];
            if (page == 0)
            {
                page = (short)tables.Entries.Count;
                tables.Entries.AddRange(Enumerable.Repeat(none, 1 << PageBits));
            }

            tables.Entries[page + (codePoint & ((1 << PageBits) - 1))] = new Entry(
                fields[1].Length == 0 ? (byte)0 : byte.Parse(fields[1]), byte.Parse(fields[2]), canonical, compatibility.Length == 0 ? canonical : compatibility);
            var pair = CodePoints(fields[5]);
            if (pair.Length == 2) tables.Compositions.Add((long)pair[0] << 32 | (uint)pair[1], codePoint);
        }

        return tables;
    }

    private static int[] CodePoints(string field) =>
        field.Length == 0 ? [] : [.. field.Split(' ').Select(part => int.Parse(part, NumberStyles.HexNumber))];
}
