using System.Runtime.Intrinsics;

namespace Rho.Training;

/// <summary>
/// Passes over flat float32 buffers in CPU memory, on all cores. Elementwise work does not depend on how it is divided, and sums
/// are taken in pieces of fixed size and then in order, so results are the same bits for any number of threads and any machine.
/// </summary>
internal static unsafe class FlatKernels
{
    private const int Piece = 1 << 16;

    /// <summary>The sum of squares, in double.</summary>
    internal static double SumOfSquares(float* values, long count)
    {
        var sums = new double[(int)((count + Piece - 1) / Piece)];
        ForEachPiece(count, (start, length) => sums[start / Piece] = SumOfSquaresOfPiece(values + start, length));
        double total = 0;
        foreach (var sum in sums) total += sum;
        return total;
    }

    private static double SumOfSquaresOfPiece(float* values, int count)
    {
        var (low, high) = (Vector256<double>.Zero, Vector256<double>.Zero);
        var i = 0;
        for (; i <= count - 8; i += 8)
        {
            var (a, b) = Vector256.Widen(Vector256.Load(values + i));
            low += a * a;
            high += b * b;
        }

        var sum = Vector256.Sum(low + high);
        for (; i < count; i++) sum += (double)values[i] * values[i];
        return sum;
    }

    /// <summary>
    /// One AdamW step in PyTorch's form: the parameter shrinks by rate * decay, then moves by the bias-corrected moments. The
    /// gradient is taken times <paramref name="scale"/> and set to zero.
    /// </summary>
    /// <param name="t">Steps taken, this one included.</param>
    internal static void AdamW(
        float* parameters, float* gradients, float* first, float* second, long count, OptimizerSection options, double rate, double decay, double scale, long t)
    {
        var step = new AdamWStep(options, rate, decay, scale, t);
        ForEachPiece(count, (start, length) => step.Apply(parameters + start, gradients + start, first + start, second + start, length));
    }

    private static void ForEachPiece(long count, Action<long, int> work)
    {
        var pieces = (count + Piece - 1) / Piece;
        if (pieces == 1) work(0, (int)count);
        else Parallel.For(0L, pieces, piece => work(piece * Piece, (int)Math.Min(Piece, count - piece * Piece)));
    }

    private readonly struct AdamWStep(OptimizerSection options, double rate, double decay, double scale, long t)
    {
        private readonly float _scale = (float)scale;
        private readonly float _keep = (float)(1 - rate * decay);
        private readonly float _beta1 = (float)options.Beta1;
        private readonly float _beta2 = (float)options.Beta2;
        private readonly float _take1 = (float)(1 - options.Beta1);
        private readonly float _take2 = (float)(1 - options.Beta2);
        private readonly float _move = (float)(rate / (1 - Math.Pow(options.Beta1, t)));
        private readonly float _root = (float)Math.Sqrt(1 - Math.Pow(options.Beta2, t));
        private readonly float _epsilon = (float)options.Epsilon;

        public void Apply(float* parameters, float* gradients, float* first, float* second, int count)
        {
            var i = 0;
            for (; i <= count - 8; i += 8)
            {
                var g = Vector256.Load(gradients + i) * _scale;
                var m = Vector256.Load(first + i) * _beta1 + g * _take1;
                var v = Vector256.Load(second + i) * _beta2 + g * g * _take2;
                var p = Vector256.Load(parameters + i) * _keep - m / (Vector256.Sqrt(v) / _root + Vector256.Create(_epsilon)) * _move;
                m.Store(first + i);
                v.Store(second + i);
                p.Store(parameters + i);
                Vector256<float>.Zero.Store(gradients + i);
            }

            for (; i < count; i++)
            {
                var g = gradients[i] * _scale;
                var m = first[i] * _beta1 + g * _take1;
                var v = second[i] * _beta2 + g * g * _take2;
                parameters[i] = parameters[i] * _keep - m / (MathF.Sqrt(v) / _root + _epsilon) * _move;
                first[i] = m;
                second[i] = v;
                gradients[i] = 0;
            }
        }
    }
}
