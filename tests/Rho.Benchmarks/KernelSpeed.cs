using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using Rho.Kernels;
using Rho.Model;
using Rho.Torch;
using Rho.Training;
using TorchSharp;
using static TorchSharp.torch;
using static TorchSharp.torch.nn.functional;
using BFloat16 = Rho.Kernels.BFloat16;
using Parameter = TorchSharp.Modules.Parameter;

namespace Rho.Benchmarks;

/// <summary>
/// Every kernel beside libtorch's own way to the same numbers on the CPU, through TorchSharp: in one process, in turns, the medians of the
/// rounds. A kernel that is neither faster by 10 % nor leaner at any shape has no reason to be.
/// </summary>
// R rows, B sequences of T tokens, D width, F intermediate, N heads, K key-value heads, H head size, V vocabulary.
internal static unsafe class KernelSpeed
{
    private const double Least = 1.10;
    private const int Threads = 2;

    /// <param name="Saved">bytes of temporary memory that libtorch's way takes and the kernel does not</param>
    private sealed record Case(string Kernel, string Shape, string Type, Action Ours, Action Torch, long Saved = 0);

    internal static Command Command()
    {
        var rounds = new Option<int>("--rounds") { Description = "Turns of each", HelpName = "N", DefaultValueFactory = _ => 15 };
        var only = new Option<string>("--only") { Description = "Kernels whose name holds this", HelpName = "TEXT", DefaultValueFactory = _ => "" };
        var command = new Command("kernels", "Each of the CPU's kernels beside libtorch's own way to the same numbers, on two threads, and which are not worth having.") { rounds, only };
        command.SetAction(result => Run(result.GetValue(rounds), result.GetValue(only)!));
        return command;
    }

    private static int Run(int rounds, string only)
    {
        LibTorch.Load();
        set_num_threads(Threads);
        using var guard = no_grad();
        Console.WriteLine("| kernel | shape | type | kernel, µs | libtorch, µs | libtorch / kernel | by processor time | libtorch's more memory, MB |");
        Console.WriteLine("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |");
        List<(Case Case, double Ratio)> measured = [];
        foreach (var part in new Func<List<Case>>[] { Rowwise<Float32>, Rowwise<BFloat16>, Attentions<Float32>, Attentions<BFloat16>, Heads<Float32>, Heads<BFloat16>, Decoding<Float32>, Decoding<BFloat16>, Flat })
        {
            s_alive.Clear();
            foreach (var one in part().Where(one => one.Kernel.Contains(only, StringComparison.OrdinalIgnoreCase)))
            {
                var (ours, torch) = Measure(one, rounds);
                var (wall, processor) = (torch.Wall / ours.Wall, torch.Processor / ours.Processor);
                measured.Add((one, Math.Min(wall, processor)));
                Console.WriteLine(string.Create(CultureInfo.InvariantCulture,
                    $"| {one.Kernel} | {one.Shape} | {one.Type} | {ours.Wall:N0} | {torch.Wall:N0} | {wall:0.00} | {processor:0.00} | {(one.Saved == 0 ? "" : $"{one.Saved / 1e6:0.0}")} |"));
            }
        }

        Console.WriteLine($"\nBelow {Least.ToString("0.00", CultureInfo.InvariantCulture)} by time or by processor time:");
        foreach (var kernel in measured.GroupBy(one => one.Case.Kernel))
        {
            var below = kernel.Where(one => one.Ratio < Least).Select(one => string.Create(CultureInfo.InvariantCulture, $"{one.Case.Shape} {one.Case.Type} ({one.Ratio:0.00})")).ToList();
            if (below.Count == 0) continue;
            Console.WriteLine($"- {kernel.Key} at {string.Join("; ", below)}{(below.Count < kernel.Count() ? "" : kernel.Any(one => one.Case.Saved > 0) ? ": everywhere, but leaner" : ": everywhere")}");
        }

        return 0;
    }

