using Rho.Model.Inference.Kernels;

namespace Rho.Model.Inference.Tests;

public sealed unsafe class KernelTests
{
    [Fact]
    public void Multiply_AnyShape_EqualsTheDefinition()
    {
        var random = new Random(1);
        foreach (var (N, R, K) in new[] { (1, 1, 1), (1, 8, 16), (2, 9, 17), (3, 7, 15), (4, 4, 32), (5, 13, 40), (7, 21, 64), (9, 30, 100), (13, 3, 129) })
        {
            Check<Float32Format>(random, N, R, K);
            Check<BFloat16Format>(random, N, R, K);
            Check<Int8Format>(random, N, R, K);
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
            MatrixKernel<Float32Format>.Multiply((byte*)pw, K * 4, 0, R, K, px, K, N, py, R, null, false);
            for (var n = 0; n < N; n++)
            {
                // In two pieces of rows besides, which start elsewhere.
                MatrixKernel<Float32Format>.Multiply((byte*)pw, K * 4, 0, 5, K, px + (n * K), K, 1, pa, R, null, false);
                MatrixKernel<Float32Format>.Multiply((byte*)pw, K * 4, 5, R, K, px + (n * K), K, 1, pa, R, null, false);
                Assert.True(all.AsSpan(n * R, R).SequenceEqual(alone));
            }
        }
    }

    [Fact]
    public void Exp_OverItsRange_IsWithinTwoUnits()
    {
        for (var x = -87f; x < 88; x += 0.0037f)
        {
            var actual = VectorKernels.Exp(System.Runtime.Intrinsics.Vector512.Create(x))[5];
            var expected = Math.Exp(x);
            Assert.InRange(Math.Abs(actual - expected) / expected, 0, 2.4e-7);
        }

        Assert.Equal(0, VectorKernels.Exp(System.Runtime.Intrinsics.Vector512.Create(float.NegativeInfinity))[0]);
        Assert.Equal(1, VectorKernels.Exp(System.Runtime.Intrinsics.Vector512.Create(0f))[0]);
    }

    [Fact]
    public void Reductions_AnyLength_EqualTheDefinition()
    {
        var random = new Random(3);
        foreach (var length in new[] { 1, 15, 16, 17, 63, 1024, 1025, 5000 })
        {
            var values = Floats(random, length);
            var expected = Math.Log(values.Sum(value => Math.Exp(value)));
            Assert.Equal(expected, VectorKernels.LogSumExp(values), 1e-6);
            Assert.Equal(Array.IndexOf(values, values.Max()), VectorKernels.IndexOfMax(values));
            Assert.Equal(values.Sum(value => Math.Exp((value - 1) * 0.5)), VectorKernels.SumOfExp(values, 1, 0.5f), 1e-3);
        }

        Assert.Equal(0, VectorKernels.IndexOfMax([float.NaN, float.NaN]));
        Assert.Equal(1, VectorKernels.IndexOfMax([float.NaN, -3, float.NaN]));
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
                    for (var k = 0; k < K; k++) expected += (double)x[(n * K) + k] * TFormat.LoadOne(ps + (r * rowBytes), k);
                    Assert.Equal(expected, y[(n * R) + r], 1e-4);
                }
            }
        }
    }

    private static void Store<TFormat>(byte* row, ReadOnlySpan<float> values)
    {
        if (typeof(TFormat) == typeof(Int8Format))
        {
            Int8Format.StoreRow(row, values);
            return;
        }

        for (var i = 0; i < values.Length; i++)
        {
            if (typeof(TFormat) == typeof(BFloat16Format)) BFloat16Format.StoreOne(row, i, values[i]);
            else Float32Format.StoreOne(row, i, values[i]);
        }
    }

    private static float[] Floats(Random random, int count) => [.. Enumerable.Range(0, count).Select(_ => (float)((random.NextDouble() * 2) - 1))];
}
