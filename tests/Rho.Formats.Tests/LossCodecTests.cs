using FsCheck;
using FsCheck.Fluent;

namespace Rho.Formats.Tests;

public sealed class LossCodecTests
{
    [Fact]
    public void F16_EveryHalf_DecodesAsDotNetDoes()
    {
        var bytes = new byte[65536 * 2];
        for (var i = 0; i < 65536; i++) BitConverter.TryWriteBytes(bytes.AsSpan(2 * i), (ushort)i);
        var losses = new float[65536];
        LossCodec.Decode(bytes, LossEncoding.F16, losses);
        for (var i = 0; i < 65536; i++)
        {
            var expected = (float)BitConverter.UInt16BitsToHalf((ushort)i);
            Assert.True(float.IsNaN(expected) ? float.IsNaN(losses[i]) : BitConverter.SingleToInt32Bits(expected) == BitConverter.SingleToInt32Bits(losses[i]), $"{i:X}");
        }
    }

    [Fact]
    public void F16_FloatsOfEveryExponent_EncodeAsDotNetDoes()
    {
        // Every 1009th float: all exponents and signs, rounding ties among them.
        var losses = new float[1 << 20];
        var bytes = new byte[losses.Length * 2];
        for (ulong start = 0; start < 1UL << 32; start += (ulong)losses.Length * 1009)
        {
            for (var i = 0; i < losses.Length; i++) losses[i] = BitConverter.UInt32BitsToSingle((uint)(start + (ulong)i * 1009));
            LossCodec.Encode(losses, LossEncoding.F16, bytes);
            for (var i = 0; i < losses.Length; i++)
            {
                var expected = float.IsNaN(losses[i]) ? (ushort)0xFE00 : BitConverter.HalfToUInt16Bits((Half)losses[i]);
                if (BitConverter.ToUInt16(bytes, 2 * i) != expected) Assert.Fail($"{losses[i]:R}: {BitConverter.ToUInt16(bytes, 2 * i):X} instead of {expected:X}");
            }
        }

        // Halves and the midpoints between them.
        for (var i = 0; i < 0x7C00; i++)
        {
            var middle = ((float)BitConverter.UInt16BitsToHalf((ushort)i) + (float)BitConverter.UInt16BitsToHalf((ushort)(i + 1))) / 2;
            losses.AsSpan(0, 16).Fill(middle);
            LossCodec.Encode(losses.AsSpan(0, 16), LossEncoding.F16, bytes.AsSpan(0, 32));
            Assert.Equal(BitConverter.HalfToUInt16Bits((Half)middle), BitConverter.ToUInt16(bytes, 30));
        }
    }

    [Fact]
    public void Log8_LossesUpTo32_ErrorIsWithinStatedBound()
    {
        // every 97th float from 0 to 32.
        var top = BitConverter.SingleToUInt32Bits(32f);
        var losses = new float[1 << 20];
        var decoded = new float[losses.Length];
        var bytes = new byte[losses.Length];
        var worst = 0.0;
        for (uint start = 0; start <= top; start += (uint)losses.Length * 7)
        {
            for (var i = 0; i < losses.Length; i++) losses[i] = BitConverter.UInt32BitsToSingle(Math.Min(top, start + (uint)i * 97));
            LossCodec.Encode(losses, LossEncoding.Log8, bytes);
            LossCodec.Decode(bytes, LossEncoding.Log8, decoded);
            for (var i = 0; i < losses.Length; i++) worst = Math.Max(worst, Math.Abs((double)decoded[i] - losses[i]) / (losses[i] + 0.25));
        }

        Assert.InRange(worst, 0.0095, 0.00962);
    }

    [Fact]
    public void Log8_VectorAndScalarCode_Agree()
    {
        // Around each bound between codes, where a rough logarithm would go wrong, and on random losses.
        var random = new Random(3);
        var losses = new List<float> { 0, -0f, -1, 32, 33, 1e30f, float.PositiveInfinity, float.NegativeInfinity, float.NaN, float.Epsilon };
        for (var c = 0; c < 255; c++)
        {
            var bound = (float)(0.25 * (Math.Pow(129, (c + 0.5) / 254) - 1));
            losses.AddRange([bound, MathF.BitIncrement(bound), MathF.BitDecrement(bound), MathF.BitIncrement(MathF.BitIncrement(bound))]);
        }

        for (var i = 0; i < 200_000; i++) losses.Add((float)(-Math.Log(random.NextDouble()) * random.Next(1, 8)));
        var all = losses.ToArray();
        var vector = new byte[all.Length];
        LossCodec.Encode(all, LossEncoding.Log8, vector);
        var scalar = new byte[1];
        for (var i = 0; i < all.Length; i++)
        {
            LossCodec.Encode(all.AsSpan(i, 1), LossEncoding.Log8, scalar);
            if (scalar[0] != vector[i]) Assert.Fail($"{all[i]:R}: {vector[i]} in a vector, {scalar[0]} alone");
        }

        Assert.Equal([0, 0, 0, 254, 254, 254, 254, 0, 255, 0], vector[..10]);
    }

    [Fact]
    public void Log8_EveryCode_SurvivesDecodeAndEncode()
    {
        var codes = Enumerable.Range(0, 256).Select(i => (byte)i).ToArray();
        var losses = new float[256];
        LossCodec.Decode(codes, LossEncoding.Log8, losses);
        Assert.Equal(0f, losses[0]);
        Assert.Equal(32f, losses[254], 4);
        Assert.True(float.IsNaN(losses[255]));
        var again = new byte[256];
        LossCodec.Encode(losses, LossEncoding.Log8, again);
        Assert.Equal(codes, again);
    }

    [Theory]
    [InlineData(LossEncoding.F16)]
    [InlineData(LossEncoding.F32)]
    [InlineData(LossEncoding.Log8)]
    public void Decode_OfEncode_AnyLosses_StaysWithinBoundAndKeepsNaN(LossEncoding encoding)
    {
        var loss = Gen.Frequency(
            (1, Gen.Constant(float.NaN)),
            (1, Gen.Constant(0f)),
            (8, Gen.Choose(0, int.MaxValue).Select(i => i * (32f / int.MaxValue))),
            (4, Gen.Choose(0, int.MaxValue).Select(i => i * (0.01f / int.MaxValue))));
        Prop.ForAll(Gen.ArrayOf(loss).Resize(200).ToArbitrary(), losses =>
        {
            var bytes = new byte[losses.Length * LossCodec.BytesPerLoss(encoding)];
            LossCodec.Encode(losses, encoding, bytes);
            var decoded = new float[losses.Length];
            LossCodec.Decode(bytes, encoding, decoded);
            for (var i = 0; i < losses.Length; i++)
            {
                if (float.IsNaN(losses[i]))
                {
                    Assert.True(float.IsNaN(decoded[i]));
                    continue;
                }

                var bound = encoding switch
                {
                    LossEncoding.F32 => 0,
                    LossEncoding.F16 => Math.Max(losses[i] * Math.Pow(2, -11), Math.Pow(2, -25)),
                    _ => 0.00962 * (losses[i] + 0.25),
                };
                Assert.InRange(Math.Abs((double)decoded[i] - losses[i]), 0, bound);
            }
        }).QuickCheckThrowOnFailure();
    }

    [Fact]
    public void Encode_WrongLength_Throws() => Assert.Throws<ArgumentException>(() => LossCodec.Encode([1f], LossEncoding.F16, new byte[3]));
}
