using Rho.Kernels;
using Rho.Model.Architectures;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Model.Scoring;

/// <summary>A pass's rows in a buffer.</summary>
/// <param name="Buffer">[most tokens, width]</param>
/// <param name="Data">The rows, or the first columns of them. [P, ..]</param>
/// <param name="IsStream">whether they are used more than once</param>
internal sealed record PassRows(Tensor Buffer, Tensor Data, bool IsStream = false);

/// <summary>
/// The operations for scoring, pass by pass through all blocks. Activations lie in buffers that are made once, of a pass's size: what
/// grows with a sequence beyond that are its keys and values, 2 * key-value heads * head size numbers a token and layer.
/// </summary>
/// <param name="model">stays the caller's</param>
// P tokens of a pass, N heads, K key-value heads, H head size.
internal sealed class ScoringForward(LanguageModel model) : IOps<PassRows>, IDisposable
{
    private readonly List<Tensor> _buffers = [];
    private readonly List<Tensor> _free = [];
    private readonly Angles.Cache _angles = new();
    private Tensor[] _earlier = [];         // per layer: keys and values of the cut sequence, not rotated. [tokens, 2 K, H]
    private int _tokens;                    // most of a pass
    private (ScoringPlan Plan, ScoringPass Pass, int Layer) _now;

    /// <summary>Most tokens of a pass. A larger one does not make the CPU's products faster; accelerators like more at a time.</summary>
    internal static int PassTokens(Device device) => device.type == DeviceType.CPU ? 1024 : 4096;

    /// <summary>Bytes of the buffers for activations.</summary>
    internal long ActivationBytes => _buffers.Sum(Bytes);

    /// <summary>Bytes of keys and values kept of the batch's cut sequences: layers * tokens * 2 * key-value heads * head size * element size.</summary>
    internal long KeyValueBytes { get; private set; }

    private static long Bytes(Tensor tensor) => tensor.NumberOfElements * tensor.ElementSize;

