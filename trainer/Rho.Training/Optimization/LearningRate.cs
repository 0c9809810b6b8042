namespace Rho.Training;

/// <summary>Learning rates over a run: linear warm-up, then by the schedule's kind.</summary>
internal static class LearningRate
{
    /// <param name="step">From 0 on.</param>
    /// <param name="steps">Of the whole run.</param>
    internal static double At(ScheduleSection schedule, long step, long steps)
    {
        var warmup = WarmupSteps(schedule, steps);
        var (peak, last) = (schedule.LearningRate, schedule.LearningRate * schedule.FinalRatio);
        if (step < warmup) return peak * (step + (schedule.Warmup == WarmupKind.FromZero ? 0 : 1)) / warmup;
        var progress = Math.Min(1, (double)(step - warmup) / Math.Max(1, steps - warmup));
        var decayStart = steps * (1 - schedule.DecayShare);
        return schedule.Kind switch
        {
            ScheduleKind.Constant => peak,
            ScheduleKind.Linear => peak + (last - peak) * progress,
            ScheduleKind.Wsd => step < decayStart ? peak : peak + (last - peak) * Math.Min(1, (step - decayStart) / (steps - decayStart)),
            _ => last + (peak - last) * 0.5 * (1 + Math.Cos(Math.PI * progress)),
        };
    }

    internal static long WarmupSteps(ScheduleSection schedule, long steps) => schedule.WarmupSteps ?? Math.Min(2000, steps / 20);
}
