using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;
using System.Runtime.Intrinsics.X86;

namespace Rho.Model.Inference.Kernels;

/// <summary>How numbers lie in memory; kernels are compiled once per format.</summary>
internal unsafe interface INumberFormat
{
    /// <summary>Bytes of one row of <paramref name="columns"/> numbers.</summary>
    static abstract nint RowBytes(int columns);

    /// <summary>The 16 numbers from column <paramref name="column"/> on, a multiple of 16.</summary>
    static abstract Vector512<float> Load(byte* row, nint column);

    /// <summary>One number.</summary>
    static abstract float LoadOne(byte* row, nint column);
}

/// <summary>Formats that are also written, as the key-value cache's are.</summary>
internal unsafe interface IWritableFormat : INumberFormat
{
    static abstract void StoreOne(byte* row, nint column, float value);
}

internal readonly unsafe struct Float32Format : IWritableFormat
{
    public static nint RowBytes(int columns) => (nint)columns * 4;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Load(byte* row, nint column) => Vector512.Load((float*)row + column);

    public static float LoadOne(byte* row, nint column) => ((float*)row)[column];

    public static void StoreOne(byte* row, nint column, float value) => ((float*)row)[column] = value;
}

internal readonly unsafe struct BFloat16Format : IWritableFormat
{
    public static nint RowBytes(int columns) => (nint)columns * 2;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Load(byte* row, nint column)
    {
        var raw = Vector256.Load((ushort*)row + column);
        Vector512<uint> wide;
        if (Avx512F.IsSupported)
        {
            wide = Avx512F.ConvertToVector512UInt32(raw);
        }
        else
        {
            var (lower, upper) = Vector256.Widen(raw);
            wide = Vector512.Create(lower, upper);
        }

        return (wide << 16).AsSingle();
    }

    public static float LoadOne(byte* row, nint column) => BitConverter.UInt32BitsToSingle((uint)((ushort*)row)[column] << 16);

    /// <summary>Rounds to nearest, ties to even; NaN stays NaN.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void StoreOne(byte* row, nint column, float value)
    {
        var bits = BitConverter.SingleToUInt32Bits(value);
        ((ushort*)row)[column] = float.IsNaN(value) ? (ushort)0x7FC0 : (ushort)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
    }
}

/// <summary>
/// 8-bit weights in groups of <see cref="Group"/> columns: one float32 scale, then the group's signed bytes. A weight is scale * byte,
/// scale = (largest magnitude of the group) / 127, so a weight is off by half a scale at most.
/// </summary>
internal readonly unsafe struct Int8Format : INumberFormat
{
    public const int Group = 64;
    private const int GroupBytes = sizeof(float) + Group;

    public static nint RowBytes(int columns) => (nint)((columns + Group - 1) / Group) * GroupBytes;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Load(byte* row, nint column)
    {
        var group = row + (column / Group * GroupBytes);
        var bytes = Vector128.Load((sbyte*)group + sizeof(float) + (column % Group));
        Vector512<int> wide;
        if (Avx512F.IsSupported)
        {
            wide = Avx512F.ConvertToVector512Int32(bytes);
        }
        else
        {
            var (lower, upper) = Vector128.Widen(bytes);
            var (a, b) = Vector128.Widen(lower);
            var (c, d) = Vector128.Widen(upper);
            wide = Vector512.Create(Vector256.Create(a, b), Vector256.Create(c, d));
        }

        return Vector512.ConvertToSingle(wide) * *(float*)group;
    }

    public static float LoadOne(byte* row, nint column)
    {
        var group = row + (column / Group * GroupBytes);
        return *(float*)group * ((sbyte*)group)[sizeof(float) + (column % Group)];
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
