using System.Runtime.Intrinsics;

namespace Rho.Model.Cpu;

/// <summary>The three small products of attention, eight query rows at a time: sixteen sums stay in registers while one operand streams by.</summary>
internal static unsafe class AttentionProducts
{
    /// <summary>c[r, j] = sum_d a[r, d] bt[d, j] for 8 rows and the columns from .. end, in tiles of 32.</summary>
    internal static void Scores(float* a, int depth, float* bt, int stride, float* c, int from, int end)
    {
        for (var j = from; j < end; j += 32)
        {
            Vector512<float> c00 = Vector512<float>.Zero, c01 = Vector512<float>.Zero;
            Vector512<float> c10 = Vector512<float>.Zero, c11 = Vector512<float>.Zero;
            Vector512<float> c20 = Vector512<float>.Zero, c21 = Vector512<float>.Zero;
            Vector512<float> c30 = Vector512<float>.Zero, c31 = Vector512<float>.Zero;
            Vector512<float> c40 = Vector512<float>.Zero, c41 = Vector512<float>.Zero;
            Vector512<float> c50 = Vector512<float>.Zero, c51 = Vector512<float>.Zero;
            Vector512<float> c60 = Vector512<float>.Zero, c61 = Vector512<float>.Zero;
            Vector512<float> c70 = Vector512<float>.Zero, c71 = Vector512<float>.Zero;
            var b = bt + j;
            for (var d = 0; d < depth; d++, b += stride)
            {
                var (b0, b1) = (Vector512.Load(b), Vector512.Load(b + 16));
                var a0 = Vector512.Create(a[(0 * depth) + d]);
                c00 = Vector512.FusedMultiplyAdd(a0, b0, c00);
                c01 = Vector512.FusedMultiplyAdd(a0, b1, c01);
                var a1 = Vector512.Create(a[(1 * depth) + d]);
                c10 = Vector512.FusedMultiplyAdd(a1, b0, c10);
                c11 = Vector512.FusedMultiplyAdd(a1, b1, c11);
                var a2 = Vector512.Create(a[(2 * depth) + d]);
                c20 = Vector512.FusedMultiplyAdd(a2, b0, c20);
                c21 = Vector512.FusedMultiplyAdd(a2, b1, c21);
                var a3 = Vector512.Create(a[(3 * depth) + d]);
                c30 = Vector512.FusedMultiplyAdd(a3, b0, c30);
                c31 = Vector512.FusedMultiplyAdd(a3, b1, c31);
                var a4 = Vector512.Create(a[(4 * depth) + d]);
                c40 = Vector512.FusedMultiplyAdd(a4, b0, c40);
                c41 = Vector512.FusedMultiplyAdd(a4, b1, c41);
                var a5 = Vector512.Create(a[(5 * depth) + d]);
                c50 = Vector512.FusedMultiplyAdd(a5, b0, c50);
                c51 = Vector512.FusedMultiplyAdd(a5, b1, c51);
                var a6 = Vector512.Create(a[(6 * depth) + d]);
                c60 = Vector512.FusedMultiplyAdd(a6, b0, c60);
                c61 = Vector512.FusedMultiplyAdd(a6, b1, c61);
                var a7 = Vector512.Create(a[(7 * depth) + d]);
                c70 = Vector512.FusedMultiplyAdd(a7, b0, c70);
                c71 = Vector512.FusedMultiplyAdd(a7, b1, c71);
            }

            c00.Store(c + (0 * stride) + j);
            c01.Store(c + (0 * stride) + j + 16);
            c10.Store(c + (1 * stride) + j);
            c11.Store(c + (1 * stride) + j + 16);
            c20.Store(c + (2 * stride) + j);
            c21.Store(c + (2 * stride) + j + 16);
            c30.Store(c + (3 * stride) + j);
            c31.Store(c + (3 * stride) + j + 16);
            c40.Store(c + (4 * stride) + j);
            c41.Store(c + (4 * stride) + j + 16);
            c50.Store(c + (5 * stride) + j);
            c51.Store(c + (5 * stride) + j + 16);
            c60.Store(c + (6 * stride) + j);
            c61.Store(c + (6 * stride) + j + 16);
            c70.Store(c + (7 * stride) + j);
            c71.Store(c + (7 * stride) + j + 16);
        }
    }

