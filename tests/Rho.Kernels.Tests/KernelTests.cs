using System.Runtime.Intrinsics;

namespace Rho.Kernels.Tests;

public sealed unsafe class KernelTests
{
    [Fact]
    public void Multiply_AnyShape_EqualsTheDefinition()
    {
        var random = new Random(1);
        foreach (var (N, R, K) in new[] { (1, 1, 1), (1, 8, 16), (2, 9, 17), (3, 7, 15), (4, 4, 32), (5, 13, 40), (7, 21, 64), (9, 30, 100), (13, 3, 129) })
        {
            Check<Float32>(random, N, R, K);
            Check<BFloat16>(random, N, R, K);
            Check<Int8>(random, N, R, K);
        }
    }

    [Fact]
    public void Multiply_RowAloneOrAmongOthers_GivesTheSameBits()
    {
        var random = new Random(2);
        const int N = 11, R = 19, K = 70;
        var w = Floats(random, R * K);
        var x = Floats(random, N * K);
        var all = new float[N * R];
        var alone = new float[R];
        fixed (float* pw = w, px = x, py = all, pa = alone)
        {
            MatrixKernel<Float32>.Multiply((byte*)pw, K * 4, 0, R, K, px, K, N, py, R, null, false);
            for (var n = 0; n < N; n++)
            {
                // In two pieces of rows besides, which start elsewhere.
                MatrixKernel<Float32>.Multiply((byte*)pw, K * 4, 0, 5, K, px + (n * K), K, 1, pa, R, null, false);
                MatrixKernel<Float32>.Multiply((byte*)pw, K * 4, 5, R, K, px + (n * K), K, 1, pa, R, null, false);
                Assert.True(all.AsSpan(n * R, R).SequenceEqual(alone));
            }
        }
    }

    [Fact]
    public void Exp_OverItsRange_IsWithinTwoUnits()
    {
        for (var x = -87f; x < 88; x += 0.0037f)
        {
            var actual = VectorMath.Exp(Vector512.Create(x))[5];
            var expected = Math.Exp(x);
            Assert.InRange(Math.Abs(actual - expected) / expected, 0, 2.4e-7);
        }

        Assert.Equal(0, VectorMath.Exp(Vector512.Create(float.NegativeInfinity))[0]);
        Assert.Equal(1, VectorMath.Exp(Vector512.Create(0f))[0]);
        foreach (var bits in new uint[] { 0x7FC00000, 0xFFC00000, 0x7FC00001, 0x7FFFFFFF })
            Assert.Equal(float.NaN, VectorMath.Exp(Vector512.Create(BitConverter.UInt32BitsToSingle(bits)))[3]);
    }

    [Fact]
    public void Reductions_AnyLength_EqualTheDefinition()
    {
        var random = new Random(3);
        foreach (var length in new[] { 1, 15, 16, 17, 63, 1024, 1025, 5000 })
        {
            var values = Floats(random, length);
            var expected = Math.Log(values.Sum(value => Math.Exp(value)));
            Assert.Equal(expected, Softmax.LogSumExp(values), 1e-6);
            Assert.Equal(Array.IndexOf(values, values.Max()), Softmax.IndexOfMax(values));
            Assert.Equal(values.Sum(value => Math.Exp((value - 1) * 0.5)), Softmax.SumOfExp(values, 1, 0.5f), 1e-3);
        }

        Assert.Equal(0, Softmax.IndexOfMax([float.NaN, float.NaN]));
        Assert.Equal(1, Softmax.IndexOfMax([float.NaN, -3, float.NaN]));
    }

    [Fact]
    public void BFloat16_OneOrSixteenNumbers_AreRoundedToNearestEvenAndNaNStays()
    {
        // Ties to even, up to infinity, the smallest, and NaNs whose bits would round up to minus zero.
        uint[] bits = [0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0, 0x80000000, 1, 0x00008000, 0x00018000, 0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001];
        ushort[] expected = [0x3F80, 0x3F82, 0x3F81, 0x3F80, 0x7F80, 0x7F80, 0xFF80, 0, 0x8000, 0, 0, 2, 0x7FC0, 0x7FC0, 0x7FC0, 0x7FC0];
        var (one, sixteen) = (new ushort[16], new ushort[16]);
        fixed (uint* from = bits)
        fixed (ushort* a = one, b = sixteen)
        {
            for (var i = 0; i < 16; i++) BFloat16.Set(((float*)from)[i], a, i);
            BFloat16.Store(Vector512.Load((float*)from), b, 0);
        }

        Assert.Equal(expected, one);
        Assert.Equal(expected, sixteen);
    }