    /// <summary>Medians, in microseconds: of the time, and of the processor time.</summary>
    private static ((double Wall, double Processor) Ours, (double Wall, double Processor) Torch) Measure(Case one, int rounds)
    {
        // As many calls a turn as take some milliseconds.
        static int Calls(Action body)
        {
            for (var i = 0; i < 40; i++) body(); // compiled by then
            var begin = Stopwatch.GetTimestamp();
            for (var i = 0; i < 3; i++) body();
            return (int)Math.Clamp(20 / Math.Max(1e-3, Stopwatch.GetElapsedTime(begin).TotalMilliseconds / 3), 1, 3000);
        }

        static (double Wall, double Processor) Turn(Action body, int calls)
        {
            var (processor, begin) = (Environment.CpuUsage.TotalTime, Stopwatch.GetTimestamp());
            for (var i = 0; i < calls; i++) body();
            return (Stopwatch.GetElapsedTime(begin).TotalMicroseconds / calls, (Environment.CpuUsage.TotalTime - processor).TotalMicroseconds / calls);
        }

        static (double, double) Medians(IEnumerable<(double Wall, double Processor)> turns) =>
            (Measuring.Median(turns.Select(turn => turn.Wall)), Measuring.Median(turns.Select(turn => turn.Processor)));

        void Torch()
        {
            using var scope = NewDisposeScope();
            one.Torch();
        }

        var (oursCalls, torchCalls) = (Calls(one.Ours), Calls(Torch));
        var turns = Enumerable.Range(0, rounds).Select(_ => (Ours: Turn(one.Ours, oursCalls), Torch: Turn(Torch, torchCalls))).ToList();
        return (Medians(turns.Select(turn => turn.Ours)), Medians(turns.Select(turn => turn.Torch)));
    }

    private static bool IsFloat<T>() => typeof(T) == typeof(Float32);

    private static string Name<T>() => IsFloat<T>() ? "float32" : "bfloat16";

    private static Tensor Random<T>(params long[] shape) => randn(shape).to(IsFloat<T>() ? ScalarType.Float32 : ScalarType.BFloat16);

    // What only an address is known of must not be collected.
    private static readonly List<object> s_alive = [];

    private static byte* At(Tensor tensor)
    {
        s_alive.Add(tensor);
        return (byte*)FlatMemory.Address(tensor);
    }

    /// <summary>The way back through libtorch's graph of an operation.</summary>
    private static Action Back(Func<Tensor, Tensor> forward, Tensor x, Tensor gradient)
    {
        using var on = enable_grad();
        var leaf = x.detach().clone().requires_grad_(true);
        var y = forward(leaf);
        return () => autograd.grad([y], [leaf], [gradient], retain_graph: true);
    }

    /// <summary>Of the training batches of the default sizes and of 512x8.</summary>
    private static List<Case> Rowwise<T>() where T : struct, IWritableFormat
    {
        List<Case> cases = [];
        foreach (var sizes in new[] { Sizes.All["default"], Sizes.All["512x8"] })
        {
            var (R, D, F, N, H, type) = (sizes.Tokens, sizes.Hidden, sizes.Intermediate, sizes.Heads, sizes.Hidden / sizes.Heads, Name<T>());
            var (x, weight, y, dy, sum) = (Random<T>(R, D), Random<T>(D), Random<T>(R, D), Random<T>(R, D), zeros(D));
            byte* px = At(x), pw = At(weight), py = At(y), pdy = At(dy), ps = At(sum);
            Tensor Norm(Tensor x) => x.mul(x.to(ScalarType.Float32).square().mean([-1L], keepdim: true).add(1e-5).rsqrt()).to(x.dtype).mul(weight);
            cases.Add(new Case("RMSNorm", $"{R} x {D}", type, () => RmsNorm.Forward<T>(px, pw, py, R, D, 1e-5, 0, Threads), () => Norm(x), 4L * R * D));
            cases.Add(new Case("RMSNorm, backward", $"{R} x {D}", type, () => RmsNorm.Backward<T>(px, pw, pdy, py, (float*)ps, R, D, 1e-5, 0, Threads), Back(Norm, x, dy), 4L * R * D));

            // The backward overwrites its operand: with a gradient of zero that stays what it is.
            var (both, gated, given, none) = (Random<T>(R, 2 * F), Random<T>(R, F), Random<T>(R, F), Random<T>(R, F).zero_());
            var zeroed = Random<T>(R, 2 * F);
            byte* pb = At(both), pz = At(zeroed), pg = At(gated), pn = At(none);
            Tensor Gate(Tensor both, Func<Tensor, Tensor> activation) => activation(both.narrow(1, 0, F)).mul(both.narrow(1, F, F));
            Tensor Silu(Tensor both) => Gate(both, x => silu(x));
            // TorchSharp has gelu by the error function alone; the one by tanh is not cheaper.
            Tensor Gelu(Tensor both) => Gate(both, gelu);
            var (element, shape) = (x.ElementSize, $"{R} x {F}");
            cases.Add(new Case("SiLU gate", shape, type, () => Gates.Forward<T, Silu>(pb, pg, R, F, F, Threads), () => Silu(both), element * R * F));
            cases.Add(new Case("GELU gate", shape, type, () => Gates.Forward<T, GeluTanh>(pb, pg, R, F, F, Threads), () => Gelu(both), element * R * F));
            cases.Add(new Case("SiLU gate, backward", shape, type, () => Gates.Backward<T, Silu>(pz, pn, R, F, Threads), Back(Silu, both, given), element * R * 4 * F));
            cases.Add(new Case("GELU gate, backward", shape, type, () => Gates.Backward<T, GeluTanh>(pz, pn, R, F, Threads), Back(Gelu, both, given), element * R * 4 * F));

            var (heads, turned, cos, sin) = (Random<T>(R, N, H), Random<T>(R, N, H), randn(R, H / 2), randn(R, H / 2));
            var (cosines, sines) = (cos.to(x.dtype).unsqueeze(1), sin.to(x.dtype).unsqueeze(1));
            byte* ph = At(heads), pt = At(turned);
            float* pc = (float*)At(cos), psin = (float*)At(sin);
            cases.Add(new Case("rotation", $"{R} x {N} x {H}", type, () => Parallel.For(0, Threads, part =>
            {
                for (var i = R * N / Threads * part; i < R * N / Threads * (part + 1); i++)
                    RotaryRow.Turn<T, T>(ph + T.RowBytes((long)i * H), pt + T.RowBytes((long)i * H), H, H, pc + (i / N * (H / 2)), psin + (i / N * (H / 2)));
            }), () =>
            {
                var (a, b) = (heads.narrow(-1, 0, H / 2), heads.narrow(-1, H / 2, H / 2));
                cat([a.mul(cosines).sub(b.mul(sines)), b.mul(cosines).add(a.mul(sines))], -1);
            }, 3 * element * R * N * H));
        }

        return cases;
    }

