using Rho.Formats;
using Rho.Model.Architectures;
using Rho.Model.Training;
using static TorchSharp.torch;

namespace Rho.Model.Tests;

/// <summary>Each operation of the tape alone: gradients at random sets of rows against differences of the operation's own results.</summary>
public sealed class TapeTests : IDisposable
{
    private const int Sequences = 3, Length = 12, Heads = 4, KeyValueHeads = 2, HeadSize = 8, Hidden = 16, Inner = 24;

    private readonly TorchSharp.DisposeScope _scope = NewDisposeScope();
    private readonly LanguageModel _weights;
    private readonly LanguageModel _sums;
    private readonly Generator _random = new(5);

    public TapeTests()
    {
        var config = new ModelConfig
        {
            VocabularySize = 16,
            HiddenSize = Hidden,
            IntermediateSize = Inner,
            Layers = 1,
            Heads = Heads,
            KeyValueHeads = KeyValueHeads,
            HeadSize = HeadSize,
            ContextLength = Length,
            AttentionBias = true,
            QueryKeyNorm = true,
        };
        using var drawn = LanguageModel.Create(config, 3, CPU, ComputeType.Float32);
        _weights = drawn.CopyTo(CPU, ScalarType.Float64);
        _weights.Flat.mul_(5).add_(randn([_weights.Parameters], ScalarType.Float64, generator: _random).mul_(0.1));
        _sums = LanguageModel.Empty(config, CPU, ScalarType.Float64);
    }

    public void Dispose()
    {
        _weights.Dispose();
        _sums.Dispose();
        _random.Dispose();
        _scope.Dispose();
    }

    // In the order in which the block names them.
    private Weight At(int i) => _weights.Layout.Weights[i];
    private Norm Norm(int i, int shift = 0) => new(At(i), 1e-3, shift);
    private Linear Qkv => new(At(2), At(3));
    private Linear GateUp => new(At(8));

    private static AttentionSpec Spec(int rotated = HeadSize, int? window = null, double? cap = null) =>
        new(Heads, KeyValueHeads, HeadSize, 0.3, rotated == 0 ? null : new Rotation(rotated, 100, null, Length), window, cap);

    public static TheoryData<string, bool> Operations
    {
        get
        {
            var data = new TheoryData<string, bool>();
            foreach (var name in new[] { "norm", "shifted norm", "linear", "linear of norm", "norms of queries and keys", "silu", "gelu", "add", "attention", "attention, window", "attention, cap", "attention, part rotated", "attention, not rotated", "attention of linear", "block" })
            {
                data.Add(name, false);
                data.Add(name, true);
            }

            return data;
        }
    }

    private (int Width, Func<Tape, Value, Value> Run) Operation(string name) => name switch
    {
        "norm" => (Hidden, (tape, x) => tape.Norm(x, Norm(1))),
        "shifted norm" => (Hidden, (tape, x) => tape.Norm(x, Norm(1, 1))),
        "linear" => (Hidden, (tape, x) => tape.Linear(x, Qkv)),
        "linear of norm" => (Hidden, (tape, x) => tape.Linear(tape.Norm(x, Norm(1)), GateUp)),
        "norms of queries and keys" => (Spec().Columns * HeadSize, (tape, x) => tape.NormQueriesAndKeys(x, Norm(4), Norm(5, 1), Spec())),
        "silu" => (2 * Inner, (tape, x) => tape.Gate(x, Activation.Silu)),
        "gelu" => (2 * Inner, (tape, x) => tape.Gate(x, Activation.GeluTanh)),
        "add" => (Hidden, (tape, x) => tape.Add(x, tape.Norm(x, Norm(1)))),
        "attention" => (Spec().Columns * HeadSize, (tape, x) => tape.Attend(x, Spec())),
        "attention, window" => (Spec().Columns * HeadSize, (tape, x) => tape.Attend(x, Spec(window: 4))),
        "attention, cap" => (Spec().Columns * HeadSize, (tape, x) => tape.Attend(x, Spec(cap: 0.8))),
        "attention, part rotated" => (Spec().Columns * HeadSize, (tape, x) => tape.Attend(x, Spec(rotated: 4))),
        "attention, not rotated" => (Spec().Columns * HeadSize, (tape, x) => tape.Attend(x, Spec(rotated: 0))),
        "attention of linear" => (Hidden, (tape, x) => tape.Attend(tape.NormQueriesAndKeys(tape.Linear(x, Qkv), Norm(4), Norm(5), Spec()), Spec())),
        _ => (Hidden, (tape, x) => tape.RunAgain(_weights.Network.Blocks[0], x)),
    };