    [Fact]
    public void Turn_AnySizes_RotatesScalesAndTurnsBack()
    {
        var random = new Random(4);
        foreach (var (size, rotated) in new[] { (8, 8), (24, 8), (64, 64), (80, 80), (96, 32), (40, 0) })
        {
            var (x, angles) = (Floats(random, size), Floats(random, Math.Max(1, rotated / 2)));
            float[] cos = [.. angles.Select(MathF.Cos)], sin = [.. angles.Select(MathF.Sin)], y = new float[size], back = new float[size];
            fixed (float* px = x, py = y, pb = back, pc = cos, ps = sin)
            {
                RotaryRow.Turn<Float32, Float32>(px, py, size, rotated, pc, ps, 3);
                RotaryRow.Turn<Float32, Float32>(py, pb, size, rotated, pc, ps, 1 / 3f, -1);
            }

            for (var i = 0; i < size; i++)
            {
                var (half, pair) = (rotated / 2, i % Math.Max(1, rotated / 2));
                double expected = i < half ? (x[i] * cos[pair]) - (x[i + half] * sin[pair]) : i < rotated ? (x[i] * cos[pair]) + (x[i - half] * sin[pair]) : x[i];
                Assert.Equal(3 * expected, y[i], 1e-5);
                Assert.Equal(x[i], back[i], 1e-5);
            }
        }
    }

    [Theory]
    [InlineData(1000, 17, 1000)]
    [InlineData(32_003, 64, 32_003)]
    [InlineData(32_003, 64, 5_000)]
    [InlineData(5, 5, 5)]
    public void RunningSoftmax_BlockByBlock_IsTheDefinition(int vocabulary, int k, int block)
    {
        IsTheDefinition<Float32>(vocabulary, k, block);
        IsTheDefinition<BFloat16>(vocabulary, k, block); // 256 steps an octave: full of equal logits
    }

    [Theory]
    [InlineData(0)]
    [InlineData(37)]
    [InlineData(49)]
    public void RunningSoftmax_NaNAmongLogits_GivesNaN(int at)
    {
        var logits = new float[50];
        logits[at] = float.NaN;
        var running = new RunningSoftmax([3], entropies: true, 0, threads: 1);
        fixed (float* p = logits) running.Add<Float32>(p, 0, logits.Length);
        Assert.Equal(float.NaN, running.Loss(0));
        Assert.Equal(float.NaN, running.Entropy(0));
    }

