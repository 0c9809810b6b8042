using System.Diagnostics;

namespace Rho.Training;

/// <summary>Spans of the source "Rho.Training": training.run, and within it training.step, training.evaluation and training.checkpoint.</summary>
internal static class TrainingActivities
{
    private static readonly ActivitySource Source = new(TrainingMeter.Name);

    /// <summary>Null where nobody listens.</summary>
    public static Activity? Start(string name, string run, long step, DateTimeOffset begin = default)
    {
        var activity = Source.StartActivity(name, ActivityKind.Internal, default(ActivityContext), startTime: begin);
        activity?.SetTag("run", run);
        activity?.SetTag("training.step", step);
        return activity;
    }
}
