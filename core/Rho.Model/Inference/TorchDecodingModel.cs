using Rho.Model.Architectures;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Model.Inference;

/// <summary>Decoding with libtorch, for GPUs. Keys and values lie in one row per cached position; each step gathers those that its queries see.</summary>
// N tokens of the batch, B sequences, L longest sequence, A heads, K key-value heads, S head size.
internal sealed class TorchDecodingModel : DecodingModel, IOps<Tensor>
{
    private readonly LanguageModel _model;
    private readonly Tensor[] _keys;                                                            // per layer [positions, K, S]
    private readonly Tensor[] _values;                                                          // per layer [positions, K, S]
    private readonly Angles.Cache _angles = new();
    private (Step Step, int Layer) _now;
    private Tensor? _final;                                                                     // [outputs, hidden]

    public TorchDecodingModel(LanguageModel model, DecodingOptions options) : base(model.Config, options)
    {
        _model = model;
        var positionBytes = 2L * Config.Layers * Config.KeyValueHeads * Config.HeadSize * model.Flat.ElementSize;
        Blocks = BlocksThatFit(options.CacheBytes, positionBytes * BlockTokens, Config);
        CacheBytes = positionBytes * BlockTokens * Blocks;
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
        _now = (new Step(this, batch), 0);
        var x = TensorOps.Embed(_model, Longs(batch.Tokens.ToArray().Select(token => (long)token)));
        foreach (var block in _model.Network.Blocks)
        {
            using var layer = NewDisposeScope();
            x = block.Run(this, x).MoveToOuterDisposeScope();                                   // [N, hidden]
            _now.Layer++;
        }

        _final?.Dispose();
        _final = null;
        if (batch.Outputs.Length == 0) return;
        _final = Norm(x.index_select(0, Longs(batch.Outputs.ToArray().Select(row => (long)row))), _model.Network.FinalNorm).DetachFromDisposeScope();
    }

    public override void Logits(int first, int count, Span<float> logits)
    {
        using var guard = no_grad();
        using var scope = NewDisposeScope();
        var rows = _final ?? throw new InvalidOperationException("the last batch asked for no outputs");
        var result = TensorOps.Cap_(nn.functional.linear(rows.narrow(0, first, count), _model[_model.Network.Head]).to(ScalarType.Float32, CPU), _model.Network.LogitsCap).contiguous();
        System.Runtime.InteropServices.MemoryMarshal.Cast<byte, float>(result.bytes).CopyTo(logits);
    }

    protected override void Dispose(bool disposing)
    {
        foreach (var tensor in _keys.Concat(_values)) tensor.Dispose();
        _final?.Dispose();
        _model.Dispose();
    }

    public Tensor Norm(Tensor x, Norm norm) => TensorOps.RmsNorm(x, _model[norm.Weight], norm);

    public Tensor Linear(Tensor x, Linear linear) => nn.functional.linear(x, _model[linear.Matrix], linear.Bias is { } bias ? _model[bias] : null);

    public Tensor NormQueriesAndKeys(Tensor qkv, Norm queries, Norm keys, AttentionSpec spec)
    {
        TensorOps.RmsNorm_(qkv.narrow(1, 0, spec.Queries), _model[queries.Weight], queries);
        TensorOps.RmsNorm_(qkv.narrow(1, spec.Queries, spec.KeysValues / 2), _model[keys.Weight], keys);
        return qkv;
    }

    public Tensor Gate(Tensor gateUp, Activation activation) => TensorOps.Gate(gateUp, activation);

    public Tensor Experts(Tensor x, Experts experts) => Mixture.Forward(_model, experts, x);

    public Tensor Add(Tensor x, Tensor y) => x.add(y);

    public Tensor Attend(Tensor qkv, AttentionSpec spec)
    {
        var (step, layer) = _now;
        var parts = qkv.view(-1, spec.Columns, spec.HeadSize).split([spec.Heads, spec.KeyValueHeads, spec.KeyValueHeads], 1);
        var (query, keys, values) = (step.Rotate(parts[0], spec.Rotation), _keys[layer], _values[layer]);
        keys.index_copy_(0, step.Slots, step.Rotate(parts[1], spec.Rotation));
        values.index_copy_(0, step.Slots, parts[2]);
        var results = new List<Tensor>();
        foreach (var seen in step.Seen)
        {
            var (B, L) = (seen.Sequences, seen.Length);
            var q = query.index_select(0, seen.Rows).view(B, -1, spec.Heads, spec.HeadSize).transpose(1, 2);                          // [B, A, T, S]
            var k = keys.index_select(0, seen.Positions).view(B, L, spec.KeyValueHeads, spec.HeadSize).transpose(1, 2);               // [B, K, L, S]
            var v = values.index_select(0, seen.Positions).view(B, L, spec.KeyValueHeads, spec.HeadSize).transpose(1, 2);             // [B, K, L, S]
            results.Add(TorchAttention.InSteps(spec, q, k, v, seen.Mask(spec.Window)).transpose(1, 2).reshape(-1, spec.Queries));
        }

        return (results.Count == 1 ? results[0] : cat(results)).index_select(0, step.Order);
    }

