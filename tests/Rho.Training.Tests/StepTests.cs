using System.Runtime.InteropServices;
using Rho.Formats;
using Rho.Model;
using Rho.TestSupport;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Training.Tests;

/// <summary>Steps against an independent account in PyTorch (data/make.py).</summary>
public class StepTests
{
    private const int Steps = 5, Micro = 2, Batch = 3, Length = 11;
    private static string DataPath(string name) => Path.Combine(AppContext.BaseDirectory, "data", name);

    private static float[] Floats(SafetensorsFile file, string name) => MemoryMarshal.Cast<byte, float>(file.Bytes(name)).ToArray();

    private static float[] Floats(Tensor tensor) => MemoryMarshal.Cast<byte, float>(tensor.cpu().bytes).ToArray();

    private static void Close(float[] expected, float[] actual, double relative, double absolute = 1e-7)
    {
        Assert.Equal(expected.Length, actual.Length);
        var scale = expected.Max(MathF.Abs);
        for (var i = 0; i < expected.Length; i++)
        {
            if (float.IsNaN(expected[i]) && float.IsNaN(actual[i])) continue;
            Assert.True(Math.Abs(expected[i] - actual[i]) <= relative * scale + absolute, $"at {i}: {expected[i]} expected, {actual[i]} found (largest {scale})");
        }
    }

    private static RunFile Options(string extra = "") => RunFile.Parse($$"""
        {
          "output": "x", "model": { "from": "x" }, "data": { "corpora": [ { "path": "x" } ] }, "steps": {{Steps}},
          "objective": { "kind": "slm", "ratio": 0.6 }, "reference": { "sources": [ { "scores": "x" } ] },
          "schedule": { "learning_rate": 3e-3, "warmup_steps": 2 }, "optimizer": { "clip": 0.5, "epsilon": 1e-3 }, {{extra}}
        }
        """, "/");

    private static StepRunner Runner(RunFile? run = null, ComputeType compute = ComputeType.Float32)
    {
        var model = LanguageModel.Load(DataPath("slm/model"), TestDevice.Device, ComputeType.Float32);
        return new StepRunner(run ?? Options(), new TrainingModel(model, new TrainingOptions { Compute = compute }), Steps, null, new SingleRank());
    }

    /// <summary>The step's sequences in micro-batches of any size.</summary>
    private static List<PreparedBatch> Batches(SafetensorsFile file, int step, int sequences = Batch)
    {
        var tokens = MemoryMarshal.Cast<byte, long>(file.Bytes("tokens")).ToArray().Skip(step * Micro * Batch * Length).Take(Micro * Batch * Length).Select(token => (int)token);
        var reference = Floats(file, "reference").Skip(step * Micro * Batch * Length).Take(Micro * Batch * Length);
        return [.. tokens.Chunk(sequences * Length).Zip(reference.Chunk(sequences * Length), (t, r) => new PreparedBatch
        {
            Tokens = new TokenBatch(t, t.Length / Length, Length, null),
            Reference = new TokenScores(r),
            Origins = new SequenceOrigin[t.Length / Length],
            Consumed = [0],
        })];
    }

    [Fact]
    public void AdamW_TwelveSteps_EqualsPyTorch()
    {
        using var file = SafetensorsFile.Open(DataPath("adamw.safetensors"));
        using var parameters = tensor(Floats(file, "p0"));
        using var gradients = zeros_like(parameters);
        using var optimizer = new AdamW(parameters, gradients, [new ParameterSpan("w", 0, [37], true)], new OptimizerSection());
        var all = Floats(file, "gradients");
        for (var i = 0; i < 12; i++)
        {
            // Scaled here and back in the step, as a sum over tokens is divided by their count.
            for (var j = 0; j < 37; j++) MemoryMarshal.Cast<byte, float>(gradients.bytes)[j] = all[i * 37 + j] * 8;
            optimizer.Step(1e-2 / (i + 1), 1.0 / 8);
            Close(Floats(file, $"p{i + 1}"), Floats(parameters), 1e-6);
            Assert.All(Floats(gradients), gradient => Assert.Equal(0, gradient));
        }
    }