    private static MicroBatch Batch(bool documents, bool balanced = false)
    {
        int[]? of = documents ? [.. Enumerable.Range(0, Sequences * Length).Select(i => i % Length < 5 ? 0 : i % Length < 10 ? 1 : -1)] : null;
        return new MicroBatch(new TokenBatch(new int[Sequences * Length], Sequences, Length, of), new Angles.Cache(), balanced: balanced);
    }

    private Tensor Random(params long[] shape) => randn(shape, ScalarType.Float64, generator: _random);

    [Theory, MemberData(nameof(Operations))]
    public void Backward_AtRandomRows_EqualsDifferences(string name, bool documents)
    {
        using var guard = no_grad();
        using var batch = Batch(documents);
        var (width, run) = Operation(name);
        var x = Random(Sequences * Length, width);
        var rows = new Random(name.Length);
        foreach (var share in new[] { 0.1, 0.5, 1.0 })
        {
            long[] chosen = [.. Enumerable.Range(0, Sequences * Length).Where(_ => rows.NextDouble() < share).Select(row => (long)row)];
            if (chosen.Length == 0) chosen = [7];
            var index = tensor(chosen);
            Tensor Outputs(Tensor input)
            {
                using var tape = new Tape(_weights, _sums, batch);
                using var leaf = tape.Leaf(input.clone());
                return run(tape, leaf).Rows(batch.All).index_select(0, index);
            }

            var weights = Random(Outputs(x).shape);
            double Sum(Tensor input) => Outputs(input).mul(weights).sum().item<double>();

            _sums.Flat.zero_();
            Tensor gradient;
            using (var tape = new Tape(_weights, _sums, batch))
            {
                using var leaf = tape.Leaf(x.clone());
                var given = batch.Own(RowSet.Of(chosen));
                var set = batch.Widened(given, 0);
                run(tape, leaf).Accumulate(set, given.Spread(weights.clone(), set));
                tape.Unwind();
                gradient = zeros_like(x);
                foreach (var part in leaf.TakeGradient())
                {
                    var all = gradient.narrow(1, part.Column, part.Data.size(1));
                    all.add_(part.Rows.IsAll ? part.Data : zeros_like(all).index_copy_(0, part.Rows.Index(CPU), part.Data));
                }
            }

            const double h = 1e-6;
            for (var i = 0; i < 6; i++)
            {
                // In all directions at once, and in those of one row.
                var direction = Random(x.shape);
                if (i > 1) direction.mul_(zeros([x.size(0), 1], ScalarType.Float64).index_fill_(0, tensor(new long[] { rows.Next((int)x.size(0)) }), 1));
                Close((Sum(x + (direction * h)) - Sum(x - (direction * h))) / (2 * h), gradient.mul(direction).sum().item<double>());
                var change = Random(_weights.Parameters);
                if (i > 1) change.mul_(rand([_weights.Parameters], ScalarType.Float64, generator: _random).lt(0.02));
                _weights.Flat.add_(change, alpha: h);
                var above = Sum(x);
                _weights.Flat.add_(change, alpha: -2 * h);
                var below = Sum(x);
                _weights.Flat.add_(change, alpha: h);
                Close((above - below) / (2 * h), _sums.Flat.mul(change).sum().item<double>());
            }
        }
    }

