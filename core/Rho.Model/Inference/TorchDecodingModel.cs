using TorchSharp;
using static TorchSharp.torch;
using static TorchSharp.torch.nn.functional;

namespace Rho.Model.Inference;

/// <summary>Decoding with libtorch, for GPUs. Keys and values lie in one row per cached position; each step gathers those that its queries see.</summary>
// N tokens of the batch, B sequences, L longest sequence, A heads, K key-value heads, G query heads per key-value head, S head size.
internal sealed class TorchDecodingModel : DecodingModel
{
    private readonly LanguageModel _model;
    private readonly Tensor[] _keys;                                                            // per layer [positions, K, S]
    private readonly Tensor[] _values;                                                          // per layer [positions, K, S]
    private readonly float[] _cosines;                                                          // [context, S / 2]
    private readonly float[] _sines;                                                            // [context, S / 2]
    private Tensor? _final;                                                                     // [outputs, hidden]

    public TorchDecodingModel(LanguageModel model, DecodingOptions options) : base(model.Config, options)
    {
        _model = model;
        var positionBytes = 2L * Config.Layers * Config.KeyValueHeads * Config.HeadSize * model.Embedding.ElementSize;
        Blocks = BlocksThatFit(options.CacheBytes, positionBytes * BlockTokens, Config);
        CacheBytes = positionBytes * BlockTokens * Blocks;
        (_cosines, _sines) = Rotary.Tables(Config, Config.ContextLength);
        long[] shape = [(long)Blocks * BlockTokens, Config.KeyValueHeads, Config.HeadSize];
        Tensor[] Caches() => [.. Enumerable.Range(0, Config.Layers).Select(_ => zeros(shape, model.Dtype, model.Device).DetachFromDisposeScope())];
        _keys = Caches();
        _values = Caches();
    }

    public override int Blocks { get; }

    public override long CacheBytes { get; }

    public override void Forward(ForwardBatch batch)
    {
        if (batch.Count > MaxBatchTokens) throw new ArgumentException($"{batch.Count} tokens in a batch of at most {MaxBatchTokens}", nameof(batch));
        using var guard = no_grad();
        using var scope = NewDisposeScope();
        var step = new Step(this, batch);
        var hidden = _model.Embedding.index_select(0, Longs(batch.Tokens.ToArray().Select(token => (long)token)));
        for (var i = 0; i < Config.Layers; i++) hidden = Layer(i, hidden, step);                // [N, D]
        _final?.Dispose();
        _final = null;
        if (batch.Outputs.Length == 0) return;
        var outputs = hidden.index_select(0, Longs(batch.Outputs.ToArray().Select(row => (long)row)));
        _final = Model.Kernels.RmsNorm(outputs, _model.FinalNorm, Config.NormEpsilon).DetachFromDisposeScope();
    }

    public override void Logits(int first, int count, Span<float> logits)
    {
        using var guard = no_grad();
        using var scope = NewDisposeScope();
        var rows = _final ?? throw new InvalidOperationException("the last batch asked for no outputs");
        var result = linear(rows.narrow(0, first, count), _model.Head).to(ScalarType.Float32, CPU).contiguous();
        System.Runtime.InteropServices.MemoryMarshal.Cast<byte, float>(result.bytes).CopyTo(logits);
    }

    protected override void Dispose(bool disposing)
    {
        foreach (var tensor in _keys.Concat(_values)) tensor.Dispose();
        _final?.Dispose();
        _model.Dispose();
    }

