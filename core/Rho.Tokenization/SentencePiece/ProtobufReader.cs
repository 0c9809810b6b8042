using System.Buffers.Binary;
using System.Text;

namespace Rho.Tokenization;

/// <summary>Reads the fields of a protobuf message one after the other; a file that ends early or lies about lengths is refused.</summary>
internal ref struct ProtobufReader(ReadOnlySpan<byte> data, string name)
{
    private static readonly UTF8Encoding Strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    private ReadOnlySpan<byte> _data = data;
    private int _wire;

    public int Field { get; private set; }

    public bool Next()
    {
        if (_data.IsEmpty) return false;
        var tag = Varint();
        Field = (int)(tag >> 3);
        _wire = (int)(tag & 7);
        if (tag >> 3 is 0 or > int.MaxValue) throw Broken();
        return true;
    }

    public long Integer() => _wire == 0 ? (long)Varint() : throw Broken();

    public int Int32() => (int)Integer();

    public bool Flag() => Integer() != 0;

    public float Float() => _wire == 5 ? BinaryPrimitives.ReadSingleLittleEndian(Take(4)) : throw Broken();

    public ReadOnlySpan<byte> Bytes() => _wire == 2 ? Take(Varint()) : throw Broken();

    public string Text()
    {
        try
        {
            return Strict.GetString(Bytes());
        }
        catch (DecoderFallbackException error)
        {
            throw new RhoException($"{name}: a string in it is not UTF-8; it is no SentencePiece model, or damaged", error);
        }
    }

    public void Skip()
    {
        switch (_wire)
        {
            case 0:
                Varint();
                break;
            case 1:
                Take(8);
                break;
            case 2:
                Take(Varint());
                break;
            case 5:
                Take(4);
                break;
            default:
                throw Broken();
        }
    }

    private ReadOnlySpan<byte> Take(ulong count)
    {
        if (count > (ulong)_data.Length) throw Broken();
        var taken = _data[..(int)count];
        _data = _data[(int)count..];
        return taken;
    }

    private ulong Varint()
    {
        ulong value = 0;
        for (var shift = 0; shift < 64; shift += 7)
        {
            if (_data.IsEmpty) throw Broken();
            var b = _data[0];
            _data = _data[1..];
            value |= (ulong)(b & 0x7F) << shift;
            if (b < 0x80) return value;
        }

        throw Broken();
    }

    private readonly RhoException Broken() => new($"{name}: not a SentencePiece model, or cut off or damaged");
}
