using System.Text;
using System.Text.Json;

namespace Rho.Tokenization;

/// <summary>
/// One step from tokens to text. Steps are chained and fed token by token; whole decoding and streaming are the same code,
/// so that they cannot differ.
/// </summary>
internal abstract class DecoderStep
{
    /// <summary>Starts this step, which hands on to <paramref name="next"/>.</summary>
    public abstract DecoderState Start(DecoderState next);

    public abstract void Write(Utf8JsonWriter json);

    public static IEnumerable<DecoderStep> Read(JsonPart part)
    {
        var type = part.Text("type");
        switch (type)
        {
            case "Sequence":
                part.Allow("type", "decoders");
                return part.Get("decoders").Items().SelectMany(Read).ToArray();
            case "ByteLevel":
                part.Allow("type", "add_prefix_space", "trim_offsets", "use_regex");
                return [new ByteLevelDecoder()];
            default:
                throw part.Error($"decoder '{type}' is not supported");
        }
    }
}

/// <summary>A decoding under way.</summary>
internal abstract class DecoderState
{
    /// <summary>Takes a token, or a part of one.</summary>
    /// <param name="ends">Whether the token ends with this part.</param>
    public abstract void Push(ReadOnlySpan<char> part, bool ends);

    /// <summary>No token follows: hands on what was held back.</summary>
    public abstract void Finish();
}

/// <summary>The end of the chain: text as far as it is certain. Without any decoder, tokens are separated by blanks.</summary>
internal sealed class DecoderOutput(bool separated) : DecoderState
{
    private bool _inside;
    private bool _any;

    public StringBuilder Text { get; } = new();

    public override void Push(ReadOnlySpan<char> part, bool ends)
    {
        if (separated && _any && !_inside) Text.Append(' ');
        _any = true;
        _inside = !ends;
        Text.Append(part);
    }

    public override void Finish() { }

    public string Take()
    {
        var text = Text.ToString();
        Text.Clear();
        return text;
    }
}

/// <summary>Letters of <see cref="ByteAlphabet"/> back to bytes, and all bytes together to text.</summary>
internal sealed class ByteLevelDecoder : DecoderStep
{
    public override DecoderState Start(DecoderState next) => new State(next);

    public override void Write(Utf8JsonWriter json) => new ByteLevelPreTokenizer(true, true, true).Write(json);

    internal sealed class State(DecoderState next) : DecoderState
    {
        private readonly Decoder _utf8 = Encoding.UTF8.GetDecoder();
        private readonly StringBuilder _token = new();
        private char[] _chars = new char[64];

        public override void Push(ReadOnlySpan<char> part, bool ends)
        {
            _token.Append(part);
            if (!ends) return;
            PushBytes(ByteAlphabet.Bytes(_token.ToString()), flush: false);
            _token.Clear();
        }

        public void PushBytes(ReadOnlySpan<byte> bytes, bool flush)
        {
            if (_chars.Length < bytes.Length + 4) _chars = new char[bytes.Length * 2 + 4];
            var count = _utf8.GetChars(bytes, _chars, flush);
            if (count > 0) next.Push(_chars.AsSpan(0, count), ends: false);
        }

        public override void Finish()
        {
            PushBytes([], flush: true);
            next.Push([], ends: true);
            next.Finish();
        }
    }
}
