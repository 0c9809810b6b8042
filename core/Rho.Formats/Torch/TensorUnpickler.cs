using System.Buffers.Binary;
using System.Numerics;
using System.Text;

namespace Rho.Formats.Torch;

/// <summary>A storage as a pickle refers to it: the record data/KEY of the archive.</summary>
internal sealed record TorchStorage(string Key, ElementType Type, long Elements);

/// <summary>A tensor as a pickle describes it: a view on a storage. Offset and strides in elements.</summary>
internal sealed record TorchView(TorchStorage Storage, long Offset, long[] Shape, long[] Strides);

/// <summary>
/// Reads the pickle of a file that PyTorch saved. A pickle is a program for a stack machine that may call anything; this reader
/// calls nothing. It knows the operations that build containers, numbers and strings, and the few names by which PyTorch describes
/// tensors; whatever else it meets it refuses by name. Format: Python's pickletools, protocols 2 to 5.
/// </summary>
internal sealed class TensorUnpickler
{
    private static readonly object s_mark = new();

    private static readonly Dictionary<string, ElementType> s_storages = new(StringComparer.Ordinal)
    {
        ["DoubleStorage"] = ElementType.F64,
        ["FloatStorage"] = ElementType.F32,
        ["HalfStorage"] = ElementType.F16,
        ["BFloat16Storage"] = ElementType.BF16,
        ["LongStorage"] = ElementType.I64,
        ["IntStorage"] = ElementType.I32,
        ["ShortStorage"] = ElementType.I16,
        ["CharStorage"] = ElementType.I8,
        ["ByteStorage"] = ElementType.U8,
        ["BoolStorage"] = ElementType.Bool,
    };

    private readonly string _path;
    private readonly byte[] _pickle;
    private readonly List<object?> _stack = [];
    private readonly Dictionary<int, object?> _memo = [];
    private int _position;

    private TensorUnpickler(string path, byte[] pickle)
    {
        _path = path;
        _pickle = pickle;
    }

    private enum Function
    {
        OrderedDictionary,
        RebuildTensor,
        RebuildParameter,
        Size,
    }

    /// <summary>The value that the pickle describes: null, bool, long, BigInteger, double, string, list, tuple (object?[]), dictionary, or <see cref="TorchView"/>.</summary>
    /// <exception cref="RhoException">The pickle is damaged, or asks for something that is neither tensor, container nor number.</exception>
    public static object? Read(string path, byte[] pickle) => new TensorUnpickler(path, pickle).Run();

