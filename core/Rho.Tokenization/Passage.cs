namespace Rho.Tokenization;

/// <summary>
/// A text on its way through normalizers and pre-tokenizers: its characters and, when tracked, the range of the original
/// text that each of them stands for.
/// </summary>
internal sealed class Passage
{
    private char[] _chars = new char[256];
    private int[] _starts = [];
    private int[] _ends = [];
    private int _length;
    private bool _tracked;

    public ReadOnlySpan<char> Text => _chars.AsSpan(0, _length);

    public int Length => _length;

    public bool IsTracked => _tracked;

    public void Clear(bool tracked)
    {
        _length = 0;
        _tracked = tracked;
        if (_chars.Length > 1 << 20)
        {
            _chars = new char[256];
            _starts = [];
            _ends = [];
        }

        if (tracked && _starts.Length < _chars.Length)
        {
            _starts = new int[_chars.Length];
            _ends = new int[_chars.Length];
        }
    }

    /// <summary>Takes the original text itself, which stands at <paramref name="offset"/>.</summary>
    public void Load(ReadOnlySpan<char> text, int offset, bool tracked)
    {
        Clear(tracked);
        Reserve(text.Length);
        text.CopyTo(_chars);
        _length = text.Length;
        if (!tracked) return;
        for (var i = 0; i < text.Length; i++)
        {
            // Both halves of a surrogate pair stand for the whole character.
            var pairStart = char.IsLowSurrogate(text[i]) && i > 0 && char.IsHighSurrogate(text[i - 1]) ? i - 1 : i;
            _starts[i] = offset + pairStart;
            _ends[i] = offset + (char.IsHighSurrogate(text[i]) && i + 1 < text.Length ? i + 2 : i + 1);
        }
    }

    /// <summary>The range of the original text that characters [start, end) stand for.</summary>
    public (int Start, int End) Origin(int start, int end)
    {
        if (start < end) return (_starts[start], _ends[end - 1]);
        return start < _length ? (_starts[start], _starts[start]) : (_length > 0 ? _ends[_length - 1] : 0, _length > 0 ? _ends[_length - 1] : 0);
    }

    /// <summary>Copies part of another passage as it is.</summary>
    public void Append(Passage source, int start, int length)
    {
        Reserve(_length + length);
        source._chars.AsSpan(start, length).CopyTo(_chars.AsSpan(_length));
        if (_tracked)
        {
            source._starts.AsSpan(start, length).CopyTo(_starts.AsSpan(_length));
            source._ends.AsSpan(start, length).CopyTo(_ends.AsSpan(_length));
        }

        _length += length;
    }

    /// <summary>Appends text that stands for part of another passage.</summary>
    public void Append(ReadOnlySpan<char> text, Passage source, int start, int length)
    {
        Reserve(_length + text.Length);
        text.CopyTo(_chars.AsSpan(_length));
        if (_tracked && source._length > 0)
        {
            var (first, last) = source.Origin(start, start + length);
            _starts.AsSpan(_length, text.Length).Fill(first);
            _ends.AsSpan(_length, text.Length).Fill(last);
        }

        _length += text.Length;
    }

    /// <summary>Replaces one character by another in part of the passage.</summary>
    public void Replace(int start, int end, char from, char to) => _chars.AsSpan(start, end - start).Replace(from, to);

    /// <summary>Takes characters off the end.</summary>
    public void Shorten(int length) => _length = length;

    /// <summary>Lets each character stand for all up to where the next one starts, the last one up to <paramref name="end"/>.</summary>
    public void CloseGaps(int end)
    {
        if (!_tracked || _length == 0) return;
        _starts.AsSpan(1, _length - 1).CopyTo(_ends);
        _ends[_length - 1] = end;
    }

    private void Reserve(int length)
    {
        if (length <= _chars.Length) return;
        var size = (int)Math.Min(Math.Max((long)length, _chars.Length * 2L), Array.MaxLength);
        Array.Resize(ref _chars, size);
        if (!_tracked) return;
        Array.Resize(ref _starts, size);
        Array.Resize(ref _ends, size);
    }
}
