using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Model.Scoring;

/// <summary>
/// The forward pass for scoring, pass by pass through all blocks. Activations lie in buffers that are made once, of a pass's size: what
/// grows with a sequence beyond that are its keys and values, 2 * key-value heads * head size numbers a token and layer.
/// </summary>
/// <param name="model">stays the caller's</param>
// P tokens of a pass, D hidden, N heads, K key-value heads, H head size, F intermediate.
internal sealed class ScoringForward(LanguageModel model) : IDisposable
{
    private Activations? _activations;
    private Tensor[] _earlier = [];         // per layer: keys and values of the cut sequence, not rotated. [tokens, 2 K, H]
    private float[] _cos = [], _sin = [];   // [positions, H / 2]

    /// <summary>Most tokens of a pass. A larger one does not make the CPU's products faster; accelerators like more at a time.</summary>
    internal static int PassTokens(Device device) => device.type == DeviceType.CPU ? 1024 : 4096;

    /// <summary>Bytes of the buffers for activations.</summary>
    internal long ActivationBytes => _activations?.All.Sum(Bytes) ?? 0;

    /// <summary>Bytes of keys and values kept of the batch's cut sequences: layers * tokens * 2 * key-value heads * head size * element size.</summary>
    internal long KeyValueBytes { get; private set; }

    private static long Bytes(Tensor tensor) => tensor.NumberOfElements * tensor.ElementSize;

    /// <summary>Makes room for a plan's passes.</summary>
    internal void Prepare(ScoringPlan plan)
    {
        var config = model.Config;
        var tokens = plan.Passes.Max(pass => pass.Count);
        if (_activations is null || _activations.Tokens < tokens)
        {
            _activations?.Dispose();
            _activations = new Activations(model, tokens);
        }

        if (_cos.Length < plan.Longest * (config.HeadSize / 2)) (_cos, _sin) = Rotary.Tables(config, plan.Longest);
        if (plan.Kept > 0)
        {
            _earlier = [.. model.Layers.Select(_ => empty([plan.Kept, 2 * config.KeyValueHeads, config.HeadSize], model.Dtype, model.Device).DetachFromDisposeScope())];
        }

        KeyValueBytes = _earlier.Sum(Bytes);
    }

    /// <summary>Frees keys and values.</summary>
    internal void Finish()
    {
        foreach (var layer in _earlier) layer.Dispose();
        _earlier = [];
    }

    /// <summary>The output of the last block, in a buffer that the next pass overwrites. Passes of a plan come in order.</summary>
    /// <param name="tokens">[P]</param>
    /// <returns>[P, D]</returns>
    internal Tensor Run(ScoringPlan plan, ScoringPass pass, ReadOnlySpan<int> tokens, CancellationToken cancellation)
    {
        using var scope = NewDisposeScope();
        var config = model.Config;
        var a = _activations!.Of(pass.Count);
        a.Hidden.copy_(model.Embedding.index_select(0, tensor(tokens.ToArray(), [pass.Count], device: model.Device)));
        for (var i = 0; i < config.Layers; i++)
        {
            cancellation.ThrowIfCancellationRequested();
            using var inner = NewDisposeScope();
            var layer = model.Layers[i];
            Norm(a.Hidden, layer.InputNorm, a.Normed);
            if (layer.QkvBias is { } bias) a.Qkv.copy_(bias.expand_as(a.Qkv)).addmm_(a.Normed, layer.Qkv.t());
            else Multiply(a.Normed, layer.Qkv, a.Qkv);
            var qkv = a.Qkv.view(pass.Count, -1, config.HeadSize);
            NormHeads(layer, qkv);
            Attend(plan, pass, qkv, _earlier.Length == 0 ? null : _earlier[i], a.Attended.view(pass.Count, -1, config.HeadSize));
            a.Hidden.addmm_(a.Attended, layer.Output.t());

            Norm(a.Hidden, layer.PostNorm, a.Normed);
            Multiply(a.Normed, layer.GateUp.narrow(0, 0, config.IntermediateSize), a.Gate);
            Multiply(a.Normed, layer.GateUp.narrow(0, config.IntermediateSize, config.IntermediateSize), a.Up);
            Kernels.SwiGlu_(a.Gate, a.Up);
            a.Hidden.addmm_(a.Gate, layer.Down.t());
        }

        return a.Hidden.MoveToOuterDisposeScope();
    }

    /// <summary>y = x weight^T. [P, I], [O, I] to [P, O]</summary>
    private static void Multiply(Tensor x, Tensor weight, Tensor y) => y.addmm_(x, weight.t(), beta: 0);