    [Fact]
    public void Run_FiveSelectiveSteps_EqualPyTorch()
    {
        using var file = SafetensorsFile.Open(DataPath("slm/steps.safetensors"));
        using var runner = Runner();
        Assert.Equal(file.Tensor("parameters0").Shape[0], runner.Model.Parameters.NumberOfElements);
        for (var step = 0; step < Steps; step++)
        {
            var losses = new List<float>();
            var weights = new List<float>();
            float[] gradient = [];
            var seen = 0;
            runner.Observer = selected =>
            {
                losses.AddRange(selected.Losses);
                weights.AddRange(selected.Weights);
                if (++seen == Micro) gradient = Floats(runner.Model.Gradients);
            };
            var outcome = runner.Run(step, Batches(file, step));
            Close(Floats(file, $"losses{step}"), [.. losses], 1e-5);
            Assert.Equal(Floats(file, $"masks{step}"), weights);
            Close(Floats(file, $"gradient{step}"), [.. gradient.Select(value => (float)(value / outcome.Sums.WeightSum))], 1e-5);
            Assert.Equal(Floats(file, $"norm{step}")[0], outcome.GradientNorm!.Value, 1e-5);
            Assert.Equal(Floats(file, $"rate{step}")[0], outcome.LearningRate, 1e-9);
            // A gradient off by d moves a weight by at most rate * d / epsilon, 3 d, which leaves the rounding of the weights themselves: 2^-24 of each, five times.
            Close(Floats(file, $"parameters{step}"), Floats(runner.Model.Parameters), 2e-6);
        }
    }

    [Theory]
    [InlineData("sequence")]
    [InlineData("global_batch")]
    public void Run_AnyMicroBatchSize_GivesTheSameWeights(string scope)
    {
        using var file = SafetensorsFile.Open(DataPath("slm/steps.safetensors"));
        var run = Options();
        run = run with { Objective = run.Objective with { Scope = scope == "sequence" ? ObjectiveScope.Sequence : ObjectiveScope.GlobalBatch } };
        var results = new List<(float[] Weights, double Loss)>();
        foreach (var size in new[] { 6, 3, 2, 1 })
        {
            using var runner = Runner(run);
            double loss = 0;
            for (var step = 0; step < 3; step++)
            {
                var outcome = runner.Run(step, Batches(file, step, size));
                loss = outcome.Sums.WeightedLossSum / outcome.Sums.WeightSum;
            }

            results.Add((Floats(runner.Model.Parameters), loss));
        }

        foreach (var (weights, loss) in results.Skip(1))
        {
            Close(results[0].Weights, weights, 1e-5);
            Assert.Equal(results[0].Loss, loss, 1e-5);
        }
    }

    /// <summary>What the floor draws follows from sequence and step: neither from the micro-batch, and so nor from the process, that has a sequence, nor from the step alone.</summary>
    [Theory]
    [InlineData(ObjectiveScope.Sequence)]
    [InlineData(ObjectiveScope.GlobalBatch)]
    public void Run_Floor_DrawsTheSameForAnyMicroBatchSize(ObjectiveScope scope)
    {
        using var file = SafetensorsFile.Open(DataPath("slm/steps.safetensors"));
        var run = Options();
        run = run with { Objective = run.Objective with { Scope = scope, Floor = new FloorSection { Weight = 0.2, Share = 0.4 } } };
        var results = new List<(float[] Parameters, List<float> First, List<float> Second)>();
        foreach (var size in new[] { 6, 3, 2, 1 })
        {
            using var runner = Runner(run);
            List<float>[] weights = [[], []];
            runner.Observer = selected => weights[selected.Step - 1].AddRange(selected.Weights);
            for (var step = 0; step < 2; step++)
            {
                // The same sequences again: what the steps draw of them still differs.
                var batches = Batches(file, 0, size).Select((batch, i) => batch with { Origins = [.. Enumerable.Range(i * size, size).Select(sequence => new SequenceOrigin(0, 0, sequence))] });
                var outcome = runner.Run(step, [.. batches]);
                Assert.Equal(36, outcome.Sums.Statistics.Selected);
                Assert.Equal(weights[step].Count(weight => weight > 0), outcome.Sums.Trained);
                Assert.Equal(weights[step].Sum(weight => (double)weight), outcome.Sums.WeightSum, 1e-5);
                Assert.Equal(36 * 1.0, weights[step].Count(weight => weight == 1));
                Assert.All(weights[step], weight => Assert.True(weight is 0 or 1 or 0.5f));
            }

            results.Add((Floats(runner.Model.Parameters), weights[0], weights[1]));
        }

        Assert.NotEqual(results[0].First.Select(weight => weight == 0.5f), results[0].Second.Select(weight => weight == 0.5f));
        foreach (var (parameters, first, second) in results.Skip(1))
        {
            Assert.Equal(results[0].First, first);
            Assert.Equal(results[0].Second, second);
            Close(results[0].Parameters, parameters, 1e-5);
        }
    }

