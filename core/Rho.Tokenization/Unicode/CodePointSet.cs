using System.Globalization;
using System.Text;

namespace Rho.Tokenization;

/// <summary>A set of Unicode characters: sorted ranges, both ends included, no surrogates.</summary>
internal sealed class CodePointSet
{
    private static readonly Lazy<CodePointSet[]> Categories = new(BuildCategories);
    private static readonly Lazy<Dictionary<int, int[]>> CaseVariants = new(BuildCaseVariants);

    private readonly List<(int First, int Last)> _ranges;

    private CodePointSet(List<(int First, int Last)> ranges) => _ranges = ranges;

    public IReadOnlyList<(int First, int Last)> Ranges => _ranges;

    public static CodePointSet All { get; } = new([(0, 0xD7FF), (0xE000, 0x10FFFF)]);

    public static CodePointSet Of(params ReadOnlySpan<(int First, int Last)> ranges)
    {
        var list = new List<(int First, int Last)>();
        foreach (var (first, last) in ranges)
        {
            if (first < 0xD800 && last > 0xDFFF)
            {
                list.Add((first, 0xD7FF));
                list.Add((0xE000, last));
            }
            else if (first is >= 0xD800 and <= 0xDFFF || last is >= 0xD800 and <= 0xDFFF)
            {
                if (first < 0xD800) list.Add((first, 0xD7FF));
                if (last > 0xDFFF) list.Add((0xE000, last));
            }
            else
            {
                list.Add((first, last));
            }
        }

        list.Sort();
        var merged = new List<(int First, int Last)>();
        foreach (var (first, last) in list)
        {
            if (merged.Count > 0 && first <= merged[^1].Last + 1) merged[^1] = (merged[^1].First, Math.Max(merged[^1].Last, last));
            else merged.Add((first, last));
        }

        return new CodePointSet(merged);
    }

    public static CodePointSet Category(params ReadOnlySpan<UnicodeCategory> categories)
    {
        var ranges = new List<(int First, int Last)>();
        foreach (var category in categories) ranges.AddRange(Categories.Value[(int)category]._ranges);
        return Of([.. ranges]);
    }

    public CodePointSet Union(CodePointSet other) => Of([.. _ranges, .. other._ranges]);

    public CodePointSet Complement()
    {
        var ranges = new List<(int First, int Last)>();
        var next = 0;
        foreach (var (first, last) in _ranges)
        {
            if (next < first) ranges.Add((next, first - 1));
            next = last + 1;
        }

        if (next <= 0x10FFFF) ranges.Add((next, 0x10FFFF));
        return Of([.. ranges]);
    }

    public CodePointSet Intersect(CodePointSet other) => Complement().Union(other.Complement()).Complement();

    public bool Contains(int codePoint) => _ranges.Exists(range => range.First <= codePoint && codePoint <= range.Last);

    /// <summary>With every character also those that differ from it in case only.</summary>
    public CodePointSet IgnoringCase()
    {
        var variants = CaseVariants.Value;
        var ranges = new List<(int First, int Last)>(_ranges);
        foreach (var (codePoint, others) in variants)
        {
            if (!Contains(codePoint)) continue;
            foreach (var other in others) ranges.Add((other, other));
        }

        return Of([.. ranges]);
    }

    private static CodePointSet[] BuildCategories()
    {
        var ranges = new List<(int First, int Last)>[30];
        for (var i = 0; i < ranges.Length; i++) ranges[i] = [];
        for (var codePoint = 0; codePoint <= 0x10FFFF; codePoint++)
        {
            if (codePoint is >= 0xD800 and <= 0xDFFF) continue;
            var list = ranges[(int)Rune.GetUnicodeCategory(new Rune(codePoint))];
            if (list.Count > 0 && list[^1].Last == codePoint - 1) list[^1] = (list[^1].First, codePoint);
            else list.Add((codePoint, codePoint));
        }

        return [.. ranges.Select(list => new CodePointSet(list))];
    }

    private static Dictionary<int, int[]> BuildCaseVariants()
    {
        var byFold = new Dictionary<int, List<int>>();
        for (var codePoint = 0; codePoint <= 0x1FFFF; codePoint++)
        {
            if (codePoint is (>= 0xD800 and <= 0xDFFF) or 0x130 or 0x131) continue;
            var folded = CaseFolding.Fold(codePoint);
            if (!byFold.TryGetValue(folded, out var list)) byFold[folded] = list = [];
            list.Add(codePoint);
        }

        return byFold.Values.Where(list => list.Count > 1).SelectMany(list => list.Select(c => (c, list.Where(other => other != c).ToArray()))).ToDictionary();
    }
}

internal static class CaseFolding
{
    /// <summary>Simple case folding: equal for characters that differ in case only.</summary>
    public static int Fold(int codePoint)
    {
        var rune = new Rune(codePoint);
        return codePoint switch
        {
            0x17F => 's',
            0x1E9E => 0xDF,
            _ => Rune.ToLowerInvariant(Rune.ToUpperInvariant(rune)).Value,
        };
    }
}
