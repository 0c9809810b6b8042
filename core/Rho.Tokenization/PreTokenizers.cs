using System.Text.Json;

namespace Rho.Tokenization;

/// <summary>A text cut into the words that the model sees.</summary>
internal sealed class Pieces
{
    private Passage _spareText = new();
    private Passage _rewritten = new();
    private readonly List<TextSpan> _stretches = [];
    private List<(int Start, int End)> _spareRanges = [];

    /// <summary>What the ranges are ranges of: the source, or what pre-tokenizers made of it.</summary>
    public Passage Text { get; private set; } = new();

    public List<(int Start, int End)> Ranges { get; private set; } = [];

    /// <summary>Whether the first range starts where the original text starts.</summary>
    public bool AtStart { get; private set; }

    /// <summary>Starts with one range of a passage, which stays as it is.</summary>
    public void Reset(Passage text, int start, int end, bool atStart)
    {
        Text = text;
        Ranges.Clear();
        if (start < end) Ranges.Add((start, end));
        AtStart = atStart;
    }

    /// <summary>Cuts each range at the matches of a pattern.</summary>
    public void Split(TextPattern pattern, SplitBehavior behavior, bool invert = false)
    {
        _spareRanges.Clear();
        foreach (var (start, end) in Ranges)
        {
            _stretches.Clear();
            pattern.Find(Text.Text[start..end], _stretches);
            Cut(start, behavior, invert);
        }

        (Ranges, _spareRanges) = (_spareRanges, Ranges);
    }

    private void Cut(int offset, SplitBehavior behavior, bool invert)
    {
        var first = _spareRanges.Count;
        switch (behavior)
        {
            case SplitBehavior.Isolated:
            case SplitBehavior.Removed:
                foreach (var (start, end, isMatch) in _stretches)
                {
                    if (behavior == SplitBehavior.Isolated || isMatch == invert) _spareRanges.Add((offset + start, offset + end));
                }

                break;
            case SplitBehavior.Contiguous:
            case SplitBehavior.MergedWithPrevious:
                var previous = false;
                foreach (var (start, end, matched) in _stretches)
                {
                    var isMatch = matched != invert;
                    var joins = behavior == SplitBehavior.Contiguous ? isMatch == previous : isMatch && !previous;
                    if (joins && _spareRanges.Count > first) _spareRanges[^1] = (_spareRanges[^1].Start, offset + end);
                    else _spareRanges.Add((offset + start, offset + end));
                    previous = isMatch;
                }

                break;
            case SplitBehavior.MergedWithNext:
                var following = false;
                for (var i = _stretches.Count - 1; i >= 0; i--)
                {
                    var (start, end, matched) = _stretches[i];
                    var isMatch = matched != invert;
                    if (isMatch && !following && _spareRanges.Count > first) _spareRanges[^1] = (offset + start, _spareRanges[^1].End);
                    else _spareRanges.Add((offset + start, offset + end));
                    following = isMatch;
                }

                _spareRanges.Reverse(first, _spareRanges.Count - first);
                break;
        }

        var kept = first;
        for (var i = first; i < _spareRanges.Count; i++)
        {
            if (_spareRanges[i].Start < _spareRanges[i].End) _spareRanges[kept++] = _spareRanges[i];
        }

        _spareRanges.RemoveRange(kept, _spareRanges.Count - kept);
    }

    /// <summary>Writes each range anew; <paramref name="write"/> gets source, target, range and its index.</summary>
    public void Rewrite(Action<Passage, Passage, (int Start, int End), int> write)
    {
        _spareText.Clear(Text.IsTracked);
        for (var i = 0; i < Ranges.Count; i++)
        {
            var start = _spareText.Length;
            write(Text, _spareText, Ranges[i], i);
            Ranges[i] = (start, _spareText.Length);
        }

        Text = _spareText;
        (_spareText, _rewritten) = (_rewritten, _spareText);
    }
}

