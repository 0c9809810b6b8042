using Rho.Model.Inference.Kernels;

namespace Rho.Model.Inference;

/// <summary>
/// Decoding on the CPU with the project's own kernels: weights are read as they lie, activations are float32, and no result depends
/// on what shares the batch. Keys and values have the model's number type.
/// </summary>
// N tokens of the batch, M output rows, D hidden size, A heads, G query heads per key-value head, S head size, H head size padded to 16.
internal sealed unsafe class KernelDecodingModel : DecodingModel
{
    // Below so many multiply-adds a loop is faster on one thread than handed to several.
    private const long MinimumParallelWork = 64 << 10;
    private const int QueriesPerUnit = 16;

    private readonly LanguageModel _model;
    private readonly WorkerPool _pool;
    private readonly Layer[] _layers;
    private readonly KernelMatrix _embedding;
    private readonly KernelMatrix _head;
    private readonly NativeBuffer _finalNorm;
    private readonly float[] _inverseFrequencies;
    private readonly double _angleFactor;
    private readonly NativeBuffer _cache;
    private readonly IHeadCache _attention;
    private readonly long _layerBytes;
    private readonly long _headBytes;
    private readonly int _paddedHead;
    private readonly Activations _activations;
    private readonly NativeBuffer?[] _scratch;
    private readonly List<AttentionUnit> _units = [];
    private int _outputs;

    public KernelDecodingModel(LanguageModel model, DecodingOptions options) : base(model.Config, options)
    {
        _model = model;
        _paddedHead = (Config.HeadSize + 15) / 16 * 16;
        _attention = model.Dtype == TorchSharp.torch.ScalarType.BFloat16 ? new HeadCache<BFloat16Format>() : new HeadCache<Float32Format>();
        _headBytes = _attention.BlockBytes(_paddedHead);
        var blockBytes = _headBytes * Config.KeyValueHeads * Config.Layers;
        Blocks = BlocksThatFit(options.CacheBytes, blockBytes, Config);
        CacheBytes = Blocks * blockBytes;
        _layerBytes = Blocks * _headBytes * Config.KeyValueHeads;

        _pool = new WorkerPool(options.Threads > 0 ? options.Threads : Environment.ProcessorCount);
        _scratch = new NativeBuffer?[_pool.Threads];
        Func<TorchSharp.torch.Tensor, KernelMatrix> matrix =
            options.Weights == WeightFormat.Int8 ? tensor => KernelMatrix.Quantize(tensor, _pool) : KernelMatrix.View;
        _layers = [.. model.Layers.Select(weights => new Layer(weights, matrix))];
        _embedding = KernelMatrix.View(model.Embedding);
        _head = Config.TiedEmbeddings ? KernelMatrix.View(model.Head) : matrix(model.Head);
        _finalNorm = KernelMatrix.Vector(model.FinalNorm)!;
        (var frequencies, _angleFactor) = Rotary.Frequencies(Config, Config.ContextLength);
        _inverseFrequencies = [.. frequencies.Select(frequency => (float)frequency)];
        _cache = new NativeBuffer(CacheBytes);
        _activations = new Activations(Config, _paddedHead, MaxBatchTokens);
    }

    public override int Blocks { get; }

    public override long CacheBytes { get; }

    public override int Workers => _pool.Threads;

    public override void Parallel(int count, Action<int, int> body) => _pool.For(count, body);

    public override void Forward(ForwardBatch batch)
    {
        var N = batch.Count;
        if (N > MaxBatchTokens) throw new ArgumentException($"{N} tokens in a batch of at most {MaxBatchTokens}", nameof(batch));
        var a = _activations;
        Embed(batch.Tokens);
        FillAngles(batch);
        for (var i = 0; i < _layers.Length; i++)
        {
            var layer = _layers[i];
            Normalize(a.Hidden, layer.InputNorm, a.Normed, N);
            Multiply(layer.Qkv, a.Normed, Config.HiddenSize, N, a.Qkv, layer.QkvBias, accumulate: false);
            PlaceKeysAndQueries(layer, i, batch);

            var last = i == _layers.Length - 1;
            if (last) N = KeepOutputs(batch);
            if (N == 0) break;
            Attend(i, batch, last);
            Multiply(layer.Output, a.Attended, Config.Heads * Config.HeadSize, N, a.Hidden, null, accumulate: true);
            Normalize(a.Hidden, layer.PostNorm, a.Normed, N);
            Multiply(layer.GateUp, a.Normed, Config.HiddenSize, N, a.GateUp, null, accumulate: false);
            SwiGlu(N);
            Multiply(layer.Down, a.GateUp, 2 * Config.IntermediateSize, N, a.Hidden, null, accumulate: true);
        }

        _outputs = N;
        Normalize(a.Hidden, _finalNorm, a.Normed, N);
    }