    /// <summary>Without rotation, which is measured by itself: 2,048 tokens in sequences of 512 and of 2,048, and a piece that goes on after 1,024.</summary>
    private static List<Case> Attentions<T>() where T : struct, IWritableFormat
    {
        const int N = 8, K = 4, H = 64;
        List<Case> cases = [];
        var type = Name<T>();
        var shape = new AttentionShape(N, K, H, 1 / MathF.Sqrt(H), 0, 0, [], [], null);
        Tensor Repeat(Tensor x) => x.transpose(1, 2).repeat_interleave(N / K, 1);
        foreach (var (B, T_) in new[] { (4, 512), (1, 2048) })
        {
            var (qkv, attended, logSums) = (Random<T>(B * T_, (N + (2 * K)) * H), Random<T>(B * T_, N * H), randn(B * T_, N));
            var (gradient, result) = (Random<T>(B * T_, N * H), Random<T>(B * T_, (N + (2 * K)) * H));
            Piece[] pieces = [.. Enumerable.Range(0, B).Select(b => new Piece(b * T_, 0, T_))];
            var backward = new AttentionGradient(shape, B, T_, new ChosenRows(null), new ChosenRows(null));
            byte* pq = At(qkv), pa = At(attended), pl = At(logSums), pg = At(gradient), pr = At(result);
            Tensor Attend(Tensor qkv)
            {
                var parts = qkv.view(B, T_, N + (2 * K), H).split([N, K, K], 2);
                return scaled_dot_product_attention(parts[0].transpose(1, 2), Repeat(parts[1]), Repeat(parts[2]), is_casual: true).transpose(1, 2).reshape(B * T_, N * H);
            }

            Attention.Forward<T>(shape, pieces, pq, null, pa, (float*)pl, Threads);
            var saved = 2 * qkv.ElementSize * B * T_ * N * H;
            cases.Add(new Case("attention", $"{B} x {T_}, {N} / {K} x {H}", type, () => Attention.Forward<T>(shape, pieces, pq, null, pa, (float*)pl, Threads), () => Attend(qkv), saved));
            cases.Add(new Case("attention, backward", $"{B} x {T_}, {N} / {K} x {H}", type, () => backward.Backward<T>(pq, pa, (float*)pl, pg, pr, null, Threads), Back(Attend, qkv, gradient), saved));
        }

        const int before = 1024, after = 1024;
        var (piece, earlier, output) = (Random<T>(after, (N + (2 * K)) * H), Random<T>(before, 2 * K, H), Random<T>(after, N * H));
        byte* pp = At(piece), pe = At(earlier), po = At(output);
        cases.Add(new Case("attention with kept keys", $"{after} after {before}, {N} / {K} x {H}", type, () => Attention.Forward<T>(shape, [new Piece(0, before, after)], pp, pe, po, null, Threads), () =>
        {
            var rows = piece.view(1, after, N + (2 * K), H);
            var keysValues = cat([earlier.unsqueeze(0), rows.narrow(2, N, 2 * K)], 1);
            var position = arange(before + after);
            var seen = position.le(position.narrow(0, before, after).unsqueeze(-1));
            scaled_dot_product_attention(rows.narrow(2, 0, N).transpose(1, 2), Repeat(keysValues.narrow(2, 0, K)), Repeat(keysValues.narrow(2, K, K)), seen).transpose(1, 2).reshape(after, N * H);
        }, 3 * piece.ElementSize * (before + after) * N * H));
        return cases;
    }

