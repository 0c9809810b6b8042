using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Rho.Formats;

/// <summary>How losses are stored and sent; see <see cref="LossCodec"/> for the errors.</summary>
public enum LossEncoding
{
    F16,
    F32,
    Log8,
}

/// <summary>
/// Losses (nats) as little-endian bytes, NaN (no loss) kept.
/// <list type="bullet">
/// <item>F32: exact.</item>
/// <item>F16: IEEE half, nearest even; relative error at most 2^-11 (0.05 %) from 2^-14 nats on, absolute at most 2^-25 below.</item>
/// <item>Log8: one byte c = round(254 ln(1 + 4 x) / ln 129), which stands for x = (129^(c / 254) - 1) / 4; 255 is NaN. For 0 &lt;= x
/// &lt;= 32 the error is at most 0.00962 (x + 1/4): 0.0024 at 0, 0.012 at 1, 0.031 at 3, 0.099 at 10 nats; 0 is exact. What is
/// below 0 becomes 0, what is above 32 becomes 32.</item>
/// </list>
/// The same losses give the same bytes on every machine.
/// </summary>
public static class LossCodec
{
    private const int Log8Codes = 255; // 0 to 254; 255 is NaN
    private const float Log8Scale = 0.25f, Log8Range = 129f;

    /// <summary>Value of each code; NaN at 255.</summary>
    private static readonly float[] Log8Values = MakeLog8(0, nan: true);

    /// <summary>Code c is chosen for values from Log8Bounds[c] to below Log8Bounds[c + 1]; index 255 is past every value.</summary>
    private static readonly float[] Log8Bounds = MakeLog8(-0.5, nan: false);

    /// <summary>Bytes that one loss takes.</summary>
    public static int BytesPerLoss(LossEncoding encoding) => encoding switch
    {
        LossEncoding.F16 => 2,
        LossEncoding.F32 => 4,
        LossEncoding.Log8 => 1,
        _ => throw new ArgumentOutOfRangeException(nameof(encoding), encoding, message: null),
    };

    /// <summary>The name used in files and options: f16, f32, log8.</summary>
    public static string Name(LossEncoding encoding) => encoding.ToString().ToLowerInvariant();

    /// <exception cref="RhoException">The name is none of f16, f32, log8.</exception>
    public static LossEncoding Parse(string name) => name switch
    {
        "f16" => LossEncoding.F16,
        "f32" => LossEncoding.F32,
        "log8" => LossEncoding.Log8,
        _ => throw new RhoException($"unknown loss encoding \"{name}\"; known are f16, f32, log8"),
    };

    /// <summary>Encodes losses into <c>losses.Length * BytesPerLoss(encoding)</c> bytes.</summary>
    public static void Encode(ReadOnlySpan<float> losses, LossEncoding encoding, Span<byte> bytes)
    {
        RequireLength(losses.Length, encoding, bytes.Length);
        switch (encoding)
        {
            case LossEncoding.F32:
                MemoryMarshal.AsBytes(losses).CopyTo(bytes);
                break;
            case LossEncoding.F16:
                EncodeHalf(losses, MemoryMarshal.Cast<byte, ushort>(bytes));
                break;
            default:
                EncodeLog8(losses, bytes);
                break;
        }
    }

    /// <summary>Decodes <c>losses.Length * BytesPerLoss(encoding)</c> bytes.</summary>
    public static void Decode(ReadOnlySpan<byte> bytes, LossEncoding encoding, Span<float> losses)
    {
        RequireLength(losses.Length, encoding, bytes.Length);
        switch (encoding)
        {
            case LossEncoding.F32:
                bytes.CopyTo(MemoryMarshal.AsBytes(losses));
                break;
            case LossEncoding.F16:
                DecodeHalf(MemoryMarshal.Cast<byte, ushort>(bytes), losses);
                break;
            default:
                DecodeLog8(bytes, losses);
                break;
        }
    }