    /// <summary>A mean of means would weigh a short micro-batch's tokens more.</summary>
    [Fact]
    public void Run_UnequalMicroBatches_IsTheMeanOverSelectedTokens()
    {
        using var file = SafetensorsFile.Open(DataPath("slm/steps.safetensors"));
        using var runner = Runner();
        double sum = 0, count = 0;
        runner.Observer = selected =>
        {
            for (var i = 0; i < selected.Losses.Length; i++)
            {
                if (selected.Weights[i] == 0) continue;
                sum += selected.Losses[i];
                count++;
            }
        };
        var outcome = runner.Run(0, Batches(file, 0, 4));
        Assert.Equal(2, Batches(file, 0, 4).Count);
        Assert.Equal(sum / count, outcome.Sums.WeightedLossSum / outcome.Sums.WeightSum, 1e-9);
        Assert.Equal(count, outcome.Sums.WeightSum);
    }

    /// <summary>The loss is a mean over the selected: keeping fewer tokens must not shrink the gradient by the ratio.</summary>
    [Fact]
    public void Run_RandomSelection_KeepsTheGradientsScale()
    {
        using var file = SafetensorsFile.Open(DataPath("slm/steps.safetensors"));
        var norms = new List<double>();
        foreach (var ratio in new[] { 1.0, 0.5 })
        {
            var run = Options();
            using var runner = Runner(run with { Objective = run.Objective with { Ratio = ratio, Selector = new SelectorSection { By = SelectorCriterion.Random } } });
            norms.Add(runner.Run(0, Batches(file, 0)).GradientNorm!.Value);
        }

        Assert.InRange(norms[1] / norms[0], 0.9, 1.8);
    }

    /// <summary>A reference that is the model itself leaves no excess: then ties decide, by position, and the loss is still trained.</summary>
    [Fact]
    public void Run_ReferenceIsTheModel_ExcessIsZeroAndTiesGoByPosition()
    {
        using var file = SafetensorsFile.Open(DataPath("slm/steps.safetensors"));
        using var runner = Runner();
        var batch = Batches(file, 0, 6)[0];
        var own = new float[batch.Tokens.Tokens.Length];
        runner.Model.Evaluate(batch.Tokens, own);
        float[] weights = [];
        runner.Observer = selected => weights = [.. selected.Weights];
        var outcome = runner.Run(0, [batch with { Reference = new TokenScores(own) }]);
        Assert.Equal(0, outcome.Sums.Statistics.Threshold);
        var candidates = Enumerable.Range(0, own.Length).Where(i => i % Length != 0).ToList();
        Assert.Equal(candidates.Take(36), Enumerable.Range(0, weights.Length).Where(i => weights[i] > 0));
    }

    [Fact]
    public void Run_ReferenceDiffersFromModel_ExcessIsNotZero()
    {
        using var file = SafetensorsFile.Open(DataPath("slm/steps.safetensors"));
        using var runner = Runner();
        var quantiles = runner.Run(0, Batches(file, 0)).Sums.Statistics.ExcessQuantiles;
        Assert.True(quantiles[2] - quantiles[0] > 0.1);
    }

    [Fact]
    public void Run_ClmAndRatioOne_AreTheSame()
    {
        using var file = SafetensorsFile.Open(DataPath("slm/steps.safetensors"));
        var run = Options();
        using var clm = Runner(run with { Objective = new ObjectiveSection() });
        using var slm = Runner(run with { Objective = run.Objective with { Ratio = 1 } });
        clm.Run(0, Batches(file, 0));
        slm.Run(0, Batches(file, 0));
        Assert.Equal(Floats(clm.Model.Parameters), Floats(slm.Model.Parameters));
    }