    /// <summary>Logits of 512 rows over 32,000 tokens.</summary>
    private static List<Case> Heads<T>() where T : struct, IWritableFormat
    {
        const int R = 512, V = 32_000;
        var (logits, type, shape) = (Random<T>(R, V), Name<T>(), $"{R} x {V:N0}");
        var target = randint(V, [R], ScalarType.Int64);
        var targets = target.data<long>().ToArray();
        var (logSums, weights) = (new float[R], new float[R]);
        var inPlace = logits.clone();
        byte* pl = At(logits), pi = At(inPlace);
        Array.Fill(logSums, MathF.Log(V) + 0.5f);
        Array.Fill(weights, 1);
        Tensor Loss(Tensor logits) => cross_entropy(logits.to(ScalarType.Float32), target, reduction: nn.Reduction.None);
        return
        [
            new Case("cross entropy", shape, type, () =>
            {
                var running = new RunningSoftmax(targets, false, 0, Threads);
                running.Add<T>(pl, 0, V);
                for (var row = 0; row < R; row++) running.Loss(row);
            }, () => Loss(logits), 4L * R * V),
            new Case("cross entropy, backward", shape, type, () => new CrossEntropy(V, 0, 0, 0).Backward<T>(pi, 0, V, targets, logSums, weights, Threads), Back(Loss, logits, ones(R)), 4L * R * V),
            new Case("entropies and top 10", shape, type, () =>
            {
                var running = new RunningSoftmax(targets, true, 10, Threads);
                running.Add<T>(pl, 0, V);
                for (var row = 0; row < R; row++) running.Entropy(row);
            }, () =>
            {
                var p = logits.to(ScalarType.Float32).log_softmax(1);
                p.exp().mul(p).sum(1).neg();
                p.topk(10);
            }, 12L * R * V),
        ];
    }