    /// <summary>A mixture's block with the load-balancing loss in the sum, whose gradient is at all rows whatever rows are chosen.</summary>
    [Theory]
    [InlineData(false, false)]
    [InlineData(true, false)]
    [InlineData(false, true)]
    [InlineData(true, true)]
    public void Backward_RouterBalance_EqualsDifferences(bool documents, bool again)
    {
        using var guard = no_grad();
        var config = _weights.Config with { ModelType = "qwen3_moe", AttentionBias = false, Experts = 5, ExpertsPerToken = 2, ExpertSize = 12, NormalizedExperts = documents };
        using var drawn = LanguageModel.Create(config, 9, CPU, ComputeType.Float32);
        using var weights = drawn.CopyTo(CPU, ScalarType.Float64);
        weights.Flat.mul_(8).add_(randn([weights.Parameters], ScalarType.Float64, generator: _random).mul_(0.1));
        using var sums = LanguageModel.Empty(config, CPU, ScalarType.Float64);
        sums.Flat.zero_();
        const double weight = 300;
        var block = weights.Network.Blocks[0];
        var x = Random(Sequences * Length, Hidden);
        var index = tensor(new long[] { 2, 17 });
        var scales = Random(2, Hidden);

        Value Run(Tape tape, Value input) => again ? tape.RunAgain(block, input) : block.Run(tape, input);
        double Sum(Tensor input)
        {
            using var batch = Batch(documents, balanced: true);
            using var tape = new Tape(weights, sums, batch);
            using var leaf = tape.Leaf(input.clone());
            var tokens = Run(tape, leaf).Rows(batch.All).index_select(0, index).mul(scales).sum().item<double>();
            return tokens + (weight * batch.Balance!.Close(weight).Loss);
        }

        Tensor gradient;
        using (var batch = Batch(documents, balanced: true))
        using (var tape = new Tape(weights, sums, batch))
        {
            using var leaf = tape.Leaf(x.clone());
            var result = Run(tape, leaf);
            batch.Balance!.Close(weight);
            result.Accumulate(batch.Own(RowSet.Of([2, 17])), scales.clone());
            tape.Unwind();
            var part = Assert.Single(leaf.TakeGradient());
            Assert.True(part.Rows.IsAll);
            gradient = part.Data;
        }

        const double h = 1e-7;
        for (var i = 0; i < 8; i++)
        {
            var direction = Random(x.shape);
            Near((Sum(x + (direction * h)) - Sum(x - (direction * h))) / (2 * h), gradient.mul(direction).sum().item<double>());
            var change = Random(weights.Parameters);
            weights.Flat.add_(change, alpha: h);
            var above = Sum(x);
            weights.Flat.add_(change, alpha: -2 * h);
            var below = Sum(x);
            weights.Flat.add_(change, alpha: h);
            Near((above - below) / (2 * h), sums.Flat.mul(change).sum().item<double>());
        }

        void Near(double expected, double actual) => Assert.True(Math.Abs(expected - actual) <= 1e-5 * (1 + Math.Abs(expected)), $"{actual}, expected {expected}");
    }

    private static void Close(double expected, double actual) => Assert.True(Math.Abs(expected - actual) <= 1e-6 * (1 + Math.Abs(expected)), $"{actual}, expected {expected}");

