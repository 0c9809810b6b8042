using System.Text.Json;

namespace Rho.Tokenization;

/// <summary>A text cut into the words that the model sees.</summary>
internal sealed class Pieces
{
    private Passage _spareText = new();
    private Passage _rewritten = new();
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

    /// <summary>Cuts each range; <paramref name="cut"/> gets the range and adds what becomes of it.</summary>
    public void Split(Action<Passage, (int Start, int End), List<(int Start, int End)>> cut)
    {
        _spareRanges.Clear();
        foreach (var range in Ranges) cut(Text, range, _spareRanges);
        (Ranges, _spareRanges) = (_spareRanges, Ranges);
        Ranges.RemoveAll(range => range.Start >= range.End);
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
                return [SplitPreTokenizer.ReadSplit(part)];
            default:
                throw part.Error($"pre-tokenizer '{type}' is not supported");
        }
    }
}

/// <summary>
/// GPT-2's pattern, unless the file has its own before it. The spelling of bytes as letters is left to the model, which is
/// why this type can only be the last one.
/// </summary>
internal sealed class ByteLevelPreTokenizer(bool addPrefixSpace, bool trimOffsets, bool useRegex) : PreTokenizer
{
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

        if (!useRegex) return;
        pieces.Split((text, range, words) =>
        {
            var piece = text.Text[range.Start..range.End];
            for (var start = 0; start < piece.Length;)
            {
                var end = Gpt2Splitter.Instance.Next(piece, start);
                words.Add((range.Start + start, range.Start + end));
                start = end;
            }
        });
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
internal sealed class SplitPreTokenizer : PreTokenizer
{
    private readonly string _pattern;
    private readonly bool _isRegex;
    private readonly SplitBehavior _behavior;
    private readonly bool _invert;
    private readonly Splitter? _splitter;

    public SplitPreTokenizer(string pattern, bool isRegex, SplitBehavior behavior, bool invert)
    {
        _pattern = pattern;
        _isRegex = isRegex;
        _behavior = behavior;
        _invert = invert;
        _splitter = !isRegex ? null : pattern switch
        {
            Gpt2Splitter.Pattern => Gpt2Splitter.Instance,
            LlamaSplitter.Llama3Pattern => LlamaSplitter.Llama3,
            LlamaSplitter.Qwen2Pattern => LlamaSplitter.Qwen2,
            _ => null,
        };
    }

    /// <summary>Matches of a known splitter adjoin, so keeping the matches alone keeps everything.</summary>
    public override Splitter? Direct => (_behavior, _invert) is (SplitBehavior.Isolated, _) or (SplitBehavior.Removed, true) ? _splitter : null;

    public override void Apply(Pieces pieces)
    {
        pieces.Split((text, range, words) =>
        {
            var piece = text.Text[range.Start..range.End];
            var splitter = _splitter!;
            for (var start = 0; start < piece.Length;)
            {
                var end = splitter.Next(piece, start);
                words.Add((range.Start + start, range.Start + end));
                start = end;
            }
        });
    }

    public override void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteString("type", "Split");
        json.WriteStartObject("pattern");
        json.WriteString(_isRegex ? "Regex" : "String", _pattern);
        json.WriteEndObject();
        json.WriteString("behavior", _behavior.ToString());
        json.WriteBoolean("invert", _invert);
        json.WriteEndObject();
    }

    public static SplitPreTokenizer ReadSplit(JsonPart part)
    {
        part.Allow("type", "pattern", "behavior", "invert");
        var pattern = part.Get("pattern");
        pattern.Allow("String", "Regex");
        var regex = pattern.OptionalText("Regex");
        if (!Enum.TryParse<SplitBehavior>(part.Text("behavior"), out var behavior)) throw part.Find("behavior").Error($"'{part.Text("behavior")}' is not supported");
        var split = new SplitPreTokenizer(regex ?? pattern.Text("String"), regex is not null, behavior, part.Flag("invert", false));
        return split.Direct is null ? throw pattern.Error("this pattern is not supported") : split;
    }
}
