using Rho.Kernels;
using Rho.Model.Architectures;
using TorchSharp;

namespace Rho.Model.Inference;

/// <summary>Rows of activations in a buffer.</summary>
/// <param name="Width">numbers of a row</param>
/// <param name="Stride">numbers from a row to the next</param>
/// <param name="IsStream">whether they are used more than once</param>
internal readonly record struct DecodingRows(NativeBuffer Buffer, int Count, int Width, int Stride, bool IsStream = false);

/// <summary>
/// Decoding on the CPU with the project's own kernels: weights are read as they lie, activations are float32, and no result depends
/// on what shares the batch. Keys and values have the model's number type.
/// </summary>
// S head size, H head size padded to 16.
internal sealed unsafe class KernelDecodingModel<TNumber> : DecodingModel, IOps<DecodingRows> where TNumber : struct, IWritableFormat
{
    // Below so many multiply-adds a loop is faster on one thread than handed to several.
    private const long MinimumParallelWork = 64 << 10;
    private const int QueriesPerUnit = 16;

    private readonly LanguageModel _model;
    private readonly WorkerPool _pool;
    private readonly WeightMatrix?[] _matrices;         // by weight, as the vectors
    private readonly NativeBuffer?[] _vectors;
    private readonly float _embeddingScale;
    private readonly Dictionary<Rotation, BatchAngles> _angles = [];
    private readonly NativeBuffer _cache;
    private readonly long _layerBytes;
    private readonly long _headBytes;
    private readonly int _paddedHead;
    private readonly Dictionary<int, Stack<NativeBuffer>> _free = [];
    private readonly List<NativeBuffer> _buffers = [];
    private readonly NativeBuffer?[] _scratch;
    private readonly List<AttentionUnit> _units = [];
    private (ForwardBatch Batch, int Layer) _now;
    private DecodingRows? _final;

    public KernelDecodingModel(LanguageModel model, DecodingOptions options) : base(model.Config, options)
    {
        _model = model;
        _paddedHead = (Config.HeadSize + 15) / 16 * 16;
        _headBytes = DecodingAttention<TNumber>.BlockBytes(_paddedHead);
        var blockBytes = _headBytes * Config.KeyValueHeads * Config.Layers;
        Blocks = BlocksThatFit(options.CacheBytes, blockBytes, Config);
        CacheBytes = Blocks * blockBytes;
        _layerBytes = Blocks * _headBytes * Config.KeyValueHeads;

        _pool = new WorkerPool(options.Threads > 0 ? options.Threads : Environment.ProcessorCount);
        _scratch = new NativeBuffer?[_pool.Threads];
        var weights = model.Layout.Weights;
        _matrices = [.. weights.Select(weight => weight.Shape.Length == 1 ? null
            : options.Weights == WeightFormat.Int8 && weight != model.Network.Embedding && !weight.IsExact ? WeightMatrix.Quantize(CpuKernels.Matrix(model[weight]), _pool) : CpuKernels.Matrix(model[weight]))];
        _vectors = [.. weights.Select(weight => weight.Shape.Length == 1 ? CpuKernels.Vector(model[weight]) : null)];
        _embeddingScale = (float)TensorOps.EmbeddingScale(model);
        foreach (var rotation in model.Network.Attention.Select(spec => spec.Rotation).OfType<Rotation>().Distinct())
            _angles[rotation] = new BatchAngles(rotation, Config.ContextLength, MaxBatchTokens);
        _cache = new NativeBuffer(CacheBytes);
    }

    public override int Blocks { get; }

    public override long CacheBytes { get; }

    public override int Workers => _pool.Threads;

    public override void Parallel(int count, Action<int, int> body) => _pool.For(count, body);

