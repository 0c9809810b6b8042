using System.Text;

namespace Rho.Tokenization;

/// <summary>
/// GPT-2's printable letters for the 256 bytes: printable Latin-1 characters stand for themselves, the rest for U+0100
/// onwards in byte order (openai/gpt-2, encoder.py, bytes_to_unicode).
/// </summary>
internal static class ByteAlphabet
{
    private static readonly char[] ToChar = new char[256];
    private static readonly short[] ToByte = new short[324];

    static ByteAlphabet()
    {
        Array.Fill(ToByte, (short)-1);
        var next = 256;
        for (var b = 0; b < 256; b++)
        {
            var printable = b is >= '!' and <= '~' or >= 0xA1 and <= 0xAC or >= 0xAE;
            ToChar[b] = printable ? (char)b : (char)next++;
            ToByte[ToChar[b]] = (short)b;
        }
    }

    public static char Letter(byte value) => ToChar[value];

    /// <summary>The byte that a letter stands for, or -1.</summary>
    public static int Byte(char letter) => letter < ToByte.Length ? ToByte[letter] : -1;

    public static string Spell(ReadOnlySpan<byte> bytes)
    {
        var letters = new char[bytes.Length];
        for (var i = 0; i < letters.Length; i++) letters[i] = ToChar[bytes[i]];
        return new string(letters);
    }

    /// <summary>The bytes of a spelled token; a token with other letters stands for its own UTF-8.</summary>
    public static byte[] Bytes(string token)
    {
        var bytes = new byte[token.Length];
        for (var i = 0; i < bytes.Length; i++)
        {
            var value = Byte(token[i]);
            if (value < 0) return Encoding.UTF8.GetBytes(token);
            bytes[i] = (byte)value;
        }

        return bytes;
    }
}