    [Fact]
    public void Run_MissingReferenceLoss_IsRefused()
    {
        using var file = SafetensorsFile.Open(DataPath("slm/steps.safetensors"));
        using var runner = Runner();
        var batch = Batches(file, 0)[0];
        batch.Reference!.Losses[14] = float.NaN;
        Assert.Contains("token 3 of sequence", Assert.Throws<MismatchException>(() => runner.Run(0, [batch])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Run_NonFiniteWeights_SkipsTheStepAndSaysWhere()
    {
        using var file = SafetensorsFile.Open(DataPath("slm/steps.safetensors"));
        using var runner = Runner();
        MemoryMarshal.Cast<byte, float>(runner.Model.Parameters.bytes)[^1] = float.PositiveInfinity;
        var before = Floats(runner.Model.Parameters);
        var outcome = runner.Run(0, Batches(file, 0));
        Assert.True(outcome.NonFinite);
        Assert.NotNull(outcome.Skipped);
        Assert.Equal(before, Floats(runner.Model.Parameters));
        Assert.All(Floats(runner.Model.Gradients), gradient => Assert.Equal(0, gradient));
    }

    /// <summary>Nor is any made outside of a scope, where it would wait for the finalizer.</summary>
    [Theory]
    [InlineData(ComputeType.Float32)]
    [InlineData(ComputeType.BFloat16)]
    public void Run_ManySteps_LeakNoTensors(ComputeType compute)
    {
        using var file = SafetensorsFile.Open(DataPath("slm/steps.safetensors"));
        using var runner = Runner(compute: compute);
        runner.Run(0, Batches(file, 0));
        var (live, outside) = (DisposeScopeManager.Statistics.ThreadTotalLiveCount, DisposeScopeManager.Statistics.CreatedOutsideScopeCount);
        for (var i = 0; i < 100; i++) runner.Run(1, Batches(file, 1));
        Assert.Equal(live, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
        Assert.Equal(outside, DisposeScopeManager.Statistics.CreatedOutsideScopeCount);
    }

    [Fact]
    [Trait("Category", "Slow")]
    public void Run_TenThousandSteps_MemoryStaysFlat()
    {
        using var file = SafetensorsFile.Open(DataPath("slm/steps.safetensors"));
        using var runner = Runner(compute: ComputeType.BFloat16);
        var batches = Batches(file, 0);
        // The lowest of ten readings: what a thread of the runtime holds for a moment is not in all of them.
        double LowestOf5000Steps() => Enumerable.Range(0, 10).Min(_ =>
        {
            for (var i = 0; i < 500; i++) runner.Run(0, batches);
            return HeapInUse() + GC.GetTotalMemory(forceFullCollection: true);
        });

        for (var i = 0; i < 2000; i++) runner.Run(0, batches);
        var live = DisposeScopeManager.Statistics.ThreadTotalLiveCount;
        var before = LowestOf5000Steps();
        var growth = LowestOf5000Steps() - before;
        Assert.Equal(live, DisposeScopeManager.Statistics.ThreadTotalLiveCount);
        // A hundred bytes a step would be more. (The resident set says less: the allocator's free pieces come and go.)
        Assert.InRange(growth, double.NegativeInfinity, 500_000);
    }

    /// <summary>Bytes that native code holds of the C library's heap.</summary>
    private static long HeapInUse()
    {
        var info = MallInfo2();
        return info.InUse + info.Mapped;
    }

    [DllImport("libc", EntryPoint = "mallinfo2")]
    private static extern HeapInfo MallInfo2();

    [StructLayout(LayoutKind.Sequential)]
    private readonly struct HeapInfo
    {
        private readonly nint _arena, _freeChunks, _fastChunks, _mappings;
        internal readonly nint Mapped;
        private readonly nint _unused, _fastFree;
        internal readonly nint InUse;
        private readonly nint _free, _trimmable;
    }

    [Fact]
    public void Kernels_LargeBuffers_DoNotDependOnThreads()
    {
        using var values = randn([300_001]);
        var sums = Enumerable.Range(0, 5).Select(_ => Norm(values)).Distinct().ToList();
        Assert.Single(sums);
        Assert.Equal(1, values.norm().item<float>() / sums[0], 1e-5);
    }

    private static unsafe double Norm(Tensor values) => Math.Sqrt(FlatKernels.SumOfSquares((float*)FlatMemory.Address(values), values.NumberOfElements));

    [Fact]
    public void LearningRate_Schedules_FollowTheirCurves()
    {
        var section = new ScheduleSection { LearningRate = 1, WarmupSteps = 10, FinalRatio = 0.1 };
        Assert.Equal(0.1, LearningRate.At(section, 0, 110), 12);
        Assert.Equal(1, LearningRate.At(section, 9, 110), 12);
        Assert.Equal(1, LearningRate.At(section, 10, 110), 12);
        Assert.Equal(0.55, LearningRate.At(section, 60, 110), 12);
        Assert.Equal(0.1, LearningRate.At(section, 110, 110), 12);
        Assert.Equal(0.55, LearningRate.At(section with { Kind = ScheduleKind.Linear }, 60, 110), 12);
        Assert.Equal(1, LearningRate.At(section with { Kind = ScheduleKind.Constant }, 100, 110), 12);
        var wsd = section with { Kind = ScheduleKind.Wsd, DecayShare = 0.2 };
        Assert.Equal(1, LearningRate.At(wsd, 79, 100), 12);
        Assert.Equal(0.55, LearningRate.At(wsd, 90, 100), 12);
        // transformers.get_cosine_schedule_with_warmup's lambda with 10 warm-up steps: s / 10 up to the peak at step 10.
        var fromZero = section with { Warmup = WarmupKind.FromZero };
        Assert.Equal([0, 0.1, 0.5, 0.9, 1], new[] { 0, 1, 5, 9, 10 }.Select(step => LearningRate.At(fromZero, step, 110)));
        Assert.Equal(LearningRate.At(section, 60, 110), LearningRate.At(fromZero, 60, 110));
    }
}