    public override void Forward(ForwardBatch batch)
    {
        if (batch.Count > MaxBatchTokens) throw new ArgumentException($"{batch.Count} tokens in a batch of at most {MaxBatchTokens}", nameof(batch));
        foreach (var free in _free.Values) free.Clear();
        foreach (var buffer in _buffers) _free[(int)((long)buffer.ByteLength / sizeof(float) / MaxBatchTokens)].Push(buffer);
        foreach (var angles in _angles.Values) angles.Fill(batch);
        _now = (batch, 0);
        var x = Embed(batch.Tokens);
        foreach (var block in _model.Network.Blocks)
        {
            x = block.Run(this, x);
            _now.Layer++;
        }

        _final = Norm(x, _model.Network.FinalNorm);
    }

    public override void Logits(int first, int count, Span<float> logits)
    {
        var rows = _final ?? throw new InvalidOperationException("no batch came before");
        ArgumentOutOfRangeException.ThrowIfGreaterThan(first + count, rows.Count);
        ArgumentOutOfRangeException.ThrowIfLessThan(logits.Length, (long)count * Config.VocabularySize);
        fixed (float* y = logits)
        {
            Multiply(_matrices[_model.Network.Head.Index]!, rows.Buffer.Floats + ((long)first * rows.Stride), rows.Stride, count, y, null, accumulate: false);
            if (_model.Network.LogitsCap is not { } cap) return;
            var start = (nint)y;
            ForRows(count, 16L * Config.VocabularySize, row => Softmax.Cap((float*)start + ((long)row * Config.VocabularySize), Config.VocabularySize, (float)cap));
        }
    }

    protected override void Dispose(bool disposing)
    {
        _pool.Dispose();
        foreach (var part in _matrices.Cast<IDisposable?>().Concat(_vectors).Concat(_buffers).Concat(_scratch).Concat(_angles.Values)) part?.Dispose();
        _cache.Dispose();
        _model.Dispose();
    }

    public DecodingRows Norm(DecodingRows x, Norm norm)
    {
        var y = Take(x.Count, x.Width);
        NormRows(x, y, 0, x.Width, norm);
        return Done(x, y);
    }

    public DecodingRows Linear(DecodingRows x, Linear linear)
    {
        var y = Take(x.Count, (int)linear.Outputs);
        Multiply(_matrices[linear.Matrix.Index]!, x.Buffer.Floats, x.Stride, x.Count, y.Buffer.Floats, Bias(linear), accumulate: false);
        return Done(x, y);
    }

    public DecodingRows NormQueriesAndKeys(DecodingRows qkv, Norm queries, Norm keys, AttentionSpec spec)
    {
        NormRows(qkv, qkv, 0, spec.Queries, queries);
        NormRows(qkv, qkv, spec.Queries, spec.KeysValues / 2, keys);
        return qkv;
    }

    /// <summary>In the last layer nothing but the outputs' rows is needed after the keys: the result has those alone.</summary>
    public DecodingRows Attend(DecodingRows qkv, AttentionSpec spec)
    {
        var (batch, layer) = _now;
        var outputsOnly = layer == Config.Layers - 1;
        var count = outputsOnly ? batch.Outputs.Length : batch.Count;
        var queries = Take(batch.Count, spec.Heads * _paddedHead);
        var attended = Take(count, spec.Heads * _paddedHead);
        var cache = _cache.Bytes + (layer * _layerBytes);
        PlaceKeysAndQueries(qkv, queries, spec, cache);
        if (outputsOnly) KeepOutputs(queries);
        ListUnits(batch, outputsOnly);
        var longest = 0;
        foreach (var segment in batch.Segments) longest = Math.Max(longest, segment.Position + segment.Count);
        var heads = spec.KeyValueHeads;
        if (_units.Count == 1 && heads == 1) AttendUnit(0, _units[0], 0, longest, cache, queries, attended, spec);
        else _pool.For(_units.Count * heads, (worker, i) => AttendUnit(worker, _units[i / heads], i % heads, longest, cache, queries, attended, spec));
        Done(queries, attended);
        return Done(qkv, _paddedHead == spec.HeadSize ? attended : WithoutPadding(attended, spec));
    }

