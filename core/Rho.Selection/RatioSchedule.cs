namespace Rho.Selection;

/// <summary>The share of tokens to keep, over the course of a run.</summary>
public abstract class RatioSchedule
{
    /// <summary>The ratio of a step, the first step being 0; in (0, 1].</summary>
    public abstract double At(long step);

    /// <summary>What a finished step showed: the share of its candidates that the model finds harder than the reference does.</summary>
    public virtual void Observe(double learnableShare)
    {
    }

    /// <summary>What checkpoints keep of the schedule; 0 where the step says all.</summary>
    public virtual double State
    {
        get => 0;
        set { }
    }
}

/// <summary>One ratio throughout, as in the paper.</summary>
public sealed class ConstantRatio(double ratio) : RatioSchedule
{
    public override double At(long step) => ratio;
}

/// <summary>From one ratio to another in a straight line over a number of steps, then constant.</summary>
public sealed class LinearRatio(double from, double to, long steps) : RatioSchedule
{
    public override double At(long step) => from + (to - from) * Math.Min(1, (double)step / steps);
}

/// <summary>From one ratio to another along half a cosine over a number of steps, then constant.</summary>
public sealed class CosineRatio(double from, double to, long steps) : RatioSchedule
{
    public override double At(long step) => to + (from - to) * 0.5 * (1 + Math.Cos(Math.PI * Math.Min(1, (double)step / steps)));
}

/// <summary>
/// Keeps about the tokens that are still learnable, those with positive excess loss: their share, smoothed over steps by an
/// exponential mean and kept within bounds. Centrifuge's "positive" mode, with its floor of 20 %, as a ratio.
/// </summary>
public sealed class AdaptiveRatio(double start, double floor, double ceiling, double smoothing = 0.98) : RatioSchedule
{
    private double _share = start;

    public override double At(long step) => Math.Clamp(_share, floor, ceiling);

    public override void Observe(double learnableShare)
    {
        if (double.IsFinite(learnableShare)) _share = smoothing * _share + (1 - smoothing) * learnableShare;
    }

    public override double State
    {
        get => _share;
        set => _share = value;
    }
}
