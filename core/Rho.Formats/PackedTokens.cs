using System.Numerics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace Rho.Formats;

/// <summary>Tokens as files keep them: 16 or 32 bits each.</summary>
public static class PackedTokens
{
    /// <summary>Widens 16-bit tokens; <paramref name="destination"/> holds as many or more.</summary>
    public static void Widen(ReadOnlySpan<ushort> source, Span<int> destination)
    {
        if (destination.Length < source.Length) throw new ArgumentException($"{source.Length} tokens do not fit into {destination.Length}", nameof(destination));
        ref var from = ref MemoryMarshal.GetReference(source);
        ref var to = ref Unsafe.As<int, uint>(ref MemoryMarshal.GetReference(destination));
        var i = 0;
        for (; i <= source.Length - Vector256<ushort>.Count; i += Vector256<ushort>.Count)
        {
            var (low, high) = Vector256.Widen(Vector256.LoadUnsafe(ref from, (nuint)i));
            low.StoreUnsafe(ref to, (nuint)i);
            high.StoreUnsafe(ref to, (nuint)(i + Vector256<uint>.Count));
        }

        for (; i < source.Length; i++) destination[i] = source[i];
    }

    /// <summary>The largest value, or the type's smallest where there is none.</summary>
    internal static T Max<T>(ReadOnlySpan<T> values) where T : unmanaged, IMinMaxValue<T>, INumber<T>
    {
        var largest = T.MinValue;
        var i = 0;
        if (values.Length >= Vector256<T>.Count)
        {
            ref var from = ref MemoryMarshal.GetReference(values);
            var lanes = Vector256.LoadUnsafe(ref from);
            for (; i <= values.Length - Vector256<T>.Count; i += Vector256<T>.Count) lanes = Vector256.Max(lanes, Vector256.LoadUnsafe(ref from, (nuint)i));
            for (var lane = 0; lane < Vector256<T>.Count; lane++) largest = T.Max(largest, lanes[lane]);
        }

        for (; i < values.Length; i++) largest = T.Max(largest, values[i]);
        return largest;
    }
}
