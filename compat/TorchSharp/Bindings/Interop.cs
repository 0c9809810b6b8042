using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using static TorchSharp.Native.NativeMethods;
using static TorchSharp.torch;

namespace TorchSharp.Native;

/// <summary>A number on its way to libtorch.</summary>
[StructLayout(LayoutKind.Sequential)]
internal readonly struct Number
{
    internal readonly long Kind;
    internal readonly long Bits;

    private Number(long kind, long bits) => (Kind, Bits) = (kind, bits);

    internal static Number None => new(-1, 0);
    internal static Number One => new(0, 1);
    internal static Number Of(long value) => new(0, value);
    internal static Number Of(double value) => new(1, BitConverter.DoubleToInt64Bits(value));
    internal static Number Of(bool value) => new(2, value ? 1 : 0);
    internal static Number OrNone(Scalar? scalar) => scalar is null ? None : scalar.Number;

    internal double ToDouble() => Kind == 1 ? BitConverter.Int64BitsToDouble(Bits) : Bits;
    internal long ToInt64() => Kind == 1 ? checked((long)BitConverter.Int64BitsToDouble(Bits)) : Bits;
    internal bool ToBoolean() => Kind == 1 ? BitConverter.Int64BitsToDouble(Bits) != 0 : Bits != 0;
}

/// <summary>One entry of tensor[...]; present has a bit for each of start, stop and step.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct NativeIndex
{
    internal long Kind;
    internal long Present;
    internal long Start;
    internal long Stop;
    internal long Step;
    internal nint Tensor;
}

/// <summary>
/// Results and errors of native calls. The tensors a call was given are named after it, so that the collector cannot
/// finalize one that nothing else refers to while the call runs.
/// </summary>
internal static unsafe class Interop
{
    internal static Tensor Own(nint result)
    {
        if (result == 0) ThrowLastError();
        return new Tensor(result);
    }

    internal static Tensor Own(nint result, object? input)
    {
        GC.KeepAlive(input);
        return Own(result);
    }

    internal static Tensor Own(nint result, object? first, object? second)
    {
        GC.KeepAlive(first);
        GC.KeepAlive(second);
        return Own(result);
    }

    internal static Tensor Own(nint result, object? first, object? second, object? third)
    {
        GC.KeepAlive(first);
        GC.KeepAlive(second);
        GC.KeepAlive(third);
        return Own(result);
    }

    internal static Tensor Own(nint result, object? first, object? second, object? third, object? fourth)
    {
        GC.KeepAlive(fourth);
        return Own(result, first, second, third);
    }

    internal static void Check(int status)
    {
        if (status < 0) ThrowLastError();
    }

    internal static void Check(int status, object? first, object? second = null, object? third = null)
    {
        GC.KeepAlive(first);
        GC.KeepAlive(second);
        GC.KeepAlive(third);
        if (status < 0) ThrowLastError();
    }

    internal static bool CheckBoolean(int result, object? first, object? second = null)
    {
        Check(result, first, second);
        return result != 0;
    }

    internal static (Tensor, Tensor) OwnPair(int status, nint* results, object? input)
    {
        Check(status, input);
        return (new Tensor(results[0]), new Tensor(results[1]));
    }

    /// <summary>Undefined tensors of the list become null.</summary>
    internal static Tensor[] OwnList(nint* list, long* count, object? first, object? second = null, object? third = null)
    {
        GC.KeepAlive(first);
        GC.KeepAlive(second);
        GC.KeepAlive(third);
        if (list == null) ThrowLastError();
        var tensors = new Tensor[*count];
        for (var i = 0; i < tensors.Length; i++) tensors[i] = list[i] == 0 ? null! : new Tensor(list[i]);
        rho_free_list(list);
        return tensors;
    }

    internal static nint[] Handles(IEnumerable<Tensor?>? tensors)
    {
        if (tensors is null) return [];
        var handles = new nint[tensors.Count()];
        var i = 0;
        foreach (var tensor in tensors) handles[i++] = tensor is null ? 0 : tensor.Handle;
        return handles;
    }

    internal static nint HandleOrZero(Tensor? tensor) => tensor is null ? 0 : tensor.Handle;

    internal static nint HandleOrZero(Generator? generator) => generator is null ? 0 : generator.Handle;

    internal static int TypeOrNone(ScalarType? type) => type is null ? -1 : (int)type.GetValueOrDefault();

    /// <summary>
    /// Throws what the calling thread's last native call failed with: the exception of a .NET callback as it was,
    /// libtorch's own as an <see cref="ExternalException"/> with libtorch's message.
    /// </summary>
    [DoesNotReturn]
    [MethodImpl(MethodImplOptions.NoInlining)]
    internal static void ThrowLastError()
    {
        var message = Marshal.PtrToStringUTF8((nint)rho_error_message()) ?? "";
        var exception = rho_error_exception();
        var managed = exception == 0 ? null : GCHandle.FromIntPtr(exception).Target as Exception;
        rho_clear_error();
        if (managed is not null) ExceptionDispatchInfo.Throw(managed);
        throw new ExternalException(message);
    }
}