/// <summary>Cuts text into words; one of tokenizer.json's pre_tokenizer types.</summary>
internal abstract class PreTokenizer
{
    public abstract void Apply(Pieces pieces);

    public abstract void Write(Utf8JsonWriter json);

    /// <summary>The splitter that does the same on untouched text, if there is one.</summary>
    public virtual Splitter? Direct => null;

    public static IEnumerable<PreTokenizer> Read(JsonPart part)
    {
        var type = part.Text("type");
        switch (type)
        {
            case "Sequence":
                part.Allow("type", "pretokenizers");
                return part.Get("pretokenizers").Items().SelectMany(Read).ToArray();
            case "ByteLevel":
                part.Allow("type", "add_prefix_space", "trim_offsets", "use_regex");
                return [new ByteLevelPreTokenizer(part.Flag("add_prefix_space", true), part.Flag("trim_offsets", true), part.Flag("use_regex", true))];
            case "Split":
                part.Allow("type", "pattern", "behavior", "invert");
                return [new SplitPreTokenizer(TextPattern.Read(part.Get("pattern")), Behavior(part.Get("behavior")), part.Flag("invert", false))];
            case "Metaspace":
                var (replacement, prepend, split) = MetaspacePreTokenizer.ReadSettings(part);
                return [new MetaspacePreTokenizer(replacement, prepend, split)];
            case "Digits":
                part.Allow("type", "individual_digits");
                var single = part.Flag("individual_digits", false);
                return [new SimplePreTokenizer(type, CharacterPattern.Numeric, single ? SplitBehavior.Isolated : SplitBehavior.Contiguous, false, json => json.WriteBoolean("individual_digits", single))];
            case "Punctuation":
                part.Allow("type", "behavior");
                var behavior = part.Find("behavior").IsNull ? SplitBehavior.Isolated : Behavior(part.Get("behavior"));
                return [new SimplePreTokenizer(type, CharacterPattern.Punctuation, behavior, false, json => json.WriteString("behavior", behavior.ToString()))];
            case "Whitespace":
                part.Allow("type");
                return [new SimplePreTokenizer(type, WordPattern.Instance, SplitBehavior.Removed, invert: true)];
            case "WhitespaceSplit":
                part.Allow("type");
                return [new SimplePreTokenizer(type, CharacterPattern.WhiteSpace, SplitBehavior.Removed, invert: false)];
            default:
                throw part.Error($"pre-tokenizer '{type}' is not supported");
        }
    }

    private static SplitBehavior Behavior(JsonPart part) => part.Text() switch
    {
        "Removed" => SplitBehavior.Removed,
        "Isolated" => SplitBehavior.Isolated,
        "MergedWithPrevious" => SplitBehavior.MergedWithPrevious,
        "MergedWithNext" => SplitBehavior.MergedWithNext,
        "Contiguous" => SplitBehavior.Contiguous,
        var other => throw part.Error($"'{other}' is not supported"),
    };
}

/// <summary>
/// GPT-2's pattern, unless the file has its own before it. The spelling of bytes as letters is left to the model, which is
/// why this type can only be the last one.
/// </summary>
internal sealed class ByteLevelPreTokenizer(bool addPrefixSpace, bool trimOffsets, bool useRegex) : PreTokenizer
{
    private static readonly RegexPattern _pattern = RegexPattern.Create(Gpt2Splitter.Pattern);

    public bool AddPrefixSpace => addPrefixSpace;

    public bool UseRegex => useRegex;

    public override Splitter? Direct => useRegex && !addPrefixSpace ? Gpt2Splitter.Instance : null;

    public override void Apply(Pieces pieces)
    {
        if (addPrefixSpace)
        {
            pieces.Rewrite((source, target, range, _) =>
            {
                if (source.Text[range.Start] != ' ') target.Append(" ", source, range.Start, 1);
                target.Append(source, range.Start, range.End - range.Start);
            });
        }

        if (useRegex) pieces.Split(_pattern, SplitBehavior.Isolated);
    }