    public DecodingRows Gate(DecodingRows gateUp, Activation activation)
    {
        var width = gateUp.Width / 2;
        ForRows(gateUp.Count, 16L * width, row =>
        {
            var gate = gateUp.Buffer.Floats + ((long)row * gateUp.Stride);
            if (activation == Activation.Silu) Gates.Row<Float32, Silu>(gate, gate, width);
            else Gates.Row<Float32, GeluTanh>(gate, gate, width);
        });
        return gateUp with { Width = width };
    }

    /// <summary>Rows that take an expert are gathered for it, and added up in the order of the experts: what shares the batch changes nothing.</summary>
    public DecodingRows Experts(DecodingRows x, Experts experts)
    {
        var (count, k, all) = (x.Count, experts.PerToken, experts.All.Count);
        var (ids, shares) = (new int[count * k], new float[count * k]);
        var logits = Take(count, all);
        Multiply(_matrices[experts.Router.Matrix.Index]!, x.Buffer.Floats, x.Stride, count, logits.Buffer.Floats, null, accumulate: false);
        for (var row = 0; row < count; row++)
        {
            var p = new Span<float>(logits.Buffer.Floats + ((long)row * all), all);
            var (largest, sum) = ((float)Softmax.LogSumExp(p), 0f);
            for (var i = 0; i < k; i++)
            {
                var at = Softmax.IndexOfMax(p);
                (ids[(row * k) + i], shares[(row * k) + i]) = (at, MathF.Exp(p[at] - largest));
                sum += shares[(row * k) + i];
                p[at] = float.NegativeInfinity;
            }

            for (var i = 0; i < k && experts.Normalized; i++) shares[(row * k) + i] /= sum;
        }

        Done(logits, logits);
        var (y, input, output) = (Take(count, x.Width), Take(count, x.Width), Take(count, x.Width));
        new Span<float>(y.Buffer.Floats, count * x.Width).Clear();
        for (var e = 0; e < all; e++)
        {
            var mine = Enumerable.Range(0, count * k).Where(i => ids[i] == e).ToArray();
            if (mine.Length == 0) continue;
            for (var i = 0; i < mine.Length; i++) Row(x, mine[i] / k).CopyTo(Row(input, i));
            var (gateUp, down) = experts.All[e];
            var gated = Gate(Linear(input with { Count = mine.Length, IsStream = true }, gateUp), Activation.Silu);
            Multiply(_matrices[down.Matrix.Index]!, gated.Buffer.Floats, gated.Stride, mine.Length, output.Buffer.Floats, null, accumulate: false);
            Done(gated, gated);
            for (var i = 0; i < mine.Length; i++)
            {
                Span<float> from = Row(output, i), to = Row(y, mine[i] / k);
                for (var d = 0; d < to.Length; d++) to[d] += shares[mine[i]] * from[d];
            }
        }

        Done(input, input);
        Done(output, output);
        return Done(x, y);
    }

    private static Span<float> Row(DecodingRows rows, int row) => new(rows.Buffer.Floats + ((long)row * rows.Stride), rows.Width);

    public DecodingRows Add(DecodingRows x, DecodingRows y)
    {
        x = AsMany(x, y);
        ForRows(x.Count, x.Width, row =>
        {
            float* to = x.Buffer.Floats + ((long)row * x.Stride), from = y.Buffer.Floats + ((long)row * y.Stride);
            for (var i = 0; i < x.Width; i++) to[i] += from[i];
        });
        return Done(y, x);
    }

    public DecodingRows AddLinear(DecodingRows x, DecodingRows y, Linear linear)
    {
        x = AsMany(x, y);
        Multiply(_matrices[linear.Matrix.Index]!, y.Buffer.Floats, y.Stride, y.Count, x.Buffer.Floats, Bias(linear), accumulate: true);
        return Done(y, x);
    }

    private float* Bias(Linear linear) => linear.Bias is { } bias ? _vectors[bias.Index]!.Floats : null;

    private DecodingRows Take(int count, int width)
    {
        if (!_free.TryGetValue(width, out var free)) _free[width] = free = [];
        if (!free.TryPop(out var buffer)) _buffers.Add(buffer = new NativeBuffer((long)MaxBatchTokens * width * sizeof(float)));
        return new DecodingRows(buffer, count, width, width);
    }