    private Tensor Layer(int index, Tensor x, Step step)
    {
        using var scope = NewDisposeScope();
        var layer = _model.Layers[index];
        var qkv = linear(Model.Kernels.RmsNorm(x, layer.InputNorm, Config.NormEpsilon), layer.Qkv, layer.QkvBias)
            .view(x.size(0), Config.Heads + (2 * Config.KeyValueHeads), Config.HeadSize);       // [N, A + 2 K, S]
        var parts = qkv.split([Config.Heads, Config.KeyValueHeads, Config.KeyValueHeads], 1);
        var (query, key) = (parts[0], parts[1]);
        if (layer.QueryNorm is { } queryNorm) query = Model.Kernels.RmsNorm(query, queryNorm, Config.NormEpsilon);
        if (layer.KeyNorm is { } keyNorm) key = Model.Kernels.RmsNorm(key, keyNorm, Config.NormEpsilon);
        _keys[index].index_copy_(0, step.Slots, Rotate(key, step));
        _values[index].index_copy_(0, step.Slots, parts[2]);

        var attended = Attend(Rotate(query, step), _keys[index], _values[index], step);         // [N, A * S]
        var middle = x.add(linear(attended, layer.Output));                                     // [N, D]
        var gateUp = linear(Model.Kernels.RmsNorm(middle, layer.PostNorm, Config.NormEpsilon), layer.GateUp);
        return middle.add(Model.Kernels.SwiGluLinear(gateUp, layer.Down)).MoveToOuterDisposeScope();
    }

    private static Tensor Rotate(Tensor x, Step step)
    {
        var halves = x.chunk(2, -1);                                                            // [N, heads, S / 2]
        return cat([halves[0].mul(step.Cosine).sub(halves[1].mul(step.Sine)), halves[1].mul(step.Cosine).add(halves[0].mul(step.Sine))], -1);
    }

    // bmm and not matmul, whose failure (of memory, say) TorchSharp's library does not catch: it would end the process.
    private Tensor Attend(Tensor query, Tensor keys, Tensor values, Step step)
    {
        var (K, S) = (Config.KeyValueHeads, Config.HeadSize);
        var G = Config.Heads / K;
        var results = new List<Tensor>();
        if (step.Singles is { } singles)
        {
            // All sequences with one token at once, padded to the longest.
            var (B, L) = (singles.Rows.size(0), singles.Width);
            var q = query.index_select(0, singles.Rows).view(B * K, G, S);
            var k = keys.index_select(0, singles.Positions).view(B, L, K, S).permute(0, 2, 3, 1).reshape(B * K, S, L);
            var v = values.index_select(0, singles.Positions).view(B, L, K, S).transpose(1, 2).reshape(B * K, L, S);
            var scores = q.bmm(k).view(B, K, G, L);
            results.Add(Softmax(scores, singles.Hidden).view(B * K, G, L).bmm(v).view(B, Config.Heads * S));
        }

        foreach (var (start, count, positions, hidden) in step.Runs)
        {
            var q = query.narrow(0, start, count).view(count, K, G, S).permute(1, 2, 0, 3).reshape(K, G * count, S);
            var k = keys.index_select(0, positions).permute(1, 2, 0);                           // [K, S, L]
            var v = values.index_select(0, positions).transpose(0, 1);                          // [K, L, S]
            var scores = q.bmm(k).view(K, G, count, -1);
            var p = Softmax(scores, hidden).view(K, G * count, -1);
            results.Add(p.bmm(v).view(K, G, count, S).permute(2, 0, 1, 3).reshape(count, Config.Heads * S));
        }

        return (results.Count == 1 ? results[0] : cat(results)).index_select(0, step.Order);
    }

    /// <summary>softmax(scores / sqrt(S)) in float32 over what is not hidden.</summary>
    private Tensor Softmax(Tensor scores, Tensor hidden) =>
        scores.to(ScalarType.Float32).mul(1 / Math.Sqrt(Config.HeadSize)).masked_fill_(hidden, double.NegativeInfinity).softmax(-1).to(scores.dtype);

    private Tensor Longs(IEnumerable<long> values) => tensor(values.ToArray(), ScalarType.Int64, _model.Device);

