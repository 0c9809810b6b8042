using Rho.Model.Architectures;
using static TorchSharp.torch;

namespace Rho.Model.Training;

/// <summary>What the operations of a micro-batch share.</summary>
/// <param name="filtered">whether attention hands a gradient on only at the rows that it has one at</param>
/// <param name="balanced">whether the load of experts is part of the loss</param>
internal sealed class MicroBatch(TokenBatch batch, Angles.Cache angles, bool filtered = false, bool balanced = false) : IDisposable
{
    private readonly List<RowSet> _sets = [];
    private readonly Visibility _visibility = new([.. Enumerable.Repeat(batch.Length, batch.Sequences)], batch.Documents ?? []);

    internal int Sequences => batch.Sequences;
    internal int Length => batch.Length;
    internal RowSet All { get; } = RowSet.All(batch.Tokens.Length);

    /// <summary>Null where the load of experts is no part of the loss.</summary>
    internal RouterBalance? Balance { get; } = balanced ? new RouterBalance(batch) : null;

    internal AttentionRows Attention(AttentionSpec spec) => new(spec, angles.Of(spec.Rotation, Length, Length), _visibility.FirstSeen(spec.Window), Sequences, Length);

    /// <summary>The rows that attention hands a gradient on to: all that these see, or in the filtered backward only these.</summary>
    internal RowSet Seen(RowSet rows, AttentionRows attention)
    {
        if (filtered) return rows;
        var seen = rows.Seen(Sequences, Length, attention.FirstSeen);
        return ReferenceEquals(seen, rows) ? rows : Own(seen);
    }

    /// <summary>These rows and up to <paramref name="before"/> before each, of its document; all where that is nearly all.</summary>
    internal RowSet Widened(RowSet rows, int before)
    {
        var wide = rows.Widened(before, Sequences, Length, _visibility.FirstSeen(null));
        return ReferenceEquals(wide, rows) ? rows : Own(wide);
    }

    /// <summary>A set that is disposed with this.</summary>
    internal RowSet Own(RowSet rows)
    {
        _sets.Add(rows);
        return rows;
    }

    public void Dispose()
    {
        _sets.ForEach(rows => rows.Dispose());
        Balance?.Dispose();
    }
}

/// <summary>
/// The operations in training. Each keeps what its backward needs, and no more: norms and gates are computed again. Going back, a gradient is a dense
/// matrix over a set of rows, and each operation says at which rows it hands one on: attention at every earlier row that its rows see, all
/// others at the same rows. So nothing is computed where the loss does not reach; in the filtered backward, which is not exact, attention too hands a
/// gradient on at the same rows only. Gradients of weights are added to float32 sums.
/// </summary>
/// <param name="weights">in the type that products are computed in</param>
/// <param name="sums">of the weights' gradients; laid out as these</param>
internal sealed class Tape(LanguageModel weights, LanguageModel sums, MicroBatch batch) : IOps<Value>, IDisposable
{
    private readonly List<Value> _values = [];

    /// <summary>Operations so far.</summary>
    internal int Count => _values.Count;

    /// <param name="kept">becomes the tape's own</param>
    internal Value Leaf(Tensor kept) => new(kept, null);

    /// <summary>Goes back over the operations after the first <paramref name="count"/>, each freed as it is done.</summary>
    internal void Unwind(int count = 0)
    {
        while (_values.Count > count)
        {
            using var scope = NewDisposeScope();
            using var value = _values[^1];
            _values.RemoveAt(_values.Count - 1);
            value.Backward();
        }
    }

    /// <summary>A block of which only the result is kept: the backward runs it again from its input.</summary>
    internal Value RunAgain(IBlock block, Value x)
    {
        Tensor result;
        using (var once = new Tape(weights, sums, batch))
        {
            using var input = Leaf(x.Kept.alias());
            result = block.Run(once, input).Take(batch.All);
        }

        return Record(new Value(result, y =>
        {
            y.Free();
            using var again = new Tape(weights, sums, batch);
            using var input = Leaf(x.Kept.alias());
            var output = block.Run(again, input);
            foreach (var part in y.TakeGradient()) output.Accumulate(part.Rows, part.Data, part.Column, part.Shared);
            again.Unwind();
            foreach (var part in input.TakeGradient()) x.Accumulate(part.Rows, part.Data, part.Column, part.Shared);
        }));
    }

    public Value Norm(Value x, Norm norm) => Record(new Value(
        rows => TensorOps.RmsNorm(x.Rows(rows), weights[norm.Weight], norm),
        y => EachPart(y, part => x.Accumulate(part.Rows, TensorOps.RmsNormGradient(x.Rows(part.Rows), weights[norm.Weight], norm, part.Data, sums[norm.Weight])))));

    public Value Linear(Value x, Linear linear)
    {
        using var scope = NewDisposeScope();
        var product = nn.functional.linear(x.Rows(batch.All), weights[linear.Matrix], linear.Bias is { } bias ? weights[bias] : null);
        return Record(new Value(product, y =>
        {
            y.Free();
            EachPart(y, part =>
            {
                var width = part.Data.size(1);
                using (NewDisposeScope()) GradientSum.AddProduct(sums[linear.Matrix].narrow(0, part.Column, width), part.Data.t(), x.Rows(part.Rows));
                if (linear.Bias is { } bias) sums[bias].narrow(0, part.Column, width).add_(part.Data.sum([0L], type: sums.Dtype));
                x.Accumulate(part.Rows, part.Data.mm(weights[linear.Matrix].narrow(0, part.Column, width)));
            });
        }));
    }