    private Tensor Longs(IEnumerable<long> values) => tensor(values.ToArray(), ScalarType.Int64, _model.Device);

    /// <summary>Sequences whose queries attend together, padded to the longest.</summary>
    /// <param name="Rows">of the batch, T of each sequence. [B * T]</param>
    /// <param name="Positions">where their keys lie in the cache. [B * L]</param>
    /// <param name="At">position of each row in its sequence. [B, 1, T, 1]</param>
    private sealed record SeenTogether(Tensor Rows, Tensor Positions, Tensor At, long Length)
    {
        private readonly Dictionary<int, Tensor> _masks = [];

        public long Sequences => At.size(0);

        /// <summary>True where a query sees a key. [B, 1, T, L]</summary>
        public Tensor Mask(int? window)
        {
            if (_masks.TryGetValue(window ?? 0, out var known)) return known;
            var key = arange(Length, ScalarType.Int64, At.device);
            var mask = key.le(At);
            if (window is { } tokens) mask = mask.logical_and(key.gt(At.sub(tokens)));
            return _masks[window ?? 0] = mask;
        }
    }

    /// <summary>What all layers of a step share.</summary>
    private sealed class Step
    {
        private readonly TorchDecodingModel _owner;
        private readonly Dictionary<Rotation, (Tensor Cosine, Tensor Sine)> _tables = [];      // [N, 1, rotated size / 2] each

        public Step(TorchDecodingModel owner, ForwardBatch batch)
        {
            _owner = owner;
            var (slots, order) = (new long[batch.Count], new long[batch.Count]);
            var placed = 0;
            void Together(IReadOnlyList<Segment> segments)
            {
                var length = segments.Max(segment => segment.Position + segment.Count);
                var rows = segments.SelectMany(segment => Enumerable.Range(segment.Start, segment.Count)).ToArray();
                foreach (var row in rows) order[row] = placed++;
                Seen.Add(new SeenTogether(
                    owner.Longs(rows.Select(row => (long)row)),
                    owner.Longs(segments.SelectMany(segment => Enumerable.Range(0, length).Select(position => position < segment.Position + segment.Count ? Slot(segment, position) : 0))),
                    owner.Longs(segments.SelectMany(segment => Enumerable.Range(segment.Position, segment.Count).Select(position => (long)position))).view(segments.Count, 1, -1, 1),
                    length));
            }

            // All sequences with one token together; those with more each for itself.
            var singles = batch.Segments.Where(segment => segment.Count == 1).ToList();
            if (singles.Count > 0) Together(singles);
            foreach (var segment in batch.Segments.Where(segment => segment.Count > 1)) Together([segment]);
            foreach (var segment in batch.Segments)
                for (var t = 0; t < segment.Count; t++) slots[segment.Start + t] = Slot(segment, segment.Position + t);
            (Slots, Order) = (owner.Longs(slots), owner.Longs(order));
            // Made here, they live as long as the step.
            foreach (var window in owner._model.Network.Attention.Select(spec => spec.Window).Distinct()) Seen.ForEach(seen => seen.Mask(window));
            foreach (var rotation in owner._model.Network.Attention.Select(spec => spec.Rotation).OfType<Rotation>().Distinct()) _tables[rotation] = Tables(rotation, batch);
        }

        /// <summary>Where each token's key and value go. [N]</summary>
        public Tensor Slots { get; }

        /// <summary>Row of each token in the attention's results. [N]</summary>
        public Tensor Order { get; }

        public List<SeenTogether> Seen { get; } = [];

        /// <summary>[N, heads, S]</summary>
        public Tensor Rotate(Tensor x, Rotation? rotation) => rotation is null ? x : Angles.Rotate(x, rotation.Size, _tables[rotation].Cosine, _tables[rotation].Sine);

        private (Tensor, Tensor) Tables(Rotation rotation, ForwardBatch batch)
        {
            var (context, half) = (_owner.Config.ContextLength, rotation.Size / 2);
            var (cosine, sine) = (new float[batch.Count * half], new float[batch.Count * half]);
            foreach (var segment in batch.Segments)
            {
                var angles = _owner._angles.Of(rotation, context, Math.Min(segment.Length, context));
                angles.Cos.AsSpan(segment.Position * half, segment.Count * half).CopyTo(cosine.AsSpan(segment.Start * half));
                angles.Sin.AsSpan(segment.Position * half, segment.Count * half).CopyTo(sine.AsSpan(segment.Start * half));
            }

            Tensor Table(float[] values) => tensor(values, [batch.Count, 1, half], _owner._model.Dtype, _owner._model.Device);
            return (Table(cosine), Table(sine));
        }

        private static long Slot(Segment segment, int position) => ((long)segment.Blocks[position / BlockTokens] * BlockTokens) + (position % BlockTokens);
    }
}