    /// <summary>What all layers of a step share.</summary>
    private sealed class Step
    {
        public Step(TorchDecodingModel owner, ForwardBatch batch)
        {
            var config = owner.Config;
            var half = config.HeadSize / 2;
            var cosine = new float[batch.Count * half];
            var sine = new float[batch.Count * half];
            var slots = new long[batch.Count];
            var order = new long[batch.Count];
            var singles = batch.Segments.Where(segment => segment.Count == 1).ToArray();
            var placed = singles.Length;
            for (var i = 0; i < singles.Length; i++) order[singles[i].Start] = i;
            foreach (var segment in batch.Segments)
            {
                for (var t = 0; t < segment.Count; t++)
                {
                    var (row, position) = (segment.Start + t, segment.Position + t);
                    owner._cosines.AsSpan(position * half, half).CopyTo(cosine.AsSpan(row * half));
                    owner._sines.AsSpan(position * half, half).CopyTo(sine.AsSpan(row * half));
                    slots[row] = Slot(segment, position);
                    if (segment.Count > 1) order[row] = placed++;
                }

                if (segment.Count > 1) Runs.Add(Run(owner, segment));
            }

            Slots = owner.Longs(slots);
            Order = owner.Longs(order);
            Cosine = tensor(cosine, [batch.Count, 1, half], owner._model.Dtype, owner._model.Device);
            Sine = tensor(sine, [batch.Count, 1, half], owner._model.Dtype, owner._model.Device);
            if (singles.Length > 0) Singles = Together(owner, singles);
        }

        /// <summary>Where each token's key and value go. [N]</summary>
        public Tensor Slots { get; }

        /// <summary>Row of each token in the attention's results: single tokens come first. [N]</summary>
        public Tensor Order { get; }

        public Tensor Cosine { get; }                                                           // [N, 1, S / 2]

        public Tensor Sine { get; }                                                             // [N, 1, S / 2]

        /// <summary>The sequences with one token: their rows [B], all positions that they see [B * Width], and what is hidden from each [B, 1, 1, Width].</summary>
        public (Tensor Rows, Tensor Positions, Tensor Hidden, long Width)? Singles { get; }

        /// <summary>The sequences with more: the positions that they see [L], and what is hidden from each token [Count, L].</summary>
        public List<(long Start, long Count, Tensor Positions, Tensor Hidden)> Runs { get; } = [];

        private static long Slot(Segment segment, int position) => ((long)segment.Blocks[position / BlockTokens] * BlockTokens) + (position % BlockTokens);

        private static bool IsHidden(ModelConfig config, int query, int key) => key > query || (config.SlidingWindow is { } window && key <= query - window);

        private static (long, long, Tensor, Tensor) Run(TorchDecodingModel owner, Segment segment)
        {
            var length = segment.Position + segment.Count;
            var positions = owner.Longs(Enumerable.Range(0, length).Select(position => Slot(segment, position)));
            var hidden = new bool[segment.Count * length];
            for (var t = 0; t < segment.Count; t++)
            {
                for (var key = 0; key < length; key++) hidden[(t * length) + key] = IsHidden(owner.Config, segment.Position + t, key);
            }

            return (segment.Start, segment.Count, positions, tensor(hidden, device: owner._model.Device).view(segment.Count, length));
        }

        private static (Tensor, Tensor, Tensor, long) Together(TorchDecodingModel owner, Segment[] singles)
        {
            var width = singles.Max(segment => segment.Position) + 1;
            var positions = new long[singles.Length * width];
            var hidden = new bool[singles.Length * width];
            for (var i = 0; i < singles.Length; i++)
            {
                for (var key = 0; key < width; key++)
                {
                    hidden[(i * width) + key] = IsHidden(owner.Config, singles[i].Position, key);
                    positions[(i * width) + key] = key <= singles[i].Position ? Slot(singles[i], key) : 0;
                }
            }

            return (owner.Longs(singles.Select(segment => (long)segment.Start)), owner.Longs(positions),
                tensor(hidden, device: owner._model.Device).view(singles.Length, 1, 1, width), width);
        }
    }
}