    /// <summary>The result of an operation; the operand's buffer is free, save the stream's.</summary>
    private DecodingRows Done(DecodingRows operand, DecodingRows result)
    {
        if (!operand.IsStream) _free[operand.Stride].Push(operand.Buffer);
        return result;
    }

    /// <summary>The stream at the rows that an operand still has: all, or the outputs.</summary>
    private DecodingRows AsMany(DecodingRows x, DecodingRows y)
    {
        if (x.Count == y.Count) return x;
        KeepOutputs(x);
        return x with { Count = y.Count };
    }

    /// <summary>Moves the outputs' rows to the front.</summary>
    private void KeepOutputs(DecodingRows rows)
    {
        var outputs = _now.Batch.Outputs;
        for (var m = 0; m < outputs.Length; m++)
        {
            if (outputs[m] == m) continue;
            new Span<float>(rows.Buffer.Floats + ((long)outputs[m] * rows.Stride), rows.Width).CopyTo(new Span<float>(rows.Buffer.Floats + ((long)m * rows.Stride), rows.Width));
        }
    }

    private DecodingRows Embed(ReadOnlySpan<int> tokens)
    {
        var x = Take(tokens.Length, Config.HiddenSize) with { IsStream = true };
        for (var n = 0; n < tokens.Length; n++)
        {
            var row = x.Buffer.Floats + ((long)n * x.Stride);
            _matrices[_model.Network.Embedding.Index]!.ReadRow(tokens[n], row);
            if (_embeddingScale == 1) continue;
            for (var i = 0; i < x.Width; i++) row[i] *= _embeddingScale;
        }

        return x;
    }

    /// <summary>Norms columns in groups of the norm's width.</summary>
    private void NormRows(DecodingRows x, DecodingRows y, int first, int columns, Norm norm)
    {
        var (weight, width) = (_vectors[norm.Weight.Index]!, (int)norm.Width);
        ForRows(x.Count, 4L * columns, row =>
        {
            for (var at = first; at < first + columns; at += width)
                RmsNorm.Row<Float32>(x.Buffer.Floats + ((long)row * x.Stride) + at, weight.Floats, y.Buffer.Floats + ((long)row * y.Stride) + at, width, norm.Epsilon, norm.Shift);
        });
    }

    /// <summary>x rows are xStride apart, and so may have more columns than the matrix; y rows are as long as the matrix has rows.</summary>
    private void Multiply(WeightMatrix w, float* x, nint xStride, int n, float* y, float* bias, bool accumulate)
    {
        if (n == 0) return;
        var work = (long)n * w.Rows * w.Columns;
        if (work < MinimumParallelWork || _pool.Threads == 1)
        {
            w.Multiply(0, w.Rows, x, xStride, n, y, w.Rows, bias, accumulate);
            return;
        }

        // Several pieces per thread even out delays; multiples of the kernel's 8 rows.
        var piece = Math.Max(16, ((w.Rows / (_pool.Threads * 4)) + 7) & ~7);
        _pool.For((w.Rows + piece - 1) / piece, (_, i) =>
            w.Multiply(i * piece, Math.Min(w.Rows, (i + 1) * piece), x, xStride, n, y, w.Rows, bias, accumulate));
    }

