using TorchSharp.Native;
using static TorchSharp.torch;

namespace TorchSharp;

/// <summary>A number without a shape. As in libtorch it is a double, a 64-bit integer or a bool, whatever it was made from.</summary>
public sealed class Scalar : IDisposable
{
    internal Scalar(Number number) => Number = number;

    internal Number Number { get; }

    /// <summary>Float64, Int64 or Bool.</summary>
    public ScalarType Type => Number.Kind switch
    {
        0 => ScalarType.Int64,
        1 => ScalarType.Float64,
        _ => ScalarType.Bool,
    };

    public static implicit operator Scalar(bool value) => new(Number.Of(value));
    public static implicit operator Scalar(byte value) => new(Number.Of((long)value));
    public static implicit operator Scalar(sbyte value) => new(Number.Of((long)value));
    public static implicit operator Scalar(short value) => new(Number.Of((long)value));
    public static implicit operator Scalar(int value) => new(Number.Of((long)value));
    public static implicit operator Scalar(long value) => new(Number.Of(value));
    public static implicit operator Scalar(Half value) => new(Number.Of((double)value));
    public static implicit operator Scalar(BFloat16 value) => new(Number.Of((double)value));
    public static implicit operator Scalar(float value) => new(Number.Of((double)value));
    public static implicit operator Scalar(double value) => new(Number.Of(value));

    /// <summary>Does nothing: the number lives in this object. Published scalars own native memory.</summary>
    public void Dispose()
    {
    }
}

public static class ScalarExtensionMethods
{
    public static Scalar ToScalar(this bool value) => value;
    public static Scalar ToScalar(this byte value) => value;
    public static Scalar ToScalar(this sbyte value) => value;
    public static Scalar ToScalar(this short value) => value;
    public static Scalar ToScalar(this int value) => value;
    public static Scalar ToScalar(this long value) => value;
    public static Scalar ToScalar(this Half value) => value;
    public static Scalar ToScalar(this BFloat16 value) => value;
    public static Scalar ToScalar(this float value) => value;
    public static Scalar ToScalar(this double value) => value;
    public static Scalar ToBFloat16Scalar(this float value) => new BFloat16(value);

    public static bool ToBoolean(this Scalar value) => value.Number.ToBoolean();
    public static byte ToByte(this Scalar value) => checked((byte)value.Number.ToInt64());
    public static sbyte ToSByte(this Scalar value) => checked((sbyte)value.Number.ToInt64());
    public static short ToInt16(this Scalar value) => checked((short)value.Number.ToInt64());
    public static int ToInt32(this Scalar value) => checked((int)value.Number.ToInt64());
    public static long ToInt64(this Scalar value) => value.Number.ToInt64();
    public static Half ToHalf(this Scalar value) => (Half)value.Number.ToDouble();
    public static BFloat16 ToBFloat16(this Scalar value) => (BFloat16)value.Number.ToDouble();
    public static float ToSingle(this Scalar value) => (float)value.Number.ToDouble();
    public static double ToDouble(this Scalar value) => value.Number.ToDouble();
}