    // .NET has no intrinsics for the CPU's half conversions. Bit arithmetic after F. Giesen, "half_to_float_fast5" and
    // "float_to_half_fast3_rtne" (public domain), eight at a time.
    private static void EncodeHalf(ReadOnlySpan<float> losses, Span<ushort> halves)
    {
        ref var from = ref MemoryMarshal.GetReference(losses);
        ref var to = ref MemoryMarshal.GetReference(halves);
        var i = 0;
        for (; i <= losses.Length - 16; i += 16)
        {
            var low = ToHalf(Vector256.LoadUnsafe(ref from, (nuint)i));
            var high = ToHalf(Vector256.LoadUnsafe(ref from, (nuint)(i + 8)));
            Vector256.Narrow(low, high).StoreUnsafe(ref to, (nuint)i);
        }

        for (; i < losses.Length; i++) halves[i] = BitConverter.HalfToUInt16Bits(float.IsNaN(losses[i]) ? Half.NaN : (Half)losses[i]);
    }

    private static Vector256<uint> ToHalf(Vector256<float> x)
    {
        var bits = x.AsUInt32();
        var sign = bits & Vector256.Create(0x8000_0000u);
        var magnitude = bits ^ sign;
        // Subnormal halves: adding this number lets the float unit round into the lowest bits.
        var magic = Vector256.Create(0x3F00_0000u);
        var small = (magnitude.AsSingle() + magic.AsSingle()).AsUInt32() - magic;
        // Normal halves: rebias the exponent, then round to nearest even by adding just under half, plus one if odd.
        var odd = Vector256.ShiftRightLogical(magnitude, 13) & Vector256<uint>.One;
        var normal = Vector256.ShiftRightLogical(magnitude + Vector256.Create(0xC800_0FFFu) + odd, 13);
        var half = Vector256.ConditionalSelect(Vector256.LessThan(magnitude, Vector256.Create(0x3880_0000u)), small, normal);
        half = Vector256.ConditionalSelect(Vector256.LessThan(magnitude, Vector256.Create(0x4780_0000u)), half, Vector256.Create(0x7C00u));
        half |= Vector256.ShiftRightLogical(sign, 16);
        // One NaN for all: its sign and payload mean nothing, and bytes are to be equal on every machine.
        return Vector256.ConditionalSelect(Vector256.GreaterThan(magnitude, Vector256.Create(0x7F80_0000u)), Vector256.Create(0xFE00u), half);
    }

    private static void DecodeHalf(ReadOnlySpan<ushort> halves, Span<float> losses)
    {
        ref var from = ref MemoryMarshal.GetReference(halves);
        ref var to = ref MemoryMarshal.GetReference(losses);
        var i = 0;
        for (; i <= halves.Length - 16; i += 16)
        {
            var (low, high) = Vector256.Widen(Vector256.LoadUnsafe(ref from, (nuint)i));
            ToSingle(low).StoreUnsafe(ref to, (nuint)i);
            ToSingle(high).StoreUnsafe(ref to, (nuint)(i + 8));
        }

        for (; i < halves.Length; i++) losses[i] = (float)BitConverter.UInt16BitsToHalf(halves[i]);
    }

    private static Vector256<float> ToSingle(Vector256<uint> half)
    {
        var sign = Vector256.ShiftLeft(half & Vector256.Create(0x8000u), 16);
        var shifted = Vector256.ShiftLeft(half & Vector256.Create(0x7FFFu), 13);
        // Multiplying by 2^112 moves the exponent's bias and makes subnormals normal.
        var scaled = (shifted.AsSingle() * Vector256.Create(0x7780_0000u).AsSingle()).AsUInt32();
        var special = shifted | Vector256.Create(0x7F80_0000u);
        var isSpecial = Vector256.GreaterThanOrEqual(shifted, Vector256.Create(0x0F80_0000u));
        return (Vector256.ConditionalSelect(isSpecial, special, scaled) | sign).AsSingle();
    }

