using System.Text;

namespace Rho.Tokenization;

/// <summary>Takes what encoding finds: words for the model, and added tokens.</summary>
internal abstract class TokenSink
{
    public abstract bool WantsOffsets { get; }

    public abstract void AddToken(int id, int start, int end);

    /// <summary>A word of a text whose offsets nobody wants.</summary>
    public abstract void AddWord(TokenModel model, ReadOnlySpan<char> word);

    public abstract void AddWord(TokenModel model, Passage passage, (int Start, int End) range);
}

internal sealed class IdSink : TokenSink
{
    private List<int> _output = [];

    /// <summary>Sets where ids go; kept for the next text, so that encoding allocates nothing.</summary>
    public IdSink To(List<int> output)
    {
        _output = output;
        return this;
    }

    public override bool WantsOffsets => false;

    public override void AddToken(int id, int start, int end) => _output.Add(id);

    public override void AddWord(TokenModel model, ReadOnlySpan<char> word) => model.Encode(word, _output);

    public override void AddWord(TokenModel model, Passage passage, (int Start, int End) range) =>
        model.Encode(passage.Text[range.Start..range.End], _output);
}

internal sealed class SpanSink(List<TokenSpan> output) : TokenSink
{
    private readonly List<Symbol> _symbols = [];

    public override bool WantsOffsets => true;

    public override void AddToken(int id, int start, int end) => output.Add(new TokenSpan(id, start, end));

    public override void AddWord(TokenModel model, ReadOnlySpan<char> word) => throw new InvalidOperationException("This word has no offsets.");

    public override void AddWord(TokenModel model, Passage passage, (int Start, int End) range)
    {
        _symbols.Clear();
        var word = passage.Text[range.Start..range.End];
        model.Encode(word, _symbols);
        var bytesDone = 0;
        var position = 0;
        var positionBytes = 0;
        foreach (var symbol in _symbols)
        {
            // A token covers every character of which it has a byte.
            var from = Seek(word, bytesDone, ref position, ref positionBytes);
            bytesDone += symbol.Bytes;
            var to = Seek(word, bytesDone, ref position, ref positionBytes);
            if (positionBytes < bytesDone && to < word.Length) to += CharLength(word, to);
            var (start, end) = passage.Origin(range.Start + from, range.Start + to);
            output.Add(new TokenSpan(symbol.Id, start, end));
        }
    }

    /// <summary>Moves to the character that holds byte <paramref name="target"/> and returns its index.</summary>
    private static int Seek(ReadOnlySpan<char> word, int target, ref int position, ref int positionBytes)
    {
        while (position < word.Length)
        {
            var length = CharLength(word, position);
            var bytes = Encoding.UTF8.GetByteCount(word.Slice(position, length));
            if (positionBytes + bytes > target) break;
            position += length;
            positionBytes += bytes;
        }

        return position;
    }

    private static int CharLength(ReadOnlySpan<char> word, int index) =>
        char.IsHighSurrogate(word[index]) && index + 1 < word.Length ? 2 : 1;
}
