using static TorchSharp.Native;
using static TorchSharp.torch;

namespace TorchSharp;

/// <summary>One argument of an operator, as its schema has it.</summary>
internal readonly struct Arg
{
    internal readonly Kind Kind;
    internal readonly long Integer;
    internal readonly double Real;
    internal readonly object? Object;

    private Arg(Kind kind, long integer = 0, double real = 0, object? value = null) => (Kind, Integer, Real, Object) = (kind, integer, real, value);

    internal static Arg None => default;

    internal static Arg Optional(IReadOnlyList<Tensor?> tensors) => new(Kind.OptionalTensorList, value: tensors);

    public static implicit operator Arg(Tensor? tensor) => tensor is null ? default : new(Kind.Tensor, value: tensor);
    public static implicit operator Arg(long value) => new(Kind.Int, value);
    public static implicit operator Arg(long? value) => value is { } v ? new(Kind.Int, v) : default;
    public static implicit operator Arg(double value) => new(Kind.Double, real: value);
    public static implicit operator Arg(bool value) => new(Kind.Bool, value ? 1 : 0);
    public static implicit operator Arg(long[] value) => new(Kind.IntList, value: value);
    public static implicit operator Arg(Tensor[] value) => new(Kind.TensorList, value: value);
    public static implicit operator Arg(string? value) => value is null ? default : new(Kind.String, value: value);
    public static implicit operator Arg(ScalarType value) => new(Kind.Int, (long)value);
    public static implicit operator Arg(ScalarType? value) => value is { } v ? new(Kind.Int, (long)v) : default;
    public static implicit operator Arg(Device? device) => device is null ? default : new(Kind.Device, device.Code);
    public static implicit operator Arg(Generator? generator) => generator is null ? default : new(Kind.Generator, value: generator);
    public static implicit operator Arg(Scalar? scalar) => scalar is null ? default
        : scalar.Kind == Kind.Double ? new(Kind.Double, real: scalar.Real) : new(scalar.Kind, scalar.Integer);
}

/// <summary>An operator of libtorch by its schema's name and overload, looked up once.</summary>
internal sealed unsafe class Operation(string name, string overload = "")
{
    private nint _handle;

    internal static bool Exists(string name, string overload = "") => rt_find(name, overload) != 0;

    internal Tensor Call(params ReadOnlySpan<Arg> arguments)
    {
        nint result;
        if (Run(arguments, &result, 1) != 1) throw new InvalidOperationException($"{name} did not return one tensor");
        return new Tensor(result);
    }

    internal (Tensor, Tensor) CallTwo(params ReadOnlySpan<Arg> arguments)
    {
        var results = stackalloc nint[2];
        if (Run(arguments, results, 2) != 2) throw new InvalidOperationException($"{name} did not return two tensors");
        return (new Tensor(results[0]), new Tensor(results[1]));
    }

    internal Tensor[] CallMany(int capacity, params ReadOnlySpan<Arg> arguments)
    {
        var results = new nint[capacity];
        fixed (nint* p = results)
        {
            var count = Run(arguments, p, capacity);
            if (count > capacity) throw new InvalidOperationException($"{name} returned {count} tensors, expected at most {capacity}");
            return Array.ConvertAll(results[..count], handle => new Tensor(handle));
        }
    }

    /// <summary>An operator that writes into its first argument and returns it.</summary>
    internal Tensor InPlace(Tensor self, params ReadOnlySpan<Arg> rest)
    {
        Span<Arg> all = new Arg[rest.Length + 1];
        all[0] = self;
        rest.CopyTo(all[1..]);
        nint result;
        Run(all, &result, 1);
        rt_free(result);
        return self;
    }

    private int Run(ReadOnlySpan<Arg> arguments, nint* results, int capacity)
    {
        if (_handle == 0)
        {
            _handle = rt_find("aten::" + name, overload);
            if (_handle == 0) throw Error();
        }

        var listed = 0;
        foreach (ref readonly var a in arguments)
            listed += a.Object switch { long[] l => l.Length, Tensor[] t => t.Length, IReadOnlyList<Tensor?> t => t.Count, string s => s.Length + 1, _ => 0 };
        var native = stackalloc Argument[arguments.Length];
        // The lists' elements, one after another; an operator takes at most a few hundred.
        long* lists;
        if (listed <= 256)
        {
            var few = stackalloc long[listed];
            lists = few;
        }
        else
        {
            lists = (long*)System.Runtime.InteropServices.NativeMemory.Alloc((nuint)listed, sizeof(long));
        }

        try
        {
            var next = lists;
            for (var i = 0; i < arguments.Length; i++)
            {
                ref readonly var a = ref arguments[i];
                native[i] = new Argument { Kind = a.Kind, Integer = a.Integer, Real = a.Real };
                switch (a.Kind)
                {
                    case Kind.Tensor:
                        native[i].Pointer = ((Tensor)a.Object!).Handle;
                        break;
                    case Kind.Generator:
                        native[i].Pointer = ((Generator)a.Object!).Handle;
                        break;
                    case Kind.IntList:
                        native[i].Pointer = (nint)next;
                        native[i].Count = ((long[])a.Object!).Length;
                        foreach (var value in (long[])a.Object!) *next++ = value;
                        break;
                    case Kind.TensorList or Kind.OptionalTensorList:
                        native[i].Pointer = (nint)next;
                        native[i].Count = ((IReadOnlyList<Tensor?>)a.Object!).Count;
                        foreach (var tensor in (IReadOnlyList<Tensor?>)a.Object!) *next++ = tensor?.Handle ?? 0;
                        break;
                    case Kind.String:
                        native[i].Pointer = (nint)next;
                        var text = (byte*)next;
                        foreach (var c in (string)a.Object!) *text++ = (byte)c;
                        *text = 0;
                        next += ((string)a.Object!).Length + 1;
                        break;
                }
            }

            var count = rt_call(_handle, native, arguments.Length, results, capacity);
            foreach (ref readonly var a in arguments) GC.KeepAlive(a.Object);
            return count < 0 ? throw Error() : count;
        }
        finally
        {
            if (listed > 256) System.Runtime.InteropServices.NativeMemory.Free(lists);
        }
    }
}