    /// <summary>o[r, h] = sum_j p[r, j] v[j, h] for 8 rows and the columns from .. end of p.</summary>
    internal static void Mix(float* p, int stride, int from, int end, float* v, int width, float* o)
    {
        for (var h = 0; h < width; h += 32)
        {
            Vector512<float> o00 = Vector512<float>.Zero, o01 = Vector512<float>.Zero;
            Vector512<float> o10 = Vector512<float>.Zero, o11 = Vector512<float>.Zero;
            Vector512<float> o20 = Vector512<float>.Zero, o21 = Vector512<float>.Zero;
            Vector512<float> o30 = Vector512<float>.Zero, o31 = Vector512<float>.Zero;
            Vector512<float> o40 = Vector512<float>.Zero, o41 = Vector512<float>.Zero;
            Vector512<float> o50 = Vector512<float>.Zero, o51 = Vector512<float>.Zero;
            Vector512<float> o60 = Vector512<float>.Zero, o61 = Vector512<float>.Zero;
            Vector512<float> o70 = Vector512<float>.Zero, o71 = Vector512<float>.Zero;
            var x = v + ((long)from * width) + h;
            for (var j = from; j < end; j++, x += width)
            {
                var (x0, x1) = (Vector512.Load(x), Vector512.Load(x + 16));
                var p0 = Vector512.Create(p[(0 * stride) + j]);
                o00 = Vector512.FusedMultiplyAdd(p0, x0, o00);
                o01 = Vector512.FusedMultiplyAdd(p0, x1, o01);
                var p1 = Vector512.Create(p[(1 * stride) + j]);
                o10 = Vector512.FusedMultiplyAdd(p1, x0, o10);
                o11 = Vector512.FusedMultiplyAdd(p1, x1, o11);
                var p2 = Vector512.Create(p[(2 * stride) + j]);
                o20 = Vector512.FusedMultiplyAdd(p2, x0, o20);
                o21 = Vector512.FusedMultiplyAdd(p2, x1, o21);
                var p3 = Vector512.Create(p[(3 * stride) + j]);
                o30 = Vector512.FusedMultiplyAdd(p3, x0, o30);
                o31 = Vector512.FusedMultiplyAdd(p3, x1, o31);
                var p4 = Vector512.Create(p[(4 * stride) + j]);
                o40 = Vector512.FusedMultiplyAdd(p4, x0, o40);
                o41 = Vector512.FusedMultiplyAdd(p4, x1, o41);
                var p5 = Vector512.Create(p[(5 * stride) + j]);
                o50 = Vector512.FusedMultiplyAdd(p5, x0, o50);
                o51 = Vector512.FusedMultiplyAdd(p5, x1, o51);
                var p6 = Vector512.Create(p[(6 * stride) + j]);
                o60 = Vector512.FusedMultiplyAdd(p6, x0, o60);
                o61 = Vector512.FusedMultiplyAdd(p6, x1, o61);
                var p7 = Vector512.Create(p[(7 * stride) + j]);
                o70 = Vector512.FusedMultiplyAdd(p7, x0, o70);
                o71 = Vector512.FusedMultiplyAdd(p7, x1, o71);
            }

            o00.Store(o + (0 * width) + h);
            o01.Store(o + (0 * width) + h + 16);
            o10.Store(o + (1 * width) + h);
            o11.Store(o + (1 * width) + h + 16);
            o20.Store(o + (2 * width) + h);
            o21.Store(o + (2 * width) + h + 16);
            o30.Store(o + (3 * width) + h);
            o31.Store(o + (3 * width) + h + 16);
            o40.Store(o + (4 * width) + h);
            o41.Store(o + (4 * width) + h + 16);
            o50.Store(o + (5 * width) + h);
            o51.Store(o + (5 * width) + h + 16);
            o60.Store(o + (6 * width) + h);
            o61.Store(o + (6 * width) + h + 16);
            o70.Store(o + (7 * width) + h);
            o71.Store(o + (7 * width) + h + 16);
        }
    }