    /// <summary>Rotates and scales queries, rotates keys, and writes keys and values to the cache.</summary>
    private void PlaceKeysAndQueries(DecodingRows qkv, DecodingRows queries, AttentionSpec spec, byte* cache)
    {
        var (S, H, scale) = (spec.HeadSize, _paddedHead, (float)spec.Scale);
        var angles = spec.Rotation is { } rotation ? _angles[rotation] : null;
        foreach (var segment in _now.Batch.Segments)
        {
            ClearNewBlocks(segment, cache);
            ForRows(segment.Count, 8L * qkv.Width, t =>
            {
                var n = segment.Start + t;
                var row = qkv.Buffer.Floats + ((long)n * qkv.Stride);
                for (var head = 0; head < spec.Heads; head++)
                {
                    var q = row + (head * S);
                    var target = queries.Buffer.Floats + ((((long)n * spec.Heads) + head) * H);
                    Turn(angles, q, target, S, n, scale);
                    // The buffer may have held something else.
                    new Span<float>(target + S, H - S).Clear();
                }

                var position = segment.Position + t;
                var block = cache + (segment.Blocks[position / BlockTokens] * (long)spec.KeyValueHeads * _headBytes);
                for (var head = 0; head < spec.KeyValueHeads; head++)
                {
                    var k = row + ((spec.Heads + head) * S);
                    Turn(angles, k, k, S, n, 1);
                    DecodingAttention<TNumber>.Write(block + (head * _headBytes), H, position % BlockTokens, k, row + ((spec.Heads + spec.KeyValueHeads + head) * S), S);
                }
            });
        }
    }

    private static void Turn(BatchAngles? angles, float* from, float* to, int size, int row, float scale)
    {
        if (angles is null) RotaryRow.Turn<Float32, Float32>(from, to, size, 0, null, null, scale);
        else RotaryRow.Turn<Float32, Float32>(from, to, size, angles.Size, angles.Cosines(row), angles.Sines(row), scale);
    }

    private void ClearNewBlocks(Segment segment, byte* cache)
    {
        for (var i = (segment.Position + BlockTokens - 1) / BlockTokens; i * BlockTokens < segment.Position + segment.Count; i++)
        {
            for (var head = 0; head < Config.KeyValueHeads; head++)
                DecodingAttention<TNumber>.Clear(cache + (((segment.Blocks[i] * (long)Config.KeyValueHeads) + head) * _headBytes), _paddedHead);
        }
    }

    /// <summary>Splits the rows that need attention into runs of one sequence each.</summary>
    private void ListUnits(ForwardBatch batch, bool outputsOnly)
    {
        _units.Clear();
        var output = 0;
        for (var s = 0; s < batch.Segments.Count; s++)
        {
            var segment = batch.Segments[s];
            if (!outputsOnly)
            {
                for (var t = 0; t < segment.Count; t += QueriesPerUnit)
                    _units.Add(new AttentionUnit(s, segment.Start + t, segment.Start + t, Math.Min(QueriesPerUnit, segment.Count - t)));
                continue;
            }

            for (; output < batch.Outputs.Length && batch.Outputs[output] < segment.Start + segment.Count; output++)
                _units.Add(new AttentionUnit(s, batch.Outputs[output], output, 1));
        }
    }

    private void AttendUnit(int worker, AttentionUnit unit, int head, int longest, byte* cache, DecodingRows queryRows, DecodingRows attended, AttentionSpec spec)
    {
        var segment = _now.Batch.Segments[unit.Segment];
        var (H, G) = (_paddedHead, spec.PerGroup);
        var position = segment.Position + unit.Row - segment.Start;
        var blockCount = (position + unit.Count + BlockTokens - 1) / BlockTokens;

        var scratch = Scratch(worker, longest);
        var blocks = (byte**)scratch.Bytes;
        var scores = (float*)(scratch.Bytes + ((nint)((longest + BlockTokens - 1) / BlockTokens) * sizeof(byte*)));
        for (var b = 0; b < blockCount; b++) blocks[b] = cache + (((segment.Blocks[b] * (long)spec.KeyValueHeads) + head) * _headBytes);

        var queries = stackalloc float*[4];
        var outputs = stackalloc float*[4];
        var first = stackalloc int[4];
        var visible = stackalloc int[4];
        var rows = unit.Count * G;
        for (var row = 0; row < rows; row += 4)
        {
            var tile = Math.Min(4, rows - row);
            for (var r = 0; r < tile; r++)
            {
                var t = (row + r) / G;
                var offset = (((long)(unit.Compact + t) * spec.Heads) + (head * G) + ((row + r) % G)) * H;
                queries[r] = queryRows.Buffer.Floats + offset;
                outputs[r] = attended.Buffer.Floats + offset;
                visible[r] = position + t + 1;
                first[r] = spec.Window is { } window ? Math.Max(0, visible[r] - window) : 0;
            }

            DecodingAttention<TNumber>.Attend(queries, outputs, first, visible, tile, blocks, H, (float)(spec.SoftCap ?? 0), scores);
        }
    }

