using System.Runtime.Intrinsics;
using static TorchSharp.torch;

namespace Rho.Model.Cpu;

/// <summary>
/// Log-sum-exp, target's loss and entropy of rows of logits that come block by block of the vocabulary. With m the highest logit so far,
/// s = sum exp(l - m) and t = sum exp(l - m) (l - m): ln sum exp l = m + ln s, and the entropy is ln s - t / s.
/// </summary>
internal sealed unsafe class RunningSoftmax
{
    private readonly bool _entropy;
    private readonly float[] _highest;
    private readonly double[] _sums;
    private readonly double[] _tilts;
    private readonly float[] _chosen;

    internal RunningSoftmax(int rows, bool entropy)
    {
        _entropy = entropy;
        (_highest, _sums, _chosen) = (new float[rows], new double[rows], new float[rows]);
        _tilts = entropy ? new double[rows] : [];
        Array.Fill(_highest, float.NegativeInfinity);
    }

    /// <summary>Log-sum-exp of a row over the blocks so far.</summary>
    internal float LogSum(int row) => (float)(_highest[row] + Math.Log(_sums[row]));

    /// <param name="logits">[rows, columns]</param>
    /// <param name="first">the token of the first column</param>
    /// <param name="targets">[rows]</param>
    internal void Add(Tensor logits, long first, ReadOnlySpan<long> targets)
    {
        if (logits.dtype == ScalarType.Float32) Add<Float32>(logits, first, targets);
        else Add<BFloat16>(logits, first, targets);
    }

    /// <param name="losses">nats. [rows]</param>
    /// <param name="entropies">nats. [rows], or empty</param>
    internal void Finish(Span<float> losses, Span<float> entropies)
    {
        for (var row = 0; row < losses.Length; row++) losses[row] = LogSum(row) - _chosen[row];
        for (var row = 0; row < entropies.Length; row++) entropies[row] = (float)Math.Max(0, Math.Log(_sums[row]) - (_tilts[row] / _sums[row]));
    }

    private void Add<T>(Tensor logits, long first, ReadOnlySpan<long> targets) where T : struct, IElement
    {
        var columns = logits.size(1);
        var p = (nint)Work.Pointer(logits);
        fixed (long* pointer = targets)
        {
            var target = (nint)pointer;
            Work.Over(logits.size(0), (from, end) =>
            {
                for (var row = from; row < end; row++)
                {
                    var start = row * columns;
                    var high = Highest<T>((void*)p, start, columns);
                    if (high > _highest[row])
                    {
                        Lower(row, _highest[row] - high);
                        _highest[row] = high;
                    }

                    if (_entropy)
                    {
                        var (sum, tilt) = SumAndTilt<T>((void*)p, start, columns, _highest[row]);
                        (_sums[row], _tilts[row]) = (_sums[row] + sum, _tilts[row] + tilt);
                    }
                    else
                    {
                        _sums[row] += Sum<T>((void*)p, start, columns, _highest[row]);
                    }

                    var column = ((long*)target)[row] - first;
                    if (column >= 0 && column < columns) _chosen[row] = T.Get((void*)p, start + column);
                }
            });
        }
    }

    /// <summary>Takes sums from one highest logit to one that is higher by -<paramref name="step"/>.</summary>
    private void Lower(long row, double step)
    {
        if (_sums[row] == 0) return;
        var factor = Math.Exp(step);
        if (_entropy) _tilts[row] = factor * (_tilts[row] + (step * _sums[row]));
        _sums[row] *= factor;
    }

    /// <summary>The highest of a row's logits from <paramref name="start"/> on.</summary>
    internal static float Highest<T>(void* p, long start, long count) where T : struct, IElement
    {
        var whole = count & ~15L;
        var high = Vector512.Create(float.NegativeInfinity);
        for (long i = 0; i < whole; i += 16) high = Vector512.Max(high, T.Load(p, start + i));
        var max = float.NegativeInfinity;
        for (var lane = 0; lane < 16; lane++) max = Math.Max(max, high[lane]);
        for (var i = whole; i < count; i++) max = Math.Max(max, T.Get(p, start + i));
        return max;
    }

    /// <summary>sum exp(l - highest) over a row's logits from <paramref name="start"/> on.</summary>
    internal static double Sum<T>(void* p, long start, long count, float highest) where T : struct, IElement
    {
        var whole = count & ~15L;
        var (offset, sum) = (Vector512.Create(highest), Vector512<float>.Zero);
        for (long i = 0; i < whole; i += 16) sum += Vector512.Exp(T.Load(p, start + i) - offset);
        double total = Vector512.Sum(sum);
        for (var i = whole; i < count; i++) total += Math.Exp(T.Get(p, start + i) - highest);
        return total;
    }

    // An exponential underflows to 0 long before its argument does, and their product goes to 0 with it; an impossible token (-inf) counts 0.
    private static (double Sum, double Tilt) SumAndTilt<T>(void* p, long start, long count, float highest) where T : struct, IElement
    {
        var whole = count & ~15L;
        var (offset, least, sum, tilt) = (Vector512.Create(highest), Vector512.Create(-200f), Vector512<float>.Zero, Vector512<float>.Zero);
        for (long i = 0; i < whole; i += 16)
        {
            var below = T.Load(p, start + i) - offset;
            var e = Vector512.Exp(below);
            sum += e;
            tilt += e * Vector512.Max(below, least);
        }

        double total = Vector512.Sum(sum), tilted = Vector512.Sum(tilt);
        for (var i = whole; i < count; i++)
        {
            var below = T.Get(p, start + i) - highest;
            var e = Math.Exp(below);
            (total, tilted) = (total + e, tilted + (e * Math.Max(below, -200f)));
        }

        return (total, tilted);
    }
}