    private object? Run()
    {
        while (true)
        {
            var operation = Byte();
            switch ((char)operation)
            {
                case '\x80':                                          // PROTO
                    if (Byte() is var protocol and > 5) throw Bad($"pickle protocol {protocol} is not supported");
                    break;
                case '\x95':                                          // FRAME
                    Take(8);
                    break;
                case '.':                                             // STOP
                    return _stack.Count == 1 ? Pop() : throw Damaged();
                case '(':                                             // MARK
                    _stack.Add(s_mark);
                    break;
                case 'N':
                    _stack.Add(null);
                    break;
                case '\x88':
                    _stack.Add(true);
                    break;
                case '\x89':
                    _stack.Add(false);
                    break;
                case 'K':                                             // BININT1
                    _stack.Add((long)Byte());
                    break;
                case 'M':                                             // BININT2
                    _stack.Add((long)BinaryPrimitives.ReadUInt16LittleEndian(Take(2)));
                    break;
                case 'J':                                             // BININT
                    _stack.Add((long)Int32());
                    break;
                case '\x8a':                                          // LONG1
                    _stack.Add(Integer(Take(Byte())));
                    break;
                case '\x8b':                                          // LONG4
                    _stack.Add(Integer(Take(Int32())));
                    break;
                case 'G':                                             // BINFLOAT
                    _stack.Add(BinaryPrimitives.ReadDoubleBigEndian(Take(8)));
                    break;
                case '\x8c':                                          // SHORT_BINUNICODE
                    _stack.Add(Text(Byte()));
                    break;
                case 'X':                                             // BINUNICODE
                    _stack.Add(Text(Int32()));
                    break;
                case '\x8d':                                          // BINUNICODE8
                    _stack.Add(Text(Length64()));
                    break;
                case 'U':                                             // SHORT_BINSTRING, of Python 2
                    _stack.Add(Text(Byte()));
                    break;
                case 'T':                                             // BINSTRING
                    _stack.Add(Text(Int32()));
                    break;
                case ')':
                    _stack.Add(Array.Empty<object?>());
                    break;
                case '\x85':                                          // TUPLE1
                    MakeTuple(1);
                    break;
                case '\x86':
                    MakeTuple(2);
                    break;
                case '\x87':
                    MakeTuple(3);
                    break;
                case 't':                                             // TUPLE
                    _stack.Add(PopToMark());
                    break;
                case ']':
                    _stack.Add(new List<object?>());
                    break;
                case 'l':                                             // LIST
                    _stack.Add(PopToMark().ToList());
                    break;
                case 'a':                                             // APPEND
                    var appended = Pop();
                    Peek<List<object?>>().Add(appended);
                    break;
                case 'e':                                             // APPENDS
                    var items = PopToMark();
                    Peek<List<object?>>().AddRange(items);
                    break;
                case '}':
                    _stack.Add(new Dictionary<object, object?>());
                    break;
                case 'd':                                             // DICT
                    var pairs = PopToMark();
                    _stack.Add(new Dictionary<object, object?>());
                    SetItems(pairs);
                    break;
                case 's':                                             // SETITEM
                    var value = Pop();
                    SetItems([Pop(), value]);
                    break;
                case 'u':                                             // SETITEMS
                    SetItems(PopToMark());
                    break;
                case 'q':                                             // BINPUT
                    _memo[Byte()] = Peek();
                    break;
                case 'r':                                             // LONG_BINPUT
                    _memo[Int32()] = Peek();
                    break;
                case '\x94':                                          // MEMOIZE
                    _memo[_memo.Count] = Peek();
                    break;
                case 'h':                                             // BINGET
                    _stack.Add(Remembered(Byte()));
                    break;
                case 'j':                                             // LONG_BINGET
                    _stack.Add(Remembered(Int32()));
                    break;
                case 'c':                                             // GLOBAL
                    var module = Line();
                    _stack.Add(Find(module, Line()));
                    break;
                case '\x93':                                          // STACK_GLOBAL
                    var name = Pop<string>();
                    _stack.Add(Find(Pop<string>(), name));
                    break;
                case 'R':                                             // REDUCE
                    var arguments = Pop<object?[]>();
                    _stack.Add(Rebuild(Pop<Function>(), arguments));
                    break;
                case 'Q':                                             // BINPERSID
                    _stack.Add(Storage(Pop<object?[]>()));
                    break;
                case 'b':                                             // BUILD: attributes of a container, such as _metadata of a state dictionary
                    if (Pop() is not Dictionary<object, object?> || Peek() is not Dictionary<object, object?>) throw Refused("an object with a state of its own");
                    break;
                case 'i':                                             // INST
                case 'o':                                             // OBJ
                case '\x81':                                          // NEWOBJ
                case '\x92':                                          // NEWOBJ_EX
                    throw Refused("an instance of a class");
                case '\x82':
                case '\x83':
                case '\x84':
                    throw Refused("a name from the extension registry");
                case 'B':
                case 'C':
                case '\x8e':
                case '\x96':
                    throw Refused("a string of bytes");
                default:
                    throw Refused($"the pickle operation 0x{operation:x2}");
            }
        }
    }

    private object Find(string module, string name) => (module, name) switch
    {
        ("collections", "OrderedDict") => Function.OrderedDictionary,
        ("torch._utils", "_rebuild_tensor_v2") => Function.RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Function.RebuildParameter,
        ("torch", "Size") => Function.Size,
        ("torch", _) when s_storages.TryGetValue(name, out var type) => type,
        _ => throw Refused($"{module}.{name}"),
    };

    private object Rebuild(Function function, object?[] arguments)
    {
        switch (function)
        {
            case Function.OrderedDictionary:
                var dictionary = new Dictionary<object, object?>();
                if (arguments.Length == 0) return dictionary;
                if (arguments is not [List<object?> items]) throw Damaged();
                foreach (var item in items)
                {
                    if (item is not (object?[] { Length: 2 } or List<object?> { Count: 2 })) throw Damaged();
                    var pair = (IList<object?>)item;
                    Set(dictionary, pair[0], pair[1]);
                }

                return dictionary;
            case Function.RebuildTensor:
                // storage, storage_offset, size, stride, requires_grad, backward_hooks, and in newer versions metadata
                if (arguments is not [TorchStorage storage, long offset, var size, var stride, bool, Dictionary<object, object?> { Count: 0 }, ..] || arguments.Length > 7) throw Damaged();
                if (arguments.Length == 7 && arguments[6] is not (null or Dictionary<object, object?> { Count: 0 })) throw Refused("a tensor with metadata such as conjugation");
                return View(storage, offset, Numbers(size), Numbers(stride));
            case Function.RebuildParameter:
                return arguments is [TorchView view, bool, Dictionary<object, object?> { Count: 0 }] ? view : throw Damaged();
            default:
                return arguments is [object?[] sizes] ? sizes : throw Damaged();
        }
    }