    private NativeBuffer Scratch(int worker, int longest)
    {
        var needed = (((long)longest + BlockTokens) / BlockTokens * sizeof(byte*)) + (4L * (longest + 64) * sizeof(float));
        var scratch = _scratch[worker];
        if (scratch is not null && (long)scratch.ByteLength >= needed) return scratch;
        scratch?.Dispose();
        return _scratch[worker] = new NativeBuffer(needed * 2);
    }

    private DecodingRows WithoutPadding(DecodingRows padded, AttentionSpec spec)
    {
        var (S, H) = (spec.HeadSize, _paddedHead);
        var rows = Take(padded.Count, spec.Queries);
        for (var i = 0L; i < (long)padded.Count * spec.Heads; i++)
            new Span<float>(padded.Buffer.Floats + (i * H), S).CopyTo(new Span<float>(rows.Buffer.Floats + (i * S), S));
        return Done(padded, rows);
    }

    private void ForRows(int rows, long workPerRow, Action<int> body)
    {
        var perPiece = (int)Math.Max(1, MinimumParallelWork / workPerRow);
        if (rows <= perPiece)
        {
            for (var row = 0; row < rows; row++) body(row);
            return;
        }

        _pool.For((rows + perPiece - 1) / perPiece, (_, piece) =>
        {
            for (var row = piece * perPiece; row < Math.Min(rows, (piece + 1) * perPiece); row++) body(row);
        });
    }

    /// <summary>Consecutive query rows of one sequence.</summary>
    /// <param name="Row">Row of the first in the batch.</param>
    /// <param name="Compact">Row of the first in the buffers, which differs once only outputs are kept.</param>
    private readonly record struct AttentionUnit(int Segment, int Row, int Compact, int Count);

    /// <summary>Cosines and sines of a batch's positions, [N, rotated size / 2] each.</summary>
    private sealed class BatchAngles : IDisposable
    {
        private readonly Rotation _rotation;
        private readonly int _contextLength, _half;
        private readonly (float[] Frequencies, double Factor) _short, _stretched;
        private readonly NativeBuffer _cosine, _sine;

        internal BatchAngles(Rotation rotation, int contextLength, int maxTokens)
        {
            (_rotation, _contextLength, _half) = (rotation, contextLength, rotation.Size / 2);
            (_short, _stretched) = (Of(1), Of(contextLength));
            (_cosine, _sine) = (new NativeBuffer((long)maxTokens * _half * sizeof(float)), new NativeBuffer((long)maxTokens * _half * sizeof(float)));
            (float[], double) Of(int length)
            {
                var (frequencies, factor) = rotation.Frequencies(length);
                return ([.. frequencies.Select(frequency => (float)frequency)], factor);
            }
        }

        internal void Fill(ForwardBatch batch)
        {
            foreach (var segment in batch.Segments)
            {
                var (frequencies, factor) = _rotation.IsStretched(Math.Min(segment.Length, _contextLength)) ? _stretched : _short;
                for (var t = 0; t < segment.Count; t++)
                {
                    var at = (long)(segment.Start + t) * _half;
                    for (var i = 0; i < _half; i++)
                    {
                        var angle = (segment.Position + t) * frequencies[i];
                        _cosine.Floats[at + i] = (float)(Math.Cos(angle) * factor);
                        _sine.Floats[at + i] = (float)(Math.Sin(angle) * factor);
                    }
                }
            }
        }

        internal int Size => _rotation.Size;

        /// <summary>Of a row of the batch. [rotated size / 2]</summary>
        internal float* Cosines(int row) => _cosine.Floats + ((long)row * _half);

        internal float* Sines(int row) => _sine.Floats + ((long)row * _half);

        public void Dispose()
        {
            _cosine.Dispose();
            _sine.Dispose();
        }
    }
}