    /// <summary>The CPU's kernels against libtorch's operations in float64, whose gradients the test above checks.</summary>
    [Theory]
    [InlineData(32, null, null, 32)]
    [InlineData(64, 5, null, 64)]
    [InlineData(32, null, 1.5, 32)]
    [InlineData(96, 7, 1.5, 32)]
    [InlineData(32, null, null, 0)]
    public void CpuAttention_AtRandomRows_EqualsLibtorch(int headSize, int? window, double? cap, int rotated)
    {
        using var guard = no_grad();
        const int length = 45;
        int[] documents = [.. Enumerable.Range(0, Sequences * length).Select(i => i % length < 20 ? 0 : 1)];
        using var batch = new MicroBatch(new TokenBatch(new int[documents.Length], Sequences, length, documents), new Angles.Cache());
        var spec = new AttentionSpec(Heads, KeyValueHeads, headSize, 0.2, rotated == 0 ? null : new Rotation(rotated, 100, null, length), window, cap);
        var rows = batch.Attention(spec);
        var qkv = randn([documents.Length, spec.Columns * headSize], generator: _random);
        Assert.True(CpuKernels.FitAttention(spec, qkv));
        var (attended, logSums) = (empty([documents.Length, spec.Queries]), empty([documents.Length, spec.Heads]));
        CpuKernels.Of(qkv).Attend(rows.All, qkv, null, attended, logSums);
        var exact = empty_like(attended, ScalarType.Float64);
        TorchAttention.Attend(rows.All, qkv.to(ScalarType.Float64), null, exact);
        Near(exact, attended);
        var random = new Random(headSize);
        foreach (var share in new[] { 0.05, 0.4, 1.0 })
        {
            long[] chosen = [.. Enumerable.Range(0, documents.Length).Where(_ => random.NextDouble() < share).Select(row => (long)row)];
            var given = batch.Own(RowSet.Of(chosen));
            var moved = batch.Widened(given, 0);
            var gradient = given.Spread(randn([chosen.Length, spec.Queries], generator: _random), moved);
            var seen = batch.Seen(moved, rows);
            var (expectedQueries, expectedKeysValues) = TorchAttention.Backward(rows, qkv.to(ScalarType.Float64), gradient.to(ScalarType.Float64), moved, seen);
            using var value = new Value(qkv.clone(), null);
            var (queries, keysValues) = CpuKernels.Of(qkv).AttentionGradient(rows, value, attended, logSums, gradient, moved, seen);
            Near(cat([expectedQueries.flatten(), expectedKeysValues!.flatten()]), keysValues is null
                ? cat([queries.narrow(1, 0, spec.Queries).flatten(), queries.narrow(1, spec.Queries, spec.KeysValues).flatten()])
                : cat([queries.flatten(), keysValues.flatten()]));
        }
    }

    private static void Near(Tensor expected, Tensor actual)
    {
        var (largest, difference) = (expected.abs().max().item<double>(), expected.sub(actual.to(ScalarType.Float64)).abs().max().item<double>());
        Assert.True(difference <= 2e-5 * largest, $"off by {difference}, the largest is {largest}");
    }

    [Fact]
    public void Seen_OfRows_AreTheEarlierRowsOfTheirDocuments()
    {
        using var rows = RowSet.Of([3, 10, 14]);
        using var seen = rows.Seen(2, 8, [0, 0, 2, 2, 2, 5, 5, 5, 0, 0, 0, 3, 3, 3, 4, 4]);
        Assert.Equal([2, 3, 8, 9, 10, 12, 13, 14], Enumerable.Range(0, (int)seen.Count).Select(seen.Chosen.At));
        using var all = RowSet.Of([7, 15]);
        Assert.True(all.Seen(2, 8, null).IsAll);
    }

    [Fact]
    public void AccumulateGradients_WeightingFails_ThrowsAndLeavesNoTensorBehind()
    {
        using var expected = SafetensorsFile.Open(Path.Combine(NumericsTests.Data, "llama", "expected.safetensors"));
        var batch = NumericsTests.Batch(expected, withDocuments: false);
        foreach (var checkpointing in new[] { false, true })
        {
            using var model = NumericsTests.Load("llama", new TrainingOptions { Compute = ComputeType.Float32, ActivationCheckpointing = checkpointing });
            void Step(TokenWeighting weighting, Action<long>? final = null) => model.AccumulateGradients(batch, weighting, new float[batch.Tokens.Length], new float[batch.Tokens.Length], final: final);
            Step((_, weights) => weights.Fill(1));
            var before = TorchSharp.DisposeScopeManager.Statistics.ThreadTotalLiveCount;
            Assert.Throws<TimeZoneNotFoundException>(() => Step((_, _) => throw new TimeZoneNotFoundException()));
            Assert.Throws<TimeZoneNotFoundException>(() => Step((_, weights) => weights.Fill(1), _ => throw new TimeZoneNotFoundException()));
            Assert.Equal(before, TorchSharp.DisposeScopeManager.Statistics.ThreadTotalLiveCount);
        }
    }
}
