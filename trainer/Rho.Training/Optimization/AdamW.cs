using Rho.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace Rho.Training;

/// <summary>
/// AdamW with decoupled decay on flat float32 buffers. On CPU one pass over memory does a whole step; on other devices a few large
/// operations do.
/// </summary>
internal sealed class AdamW : IDisposable
{
    private readonly Tensor _parameters;
    private readonly Tensor _gradients;
    private readonly OptimizerSection _options;
    private readonly List<(long Offset, long Count, bool Decay)> _ranges;
    private readonly bool _cpu;

    public AdamW(Tensor parameters, Tensor gradients, IEnumerable<ParameterSpan> layout, OptimizerSection options)
    {
        (_parameters, _gradients, _options) = (parameters, gradients, options);
        _cpu = parameters.device_type == DeviceType.CPU;
        _ranges = Ranges(layout, options);
        FirstMoment = zeros([parameters.NumberOfElements], ScalarType.Float32, parameters.device).DetachFromDisposeScope();
        SecondMoment = zeros([parameters.NumberOfElements], ScalarType.Float32, parameters.device).DetachFromDisposeScope();
    }

    /// <summary>Mean of gradients, [parameters].</summary>
    public Tensor FirstMoment { get; }

    /// <summary>Mean of squared gradients, [parameters].</summary>
    public Tensor SecondMoment { get; }

    /// <summary>Steps taken; skipped ones do not count.</summary>
    public long Steps { get; set; }

    /// <summary>The norm of the gradient buffer.</summary>
    public double GradientNorm() => Norm(_gradients);

    public double ParameterNorm() => Norm(_parameters);

    /// <summary>Moves the parameters by the gradients times <paramref name="scale"/>, and sets the gradients to zero.</summary>
    public unsafe void Step(double rate, double scale)
    {
        Steps++;
        foreach (var (offset, count, decays) in _ranges)
        {
            var decay = decays ? _options.WeightDecay : 0;
            if (_cpu)
                FlatKernels.AdamW(Pointer(_parameters) + offset, Pointer(_gradients) + offset, Pointer(FirstMoment) + offset, Pointer(SecondMoment) + offset, count, _options, rate, decay, scale, Steps);
            else
                StepOnDevice(offset, count, rate, decay, scale);
        }
    }

    public void ZeroGradients()
    {
        using var guard = no_grad();
        _gradients.zero_();
    }

    public void Dispose()
    {
        FirstMoment.Dispose();
        SecondMoment.Dispose();
    }

    private unsafe double Norm(Tensor flat)
    {
        if (_cpu) return Math.Sqrt(FlatKernels.SumOfSquares(Pointer(flat), flat.NumberOfElements));
        using var guard = no_grad();
        using var norm = flat.norm();
        return norm.item<float>();
    }

    private void StepOnDevice(long offset, long count, double rate, double decay, double scale)
    {
        using var guard = no_grad();
        using var scope = NewDisposeScope();
        var p = _parameters.narrow(0, offset, count);
        var g = _gradients.narrow(0, offset, count);
        var m = FirstMoment.narrow(0, offset, count);
        var v = SecondMoment.narrow(0, offset, count);
        g.mul_(scale);
        m.mul_(_options.Beta1).add_(g, 1 - _options.Beta1);
        v.mul_(_options.Beta2).addcmul_(g, g, 1 - _options.Beta2);
        var denominator = v.sqrt().div_(Math.Sqrt(1 - Math.Pow(_options.Beta2, Steps))).add_(_options.Epsilon);
        p.mul_(1 - rate * decay).addcdiv_(m, denominator, -rate / (1 - Math.Pow(_options.Beta1, Steps)));
        g.zero_();
    }

    /// <summary>Neighbouring parameters with the same decay, as one range.</summary>
    private static List<(long Offset, long Count, bool Decay)> Ranges(IEnumerable<ParameterSpan> layout, OptimizerSection options)
    {
        var ranges = new List<(long Offset, long Count, bool Decay)>();
        foreach (var span in layout.OrderBy(span => span.Offset))
        {
            var embedding = span.Name.Contains("embed_tokens", StringComparison.Ordinal);
            var decays = span.Decay ? !embedding || options.DecayEmbedding : options.DecayNorms;
            if (ranges.Count > 0 && ranges[^1].Decay == decays) ranges[^1] = ranges[^1] with { Count = ranges[^1].Count + span.Count };
            else ranges.Add((span.Offset, span.Count, decays));
        }

        return ranges;
    }

    private static unsafe float* Pointer(Tensor flat) => (float*)FlatMemory.Address(flat);
}