    public override void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteString("type", "ByteLevel");
        json.WriteBoolean("add_prefix_space", addPrefixSpace);
        json.WriteBoolean("trim_offsets", trimOffsets);
        json.WriteBoolean("use_regex", useRegex);
        json.WriteEndObject();
    }
}

internal enum SplitBehavior
{
    Removed,
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

/// <summary>Cuts at the matches of a pattern.</summary>
internal sealed class SplitPreTokenizer(TextPattern pattern, SplitBehavior behavior, bool invert) : PreTokenizer
{
    /// <summary>Matches of a known splitter adjoin, so keeping the matches alone keeps everything.</summary>
    public override Splitter? Direct =>
        pattern is RegexPattern { Known: { } known } && (behavior, invert) is (SplitBehavior.Isolated, _) or (SplitBehavior.Removed, true) ? known : null;

    public override void Apply(Pieces pieces) => pieces.Split(pattern, behavior, invert);

    public override void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteString("type", "Split");
        json.WritePropertyName("pattern");
        pattern.Write(json);
        json.WriteString("behavior", behavior.ToString());
        json.WriteBoolean("invert", invert);
        json.WriteEndObject();
    }
}

/// <summary>One of the pre-tokenizers that cut at a kind of characters and have few or no settings.</summary>
internal sealed class SimplePreTokenizer(string type, TextPattern pattern, SplitBehavior behavior, bool invert, Action<Utf8JsonWriter>? settings = null) : PreTokenizer
{
    public override void Apply(Pieces pieces) => pieces.Split(pattern, behavior, invert);

    public override void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteString("type", type);
        settings?.Invoke(json);
        json.WriteEndObject();
    }
}

internal enum PrependScheme
{
    Always,
    First,
    Never,
}

/// <summary>Blanks become a visible character, one is put in front, and words are cut before it.</summary>
internal sealed class MetaspacePreTokenizer(char replacement, PrependScheme prepend, bool split) : PreTokenizer
{
    private readonly CharacterPattern _pattern = CharacterPattern.Only(replacement);

    public override void Apply(Pieces pieces)
    {
        pieces.Rewrite((source, target, range, index) =>
        {
            var first = source.Text[range.Start];
            var wanted = prepend == PrependScheme.Always || (prepend == PrependScheme.First && index == 0 && pieces.AtStart);
            if (wanted && first != ' ' && first != replacement) target.Append([replacement], source, range.Start, char.IsHighSurrogate(first) ? 2 : 1);
            var start = target.Length;
            target.Append(source, range.Start, range.End - range.Start);
            target.Replace(start, target.Length, ' ', replacement);
        });
        if (split) pieces.Split(_pattern, SplitBehavior.MergedWithNext);
    }

    public override void Write(Utf8JsonWriter json) => Write(json, replacement, prepend, split);

    public static void Write(Utf8JsonWriter json, char replacement, PrependScheme prepend, bool split)
    {
        json.WriteStartObject();
        json.WriteString("type", "Metaspace");
        json.WriteString("replacement", replacement.ToString());
        json.WriteString("prepend_scheme", prepend.ToString().ToLowerInvariant());
        json.WriteBoolean("split", split);
        json.WriteEndObject();
    }

    public static (char Replacement, PrependScheme Prepend, bool Split) ReadSettings(JsonPart part)
    {
        part.Allow("type", "replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep");
        var prepend = part.OptionalText("prepend_scheme") switch
        {
            null or "always" => PrependScheme.Always,
            "first" => PrependScheme.First,
            "never" => PrependScheme.Never,
            var other => throw part.Find("prepend_scheme").Error($"'{other}' is not supported"),
        };
        if (!part.Flag("add_prefix_space", true)) prepend = PrependScheme.Never;
        return (part.Character("replacement"), prepend, part.Flag("split", true));
    }
}