    public override void Logits(int first, int count, Span<float> logits)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(first + count, _outputs);
        ArgumentOutOfRangeException.ThrowIfLessThan(logits.Length, (long)count * Config.VocabularySize);
        fixed (float* y = logits) Multiply(_head, _activations.Normed + ((long)first * Config.HiddenSize), Config.HiddenSize, count, y, null, accumulate: false);
    }

    protected override void Dispose(bool disposing)
    {
        _pool.Dispose();
        foreach (var layer in _layers) layer.Dispose();
        _embedding.Dispose();
        _head.Dispose();
        _finalNorm.Dispose();
        _cache.Dispose();
        _activations.Dispose();
        foreach (var scratch in _scratch) scratch?.Dispose();
        _model.Dispose();
    }

    private void Embed(ReadOnlySpan<int> tokens)
    {
        for (var n = 0; n < tokens.Length; n++) _embedding.ReadRow(tokens[n], _activations.Hidden + ((long)n * Config.HiddenSize));
    }

    private void FillAngles(ForwardBatch batch)
    {
        var half = _inverseFrequencies.Length;
        foreach (var segment in batch.Segments)
        {
            for (var t = 0; t < segment.Count; t++)
            {
                var cosine = _activations.Cosine + ((long)(segment.Start + t) * half);
                var sine = _activations.Sine + ((long)(segment.Start + t) * half);
                for (var i = 0; i < half; i++)
                {
                    var angle = (segment.Position + t) * _inverseFrequencies[i];
                    cosine[i] = (float)(Math.Cos(angle) * _angleFactor);
                    sine[i] = (float)(Math.Sin(angle) * _angleFactor);
                }
            }
        }
    }

    private void Normalize(float* x, NativeBuffer weight, float* y, int n)
    {
        var D = Config.HiddenSize;
        ForRows(n, 4L * D, row => VectorKernels.RmsNorm(x + ((long)row * D), weight.Floats, y + ((long)row * D), D, (float)Config.NormEpsilon));
    }

    /// <summary>x rows are xStride apart, and so may have more columns than the matrix; y rows are as long as the matrix has rows.</summary>
    private void Multiply(KernelMatrix w, float* x, nint xStride, int n, float* y, NativeBuffer? bias, bool accumulate)
    {
        var b = bias is null ? null : bias.Floats;
        var work = (long)n * w.Rows * w.Columns;
        if (work < MinimumParallelWork || _pool.Threads == 1)
        {
            w.Multiply(0, w.Rows, x, xStride, n, y, w.Rows, b, accumulate);
            return;
        }

        // Several pieces per thread even out delays; multiples of the kernel's 8 rows.
        var piece = Math.Max(16, ((w.Rows / (_pool.Threads * 4)) + 7) & ~7);
        _pool.For((w.Rows + piece - 1) / piece, (_, i) =>
            w.Multiply(i * piece, Math.Min(w.Rows, (i + 1) * piece), x, xStride, n, y, w.Rows, b, accumulate));
    }

    /// <summary>Normalizes (where the model does) and rotates queries and keys, and writes keys and values to the cache.</summary>
    private void PlaceKeysAndQueries(Layer layer, int index, ForwardBatch batch)
    {
        var (S, H) = (Config.HeadSize, _paddedHead);
        var half = S / 2;
        var scale = 1 / MathF.Sqrt(S);
        var width = (Config.Heads + (2 * Config.KeyValueHeads)) * S;
        var cache = _cache.Bytes + (index * _layerBytes);
        foreach (var segment in batch.Segments)
        {
            ClearNewBlocks(segment, cache);
            ForRows(segment.Count, 8L * width, t =>
            {
                var n = segment.Start + t;
                var qkv = _activations.Qkv + ((long)n * width);
                var cosine = _activations.Cosine + ((long)n * half);
                var sine = _activations.Sine + ((long)n * half);
                for (var head = 0; head < Config.Heads; head++)
                {
                    var q = qkv + (head * S);
                    if (layer.QueryNorm is not null) VectorKernels.RmsNorm(q, layer.QueryNorm.Floats, q, S, (float)Config.NormEpsilon);
                    VectorKernels.Rotate(q, cosine, sine, S);
                    var target = _activations.Queries + ((((long)n * Config.Heads) + head) * H);
                    for (var d = 0; d < S; d++) target[d] = q[d] * scale;
                }

                var position = segment.Position + t;
                var block = cache + (segment.Blocks[position / BlockTokens] * (long)Config.KeyValueHeads * _headBytes);
                for (var head = 0; head < Config.KeyValueHeads; head++)
                {
                    var k = qkv + ((Config.Heads + head) * S);
                    if (layer.KeyNorm is not null) VectorKernels.RmsNorm(k, layer.KeyNorm.Floats, k, S, (float)Config.NormEpsilon);
                    VectorKernels.Rotate(k, cosine, sine, S);
                    _attention.Write(block + (head * _headBytes), H, position % BlockTokens, k, qkv + ((Config.Heads + Config.KeyValueHeads + head) * S), S);
                }
            });
        }
    }

    private void ClearNewBlocks(Segment segment, byte* cache)
    {
        for (var i = (segment.Position + BlockTokens - 1) / BlockTokens; i * BlockTokens < segment.Position + segment.Count; i++)
        {
            for (var head = 0; head < Config.KeyValueHeads; head++)
                _attention.Clear(cache + (((segment.Blocks[i] * (long)Config.KeyValueHeads) + head) * _headBytes), _paddedHead);
        }
    }

    /// <summary>After the last layer's keys nothing but the outputs' rows is needed: moves them to the front.</summary>
    private int KeepOutputs(ForwardBatch batch)
    {
        var outputs = batch.Outputs;
        var hidden = Config.HiddenSize;
        var queries = Config.Heads * _paddedHead;
        for (var m = 0; m < outputs.Length; m++)
        {
            if (outputs[m] == m) continue;
            new Span<float>(_activations.Hidden + ((long)outputs[m] * hidden), hidden).CopyTo(new Span<float>(_activations.Hidden + ((long)m * hidden), hidden));
            new Span<float>(_activations.Queries + ((long)outputs[m] * queries), queries).CopyTo(new Span<float>(_activations.Queries + ((long)m * queries), queries));
        }

        return outputs.Length;
    }

    private void Attend(int layer, ForwardBatch batch, bool outputsOnly)
    {
        ListUnits(batch, outputsOnly);
        var cache = _cache.Bytes + (layer * _layerBytes);
        var heads = Config.KeyValueHeads;
        var longest = 0;
        foreach (var segment in batch.Segments) longest = Math.Max(longest, segment.Position + segment.Count);
        if (_units.Count == 1 && heads == 1)
            AttendUnit(0, cache, batch, _units[0], 0, longest);
        else
            _pool.For(_units.Count * heads, (worker, i) => AttendUnit(worker, cache, batch, _units[i / heads], i % heads, longest));
        if (_paddedHead != Config.HeadSize) RemovePadding(outputsOnly ? batch.Outputs.Length : batch.Count);
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

    private void AttendUnit(int worker, byte* cache, ForwardBatch batch, AttentionUnit unit, int head, int longest)
    {
        var segment = batch.Segments[unit.Segment];
        var H = _paddedHead;
        var G = Config.Heads / Config.KeyValueHeads;
        var position = segment.Position + unit.Row - segment.Start;
        var blockCount = (position + unit.Count + BlockTokens - 1) / BlockTokens;

        var scratch = Scratch(worker, longest);
        var blocks = (byte**)scratch.Bytes;
        var scores = (float*)(scratch.Bytes + ((nint)((longest + BlockTokens - 1) / BlockTokens) * sizeof(byte*)));
        for (var b = 0; b < blockCount; b++) blocks[b] = cache + (((segment.Blocks[b] * (long)Config.KeyValueHeads) + head) * _headBytes);

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
                var offset = (((long)(unit.Compact + t) * Config.Heads) + (head * G) + ((row + r) % G)) * H;
                queries[r] = _activations.Queries + offset;
                outputs[r] = _activations.PaddedAttended + offset;
                visible[r] = position + t + 1;
                first[r] = Config.SlidingWindow is { } window ? Math.Max(0, visible[r] - window) : 0;
            }

            _attention.Attend(queries, outputs, first, visible, tile, blocks, H, scores);
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

    private void RemovePadding(int rows)
    {
        var (S, H) = (Config.HeadSize, _paddedHead);
        for (var i = 0L; i < (long)rows * Config.Heads; i++)
            new Span<float>(_activations.PaddedAttended + (i * H), S).CopyTo(new Span<float>(_activations.Attended + (i * S), S));
    }

    private void SwiGlu(int n)
    {
        var I = Config.IntermediateSize;
        ForRows(n, 16L * I, row =>
        {
            var gate = _activations.GateUp + (row * 2L * I);
            VectorKernels.SwiGlu(gate, gate + I, gate, I);
        });
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

    private sealed class Layer(LayerWeights weights, Func<TorchSharp.torch.Tensor, KernelMatrix> matrix) : IDisposable
    {
        public NativeBuffer InputNorm { get; } = KernelMatrix.Vector(weights.InputNorm)!;

        public KernelMatrix Qkv { get; } = matrix(weights.Qkv);

        public NativeBuffer? QkvBias { get; } = KernelMatrix.Vector(weights.QkvBias);

        public NativeBuffer? QueryNorm { get; } = KernelMatrix.Vector(weights.QueryNorm);

        public NativeBuffer? KeyNorm { get; } = KernelMatrix.Vector(weights.KeyNorm);

        public KernelMatrix Output { get; } = matrix(weights.Output);

        public NativeBuffer PostNorm { get; } = KernelMatrix.Vector(weights.PostNorm)!;

        public KernelMatrix GateUp { get; } = matrix(weights.GateUp);

        public KernelMatrix Down { get; } = matrix(weights.Down);

        public void Dispose()
        {
            foreach (var part in new IDisposable?[] { InputNorm, Qkv, QkvBias, QueryNorm, KeyNorm, Output, PostNorm, GateUp, Down }) part?.Dispose();
        }
    }

    /// <summary>The batch's intermediate results, [N, ...] each.</summary>
    private sealed class Activations : IDisposable
    {
        private readonly List<NativeBuffer> _buffers = [];

        public Activations(ModelConfig config, int paddedHead, int maxTokens)
        {
            float* Rows(long width)
            {
                var buffer = new NativeBuffer(maxTokens * width * sizeof(float));
                _buffers.Add(buffer);
                return buffer.Floats;
            }

            Hidden = Rows(config.HiddenSize);
            Normed = Rows(config.HiddenSize);
            Qkv = Rows((config.Heads + (2 * config.KeyValueHeads)) * config.HeadSize);
            Queries = Rows(config.Heads * paddedHead);
            PaddedAttended = Rows(config.Heads * paddedHead);
            Attended = paddedHead == config.HeadSize ? PaddedAttended : Rows(config.Heads * config.HeadSize);
            GateUp = Rows(2L * config.IntermediateSize);
            Cosine = Rows(config.HeadSize / 2);
            Sine = Rows(config.HeadSize / 2);
        }

        public float* Hidden { get; }

        public float* Normed { get; }

        public float* Qkv { get; }

        public float* Queries { get; }

        public float* PaddedAttended { get; }

        public float* Attended { get; }

        public float* GateUp { get; }

        public float* Cosine { get; }

        public float* Sine { get; }

        public void Dispose()
        {
            foreach (var buffer in _buffers) buffer.Dispose();
        }
    }

    /// <summary>Attention over a cache of one number type.</summary>
    private interface IHeadCache
    {
        long BlockBytes(int H);

        void Clear(byte* block, int H);

        void Write(byte* block, int H, int slot, float* key, float* value, int size);

        void Attend(float** queries, float** outputs, int* first, int* visible, int rows, byte** blocks, int H, float* scores);
    }

    private sealed class HeadCache<TFormat> : IHeadCache where TFormat : struct, IWritableFormat
    {
        public long BlockBytes(int H) => 2 * TFormat.RowBytes(H * BlockTokens);

        public void Clear(byte* block, int H) => AttentionKernel<TFormat>.Clear(block, H);

        public void Write(byte* block, int H, int slot, float* key, float* value, int size) =>
            AttentionKernel<TFormat>.Write(block, H, slot, key, value, size);

        public void Attend(float** queries, float** outputs, int* first, int* visible, int rows, byte** blocks, int H, float* scores) =>
            AttentionKernel<TFormat>.Attend(queries, outputs, first, visible, rows, blocks, H, scores);
    }
}
