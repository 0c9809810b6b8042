using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;

namespace Rho.Tokenization;

/// <summary>
/// Texts by their UTF-8 bytes, as a double array: the child of a node at byte b is the unit at (node's base XOR b), if that
/// unit says it belongs to the node.
/// </summary>
internal sealed class ByteTrie
{
    private const int None = -1;
    private Unit[] _units = [];
    private int _firstFree;

    [StructLayout(LayoutKind.Sequential)]
    private struct Unit
    {
        public int Base;
        public int Parent;
        public int Value;
    }

    /// <summary>Builds the trie; a text's value is at least 0. Of equal texts the last one counts.</summary>
    public ByteTrie(IEnumerable<(string Text, int Value)> texts)
    {
        var byText = new Dictionary<string, int>(StringComparer.Ordinal);
        foreach (var (text, value) in texts) byText[text] = value;
        var keys = byText.Select(pair => (Key: Encoding.UTF8.GetBytes(pair.Key), pair.Value)).ToArray();
        Array.Sort(keys, (a, b) => a.Key.AsSpan().SequenceCompareTo(b.Key));
        Grow(256);
        _units[0].Parent = 0;
        Insert(keys, 0, keys.Length, 0, 0);
    }

    /// <summary>The root, from which <see cref="Step"/> starts.</summary>
    public const int Root = 0;

    /// <summary>The child of a node, or a negative number.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public int Step(int node, byte label)
    {
        ref var units = ref MemoryMarshal.GetArrayDataReference(_units);
        var child = Unsafe.Add(ref units, node).Base ^ label;
        // Bases leave room for every label, so a child is always inside the array.
        return Unsafe.Add(ref units, child).Parent == node ? child : None;
    }

    /// <summary>The value of the text that ends here, or -1.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public int Value(int node) => Unsafe.Add(ref MemoryMarshal.GetArrayDataReference(_units), node).Value;

    public int Find(ReadOnlySpan<byte> text)
    {
        var node = Root;
        foreach (var b in text)
        {
            node = Step(node, b);
            if (node < 0) return None;
        }

        return Value(node);
    }

    private void Insert((byte[] Key, int Value)[] keys, int from, int to, int depth, int node)
    {
        if (from < to && keys[from].Key.Length == depth) _units[node].Value = keys[from++].Value;
        if (from == to) return;
        Span<byte> labels = stackalloc byte[256];
        var count = 0;
        for (var i = from; i < to; i++)
        {
            var label = keys[i].Key[depth];
            if (count == 0 || labels[count - 1] != label) labels[count++] = label;
        }

        var place = FindPlace(labels[..count]);
        _units[node].Base = place;
        foreach (var label in labels[..count]) _units[place ^ label].Parent = node;
        var start = from;
        for (var i = 0; i < count; i++)
        {
            var end = start;
            while (end < to && keys[end].Key[depth] == labels[i]) end++;
            Insert(keys, start, end, depth + 1, place ^ labels[i]);
            start = end;
        }
    }

    private int FindPlace(ReadOnlySpan<byte> labels)
    {
        // A place past blocks that are nearly full is taken soon; leaving a few units unused costs less than looking longer.
        while (_firstFree < _units.Length && _units[_firstFree].Parent != None) _firstFree++;
        var tries = 0;
        for (var free = Math.Max(_firstFree, 256); ; free++)
        {
            if (free >= _units.Length) Grow(_units.Length * 2);
            if (_units[free].Parent != None) continue;
            var place = free ^ labels[0];
            var fits = true;
            foreach (var label in labels)
            {
                if (_units[place ^ label].Parent == None) continue;
                fits = false;
                break;
            }

            if (fits) return place;
            if (++tries == 4096) _firstFree = free;
        }
    }

    private void Grow(int size)
    {
        var old = _units.Length;
        Array.Resize(ref _units, Math.Max(size, 1024));
        _units.AsSpan(old).Fill(new Unit { Base = 0, Parent = None, Value = None });
    }
}
