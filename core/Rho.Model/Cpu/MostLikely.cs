using System.Runtime.Intrinsics;
using static TorchSharp.torch;

namespace Rho.Model.Cpu;

/// <summary>The largest logits of rows that come block by block of the vocabulary, in its order.</summary>
internal static unsafe class MostLikely
{
    /// <summary>Adds a block to the largest so far, which are kept in order, the largest first, of equal ones the lower id.</summary>
    /// <param name="logits">[rows, columns]</param>
    /// <param name="first">the token of the first column; 0 begins anew</param>
    /// <param name="ids">[rows, k]</param>
    /// <param name="values">their logits. [rows, k]</param>
    internal static void Add(Tensor logits, long first, int k, Span<int> ids, Span<float> values)
    {
        if (logits.dtype == ScalarType.Float32) Add<Float32>(logits, first, k, ids, values);
        else Add<BFloat16>(logits, first, k, ids, values);
    }

    private static void Add<T>(Tensor logits, long first, int k, Span<int> ids, Span<float> values) where T : struct, IElement
    {
        var columns = logits.size(1);
        var p = (nint)Work.Pointer(logits);
        fixed (float* value = values)
        fixed (int* id = ids)
        {
            var (i, v) = ((nint)id, (nint)value);
            Work.Over(logits.size(0), (from, end) =>
            {
                for (var row = from; row < end; row++)
                    Add<T>((void*)p, row * columns, columns, (int)first, new Span<int>((int*)i + (row * k), k), new Span<float>((float*)v + (row * k), k));
            });
        }
    }

    // What is not above the least of those kept is passed 16 at a time.
    private static void Add<T>(void* p, long start, long count, int first, Span<int> ids, Span<float> values) where T : struct, IElement
    {
        var kept = Math.Min(first, values.Length);
        var whole = count & ~15L;
        for (long i = 0; i < count;)
        {
            if (i < whole && kept == values.Length && !Vector512.GreaterThanAny(T.Load(p, start + i), Vector512.Create(values[^1])))
            {
                i += 16;
                continue;
            }

            for (var end = Math.Min(count, i + 16); i < end; i++)
            {
                var value = T.Get(p, start + i);
                if (kept == values.Length && !(value > values[^1])) continue;
                if (kept < values.Length) kept++;
                var place = kept - 1;
                for (; place > 0 && value > values[place - 1]; place--) (values[place], ids[place]) = (values[place - 1], ids[place - 1]);
                (values[place], ids[place]) = (value, first + (int)i);
            }
        }
    }
}
