using System.Runtime.CompilerServices;
using System.Runtime.Intrinsics;

namespace Rho.Model.Cpu;

/// <summary>How kernels read and write a tensor's elements; they compute in float32 whatever the type.</summary>
internal unsafe interface IElement
{
    static abstract int Size { get; }
    static abstract Vector512<float> Load(void* tensor, long index);
    static abstract void Store(Vector512<float> value, void* tensor, long index);
    static abstract float Get(void* tensor, long index);
    static abstract void Set(float value, void* tensor, long index);
}

internal readonly unsafe struct Float32 : IElement
{
    public static int Size => 4;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Load(void* tensor, long index) => Vector512.Load((float*)tensor + index);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(Vector512<float> value, void* tensor, long index) => value.Store((float*)tensor + index);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Get(void* tensor, long index) => ((float*)tensor)[index];

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Set(float value, void* tensor, long index) => ((float*)tensor)[index] = value;
}

/// <summary>The upper half of a float32, rounded to nearest even.</summary>
internal readonly unsafe struct BFloat16 : IElement
{
    public static int Size => 2;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static Vector512<float> Load(void* tensor, long index)
    {
        var half = Vector256.Load((ushort*)tensor + index);
        return (Vector512.Create(Vector256.WidenLower(half), Vector256.WidenUpper(half)) << 16).AsSingle();
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Store(Vector512<float> value, void* tensor, long index)
    {
        var bits = value.AsUInt32();
        bits = (bits + Vector512.Create(0x7FFFu) + ((bits >> 16) & Vector512<uint>.One)) >> 16;
        Vector256.Narrow(bits.GetLower(), bits.GetUpper()).Store((ushort*)tensor + index);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static float Get(void* tensor, long index) => BitConverter.UInt32BitsToSingle((uint)((ushort*)tensor)[index] << 16);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static void Set(float value, void* tensor, long index)
    {
        var bits = BitConverter.SingleToUInt32Bits(value);
        ((ushort*)tensor)[index] = (ushort)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
    }
}