    private static void EncodeLog8(ReadOnlySpan<float> losses, Span<byte> codes)
    {
        ref var from = ref MemoryMarshal.GetReference(losses);
        ref var to = ref MemoryMarshal.GetReference(codes);
        var i = 0;
        if (Avx2.IsSupported)
        {
            for (; i <= losses.Length - 32; i += 32)
            {
                var ab = Vector256.Narrow(ToLog8(Vector256.LoadUnsafe(ref from, (nuint)i)), ToLog8(Vector256.LoadUnsafe(ref from, (nuint)(i + 8))));
                var cd = Vector256.Narrow(ToLog8(Vector256.LoadUnsafe(ref from, (nuint)(i + 16))), ToLog8(Vector256.LoadUnsafe(ref from, (nuint)(i + 24))));
                Vector256.Narrow(ab.AsUInt16(), cd.AsUInt16()).StoreUnsafe(ref to, (nuint)i);
            }
        }

        for (; i < losses.Length; i++) codes[i] = ToLog8(losses[i]);
    }

    private static byte ToLog8(float loss)
    {
        if (float.IsNaN(loss)) return 255;
        var index = Array.BinarySearch(Log8Bounds, loss);
        return (byte)Math.Clamp(index < 0 ? ~index - 1 : index, 0, Log8Codes - 1);
    }

    // A rough logarithm gives the code or a neighbour of it; the table of bounds decides, so that all machines agree.
    private static unsafe Vector256<int> ToLog8(Vector256<float> losses)
    {
        var isNumber = Vector256.Equals(losses, losses);
        var clamped = Vector256.Min(Vector256.Max(losses & isNumber.AsSingle(), Vector256<float>.Zero), Vector256.Create((Log8Range - 1) * Log8Scale));
        var m = Vector256.Create(1f) + clamped * (1 / Log8Scale); // 1 to 129
        var bits = m.AsInt32();
        var exponent = Vector256.ConvertToSingle(Vector256.ShiftRightArithmetic(bits, 23) - Vector256.Create(127));
        var f = ((bits & Vector256.Create(0x007F_FFFF)) | Vector256.Create(0x3F80_0000)).AsSingle() - Vector256.Create(1f);
        // log2(1 + f) within 0.0015, a fraction of a code.
        var log2 = exponent + f * (Vector256.Create(1.4208f) + f * (Vector256.Create(-0.5867f) + f * Vector256.Create(0.1674f)));
        var code = Vector256.ConvertToInt32(log2 * Vector256.Create((float)((Log8Codes - 1) / Math.Log2(Log8Range))) + Vector256.Create(0.5f));
        code = Vector256.Min(Vector256.Max(code, Vector256<int>.Zero), Vector256.Create(Log8Codes - 1));
        fixed (float* bounds = Log8Bounds)
        {
            var lower = Avx2.GatherVector256(bounds, code, 4);
            var upper = Avx2.GatherVector256(bounds + 1, code, 4);
            // A true comparison is -1 as an integer.
            code += Vector256.LessThan(clamped, lower).AsInt32() & Vector256.GreaterThan(code, Vector256<int>.Zero);
            code -= Vector256.GreaterThanOrEqual(clamped, upper).AsInt32();
        }

        return Vector256.ConditionalSelect(isNumber.AsInt32(), code, Vector256.Create(255));
    }

    private static unsafe void DecodeLog8(ReadOnlySpan<byte> codes, Span<float> losses)
    {
        var i = 0;
        if (Avx2.IsSupported)
        {
            fixed (float* values = Log8Values, to = losses)
            fixed (byte* from = codes)
            {
                for (; i <= codes.Length - 8; i += 8) Avx2.GatherVector256(values, Avx2.ConvertToVector256Int32(from + i), 4).Store(to + i);
            }
        }

        for (; i < codes.Length; i++) losses[i] = Log8Values[codes[i]];
    }

    private static float[] MakeLog8(double shift, bool nan)
    {
        var table = new float[256];
        for (var c = 0; c < Log8Codes; c++) table[c] = (float)(Log8Scale * (Math.Pow(Log8Range, (c + shift) / (Log8Codes - 1)) - 1));
        table[255] = nan ? float.NaN : float.PositiveInfinity;
        return table;
    }

    private static void RequireLength(int losses, LossEncoding encoding, int bytes)
    {
        if (bytes != (long)losses * BytesPerLoss(encoding))
            throw new ArgumentException($"{losses} losses take {(long)losses * BytesPerLoss(encoding)} bytes as {Name(encoding)}, not {bytes}");
    }
}
