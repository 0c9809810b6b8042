using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Rho.Kernels;

/// <summary>How numbers lie in memory. Kernels are compiled once per format, and compute in float32 whatever it is.</summary>
public unsafe interface INumberFormat
{
    /// <summary>Bytes of a row of <paramref name="columns"/> numbers.</summary>
    static abstract nint RowBytes(long columns);

    /// <summary>The 16 numbers from column <paramref name="at"/> on; of 8-bit weights a multiple of 16.</summary>
    static abstract Vector512<float> Load(void* row, long at);

    /// <summary>One number.</summary>
    static abstract float Get(void* row, long at);
}

/// <summary>Formats that are also written: to the nearest, ties to even; NaN stays NaN.</summary>
public unsafe interface IWritableFormat : INumberFormat
{
    static abstract void Store(Vector512<float> values, void* row, long at);

    static abstract void Set(float value, void* row, long at);
}

public readonly unsafe struct Float32 : IWritableFormat
{
    public static nint RowBytes(long columns) => (nint)columns * sizeof(float);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Load(void* row, long at) => Vector512.Load((float*)row + at);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Get(void* row, long at) => ((float*)row)[at];

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(Vector512<float> values, void* row, long at) => values.Store((float*)row + at);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Set(float value, void* row, long at) => ((float*)row)[at] = value;
}

/// <summary>The upper half of a float32.</summary>
public readonly unsafe struct BFloat16 : IWritableFormat
{
    private const ushort NaN = 0x7FC0;

    public static nint RowBytes(long columns) => (nint)columns * sizeof(ushort);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Load(void* row, long at)
    {
        var raw = Vector256.Load((ushort*)row + at);
        var wide = Avx512F.IsSupported ? Avx512F.ConvertToVector512UInt32(raw) : Vector512.Create(Vector256.WidenLower(raw), Vector256.WidenUpper(raw));
        return (wide << 16).AsSingle();
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Get(void* row, long at) => BitConverter.UInt32BitsToSingle((uint)((ushort*)row)[at] << 16);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(Vector512<float> values, void* row, long at)
    {
        var bits = values.AsUInt32();
        bits = (bits + Vector512.Create(0x7FFFu) + ((bits >> 16) & Vector512<uint>.One)) >> 16;
        bits = Vector512.ConditionalSelect(Vector512.Equals(values, values).AsUInt32(), bits, Vector512.Create((uint)NaN));
        var half = Avx512F.IsSupported ? Avx512F.ConvertToVector256UInt16(bits) : Vector256.Narrow(bits.GetLower(), bits.GetUpper());
        half.Store((ushort*)row + at);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Set(float value, void* row, long at)
    {
        var bits = BitConverter.SingleToUInt32Bits(value);
        ((ushort*)row)[at] = float.IsNaN(value) ? NaN : (ushort)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
    }
}

/// <summary>
/// 8-bit weights in groups of <see cref="Group"/> columns: one float32 scale, then the group's signed bytes. A weight is scale * byte,
/// scale = (largest magnitude of the group) / 127, so a weight is off by half a scale at most.
/// </summary>
public readonly unsafe struct Int8 : INumberFormat
{
    public const int Group = 64;
    private const int GroupBytes = sizeof(float) + Group;

    public static nint RowBytes(long columns) => (nint)((columns + Group - 1) / Group) * GroupBytes;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Load(void* row, long at)
    {
        var group = (byte*)row + (at / Group * GroupBytes);
        var bytes = Vector128.Load((sbyte*)group + sizeof(float) + (at % Group));
        if (Avx512F.IsSupported) return Vector512.ConvertToSingle(Avx512F.ConvertToVector512Int32(bytes)) * *(float*)group;
        var (lower, upper) = Vector128.Widen(bytes);
        var ((a, b), (c, d)) = (Vector128.Widen(lower), Vector128.Widen(upper));
        return Vector512.ConvertToSingle(Vector512.Create(Vector256.Create(a, b), Vector256.Create(c, d))) * *(float*)group;
    }

    public static float Get(void* row, long at)
    {
        var group = (byte*)row + (at / Group * GroupBytes);
        return *(float*)group * ((sbyte*)group)[sizeof(float) + (at % Group)];
    }

    /// <summary>Quantizes one row.</summary>
    public static void StoreRow(byte* row, ReadOnlySpan<float> values)
    {
        for (var start = 0; start < values.Length; start += Group)
        {
            var group = values.Slice(start, Math.Min(Group, values.Length - start));
            var largest = 0f;
            foreach (var value in group) largest = Math.Max(largest, Math.Abs(value));
            var scale = largest / 127;
            *(float*)row = scale;
            for (var i = 0; i < group.Length; i++)
                ((sbyte*)row)[sizeof(float) + i] = scale == 0 ? (sbyte)0 : (sbyte)Math.Clamp(MathF.Round(group[i] / scale), -127, 127);
            row += GroupBytes;
        }
    }
}