    /// <summary>y[j, h] += sum_r p[r, j] x[r, h] for 8 rows and the columns from .. end of p.</summary>
    internal static void Spread(float* p, int stride, int from, int end, float* x, int width, float* y)
    {
        for (var h = 0; h < width; h += 32)
        {
            Vector512<float> x00 = Vector512.Load(x + (0 * width) + h), x01 = Vector512.Load(x + (0 * width) + h + 16);
            Vector512<float> x10 = Vector512.Load(x + (1 * width) + h), x11 = Vector512.Load(x + (1 * width) + h + 16);
            Vector512<float> x20 = Vector512.Load(x + (2 * width) + h), x21 = Vector512.Load(x + (2 * width) + h + 16);
            Vector512<float> x30 = Vector512.Load(x + (3 * width) + h), x31 = Vector512.Load(x + (3 * width) + h + 16);
            Vector512<float> x40 = Vector512.Load(x + (4 * width) + h), x41 = Vector512.Load(x + (4 * width) + h + 16);
            Vector512<float> x50 = Vector512.Load(x + (5 * width) + h), x51 = Vector512.Load(x + (5 * width) + h + 16);
            Vector512<float> x60 = Vector512.Load(x + (6 * width) + h), x61 = Vector512.Load(x + (6 * width) + h + 16);
            Vector512<float> x70 = Vector512.Load(x + (7 * width) + h), x71 = Vector512.Load(x + (7 * width) + h + 16);
            var o = y + ((long)from * width) + h;
            for (var j = from; j < end; j++, o += width)
            {
                var (o0, o1) = (Vector512.Load(o), Vector512.Load(o + 16));
                var p0 = Vector512.Create(p[(0 * stride) + j]);
                o0 = Vector512.FusedMultiplyAdd(p0, x00, o0);
                o1 = Vector512.FusedMultiplyAdd(p0, x01, o1);
                var p1 = Vector512.Create(p[(1 * stride) + j]);
                o0 = Vector512.FusedMultiplyAdd(p1, x10, o0);
                o1 = Vector512.FusedMultiplyAdd(p1, x11, o1);
                var p2 = Vector512.Create(p[(2 * stride) + j]);
                o0 = Vector512.FusedMultiplyAdd(p2, x20, o0);
                o1 = Vector512.FusedMultiplyAdd(p2, x21, o1);
                var p3 = Vector512.Create(p[(3 * stride) + j]);
                o0 = Vector512.FusedMultiplyAdd(p3, x30, o0);
                o1 = Vector512.FusedMultiplyAdd(p3, x31, o1);
                var p4 = Vector512.Create(p[(4 * stride) + j]);
                o0 = Vector512.FusedMultiplyAdd(p4, x40, o0);
                o1 = Vector512.FusedMultiplyAdd(p4, x41, o1);
                var p5 = Vector512.Create(p[(5 * stride) + j]);
                o0 = Vector512.FusedMultiplyAdd(p5, x50, o0);
                o1 = Vector512.FusedMultiplyAdd(p5, x51, o1);
                var p6 = Vector512.Create(p[(6 * stride) + j]);
                o0 = Vector512.FusedMultiplyAdd(p6, x60, o0);
                o1 = Vector512.FusedMultiplyAdd(p6, x61, o1);
                var p7 = Vector512.Create(p[(7 * stride) + j]);
                o0 = Vector512.FusedMultiplyAdd(p7, x70, o0);
                o1 = Vector512.FusedMultiplyAdd(p7, x71, o1);
                o0.Store(o);
                o1.Store(o + 16);
            }
        }
    }
}