    private static void IsTheDefinition<T>(int vocabulary, int k, int block) where T : struct, IWritableFormat
    {
        const int rows = 9;
        var random = new Random(3);
        var logits = Floats(random, rows * vocabulary);
        foreach (ref var logit in logits.AsSpan()) logit *= 9;
        logits.AsSpan(0, vocabulary).Fill(0.5f);    // all equally likely
        logits[vocabulary + 2] = 90;                // one certain
        long[] targets = [.. Enumerable.Range(0, rows).Select(row => (long)random.Next(vocabulary))];
        int[] asked = [.. Enumerable.Range(0, rows).SelectMany(_ => new[] { random.Next(vocabulary), vocabulary })];
        var values = Enumerable.Repeat(float.NaN, asked.Length).ToArray();
        var running = new RunningSoftmax(targets, entropies: true, k, threads: 2);
        for (var first = 0; first < vocabulary; first += block)
        {
            var columns = Math.Min(block, vocabulary - first);
            var stored = new byte[T.RowBytes(rows * columns)];
            fixed (byte* p = stored)
            {
                for (var row = 0; row < rows; row++)
                {
                    for (var i = 0; i < columns; i++)
                    {
                        T.Set(logits[(row * vocabulary) + first + i], p, (row * columns) + i);
                        logits[(row * vocabulary) + first + i] = T.Get(p, (row * columns) + i);
                    }
                }

                running.Add<T>(p, first, columns);
                RunningSoftmax.Gather<T>(p, rows, first, columns, asked, values);
            }
        }

        var (ids, logProbabilities) = (new int[rows * k], new float[rows * k]);
        running.Top(ids, logProbabilities);
        for (var row = 0; row < rows; row++)
        {
            var mine = logits.AsSpan(row * vocabulary, vocabulary).ToArray();
            double max = mine.Max(), logSum = max + Math.Log(mine.Sum(value => Math.Exp(value - max)));
            Assert.Equal(logSum, running.LogSum(row), 1e-5);
            Assert.Equal(logSum - mine[targets[row]], running.Loss(row), 1e-5);
            Assert.Equal(-mine.Sum(value => Math.Exp(value - logSum) * (value - logSum)), running.Entropy(row), 3e-5 * Math.Log(vocabulary));
            var order = Enumerable.Range(0, vocabulary).OrderByDescending(id => mine[id]).Take(k).ToArray(); // a stable sort
            Assert.Equal(order, ids.AsSpan(row * k, k).ToArray());
            for (var i = 0; i < k; i++) Assert.Equal(mine[order[i]] - logSum, logProbabilities[(row * k) + i], 1e-4);
            Assert.Equal(mine[asked[2 * row]], values[2 * row]);
            Assert.Equal(float.NaN, values[(2 * row) + 1]);
        }
    }

    [Fact]
    public void WorkerPool_ManyShortLoops_RunEveryIndexOnce()
    {
        using var pool = new WorkerPool(4);
        var counts = new int[100];
        for (var round = 0; round < 2_000; round++)
        {
            pool.For(counts.Length, (_, i) => Interlocked.Increment(ref counts[i]));
            if (round % 500 == 0) Thread.Sleep(5);
        }

        Assert.All(counts, count => Assert.Equal(2_000, count));
    }

    [Fact]
    public void WorkerPool_BodyThatThrows_ThrowsAndGoesOn()
    {
        using var pool = new WorkerPool(3);
        Assert.Throws<InvalidOperationException>(() => pool.For(50, (_, i) => { if (i == 20) throw new InvalidOperationException("as asked"); }));
        var sum = 0;
        pool.For(50, (_, i) => Interlocked.Add(ref sum, i));
        Assert.Equal(1225, sum);
    }

    private static void Check<TFormat>(Random random, int N, int R, int K) where TFormat : struct, INumberFormat
    {
        var w = Floats(random, R * K);
        var x = Floats(random, N * K);
        var bias = Floats(random, R);
        var y = Floats(random, N * R);
        var before = y.ToArray();
        var rowBytes = TFormat.RowBytes(K);
        var stored = new byte[rowBytes * R];
        fixed (byte* ps = stored)
        fixed (float* px = x, py = y, pb = bias)
        {
            for (var r = 0; r < R; r++) Store<TFormat>(ps + (r * rowBytes), w.AsSpan(r * K, K));
            MatrixKernel<TFormat>.Multiply(ps, rowBytes, 0, R, K, px, K, N, py, R, pb, accumulate: true);
            for (var n = 0; n < N; n++)
            {
                for (var r = 0; r < R; r++)
                {
                    double expected = before[(n * R) + r] + bias[r];
                    for (var k = 0; k < K; k++) expected += (double)x[(n * K) + k] * TFormat.Get(ps + (r * rowBytes), k);
                    Assert.Equal(expected, y[(n * R) + r], 1e-4);
                }
            }
        }
    }

    private static void Store<TFormat>(byte* row, ReadOnlySpan<float> values)
    {
        if (typeof(TFormat) == typeof(Int8))
        {
            Int8.StoreRow(row, values);
            return;
        }

        for (var i = 0; i < values.Length; i++)
        {
            if (typeof(TFormat) == typeof(BFloat16)) BFloat16.Set(values[i], row, i);
            else Float32.Set(values[i], row, i);
        }
    }

    private static float[] Floats(Random random, int count) => [.. Enumerable.Range(0, count).Select(_ => (float)((random.NextDouble() * 2) - 1))];
}