    /// <summary>512x8's feed-forward and head for one and eight tokens, and attention of one token after others.</summary>
    private static List<Case> Decoding<T>() where T : struct, IWritableFormat
    {
        List<Case> cases = [];
        var sizes = Sizes.All["512x8"];
        var pool = new WorkerPool(Threads);
        foreach (var (O, I) in new[] { (2 * sizes.Intermediate, sizes.Hidden), (sizes.Vocabulary, sizes.Hidden) })
        {
            var w = Random<T>(O, I);
            var matrix = WeightMatrix.View<T>(At(w), O, I);
            foreach (var n in new[] { 1, 8 })
            {
                var (x, y, narrow) = (randn(n, I), randn(n, O), Random<T>(n, I));
                float* px = (float*)At(x), py = (float*)At(y);
                void Add(string type, WeightMatrix of, long saved) => cases.Add(new Case("matrix of a few tokens", $"{n} x {I} to {O:N0}", type, () =>
                {
                    var part = ((O / (Threads * 4)) + 7) & ~7;
                    pool.For((O + part - 1) / part, (_, i) => of.Multiply(i * part, Math.Min(O, (i + 1) * part), px, I, n, py, O, null, false));
                }, () => linear(narrow, w), saved));
                Add(Name<T>(), matrix, 0);
                if (IsFloat<T>()) Add("8 bits beside float32", WeightMatrix.Quantize(matrix, pool), 3L * O * I);
            }
        }

        const int N = 8, K = 4, H = 64, G = N / K;
        foreach (var (B, L) in new[] { (1, 512), (8, 512), (1, 2048) })
        {
            var (keys, values, q, output) = (Random<T>(B, K, L, H), Random<T>(B, K, L, H), randn(B, N, H), randn(B, N, H));
            var queries = q.to(keys.dtype).view(B, K, G, H);
            var blocks = L / DecodingAttention<T>.BlockTokens;
            var cache = new NativeBuffer(DecodingAttention<T>.BlockBytes(H) * B * K * blocks);
            var (addresses, scores) = (new NativeBuffer((long)B * K * blocks * sizeof(byte*)), new NativeBuffer((long)B * K * 4 * (L + 64) * sizeof(float)));
            s_alive.Add(cache);
            new Span<byte>(cache.Bytes, (int)cache.ByteLength).Fill(0x3C); // 0.0115 in either type
            for (var i = 0; i < B * K * blocks; i++) ((byte**)addresses.Bytes)[i] = cache.Bytes + (i * DecodingAttention<T>.BlockBytes(H));
            float* pq = (float*)At(q), po = (float*)At(output);
            cases.Add(new Case("attention of a token", $"{B} after {L}, {N} / {K} x {H}", Name<T>(), () => pool.For(B * K, (_, i) =>
            {
                float** from = stackalloc float*[2] { pq + (i * G * H), pq + (i * G * H) + H }, to = stackalloc float*[2] { po + (i * G * H), po + (i * G * H) + H };
                int* first = stackalloc int[2] { 0, 0 }, visible = stackalloc int[2] { L, L };
                DecodingAttention<T>.Attend(from, to, first, visible, G, (byte**)addresses.Bytes + (i * blocks), H, 0, scores.Floats + (i * 4L * (L + 64)));
            }), () => scaled_dot_product_attention(queries, keys, values)));
        }

        return cases;
    }

    /// <summary>Logits of a draw, and flat buffers: 4 M numbers, and rows of 4,096 x 256 from 2,048 tokens.</summary>
    private static List<Case> Flat()
    {
        const int V = 32_000, count = 1 << 22;
        var logits = randn(V);
        var values = logits.data<float>().ToArray();
        var (p, g, m, v) = (randn(count), randn(count), zeros(count), zeros(count));
        float* pp = (float*)At(p), pg = (float*)At(g), pm = (float*)At(m), pv = (float*)At(v);
        Parameter parameter;
        using (enable_grad()) parameter = new Parameter(randn(count));
        parameter.grad = randn(count);
        var (optimizer, section) = (optim.AdamW([parameter], lr: 1e-4), new OptimizerSection());
        var (sum, part, rows, embedding, gradient) = (zeros(count), randn(count).to(ScalarType.BFloat16), randint(4096, [2048], ScalarType.Int64), zeros(4096, 256), randn(2048, 256));
        byte* ps = At(sum), ppart = At(part), pr = At(rows), pe = At(embedding), pgradient = At(gradient);
        return
        [
            new Case("log-sum-exp of a draw", $"{V:N0}", "float32", () => Softmax.LogSumExp(values), () => logits.logsumexp(0).item<float>()),
            new Case("likeliest token", $"{V:N0}", "float32", () => Softmax.IndexOfMax(values), () => logits.argmax().item<long>()),
            new Case("AdamW", $"{count:N0}", "float32", () => FlatKernels.AdamW(pp, pg, pm, pv, count, section, 1e-4, 0.1, 1, 100), () =>
            {
                optimizer.step();
                parameter.grad!.zero_();
            }, 8L * count),
            // Faster or not, it is the same bits for any number of threads, which libtorch's is not.
            new Case("gradient norm", $"{count:N0}", "float32", () => FlatKernels.SumOfSquares(pp, count), () => p.norm().item<float>()),
            new Case("sum of two types", $"{count:N0}", "bfloat16 to float32", () => Sums.Add<BFloat16>((float*)ps, ppart, count, Threads), () => sum.add_(part)),
            new Case("sum of chosen rows", "2,048 x 256", "float32", () => Sums.AddRows<Float32, Float32>(pe, (long*)pr, pgradient, 2048, 256, Threads), () => embedding.index_add_(0, rows, gradient, 1)),
        ];
    }
}
