using System.Buffers;
using System.Text;
using System.Text.Json;

namespace Rho.Tokenization;

/// <summary>
/// SentencePiece's way back (sentencepiece_processor.cc): control symbols are nothing, bytes become characters one by one
/// with U+FFFD for each that does not fit, and the blank that was put in front goes away.
/// </summary>
internal sealed class SentencePieceDecoder(SentencePieceFile file, Vocabulary vocabulary, HashSet<string> added) : DecoderStep
{
    private const char Blank = '\u2581';

    public override DecoderState Start(DecoderState next) => new State(this, next);

    public override void Write(Utf8JsonWriter json) => throw new InvalidOperationException("A SentencePiece model is saved as it is.");

    public override string Spell(string token) => Type(token) switch
    {
        PieceType.Control => "",
        PieceType.Unknown => file.UnknownSurface,
        null => token,
        _ => token.Replace(Blank, ' '),
    };

    /// <summary>A piece's type; none for an added token.</summary>
    private PieceType? Type(ReadOnlySpan<char> token) =>
        !added.GetAlternateLookup<ReadOnlySpan<char>>().Contains(token) && vocabulary.TryGet(token, out var id) ? file.Pieces[id].Type : null;

    private sealed class State(SentencePieceDecoder step, DecoderState next) : WholeTokenState(next)
    {
        private readonly byte[] _pending = new byte[4];
        private int _pendingCount;
        private bool _atStart = true;
        private bool _blankTaken;
        private bool _anyText;

        protected override void PushToken(ReadOnlySpan<char> token)
        {
            var type = step.Type(token);
            if (type == PieceType.Byte && ByteFallbackDecoder.TryByte(token, out var value))
            {
                PushByte(value);
                return;
            }

            EndBytes();
            if (_blankTaken || _anyText) _atStart = false;
            _blankTaken = false;
            if (type is PieceType.Control or PieceType.Unknown or null)
            {
                Emit(type is null ? token : step.Spell(token.ToString()));
                return;
            }

            var piece = token.ToString();
            if (_atStart && (step.File.AddDummyPrefix || step.File.RemoveExtraBlanks) && piece[0] == Blank)
            {
                piece = piece[1..];
                _blankTaken = !step.File.RemoveExtraBlanks;
            }

            Emit(piece.Replace(Blank, ' '));
        }

        private void PushByte(byte value)
        {
            _pending[_pendingCount++] = value;
            while (_pendingCount > 0)
            {
                var status = Rune.DecodeFromUtf8(_pending.AsSpan(0, _pendingCount), out var rune, out var taken);
                if (status == OperationStatus.NeedMoreData) return;
                if (status == OperationStatus.Done) Emit(rune.ToString());
                else EmitBroken();
                Drop(status == OperationStatus.Done ? taken : 1);
            }
        }

        private void EndBytes()
        {
            while (_pendingCount > 0)
            {
                EmitBroken();
                Drop(1);

                // What follows a broken start may be a character.
                var rest = _pending.AsSpan(0, _pendingCount).ToArray();
                _pendingCount = 0;
                foreach (var b in rest) PushByte(b);
            }
        }

        private void EmitBroken() => Emit("\uFFFD");

        private void Drop(int count)
        {
            _pendingCount -= count;
            _pending.AsSpan(count, _pendingCount).CopyTo(_pending);
        }

        private void Emit(ReadOnlySpan<char> text)
        {
            _anyText |= !text.IsEmpty;
            Following.Push(text, ends: true);
        }

        public override void Finish()
        {
            EndBytes();
            base.Finish();
        }
    }

    private SentencePieceFile File => file;
}