    private TorchView View(TorchStorage storage, long offset, long[] shape, long[] strides)
    {
        if (shape.Length != strides.Length || offset < 0) throw Damaged();
        if (SafetensorsHeader.ByteLength(storage.Type, shape) is not { } bytes) throw Bad($"a tensor of shape [{string.Join(", ", shape)}] is not possible");
        if (bytes > 0)
        {
            // The last element, in 128 bits: sizes and strides come from the file.
            Int128 last = offset;
            for (var i = 0; i < shape.Length; i++)
            {
                if (strides[i] < 0) throw Damaged();
                last += (Int128)(shape[i] - 1) * strides[i];
            }

            if (last >= storage.Elements) throw Bad($"a tensor of shape [{string.Join(", ", shape)}] reaches beyond its storage {storage.Key} of {storage.Elements} elements");
        }

        return new TorchView(storage, offset, shape, strides);
    }

    /// <summary>A persistent id: ("storage", type, key, device, elements).</summary>
    private TorchStorage Storage(object?[] id) =>
        id is ["storage", ElementType type, string key, string, long elements and >= 0] ? new TorchStorage(key, type, elements) : throw Refused("a persistent id that is no storage");

    private long[] Numbers(object? value) =>
        value is object?[] items && Array.TrueForAll(items, item => item is long) ? Array.ConvertAll(items, item => (long)item!) : throw Damaged();

    private void SetItems(object?[] pairs)
    {
        if (pairs.Length % 2 != 0) throw Damaged();
        var dictionary = Peek<Dictionary<object, object?>>();
        for (var i = 0; i < pairs.Length; i += 2) Set(dictionary, pairs[i], pairs[i + 1]);
    }

    private void Set(Dictionary<object, object?> dictionary, object? key, object? value)
    {
        if (key is not (string or long)) throw Refused("a dictionary key that is neither a string nor an integer");
        dictionary[key] = value;
    }

    private void MakeTuple(int count)
    {
        var tuple = new object?[count];
        for (var i = count - 1; i >= 0; i--) tuple[i] = Pop();
        _stack.Add(tuple);
    }

    private object?[] PopToMark()
    {
        var mark = _stack.LastIndexOf(s_mark);
        if (mark < 0) throw Damaged();
        object?[] items = [.. _stack[(mark + 1)..]];
        _stack.RemoveRange(mark, _stack.Count - mark);
        return items;
    }

    private object? Pop()
    {
        var value = Peek();
        _stack.RemoveAt(_stack.Count - 1);
        return value;
    }

    private T Pop<T>() => Pop() is T value ? value : throw Damaged();

    private object? Peek() => _stack.Count > 0 && !ReferenceEquals(_stack[^1], s_mark) ? _stack[^1] : throw Damaged();

    private T Peek<T>() => Peek() is T value ? value : throw Damaged();

    private object? Remembered(int index) => _memo.TryGetValue(index, out var value) ? value : throw Damaged();

    private static object Integer(ReadOnlySpan<byte> bytes) =>
        new BigInteger(bytes) is var value && value >= long.MinValue && value <= long.MaxValue ? (object)(long)value : value;

    private string Text(int length)
    {
        try
        {
            return s_utf8.GetString(Take(length));
        }
        catch (DecoderFallbackException)
        {
            throw Damaged();
        }
    }

    private static readonly UTF8Encoding s_utf8 = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    private string Line()
    {
        var length = _pickle.AsSpan(_position).IndexOf((byte)'\n');
        if (length < 0) throw Damaged();
        var line = Text(length);
        _position++;
        return line;
    }

    private int Length64() => BinaryPrimitives.ReadInt64LittleEndian(Take(8)) is >= 0 and <= int.MaxValue and var length ? (int)length : throw Damaged();

    private int Int32() => BinaryPrimitives.ReadInt32LittleEndian(Take(4));

    private byte Byte() => Take(1)[0];

    private ReadOnlySpan<byte> Take(int count)
    {
        if (count < 0 || count > _pickle.Length - _position) throw Damaged();
        _position += count;
        return _pickle.AsSpan(_position - count, count);
    }

    private RhoException Damaged() => Bad($"the pickle is damaged at byte {_position}");

    private RhoException Refused(string what) => Bad($"it holds {what}; only tensors, containers and numbers are read, and nothing is executed");

    private RhoException Bad(string what) => new($"{_path}: {what}");
}