    private void Norm(Tensor x, Tensor weight, Tensor y) => Kernels.RmsNorm(x, weight, model.Config.NormEpsilon, y);

    /// <summary>Norms queries and keys in place, where the model does. [P, N + 2 K, H]</summary>
    private void NormHeads(LayerWeights layer, Tensor qkv)
    {
        if (layer.QueryNorm is not { } queryNorm || layer.KeyNorm is not { } keyNorm) return;
        var (query, key) = (qkv.narrow(1, 0, model.Config.Heads), qkv.narrow(1, model.Config.Heads, model.Config.KeyValueHeads));
        query.copy_(Kernels.RmsNorm(query, queryNorm, model.Config.NormEpsilon));
        key.copy_(Kernels.RmsNorm(key, keyNorm, model.Config.NormEpsilon));
    }

    /// <summary>softmax(Q K^T / sqrt(H)) V within each piece's sequence.</summary>
    /// <param name="qkv">[P, N + 2 K, H]</param>
    /// <param name="earlier">the layer's keys and values of the cut sequence; the pass's are added. [tokens, 2 K, H]</param>
    /// <param name="attended">[P, N, H], written</param>
    private void Attend(ScoringPlan plan, ScoringPass pass, Tensor qkv, Tensor? earlier, Tensor attended)
    {
        var config = model.Config;
        foreach (var piece in pass.Pieces)
        {
            if (piece.GoesOn)
                earlier!.narrow(0, piece.Position, piece.Count).copy_(qkv.narrow(0, piece.Start, piece.Count).narrow(1, config.Heads, 2 * config.KeyValueHeads));
        }

        var context = new PieceContext(config, pass, plan.FirstSeen, _cos, _sin);
        if (Cpu.PieceAttention.Fits(config, qkv, earlier)) Cpu.PieceAttention.Attend(context, qkv, earlier, attended);
        else TorchPieceAttention.Attend(context, qkv, earlier, attended);
    }

    public void Dispose()
    {
        Finish();
        _activations?.Dispose();
    }

    /// <summary>Buffers of a pass.</summary>
    private sealed class Activations : IDisposable
    {
        internal Activations(LanguageModel model, int tokens)
        {
            var config = model.Config;
            Tensor Buffer(int width) => empty([tokens, width], model.Dtype, model.Device).DetachFromDisposeScope();
            Tokens = tokens;
            Hidden = Buffer(config.HiddenSize);
            Normed = Buffer(config.HiddenSize);
            Qkv = Buffer(config.QueryKeyValueRows);
            Attended = Buffer(config.Heads * config.HeadSize);
            Gate = Buffer(config.IntermediateSize);
            Up = Buffer(config.IntermediateSize);
        }

        private Activations(Activations whole, int tokens)
        {
            Tokens = tokens;
            (Hidden, Normed, Qkv) = (whole.Hidden.narrow(0, 0, tokens), whole.Normed.narrow(0, 0, tokens), whole.Qkv.narrow(0, 0, tokens));
            (Attended, Gate, Up) = (whole.Attended.narrow(0, 0, tokens), whole.Gate.narrow(0, 0, tokens), whole.Up.narrow(0, 0, tokens));
        }

        internal int Tokens { get; }
        internal Tensor Hidden { get; }     // [P, D]
        internal Tensor Normed { get; }     // [P, D]
        internal Tensor Qkv { get; }        // [P, (N + 2 K) * H]
        internal Tensor Attended { get; }   // [P, N * H]
        internal Tensor Gate { get; }       // [P, F]
        internal Tensor Up { get; }         // [P, F]

        internal Tensor[] All => [Hidden, Normed, Qkv, Attended, Gate, Up];

        /// <summary>Their first rows, in the caller's dispose scope.</summary>
        internal Activations Of(int tokens) => new(this, tokens);

        public void Dispose()
        {
            foreach (var buffer in All) buffer.Dispose();
        }
    }
}

/// <summary>What attention over a pass's pieces needs to know besides the numbers.</summary>
/// <param name="FirstSeen">as <see cref="ScoringPlan.FirstSeen"/>: of the whole batch</param>
/// <param name="Cos">[positions, headSize / 2]</param>
/// <param name="Sin">[positions, headSize / 2]</param>
internal sealed record PieceContext(ModelConfig Config, ScoringPass Pass, int[]? FirstSeen, float[] Cos, float[] Sin)
{
    /// <summary>The earliest position that a piece's token sees.</summary>
    internal int First(in SequencePiece piece, int token) => FirstSeen is { } first ? first[Pass.Start + piece.Start + token] : 0;
}
