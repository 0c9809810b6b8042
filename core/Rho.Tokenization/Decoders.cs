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

    /// <summary>What this step makes of a token in the middle of a text, apart from its neighbours.</summary>
    public virtual string Spell(string token) => token;

    private static int Count(JsonPart part)
    {
        var value = part.Integer();
        return value >= 0 ? value : throw part.Error("expected a count");
    }

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
            case "ByteFallback":
                part.Allow("type");
                return [new ByteFallbackDecoder()];
            case "Fuse":
                part.Allow("type");
                return [new FuseDecoder()];
            case "Strip":
                part.Allow("type", "content", "start", "stop");
                return [new StripDecoder(part.Character("content"), Count(part.Get("start")), Count(part.Get("stop")))];
            case "Replace":
                part.Allow("type", "pattern", "content");
                return [new ReplaceDecoder(TextPattern.Read(part.Get("pattern")), part.Text("content"))];
            case "Metaspace":
                var (replacement, prepend, split) = MetaspacePreTokenizer.ReadSettings(part);
                return [new MetaspaceDecoder(replacement, prepend, split)];
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

/// <summary>A step that needs each token whole.</summary>
internal abstract class WholeTokenState(DecoderState next) : DecoderState
{
    private readonly StringBuilder _token = new();

    protected DecoderState Following => next;

    public override void Push(ReadOnlySpan<char> part, bool ends)
    {
        if (!ends)
        {
            _token.Append(part);
            return;
        }

        if (_token.Length == 0)
        {
            PushToken(part);
            return;
        }

        var token = _token.Append(part).ToString();
        _token.Clear();
        PushToken(token);
    }

    protected abstract void PushToken(ReadOnlySpan<char> token);

    public override void Finish() => next.Finish();
}

/// <summary>
/// Runs of tokens like &lt;0xE2&gt; to the text of their bytes. A run that is no UTF-8 becomes one U+FFFD per byte, which is
/// known at its end only.
/// </summary>
internal sealed class ByteFallbackDecoder : DecoderStep
{
    public override DecoderState Start(DecoderState next) => new State(next);

    public override void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteString("type", "ByteFallback");
        json.WriteEndObject();
    }

    public static bool TryByte(ReadOnlySpan<char> token, out byte value)
    {
        value = 0;
        return token.Length == 6 && token.StartsWith("<0x") && token[5] == '>'
            && byte.TryParse(token[3..5], System.Globalization.NumberStyles.AllowHexSpecifier, null, out value);
    }

    private sealed class State(DecoderState next) : WholeTokenState(next)
    {
        private static readonly UTF8Encoding Strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);
        private readonly List<byte> _run = [];

        protected override void PushToken(ReadOnlySpan<char> token)
        {
            if (TryByte(token, out var value))
            {
                _run.Add(value);
                return;
            }

            EndRun();
            Following.Push(token, ends: true);
        }

        public override void Finish()
        {
            EndRun();
            base.Finish();
        }

        private void EndRun()
        {
            if (_run.Count == 0) return;
            try
            {
                Following.Push(Strict.GetString([.. _run]), ends: true);
            }
            catch (DecoderFallbackException)
            {
                for (var i = 0; i < _run.Count; i++) Following.Push("\uFFFD", ends: true);
            }

            _run.Clear();
        }
    }
}

/// <summary>All tokens become one, which matters to the steps after it.</summary>
internal sealed class FuseDecoder : DecoderStep
{
    public override DecoderState Start(DecoderState next) => new State(next);

    public override void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteString("type", "Fuse");
        json.WriteEndObject();
    }

    private sealed class State(DecoderState next) : DecoderState
    {
        public override void Push(ReadOnlySpan<char> part, bool ends) => next.Push(part, ends: false);

        public override void Finish()
        {
            next.Push([], ends: true);
            next.Finish();
        }
    }
}

/// <summary>Takes up to so many of a character off the start and the end of each token.</summary>
internal sealed class StripDecoder(char content, int start, int stop) : DecoderStep
{
    private readonly char _content = content;
    private readonly int _start = start;
    private readonly int _stop = stop;

    public override DecoderState Start(DecoderState next) => new State(this, next);

    public override void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteString("type", "Strip");
        json.WriteString("content", _content.ToString());
        json.WriteNumber("start", _start);
        json.WriteNumber("stop", _stop);
        json.WriteEndObject();
    }

    private sealed class State : DecoderState
    {
        private readonly StripDecoder _step;
        private readonly DecoderState _next;
        private int _startLeft;
        private int _held;

        public State(StripDecoder step, DecoderState next)
        {
            _step = step;
            _next = next;
            _startLeft = step._start;
        }

        public override void Push(ReadOnlySpan<char> part, bool ends)
        {
            while (_startLeft > 0 && !part.IsEmpty)
            {
                if (part[0] != _step._content)
                {
                    _startLeft = 0;
                    break;
                }

                part = part[1..];
                _startLeft--;
            }

            // What may turn out to be the token's end is held back.
            var body = part.TrimEnd(_step._content).Length;
            var trailing = part.Length - body;
            if (body > 0)
            {
                Release(_held);
                _held = 0;
            }

            var kept = Math.Min(_held + trailing, _step._stop);
            _next.Push(part[..body], ends: false);
            Release(_held + trailing - kept);
            _held = kept;
            if (!ends) return;
            _next.Push([], ends: true);
            _held = 0;
            _startLeft = _step._start;
        }

        private void Release(int count)
        {
            for (var i = 0; i < count; i++) _next.Push([_step._content], ends: false);
        }

        public override void Finish() => _next.Finish();
    }
}

internal sealed class ReplaceDecoder(TextPattern pattern, string content) : DecoderStep
{
    public override DecoderState Start(DecoderState next) => new State(this, next);

    public override void Write(Utf8JsonWriter json) => new ReplaceNormalizer(pattern, content).Write(json);

    public override string Spell(string token)
    {
        if (pattern is LiteralPattern literal) return token.Replace(literal.Text, content, StringComparison.Ordinal);
        var stretches = new List<TextSpan>();
        pattern.Find(token, stretches);
        return string.Concat(stretches.Select(stretch => stretch.IsMatch ? content : token[stretch.Start..stretch.End]));
    }

    private sealed class State(ReplaceDecoder step, DecoderState next) : WholeTokenState(next)
    {
        protected override void PushToken(ReadOnlySpan<char> token) => Following.Push(step.Spell(token.ToString()), ends: true);
    }
}

/// <summary>The visible blank becomes a blank, and nothing in the first token.</summary>
internal sealed class MetaspaceDecoder(char replacement, PrependScheme prepend, bool split) : DecoderStep
{
    public override DecoderState Start(DecoderState next) => new State(this, next, prepend == PrependScheme.Never);

    public override void Write(Utf8JsonWriter json) => MetaspacePreTokenizer.Write(json, replacement, prepend, split);

    public override string Spell(string token) => token.Replace(replacement, ' ');

    private string SpellFirst(string token) => token.Replace(replacement.ToString(), "", StringComparison.Ordinal);

    private sealed class State(MetaspaceDecoder step, DecoderState next, bool keepFirst) : WholeTokenState(next)
    {
        private bool _first = !keepFirst;

        protected override void PushToken(ReadOnlySpan<char> token)
        {
            Following.Push(_first ? step.SpellFirst(token.ToString()) : step.Spell(token.ToString()), ends: true);
            _first = false;
        }
    }
}