    /// <summary>Makes room for a plan's passes.</summary>
    internal void Prepare(ScoringPlan plan)
    {
        var tokens = plan.Passes.Max(pass => pass.Count);
        if (_tokens < tokens)
        {
            Free();
            _tokens = tokens;
        }

        if (plan.Kept > 0)
            _earlier = [.. model.Network.Attention.Select(spec => empty([plan.Kept, 2 * spec.KeyValueHeads, spec.HeadSize], model.Dtype, model.Device).DetachFromDisposeScope())];
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
    /// <returns>[P, hidden]</returns>
    internal Tensor Run(ScoringPlan plan, ScoringPass pass, ReadOnlySpan<int> tokens, CancellationToken cancellation)
    {
        using var scope = NewDisposeScope();
        _free.Clear();
        _free.AddRange(_buffers);
        _now = (plan, pass, 0);
        var x = Take(model.Config.HiddenSize) with { IsStream = true };
        x.Data.copy_(TensorOps.Embed(model, tensor(tokens.ToArray(), [pass.Count], device: model.Device)));
        foreach (var block in model.Network.Blocks)
        {
            cancellation.ThrowIfCancellationRequested();
            x = block.Run(this, x);
            _now.Layer++;
        }

        return x.Data.MoveToOuterDisposeScope();
    }

    public PassRows Norm(PassRows x, Norm norm)
    {
        var y = Take(x.Data.size(1));
        TensorOps.RmsNorm(x.Data, model[norm.Weight], norm, y.Data);
        return Done(x, y);
    }

    public PassRows Linear(PassRows x, Linear linear)
    {
        var y = Take(linear.Outputs);
        if (linear.Bias is { } bias) y.Data.copy_(model[bias].expand_as(y.Data));
        y.Data.addmm_(x.Data, model[linear.Matrix].t(), beta: linear.Bias is null ? 0 : 1);
        return Done(x, y);
    }

    public PassRows NormQueriesAndKeys(PassRows qkv, Norm queries, Norm keys, AttentionSpec spec)
    {
        TensorOps.RmsNorm_(qkv.Data.narrow(1, 0, spec.Queries), model[queries.Weight], queries);
        TensorOps.RmsNorm_(qkv.Data.narrow(1, spec.Queries, spec.KeysValues / 2), model[keys.Weight], keys);
        return qkv;
    }

    public PassRows Attend(PassRows qkv, AttentionSpec spec)
    {
        var (plan, pass, layer) = _now;
        var y = Take(spec.Queries);
        var (rows, attended) = (qkv.Data.view(pass.Count, spec.Columns, spec.HeadSize), y.Data.view(pass.Count, spec.Heads, spec.HeadSize));
        var earlier = _earlier.Length == 0 ? null : _earlier[layer];
        if (pass.GoesOn)
        {
            var piece = pass.Pieces[^1];
            earlier!.narrow(0, piece.Position, piece.Count).copy_(rows.narrow(0, piece.Start, piece.Count).narrow(1, spec.Heads, 2 * spec.KeyValueHeads));
        }

        foreach (var (length, pieces) in OfOneAngle(pass, spec.Rotation))
        {
            var together = new AttentionPieces(spec, _angles.Of(spec.Rotation, plan.Visibility.Longest, length), plan.Visibility.FirstSeen(spec.Window), pass.Start, pieces);
            if (CpuKernels.FitAttention(spec, qkv.Data) && (earlier is null || CpuKernels.Fit(earlier))) CpuKernels.Of(rows).Attend(together, rows, earlier, attended, null);
            else TorchAttention.Attend(together, rows, earlier, attended);
        }

        return Done(qkv, y);
    }

    /// <summary>The pass's pieces in runs whose sequences' lengths give them the same angles: a sequence's losses do not depend on what is beside it.</summary>
    private static IEnumerable<(int Length, IReadOnlyList<Piece> Pieces)> OfOneAngle(ScoringPass pass, Rotation? rotation)
    {
        bool IsStretched(int i) => rotation?.IsStretched(pass.Lengths[i]) == true;
        for (int from = 0, to; from < pass.Pieces.Count; from = to)
        {
            for (to = from + 1; to < pass.Pieces.Count && IsStretched(to) == IsStretched(from);) to++;
            yield return (pass.Lengths[from], to - from == pass.Pieces.Count ? pass.Pieces : [.. pass.Pieces.Skip(from).Take(to - from)]);
        }
    }

    public PassRows Gate(PassRows gateUp, Activation activation)
    {
        var y = gateUp with { Data = gateUp.Data.narrow(1, 0, gateUp.Data.size(1) / 2) };
        TensorOps.Gate(gateUp.Data, activation, y.Data);
        return y;
    }

    public PassRows Experts(PassRows x, Experts experts)
    {
        using var result = Mixture.Forward(model, experts, x.Data);
        x.Data.copy_(result);
        return x;
    }

    public PassRows Add(PassRows x, PassRows y)
    {
        x.Data.add_(y.Data);
        return Done(y, x);
    }

    public PassRows AddLinear(PassRows x, PassRows y, Linear linear)
    {
        x.Data.addmm_(y.Data, model[linear.Matrix].t());
        if (linear.Bias is { } bias) x.Data.add_(model[bias]);
        return Done(y, x);
    }

    private PassRows Take(long width)
    {
        var i = _free.FindIndex(buffer => buffer.size(1) == width);
        if (i < 0)
        {
            _buffers.Add(empty([_tokens, width], model.Dtype, model.Device).DetachFromDisposeScope());
            _free.Add(_buffers[^1]);
            i = _free.Count - 1;
        }

        var buffer = _free[i];
        _free.RemoveAt(i);
        return new PassRows(buffer, buffer.narrow(0, 0, _now.Pass.Count));
    }

    /// <summary>The result of an operation; the operand's buffer is free, save the stream's.</summary>
    private PassRows Done(PassRows operand, PassRows result)
    {
        if (!operand.IsStream) _free.Add(operand.Buffer);
        return result;
    }

    private void Free()
    {
        foreach (var buffer in _buffers) buffer.Dispose();
        _buffers.Clear();
    }

    public void Dispose()
    {
        Finish();
        Free();
    }
}