    public Value NormQueriesAndKeys(Value qkv, Norm queries, Norm keys, AttentionSpec spec)
    {
        using var scope = NewDisposeScope();
        (Norm Norm, long First, long Count)[] normed = [(queries, 0, spec.Queries), (keys, spec.Queries, spec.KeysValues / 2)];
        var result = qkv.Kept.clone();
        foreach (var (norm, first, count) in normed) TensorOps.RmsNorm_(result.narrow(1, first, count), weights[norm.Weight], norm);
        return Record(new Value(result, y =>
        {
            y.Free();
            foreach (var part in y.TakeGradient())
            {
                foreach (var (norm, first, count) in normed)
                {
                    if (first < part.Column || first + count > part.Column + part.Data.size(1)) continue;
                    using var inner = NewDisposeScope();
                    var gradient = part.Data.narrow(1, first - part.Column, count);
                    var x = part.Rows.Of(qkv.Kept.narrow(1, first, count));
                    Tensor Groups(Tensor columns) => columns.reshape(-1, norm.Width);
                    gradient.copy_(TensorOps.RmsNormGradient(Groups(x), weights[norm.Weight], norm, Groups(gradient), sums[norm.Weight]).view_as(gradient));
                }

                qkv.Accumulate(part.Rows, part.Data, part.Column);
            }
        }));
    }

    public Value Attend(Value qkv, AttentionSpec spec)
    {
        using var scope = NewDisposeScope();
        var rows = batch.Attention(spec);
        var onCpu = CpuKernels.FitAttention(spec, qkv.Kept);
        var result = empty([qkv.Kept.size(0), spec.Queries], qkv.Kept.dtype, qkv.Kept.device);
        var logSums = onCpu ? empty([qkv.Kept.size(0), spec.Heads]) : null;
        if (onCpu) CpuKernels.Of(qkv.Kept).Attend(rows.All, qkv.Kept, null, result, logSums);
        else TorchAttention.Attend(rows.All, qkv.Kept, null, result);
        return Record(new Value(result, y => EachPart(y, part =>
        {
            var seen = batch.Seen(part.Rows, rows);
            var (queries, keysValues) = onCpu
                ? CpuKernels.Of(result).AttentionGradient(rows, qkv, y.Kept, logSums!, part.Data, part.Rows, seen)
                : TorchAttention.Backward(rows, qkv.Kept, part.Data, part.Rows, seen);
            qkv.Free();
            qkv.Accumulate(part.Rows, queries);
            if (keysValues is not null) qkv.Accumulate(seen, keysValues, spec.Queries);
        }), logSums));
    }

    public Value Gate(Value gateUp, Activation activation) => Record(new Value(
        rows => TensorOps.Gate(gateUp.Rows(rows), activation),
        y => EachPart(y, part =>
        {
            var both = gateUp.Take(part.Rows);
            TensorOps.GateGradient_(both, part.Data, activation);
            gateUp.Accumulate(part.Rows, both);
        })));

    public Value Experts(Value x, Experts experts) => Record(new Value(
        Mixture.Forward(weights, experts, x.Rows(batch.All), batch.Balance),
        y =>
        {
            y.Free();
            EachPart(y, part => x.Accumulate(part.Rows, Mixture.Backward(weights, experts, x.Rows(part.Rows), part.Data, sums)));
            if (batch.Balance is { } balance) x.Accumulate(batch.All, Mixture.BalanceGradient(weights, experts, x.Rows(batch.All), balance, sums));
        }));

    public Value Add(Value x, Value y)
    {
        var sum = y.Take(batch.All);
        sum.add_(x.Kept);
        return Record(new Value(sum, result =>
        {
            result.Free();
            foreach (var part in result.TakeGradient())
            {
                x.Accumulate(part.Rows, part.Data.alias(), shared: true);
                y.Accumulate(part.Rows, part.Data, shared: true);
            }
        }));
    }

    private Value Record(Value value)
    {
        _values.Add(value);
        return value;
    }

    private static void EachPart(Value value, Action<GradientPart> body)
    {
        foreach (var part in value.TakeGradient())
        {
            using (part) body(part);
        }
    }

    public void Dispose()
    {
        for (var i = _values.Count - 1; i >= 0; i--) _values[i].Dispose();
    }
}

/// <summary>Attention over the sequences of a micro-batch, all of one length.</summary>
/// <param name="FirstSeen">Null where every token sees all before it; else per token the earliest position of its sequence that it sees. [sequences, length]</param>
internal sealed record AttentionRows(AttentionSpec Spec, Angles Angles, int[]? FirstSeen, int Sequences, int Length)
{
    /// <summary>The sequences as pieces.</summary>
    internal AttentionPieces All { get; } = new(Spec, Angles, FirstSeen, 0, [.. Enumerable.Range(0, Sequences).Select(b => new Kernels.Piece(b * Length, 0, Length))]);
}
