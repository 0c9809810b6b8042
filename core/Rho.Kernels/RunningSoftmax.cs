using System.Runtime.Intrinsics;

namespace Rho.Kernels;

/// <summary>
/// Losses, entropies and most likely tokens of rows of logits that come block by block of the vocabulary, in its order. With m the highest
/// logit so far, s = sum exp(l - m) and t = sum exp(l - m) (l - m): ln sum exp l = m + ln s, and the entropy is ln s - t / s.
/// </summary>
/// <param name="targets">a token for each row, of which the loss is wanted. [rows]</param>
/// <param name="entropies">whether entropies are wanted</param>
/// <param name="topK">how many most likely tokens are wanted</param>
public sealed unsafe class RunningSoftmax(long[] targets, bool entropies, int topK, int threads)
{
    private readonly float[] _highest = Filled(targets.Length);
    private readonly double[] _sums = new double[targets.Length];
    private readonly double[] _tilts = new double[entropies ? targets.Length : 0];
    private readonly float[] _chosen = new float[targets.Length];
    private readonly int[] _ids = new int[targets.Length * topK];       // the likeliest first, of equal ones the lower
    private readonly float[] _values = new float[targets.Length * topK];

    /// <summary>Log-sum-exp of a row over the blocks so far.</summary>
    public float LogSum(int row) => (float)(_highest[row] + Math.Log(_sums[row]));

    /// <summary>-ln p of a row's target, nats.</summary>
    public float Loss(int row) => LogSum(row) - _chosen[row];

    /// <summary>-sum_v p_v ln p_v of a row, nats.</summary>
    public float Entropy(int row) => (float)Math.Max(0, Math.Log(_sums[row]) - (_tilts[row] / _sums[row]));

    /// <summary>A row's most likely tokens, the likeliest first, of equal ones the lower id, and ln p of them.</summary>
    /// <param name="ids">[rows, top-k]</param>
    /// <param name="logProbabilities">[rows, top-k]</param>
    public void Top(Span<int> ids, Span<float> logProbabilities)
    {
        _ids.CopyTo(ids);
        for (var i = 0; i < _values.Length; i++) logProbabilities[i] = _values[i] - LogSum(i / topK);
    }

    /// <param name="logits">[rows, columns]</param>
    /// <param name="first">the token of the first column</param>
    public void Add<T>(void* logits, int first, int columns) where T : struct, INumberFormat =>
        Work.Over(targets.Length, threads, (from, end) =>
        {
            for (var row = (int)from; row < end; row++)
            {
                var p = (byte*)logits + T.RowBytes((long)row * columns);
                var high = Softmax.Highest<T>(p, columns);
                if (!(high <= _highest[row]))
                {
                    Lower(row, _highest[row] - high);
                    _highest[row] = high;
                }

                var (sum, tilt) = entropies ? Softmax.SumAndTilt<T>(p, columns, _highest[row]) : (Softmax.SumOfExp<T>(p, columns, _highest[row]), 0);
                _sums[row] += sum;
                if (entropies) _tilts[row] += tilt;
                var column = targets[row] - first;
                if (column >= 0 && column < columns) _chosen[row] = T.Get(p, column);
                if (topK > 0) KeepLargest<T>(p, first, columns, _ids.AsSpan(row * topK, topK), _values.AsSpan(row * topK, topK));
            }
        });

    /// <summary>The logits of given tokens that are in a block.</summary>
    /// <param name="logits">[rows, columns]</param>
    /// <param name="first">the token of the first column</param>
    /// <param name="ids">[rows, k]</param>
    /// <param name="values">written where the token is in the block. [rows, k]</param>
    public static void Gather<T>(void* logits, int rows, int first, int columns, ReadOnlySpan<int> ids, Span<float> values) where T : struct, INumberFormat
    {
        for (var i = 0; i < ids.Length; i++)
        {
            var column = ids[i] - first;
            if (column >= 0 && column < columns) values[i] = T.Get((byte*)logits + T.RowBytes((long)(i / (ids.Length / rows)) * columns), column);
        }
    }

    /// <summary>Takes sums from one highest logit to one that is higher by -<paramref name="step"/>.</summary>
    private void Lower(int row, double step)
    {
        if (_sums[row] == 0) return;
        var factor = Math.Exp(step);
        if (entropies) _tilts[row] = factor * (_tilts[row] + (step * _sums[row]));
        _sums[row] *= factor;
    }

    // What is not above the least of those kept is passed 16 at a time.
    private static void KeepLargest<T>(void* p, int first, int count, Span<int> ids, Span<float> values) where T : struct, INumberFormat
    {
        var kept = Math.Min(first, values.Length);
        var whole = count & ~15;
        for (var i = 0; i < count;)
        {
            if (i < whole && kept == values.Length && !Vector512.GreaterThanAny(T.Load(p, i), Vector512.Create(values[^1])))
            {
                i += 16;
                continue;
            }

            for (var end = Math.Min(count, i + 16); i < end; i++)
            {
                var value = T.Get(p, i);
                if (kept == values.Length && !(value > values[^1])) continue;
                if (kept < values.Length) kept++;
                var place = kept - 1;
                for (; place > 0 && value > values[place - 1]; place--) (values[place], ids[place]) = (values[place - 1], ids[place - 1]);
                (values[place], ids[place]) = (value, first + i);
            }
        }
    }

    private static float[] Filled(int rows)
    {
        var values = new float[rows];
        Array.Fill(values, float.NegativeInfinity);
        return values;
    }
}
